"""A model file gives back the same potential, and refuses what it is not."""

import pickle
from pathlib import Path

import pytest
import torch

from deepcg.potentials.beads import energy_and_forces
from deepcg.potentials.model_file import Architecture, Model, load_model, save_model
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import write_tensors

TYPES = torch.tensor([0, 1, 0, 1, 0])


def model(network: str = "deeppot-se-l", dtype: torch.dtype = torch.float32) -> Model:
    torch.manual_seed(0)
    options = {"channels": 8, "fitting": (8,)} if network == "deeppot-se-l" else {}
    architecture = Architecture(network, options, 0.6, 2, repulsion=True)
    potential = architecture.build(TYPES, 300.0).to(dtype)
    potential.terms[1].get_buffer("onset").fill_(0.3)
    return Model(architecture, potential, ("A", "B"), torch.ones(5), "oxygens", 300.0)


@pytest.mark.parametrize("network", ["deeppot-se-l", "deeppot-se", "pair-spline"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loaded_model_gives_the_same_energies_and_forces(
    network: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    before = model(network, dtype)
    save_model(tmp_path / "model.pt", before)
    after = load_model(tmp_path)
    generator = torch.Generator().manual_seed(1)
    positions = 0.5 * torch.rand(3, 5, 3, generator=generator, dtype=dtype)
    wanted = energy_and_forces(before.potential, positions, None)
    found = energy_and_forces(after.potential, positions, None)
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert (after.type_names, after.mapping, after.temperature) == (("A", "B"), "oxygens", 300.0)


class _Mischief:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_model_file_cannot_run_code(tmp_path: Path) -> None:
    victim = tmp_path / "created"
    torch.save({"format": 1, "x": _Mischief(str(victim))}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="not a whole model file"):
        load_model(tmp_path)
    assert not victim.exists()


def test_a_later_format_names_itself(tmp_path: Path) -> None:
    save_model(tmp_path / "model.pt", model())
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    write_tensors(tmp_path / "model.pt", content | {"format": 99})
    with pytest.raises(InputError, match="has format 99, this version reads 1"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a zip", pickle.dumps([1, 2], 2)])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(InputError, match="not a whole model file"):
        load_model(tmp_path)


def test_a_missing_model_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'deepcg fit'"):
        load_model(tmp_path)


def test_an_unknown_network_option_is_named() -> None:
    architecture = Architecture("deeppot-se-l", {"chanels": 8}, 0.6, 1, repulsion=False)
    with pytest.raises(InputError, match="'chanels'; did you mean 'channels'"):
        architecture.build(TYPES, 300.0)
