"""A run folder from somebody else opens no files outside of it that it does not know."""

import json
from pathlib import Path

import numpy as np
import pytest

from deepcg.runtime.config import write_toml
from deepcg.runtime.errors import InputError
from deepcg.runtime.provenance import file_hash
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fit.config import FitConfig, absolute
from deepcg.workflow.fit.vouched_files import config_with_data_of


def folder(tmp_path: Path, hashes: object, **data: object) -> Path:
    run = tmp_path / "run"
    run.mkdir(exist_ok=True)
    trajectory = data.pop("trajectory", tmp_path / "x.npz")
    config = FitConfig(Path(str(trajectory)), data=DataConfig(**data))
    write_toml(run / "config.toml", absolute(config))
    (run / "run.json").write_text(json.dumps({"hashes": hashes}))
    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", positions=np.zeros((2, 1, 3)))
    return tmp_path / "x.npz"


@pytest.mark.parametrize("nested", [False, True])
def test_a_fit_knows_its_own_files(data, nested, tmp_path):
    known = {"trajectory": file_hash(data)}
    run = folder(tmp_path, {str(data): known} if nested else known)
    assert config_with_data_of(run, trust=False).trajectory == data


@pytest.mark.parametrize("what", ["topology", "system", "forces", "also"])
@pytest.mark.parametrize("secret", ["/etc/hostname", "private.txt", "folder"])
def test_other_files_need_trust(data, what, secret, tmp_path):
    (tmp_path / "private.txt").write_text("secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "coord.npy").write_text("secret")
    path = tmp_path / secret
    run = folder(
        tmp_path,
        {"trajectory": file_hash(data), "system": "sha256:" + 64 * "0"},
        **{what: (path,) if what == "also" else path},
    )
    with pytest.raises(InputError, match=r"config\.toml names .*, outside of its folder") as error:
        config_with_data_of(run, trust=False)
    assert str(path) in str(error.value)
    assert "--trust" in str(error.value)
    assert "secret" not in str(error.value).replace(str(path), "")
    assert config_with_data_of(run, trust=True).trajectory == data


def test_a_trajectory_that_has_changed_needs_trust(data, tmp_path):
    run = folder(tmp_path, {"trajectory": file_hash(data)})
    np.savez(data, positions=np.ones((2, 1, 3)))
    with pytest.raises(InputError, match="it has changed, or give --trust"):
        config_with_data_of(run, trust=False)


@pytest.mark.parametrize("record", ["", "[]", '{"hashes": [1]}', "{}"])
def test_a_folder_without_hashes_vouches_for_nothing(data, record, tmp_path):
    run = folder(tmp_path, {})
    if record:
        (run / "run.json").write_text(record)
    else:
        (run / "run.json").unlink()
    with pytest.raises(InputError, match="--trust"):
        config_with_data_of(run, trust=False)


def test_what_is_no_file_is_not_opened(tmp_path):
    run = folder(tmp_path, {}, trajectory=Path("/dev/zero"))
    with pytest.raises(InputError, match="names /dev/zero"):
        config_with_data_of(run, trust=False)


def test_files_inside_of_the_folder_are_its_own(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    inside = run / "x.npz"
    inside.write_bytes(b"")
    assert folder(tmp_path, {}, trajectory=inside) == run
    assert config_with_data_of(run, trust=False).trajectory == inside


def test_a_link_out_of_the_folder_is_outside(tmp_path):
    (tmp_path / "private.txt").write_text("secret")
    run = tmp_path / "run"
    run.mkdir()
    link = run / "x.npz"
    link.symlink_to(tmp_path / "private.txt")
    (run / "config.toml").write_text(f'trajectory = "{link}"\n')
    with pytest.raises(InputError, match="outside of its folder"):
        config_with_data_of(run, trust=False)
