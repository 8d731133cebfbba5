from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepcg.cli.main import main
from deepcg.runtime.errors import InputError
from deepcg.workflow.info import InfoConfig, as_text, describe, info


def deepcg(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert not ended.value.code


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all that the commands make, from 32 molecules and 24 frames."""
    folder = tmp_path_factory.mktemp("runs")
    water, run = folder / "water", folder / "run"
    simulate = "--molecules 32 --ns 0.0012 --interval-ps 0.05 --equilibration-ps 0.5 --cutoff 0.4"
    deepcg("simulate", "water", "-o", water, *simulate.split(), "--platform", "CPU")
    fit = "--cutoff 0.45 --network-size fast --steps 40 --validations 2 --threads 1"
    deepcg("fit", water / "traj.dcd", "-o", run, *fit.split())
    sample = "--replicas 2 --ps 1 --interval-ps 0.05 --equilibration-ps 0 --threads 1"
    deepcg("sample", run, *sample.split())
    deepcg("compare", run, "--cutoff", 0.33)  # of so few frames g(r) may have no minimum
    return folder


@pytest.mark.parametrize(
    ("path", "kind", "facts"),
    [
        ("water", "run of deepcg simulate", {}),
        ("water/traj.dcd", "trajectory", {"frames": 24, "atoms": 96, "molecules": {"H2O": 32}}),
        ("water/traj.pdb", "structure", {"atoms": 96, "residues": {"HOH": 32}}),
        (
            "water/traj.system.xml",
            "OpenMM System",
            {"particles": 96, "constraints": 96, "rigid groups": 32, "virtual sites": 0},
        ),
        ("water/traj.checkpoint.xml", "OpenMM State", {}),
        ("water/traj.forces.npy", "forces", {"shape": "24 x 96 x 3", "type": "float32"}),
        ("water/traj.forces.json", "table", {"n_frames": 24, "units": "kJ/mol/nm"}),
        ("water/traj.log.csv", "table", {"rows": 24}),
        ("run/metrics.jsonl", "table", {"rows": 2}),
        ("run", "run of deepcg fit", {"frames": 24, "beads": 32, "types": ["O"]}),
        ("run/model.pt", "model", {"network": "deeppot-se-l", "map": "oxygens", "beads": 32}),
        ("run/checkpoint.pt", "checkpoint of a training", {"step": 40}),
        ("run/config.toml", "settings", {"cutoff": 0.45, "steps": 40}),
        ("run/start.npz", "arrays", {"box": {"shape": "24 x 3 x 3", "type": "float32"}}),
        ("run/samples", "samples", {"n_replicas": 2, "n_frames": 20}),
        ("run/samples/000.dcd", "trajectory", {"frames": 20, "atoms": 32}),
        ("run/samples/checkpoint.pt", "checkpoint of a sampling", {"replicas": 2, "beads": 32}),
        ("run/report", "report", {}),
        ("run/learning-curve.png", "figure", {}),
        ("run/report/report.html", "report page: open it in a browser", {}),
    ],
)
def test_every_file_that_we_make_is_known(runs: Path, path: str, kind: str, facts: dict[str, Any]):
    found = describe(runs / path)
    assert found["kind"] == kind
    assert {name: found[name] for name in facts} == facts


def test_a_run_folder_tells_of_all_its_parts(runs: Path):
    found = describe(runs / "run")
    assert found["model"]["cutoff_nm"] == found["config"]["cutoff"] == 0.45
    assert found["samples"]["n_replicas"] == 2
    assert Path(found["report"]["page"]).is_file()
    assert len(found["report"]["verdicts"]) >= 3
    assert describe(runs / "water")["trajectory"]["frames"] == 24


def test_text_is_aligned(runs: Path, capsys: pytest.CaptureFixture[str]):
    deepcg("info", runs / "run/model.pt", runs / "water/traj.system.xml")
    out, err = capsys.readouterr()
    assert err == ""
    first, second = out.rstrip("\n").split("\n\n")
    assert first.splitlines()[:2] == [str(runs / "run/model.pt"), "  kind           model"]
    assert "  periodic       yes" in second.splitlines()
    assert as_text("x", {"a": 1.0, "bc": None, "in": {"d": [1, 2]}}) == (
        "x\n  a   1\n  bc  -\n  in\n    d  1, 2"
    )


def test_json_is_for_programs(runs: Path, capsys: pytest.CaptureFixture[str]):
    deepcg("info", "--json", runs / "run", runs / "water")
    found = json.loads(capsys.readouterr().out)
    assert found[str(runs / "run")]["samples"]["n_replicas"] == 2
    told: list[str] = []
    assert info(InfoConfig((runs / "run",), json=True), tell=told.append) == {
        str(runs / "run"): found[str(runs / "run")]
    }


def test_a_trajectory_without_topology_says_so(runs: Path, tmp_path: Path):
    lone = Path(shutil.copy(runs / "water/traj.dcd", tmp_path))
    found = describe(lone)
    assert (found["frames"], found["atoms"]) == (24, 96)
    assert found["topology"] == "none beside it (traj.pdb): give --topology FILE"
    assert describe(lone, topology=runs / "water/traj.pdb")["molecules"] == {"H2O": 32}


def test_a_fit_that_has_not_ended_is_described(runs: Path, tmp_path: Path):
    for name in ("config.toml", "checkpoint.pt"):
        shutil.copy(runs / "run" / name, tmp_path)
    assert describe(tmp_path)["model"] == "not yet: the fit has not ended"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def add_python_force(path: Path) -> None:
    text = path.read_text()
    path.write_text(text.replace("</Forces>", '<Force type="PythonForce"/></Forces>'))


@pytest.mark.parametrize(
    ("path", "spoil", "message"),
    [
        ("run/model.pt", cut, "not a whole"),
        ("run/checkpoint.pt", cut, "not a whole"),
        ("run/start.npz", cut, "not a whole .npz file"),
        ("run/run.json", cut, "not a whole JSON file"),
        ("run/config.toml", lambda p: p.write_text("a ="), "not a whole TOML file"),
        ("water/traj.forces.npy", cut, "not a whole NumPy file"),
        ("water/traj.dcd", cut, "truncated"),
        ("water/traj.system.xml", cut, "not the XML file of an OpenMM System"),
        ("water/traj.system.xml", add_python_force, "PythonForce"),
        ("run/metrics.jsonl", cut, "not a whole JSON file"),
    ],
)
def test_a_bad_file_gets_one_line(
    runs: Path, tmp_path: Path, path: str, spoil: Callable[[Path], object], message: str
):
    bad = Path(shutil.copy(runs / path, tmp_path))
    spoil(bad)
    with pytest.raises(InputError, match=message) as caught:
        describe(bad)
    assert bad.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_of_surfaces_is_known(tmp_path: Path):
    (tmp_path / "fes.json").write_text(json.dumps({"surfaces": [{"name": "CG"}, {"name": "MD"}]}))
    (tmp_path / "fes.npz").write_bytes(b"")
    facts = describe(tmp_path)
    assert (facts["kind"], facts["surfaces"]) == ("free-energy surfaces", ["CG", "MD"])
    assert facts["files"] == ["fes.npz"]


def test_folders_of_others_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="is a folder without"):
        describe(tmp_path)
    with pytest.raises(InputError, match="there is no file"):
        describe(tmp_path / "nothing")


def test_arrays_are_listed_and_never_unpickled(tmp_path: Path):
    np.savez(tmp_path / "fes.npz", phi=np.zeros(4), F=np.zeros((4, 4)))
    assert describe(tmp_path / "fes.npz")["F"] == {"shape": "4 x 4", "type": "float64"}
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    with pytest.raises(InputError, match="not a whole NumPy file"):
        describe(tmp_path / "objects.npy")
