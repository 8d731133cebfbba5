"""The way from trajectories to U of collective variables, as a user would take it."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from paths import SHARED

from deepcg.mapping.collective_variables import BY_TOPOLOGY, Variable, dihedral
from deepcg.potentials.model_file import CVModel, load_any
from deepcg.runtime.config import write_toml
from deepcg.runtime.errors import InputError
from deepcg.training.config import TrainingConfig
from deepcg.units import thermal_energy
from deepcg.workflow.compare import CompareConfig, compare
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fit.collective_variables import CVFit
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import SURFACE, FitConfig, absolute, with_preset
from deepcg.workflow.fit.run_folder import check_folder
from deepcg.workflow.info import describe
from deepcg.workflow.sample import SampleConfig, sample

ALANINE = SHARED / "alanine"
SHORT = TrainingConfig(steps=30, batch_size=64, learning_rate=2e-2, validations=3)
TORSION = "dihedral:0,1,2,3"


def chain(n_frames: int, seed: int) -> dict[str, np.ndarray]:
    """Return a chain of four atoms with torsions at random, and noisy forces of 10 cos(torsion)."""
    rng = np.random.default_rng(seed)
    turn = rng.uniform(-np.pi, np.pi, n_frames)
    x = np.zeros((n_frames, 4, 3))
    x[:, 0], x[:, 2], x[:, 3] = [0.14, 0, -0.05], [0, 0, 0.15], [0, 0, 0.2]
    x[:, 3, 0], x[:, 3, 1] = 0.14 * np.cos(turn), 0.14 * np.sin(turn)
    x += rng.normal(0, 0.003, x.shape)
    points = torch.from_numpy(x).requires_grad_()
    (gradient,) = torch.autograd.grad(10 * dihedral(points).cos().sum(), points)
    forces = rng.normal(0, 20, x.shape) - gradient.numpy()
    return {
        "positions": x.astype(np.float32),
        "forces": forces.astype(np.float32),
        "bias": rng.uniform(0, 5, n_frames),
        "temperature": np.array(300.0),
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trajectories of the chain with a topology beside each."""
    folder = tmp_path_factory.mktemp("chain")
    topology = mdtraj.Topology()
    residue = topology.add_residue("BUT", topology.add_chain())
    atoms = [topology.add_atom(f"C{k}", mdtraj.element.carbon, residue) for k in range(4)]
    for one, other in pairwise(atoms):
        topology.add_bond(one, other)
    for name, seed in (("a", 1), ("b", 2)):
        arrays = chain(400, seed)
        np.savez(folder / f"{name}.npz", **arrays)
        mdtraj.Trajectory(arrays["positions"][:1], topology).save_pdb(str(folder / f"{name}.pdb"))
    return folder


def config(data: Path, output: Path, name: str = TORSION) -> FitConfig:
    files = DataConfig(map=name, also=(data / "b.npz",))
    return FitConfig(data / "a.npz", output=output, data=files, training=SHORT, threads=1)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "torsion"
    long = TrainingConfig(steps=150, batch_size=128, learning_rate=3e-2, validations=3)
    fit(replace(config(data, folder), training=long))
    return folder


def test_u_of_a_torsion_is_found(run: Path) -> None:
    """U runs over 20 kJ/mol; 720 forces of noise 20 * 0.14 = 2.8 kJ/mol/rad put the error of
    the slope of one of some ten features at 0.3: 1 kJ/mol rms is three times the error."""
    saved = np.load(run / "surface.npz", allow_pickle=False)
    (torsion,) = (saved[str(name)] for name in saved["names"])
    assert torsion.shape == saved["U"].shape == (72,)
    apart = saved["U"] - 10 * np.cos(torsion)
    assert np.std(apart) < 1.0
    assert 0 < np.nanmedian(saved["U_error"]) < 1.0


def test_a_fit_leaves_all_that_is_needed_to_repeat_it(run: Path) -> None:
    names = {"model.pt", "checkpoint.pt", "config.toml", "run.json", "metrics.jsonl", "surface.npz"}
    figures = {"learning-curve.png", "surface.png", "mean-force.png"}
    assert names | figures == {p.name for p in run.iterdir()}
    results = json.loads((run / "run.json").read_text())
    assert results["frames"] == 800
    assert results["coordinates"] == ["dihedral 0-1-2-3"]
    assert len(results["hashes"]) == 2
    assert "kJ/mol/rad" in results["estimator"]
    assert results["quality"]["dihedral 0-1-2-3"]["explained"] > 0.5


def test_info_tells_what_it_is(run: Path) -> None:
    found = describe(run)
    assert found["kind"] == "run of deepcg fit"
    assert found["model"]["coordinates"] == ["dihedral 0-1-2-3"]
    assert describe(run / "model.pt")["kind"] == "model of collective variables"
    assert describe(run / "surface.npz")["kind"] == "arrays"


def test_it_is_not_sampled_or_compared_as_beads(run: Path) -> None:
    for job in (lambda: sample(SampleConfig(run)), lambda: compare(CompareConfig(run))):
        with pytest.raises(InputError, match=r"not of beads: look at its surface\.npz"):
            job()


def test_two_coordinates_of_different_units(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    name = f"{TORSION};distance:0,3"
    drawn = replace(config(data, tmp_path / "run", name), figures=("png", "svg"))
    result = fit(drawn, tell=said.append)
    assert isinstance(result, CVFit)
    assert [quality.unit for quality in result.quality] == ["kJ/mol/rad", "kJ/mol/nm"]
    assert result.surface is not None
    assert result.surface.energy.value.shape == (36, 36)
    figures = {"surface.png", "surface-error.png", "mean-force.png", "learning-curve.svg"}
    assert figures <= {p.name for p in (tmp_path / "run").iterdir()}
    assert said[0].startswith("800 frames of 2 trajectories in dihedral 0-1-2-3, distance 0-3")
    fit(replace(drawn, figures=("pdf",), resume=True))
    assert (tmp_path / "run" / "surface.pdf").is_file()


def test_any_function_of_positions_is_a_coordinate(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registered under a name; here what a torsion would be, by another formula."""

    def turn(points: torch.Tensor) -> torch.Tensor:
        a, b, c = (points[..., k + 1, :] - points[..., k, :] for k in range(3))
        m, n = torch.linalg.cross(a, b), torch.linalg.cross(b, c)
        return torch.atan2(b.norm(dim=-1) * (a * n).sum(-1), (m * n).sum(-1))

    found = Variable("turn", (0, 1, 2, 3), turn, 2 * np.pi, "rad")
    monkeypatch.setitem(BY_TOPOLOGY, "turn", lambda topology: (found,))
    ours = fit(replace(config(data, tmp_path / "ours", "turn"), threads=1))
    theirs = fit(config(data, tmp_path / "theirs"))
    assert isinstance(ours, CVFit)
    assert isinstance(theirs, CVFit)
    assert ours.quality[0].variance == pytest.approx(theirs.quality[0].variance, rel=0.5)
    assert ours.model.names == ("turn",)
    assert load_any(tmp_path / "ours").names == ("turn",)


def test_of_three_coordinates_there_is_a_model_without_surface(data: Path, tmp_path: Path) -> None:
    name = f"{TORSION};distance:0,1;angle:1,2,3"
    result = fit(config(data, tmp_path / "run", name))
    assert isinstance(result, CVFit)
    assert result.surface is None
    assert not (tmp_path / "run" / "surface.npz").exists()
    model = load_any(tmp_path / "run")
    assert isinstance(model, CVModel)
    assert model.units == ("rad", "nm", "rad")


def test_an_interrupted_fit_ends_bit_for_bit_alike(data: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    fit(config(data, whole))

    class Stop(Exception):
        pass

    def stop(done: int, total: int, what: str) -> None:
        if what.startswith("training") and done == 25:
            raise Stop

    with pytest.raises(Stop):
        fit(config(data, cut), progress=stop)
    assert not (cut / "model.pt").exists()
    with pytest.raises(InputError, match="holds an interrupted fit: give --resume"):
        fit(config(data, cut))
    fit(replace(config(data, cut), resume=True))
    saved = [torch.load(f / "model.pt", weights_only=True)["state"] for f in (whole, cut)]
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])
    surfaces = [np.load(f / "surface.npz")["U_error"] for f in (whole, cut)]
    np.testing.assert_array_equal(*surfaces)


def test_a_fit_is_resumed_by_a_new_name_of_its_estimator(data: Path, tmp_path: Path) -> None:
    def named(estimator: str) -> FitConfig:
        begun = config(data, tmp_path)
        return replace(begun, data=replace(begun.data, estimator=estimator), resume=True)

    write_toml(tmp_path / "config.toml", absolute(named("general")))
    check_folder(named("inverse-gradient"))
    with pytest.raises(InputError, match="fit with estimator = inverse-gradient, not rotation"):
        check_folder(named("rotation"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cutoff": 0.5}, "cutoff = 0.5 is a setting for beads"),
        ({"network": "pair-spline"}, "network = pair-spline is a setting for beads"),
        ({"network_options": {"width": [8]}}, "'width'; did you mean 'widths'"),
        ({"network_options": {"widths": "many"}}, "option of the network of collective variables"),
        ({"data": DataConfig(map="dihedral:0,1,2,9")}, "atom 9"),
        ({"data": DataConfig(map=TORSION, start=900)}, "leave none"),
    ],
)
def test_bad_input_leaves_no_run_folder(
    change: dict[str, object], message: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        fit(replace(config(data, tmp_path / "bad"), **change))
    assert not (tmp_path / "bad").exists()


def test_settings_of_data_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="estimator of collective variables 'linear'"):
        DataConfig(map="dihedrals", estimator="linear")
    with pytest.raises(InputError, match="forces of several trajectories"):
        DataConfig(map="dihedrals", forces=Path("f.npy"), also=(Path("b.dcd"),))


def test_trajectories_of_other_atoms_are_refused(data: Path, tmp_path: Path) -> None:
    arrays = chain(20, 3)
    np.savez(tmp_path / "c.npz", **arrays, numbers=np.array([6, 6, 6, 8]))
    shutil.copy(data / "a.pdb", tmp_path / "c.pdb")
    text = (tmp_path / "c.pdb").read_text().splitlines()
    text = [line.replace(" C3 ", " O3 ")[:-3].rstrip() + "  O" if "C3" in line else line
            for line in text]  # fmt: skip
    (tmp_path / "c.pdb").write_text("\n".join(text) + "\n")
    other = DataConfig(map=TORSION, also=(tmp_path / "c.npz",))
    with pytest.raises(InputError, match="has other atoms than"):
        fit(replace(config(data, tmp_path / "bad"), data=other))


def test_training_has_other_defaults_unless_the_user_says_so() -> None:
    chosen = with_preset(FitConfig(Path("x"), data=DataConfig(map="dihedrals")))
    assert chosen.training == TrainingConfig(**SURFACE)
    mine = FitConfig(
        Path("x"), data=DataConfig(map="dihedrals"), training=TrainingConfig(batch_size=100)
    )
    assert with_preset(mine).training == TrainingConfig(**SURFACE | {"batch_size": 100})
    assert with_preset(FitConfig(Path("x"))).training == TrainingConfig()


@pytest.mark.slow
@pytest.mark.skipif(not ALANINE.exists(), reason="the alanine data are not there")
@pytest.mark.parametrize("estimator", ["least-noise", "inverse-gradient-mass"])
def test_alanine_agrees_with_its_reweighted_histogram(estimator: str, tmp_path: Path) -> None:
    """The whole plane of 26 000 biased frames: 0.9 standard errors rms and 1.2 to 1.3 kJ/mol were
    measured over the bins below 20 kJ/mol; neighbors are correlated, and 1.5 leaves room."""
    files = DataConfig(
        map="dihedrals",
        topology=ALANINE / "alanine.pdb",
        also=(ALANINE / "walker-b.npz",),
        estimator=estimator,
    )
    result = fit(FitConfig(ALANINE / "walker-a.npz", output=tmp_path / "run", data=files))
    assert isinstance(result, CVFit)
    found = json.loads((tmp_path / "run" / "run.json").read_text())["histogram"]
    assert found["bins"] > 300
    assert found["standard_errors"] < 1.5
    assert found["difference"] < 0.8 * thermal_energy(300.0)
