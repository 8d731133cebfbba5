"""What ``import deepcg`` offers: cheap to import, and a model as a function of arrays."""

from __future__ import annotations

import ast
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pytest
import torch
from five_atoms import five_atoms

import deepcg
from deepcg.analysis.style import drawn
from deepcg.potentials.beads import energy_and_forces
from deepcg.potentials.ensemble import load_beads, load_surfaces
from deepcg.potentials.model_file import load_model
from deepcg.potentials.verlet_list import VerletForces
from deepcg.workflow.fit.run_folder import starts

README = """
import deepcg

model = deepcg.load("runs/cg")
frames = model.map("runs/water/traj.dcd")
energy, forces = model.energy_and_forces(frames.positions, frames.box)
"""
HEAVY = {"torch", "openmm", "mdtraj", "matplotlib", "scipy", "numpy", "numba", "ase", "click"}
SMALL = {"channels": 8, "fitting": (8,), "n_splines": 10, "l_max": 2}
SHORT = deepcg.TrainingConfig(steps=40, batch_size=4, validations=2)


@pytest.fixture(scope="module")
def shown() -> list[Any]:
    """What fits returned."""
    return []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shown: list[Any]) -> Path:
    """Water, and a fit of two members to it, in double precision, as the README has them."""
    folder = tmp_path_factory.mktemp("project")
    simulation = deepcg.WaterSimulation(
        output=folder / "runs" / "water",
        molecules=64,
        ns=0.003,
        equilibration_ps=1.0,
        interval_ps=0.1,
        cutoff=0.55,
        threads=1,
    )
    trajectory = deepcg.simulate_water(simulation)
    config = deepcg.FitConfig(
        trajectory,
        output=folder / "runs" / "cg",
        cutoff=0.5,
        network_options=SMALL,
        training=SHORT,
        members=deepcg.MembersConfig(ensemble=2),
        validation_fraction=0.4,
        dtype="float64",
        threads=1,
    )
    shown.append(deepcg.fit(config))
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return deepcg.load(folder / "runs" / "cg")


@pytest.fixture(scope="module")
def frames(model: Any, folder: Path) -> deepcg.Frames:
    return model.map(folder / "runs" / "water" / "traj.dcd")


@pytest.fixture(scope="module")
def torsions(tmp_path_factory: pytest.TempPathFactory, shown: list[Any]) -> Any:
    """A model of two angles, with two members, never trained for long."""
    folder = tmp_path_factory.mktemp("torsions")
    rng = np.random.default_rng(0)
    positions = five_atoms(rng.uniform(-np.pi, np.pi, (60, 2))) + rng.normal(0, 3e-3, (60, 5, 3))
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain())
    atoms = [topology.add_atom(f"C{k}", mdtraj.element.carbon, residue) for k in range(5)]
    for one, other in pairwise(atoms):
        topology.add_bond(one, other)
    path = folder / "traj.npz"
    np.savez(path, positions=positions, forces=rng.normal(size=positions.shape))
    mdtraj.Trajectory(positions[:1], topology).save_pdb(str(path.with_suffix(".pdb")))
    config = deepcg.FitConfig(
        path,
        output=folder / "run",
        data=deepcg.DataConfig(map="dihedral:0,1,2,3;dihedral:1,2,3,4", estimator="general"),
        training=deepcg.TrainingConfig(steps=20, batch_size=16, validations=1),
        members=deepcg.MembersConfig(ensemble=2),
        validation_fraction=0.3,
        dtype="float64",
        threads=1,
    )
    shown.append(deepcg.fit(config))
    return folder, mdtraj.Trajectory(positions, topology)


def test_importing_deepcg_loads_nothing_else() -> None:
    code = "import sys, deepcg; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not set(loaded.stdout.split()) & HEAVY


def test_all_that_is_offered_is_there_and_documented() -> None:
    assert set(dir(deepcg)) == set(deepcg.__all__)
    for name in deepcg.__all__:
        found = getattr(deepcg, name)
        assert found is not None
        assert isinstance(found, str | dict) or found.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'fti'"):
        _ = deepcg.fti  # type: ignore[attr-defined]


def test_types_are_those_of_what_is_loaded() -> None:
    stub = ast.parse(Path(deepcg.__file__).with_suffix(".pyi").read_text())
    typed = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == deepcg._HOMES  # type: ignore[attr-defined]
    offered = next(node for node in stub.body if isinstance(node, ast.Assign))
    assert set(deepcg.__all__) == set(ast.literal_eval(offered.value))


def test_the_lines_of_the_readme(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(line in str(deepcg.__doc__) for line in README.splitlines())
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(README, names)
    assert names["energy"].shape == (30,)
    assert names["forces"].shape == (30, 64, 3)
    assert names["model"].bead_names == ("O",) * 64
    assert names["model"].masses == pytest.approx(18.015, abs=0.01)
    assert names["model"].temperature == 300.0
    assert names["model"].coordinates == "oxygens"


def test_forces_are_the_slope_of_the_energy(model: Any, frames: deepcg.Frames) -> None:
    x, box = frames.positions[3].double().numpy(), frames.box[3].double().numpy()
    forces, step = model.forces(x, box), 2e-6
    for bead, axis in ((0, 0), (17, 1), (63, 2)):
        shift = np.zeros_like(x)
        shift[bead, axis] = step
        slope = (model.energy(x + shift, box) - model.energy(x - shift, box)) / (2 * step)
        assert forces[bead, axis] == pytest.approx(-slope, rel=1e-6, abs=1e-6)


def test_numbers_are_those_of_the_potential_and_of_sampling(
    model: Any, frames: deepcg.Frames, folder: Path
) -> None:
    saved = load_model(folder / "runs" / "cg")
    x, box = frames.positions.double(), frames.box.double()
    energy, forces = model.energy_and_forces(x, box)
    expected = energy_and_forces(saved.potential, x, box)
    assert torch.equal(energy, expected[0])
    assert torch.equal(forces, expected[1])
    begin, one_box = starts(folder / "runs" / "cg", saved, torch.device("cpu"))
    moved_by = VerletForces(saved.potential, one_box, skin=0.08)(begin)
    assert torch.allclose(model.energy(begin, one_box), moved_by[0], rtol=1e-12)
    assert torch.allclose(model.forces(begin, one_box), moved_by[1], rtol=1e-9, atol=1e-9)


def test_what_comes_back_is_of_the_kind_that_was_given(model: Any, frames: deepcg.Frames) -> None:
    x, box = frames.positions.numpy(), frames.box.numpy()
    energy, forces = model.energy_and_forces(x, box)
    assert isinstance(energy, np.ndarray)
    assert energy.dtype == forces.dtype == np.float32
    one_energy, one_force = model.energy_and_forces(x[5].astype(float), box[5])
    assert one_energy.shape == ()
    assert one_force.shape == (64, 3)
    assert one_force.dtype == np.float64
    assert one_energy == pytest.approx(energy[5], rel=1e-6)
    lengths = np.diagonal(box[5])
    assert np.array_equal(model.forces(x[5].astype(float), lengths), one_force)
    assert np.array_equal(model.forces(x[5].tolist(), lengths.tolist()), one_force)
    assert isinstance(model.energy(frames.positions[5], frames.box[5]), torch.Tensor)


def test_frames_beyond_one_call_come_back_in_order(
    model: Any, frames: deepcg.Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.energy_and_forces(frames.positions, frames.box)
    monkeypatch.setattr("deepcg.workflow.model.AT_ONCE", 7 * 64)
    parts = model.energy_and_forces(frames.positions, frames.box)
    assert torch.allclose(whole[0], parts[0], rtol=1e-6)
    assert torch.allclose(whole[1], parts[1], rtol=1e-5, atol=1e-5)


def test_a_box_may_stand_in_any_direction(model: Any, frames: deepcg.Frames) -> None:
    x, box = frames.positions[:2].double().numpy(), frames.box[:2].double().numpy()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    energy, forces = model.energy_and_forces(x, box)
    other, turned = model.energy_and_forces(x @ turn, box @ turn)
    assert other == pytest.approx(energy, rel=1e-10)
    assert turned == pytest.approx(forces @ turn, rel=1e-7, abs=1e-7)


def test_the_mean_of_the_members(folder: Path, frames: deepcg.Frames) -> None:
    run, x, box = folder / "runs" / "cg", frames.positions[:3].double(), frames.box[:3].double()
    each = [deepcg.load(run, k).forces(x, box) for k in (0, 1)]
    assert not torch.equal(*each)
    assert torch.allclose(deepcg.load(run, "mean").forces(x, box), sum(each) / 2, rtol=1e-10)
    of_member = energy_and_forces(load_beads(run)[1].potential, x, box)[1]
    assert torch.equal(each[1], of_member)


def test_a_loaded_trajectory_is_mapped_as_its_file(
    model: Any, frames: deepcg.Frames, folder: Path
) -> None:
    path = folder / "runs" / "water" / "traj.dcd"
    loaded = mdtraj.load(str(path), top=str(path.with_suffix(".pdb")))
    again = model.map(loaded)
    assert torch.allclose(again.positions, frames.positions, atol=1e-6)
    assert torch.allclose(again.box, frames.box, atol=1e-6)
    named = model.map(path, topology=path.with_suffix(".pdb"))
    assert torch.equal(named.positions, frames.positions)


@pytest.mark.parametrize(
    ("positions", "box", "words"),
    [
        (np.zeros((63, 3)), np.eye(3), r"shape \(63, 3\), but the model has 64 beads"),
        (np.zeros((2, 2, 64, 3)), np.eye(3), r"give \(64, 3\) or \(n, 64, 3\)"),
        (np.zeros((64, 3)), None, "periodic box: give the box"),
        (np.zeros((64, 3)), np.eye(2), r"box has shape \(2, 2\)"),
        (np.zeros((4, 64, 3)), np.ones((3, 3, 3)), r"give \(3,\), \(3, 3\) or \(4, 3, 3\)"),
        (np.zeros((64, 3)), -np.eye(3), "no positive volume"),
        (np.zeros((64, 3)), 0.9 * np.eye(3), "more than half of the shortest box height"),
        (np.full((64, 3), np.nan), np.eye(3), "positions are not finite"),
        (np.zeros((0, 64, 3)), np.eye(3), "have no frames"),
        ([["a"]], np.eye(3), "not an array of numbers"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line(
    model: Any, positions: Any, box: Any, words: str
) -> None:
    with pytest.raises(deepcg.InputError, match=words) as refused:
        model.forces(positions, box)
    assert "\n" not in str(refused.value)


def test_other_beads_and_members_are_refused(model: Any, torsions: Any, folder: Path) -> None:
    with pytest.raises(deepcg.InputError, match="no oxygen"):
        model.map(torsions[1])
    with pytest.raises(deepcg.InputError, match="members 0 to 1, not 2"):
        deepcg.load(folder / "runs" / "cg", 2)
    with pytest.raises(deepcg.InputError, match="no model"):
        deepcg.load(folder / "nothing")
    path = folder / "runs" / "water" / "traj.dcd"
    loaded = mdtraj.load(str(path), top=str(path.with_suffix(".pdb")))
    with pytest.raises(deepcg.InputError, match=r"63 by 'oxygens' \(O\), not 64 \(O\)"):
        model.map(loaded.atom_slice(np.arange(3 * 63)))


def test_collective_variables_are_functions_of_values(torsions: Any) -> None:
    folder, trajectory = torsions
    model = deepcg.load(folder / "run")
    assert isinstance(model, deepcg.CollectiveVariableModel)
    assert model.names == ("dihedral 0-1-2-3", "dihedral 1-2-3-4")
    assert model.units == ("rad", "rad")
    mapped = model.map(folder / "traj.npz")
    assert torch.allclose(mapped.values, model.map(trajectory).values, atol=1e-5)
    values = mapped.values.numpy()
    energy, forces = model.energy_and_forces(values)
    expected = load_surfaces(folder / "run")[0].potential.forces(mapped.values)
    assert np.array_equal(energy, expected[0].numpy())
    assert np.array_equal(forces, expected[1].numpy())
    shift = np.array([0.0, 1e-5])
    slope = (model.energy(values[4] + shift) - model.energy(values[4] - shift)) / 2e-5
    assert model.forces(values[4])[1] == pytest.approx(-slope, rel=1e-6)
    mean = deepcg.load(folder / "run", "mean").forces(values)
    each = [deepcg.load(folder / "run", k).forces(values) for k in (0, 1)]
    assert mean == pytest.approx((each[0] + each[1]) / 2, rel=1e-10)
    with pytest.raises(deepcg.InputError, match=r"the model has 2 coordinates: give \(2,\)"):
        model.energy(np.zeros(3))


def test_fits_show_themselves_in_a_notebook(folder: Path, torsions: Any, shown: list[Any]) -> None:
    for fit, run in zip(shown, (folder / "runs" / "cg", torsions[0] / "run"), strict=True):
        html = fit._repr_html_()
        assert "300 K" in html
        assert "noise floor (estimate), (kJ/mol" in html
        assert len(html) < 4_000
        assert drawn(fit.plot()) == (run / "learning-curve.png").read_bytes()
        assert not any("traj" in text.get_text() for text in fit.plot().texts)
    surface = shown[1].surface
    assert list(surface.axes) == ["dihedral 0-1-2-3", "dihedral 1-2-3-4"]
    assert "highest U, from the lowest" in surface._repr_html_()
    assert surface.plot().axes[0].get_xlabel() == "dihedral 0-1-2-3 (°)"


def test_a_model_says_in_a_line_what_it_is(model: Any, torsions: Any) -> None:
    assert repr(model) == "<BeadModel of 64 beads (O) by 'oxygens' at 300 K>"
    text = repr(deepcg.load(torsions[0] / "run"))
    assert text.startswith("<CollectiveVariableModel of dihedral 0-1-2-3 (rad), dihedral")
