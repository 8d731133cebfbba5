"""From trajectories of a molecule to samples of a model of it: exact, reduced, and chiral."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
import torch

from deepcg.dynamics.config import DynamicsConfig
from deepcg.potentials.beads import energy_and_forces
from deepcg.potentials.model_file import Architecture, Model, load_model, save_model
from deepcg.potentials.priors import ForceField, statistical_tables
from deepcg.potentials.verlet_list import VerletForces
from deepcg.runtime.errors import InputError
from deepcg.training.config import TrainingConfig
from deepcg.training.samples import split
from deepcg.trajectory import reader
from deepcg.trajectory.formats import TrajectoryFile
from deepcg.trajectory.frames import Frames
from deepcg.units import thermal_energy
from deepcg.workflow.dataset.beads import (
    DataConfig,
    map_forces,
    map_positions,
    open_all,
    open_data,
)
from deepcg.workflow.fit.beads import check_before_labelling
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.fit.prior import PRIORS
from deepcg.workflow.sample import SampleConfig, sample
from sampling import SamplerState, baoab, run

N = 6
CHAIN = list(pairwise(range(N)))
SMALL = {"channels": 4, "axis": 2, "fitting": (8,), "n_splines": 8, "l_max": 1, "triples": 0}
SHORT = TrainingConfig(steps=30, batch_size=8, validations=2)
MOVES = DynamicsConfig(dt=0.002, ps=1.6, equilibration_ps=0.4, interval_ps=0.04)
KT = thermal_energy(300.0)


def molecule(symbols: str, bonds: list[tuple[int, int]]) -> mdtraj.Topology:
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain())
    for i, symbol in enumerate(symbols):
        topology.add_atom(f"{symbol}{i}", mdtraj.element.Element.getBySymbol(symbol), residue)
    atoms = list(topology.atoms)
    for i, j in bonds:
        topology.add_bond(atoms[i], atoms[j])
    return topology


def vacuum() -> openmm.System:
    """Return six atoms in a chain, with bonds, angles, torsions and pairs."""
    system, bonds, angles = openmm.System(), openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    torsions, pairs = openmm.PeriodicTorsionForce(), openmm.NonbondedForce()
    for i in range(N):
        system.addParticle(12.0)
        pairs.addParticle(0.2 * (-1) ** i, 0.3, 0.3)
    for i, j in CHAIN:
        bonds.addBond(i, j, 0.15, 2e5)
    for i in range(N - 2):
        angles.addAngle(i, i + 1, i + 2, 1.95, 400.0)
    for i in range(N - 3):
        torsions.addTorsion(i, i + 1, i + 2, i + 3, 3, 0.0, 3.0)
    pairs.createExceptionsFromBonds(CHAIN, 0.8333, 0.5)
    for force in (bonds, angles, torsions, pairs):
        system.addForce(force)
    return system


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trajectories of six atoms in vacuum, 150 frames each, with forces."""
    folder = tmp_path_factory.mktemp("chain")
    system = vacuum()
    (folder / "a.system.xml").write_text(openmm.XmlSerializer.serialize(system))
    start = np.stack([0.13 * np.arange(N), 0.06 * (np.arange(N) % 2), np.zeros(N)], 1)
    mdtraj.Trajectory(start[None], molecule("CCCCCC", CHAIN)).save_pdb(str(folder / "a.pdb"))
    for seed, name in enumerate("ab", start=1):
        integrator = openmm.LangevinMiddleIntegrator(300, 5, 0.002)
        integrator.setRandomNumberSeed(seed)
        platform = openmm.Platform.getPlatformByName("Reference")
        context = openmm.Context(system, integrator, platform)
        context.setPositions(start)
        context.setVelocitiesToTemperature(300, seed)
        integrator.step(500)
        positions, forces = [], []
        for _ in range(150):
            integrator.step(40)
            state = context.getState(positions=True, forces=True)
            positions.append(state.getPositions(asNumpy=True)._value)
            forces.append(state.getForces(asNumpy=True)._value)
        np.savez(folder / f"{name}.npz", positions=np.array(positions), forces=np.array(forces))
    return folder


def files(data: Path, name: str = "solute", **more: object) -> DataConfig:
    found = {"topology": data / "a.pdb", "system": data / "a.system.xml", "also": (data / "b.npz",)}
    return DataConfig(map=name, **{**found, **more})


def config(data: Path, output: Path) -> FitConfig:
    return FitConfig(
        data / "a.npz",
        output=output,
        data=files(data),
        network="pair-spline",
        training=SHORT,
        threads=1,
    )


@pytest.fixture(scope="module")
def exact(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder, said = tmp_path_factory.mktemp("runs") / "solute", []
    fit(config(data, folder), tell=said.append)
    sample(SampleConfig(folder, replicas=16, dynamics=MOVES, threads=1))
    return folder, said


def test_a_force_field_leaves_nothing_to_learn_in_vacuum(exact: tuple[Path, list[str]]):
    folder, said = exact
    assert "300 frames of 6 beads" in said[0]
    assert "prior from a.system.xml: 5 bonds, 4 angles" in said[1]
    assert "explains 100.0 % of the force variance" in said[1]
    results = json.loads((folder / "run.json").read_text())
    assert results["quality"]["explained"] > 0.9999
    assert {"trajectory", "trajectory 2"} <= results["hashes"].keys()


def test_its_samples_are_those_of_the_system(exact: tuple[Path, list[str]], data: Path):
    """Distances over two bonds: means within 4 joint standard errors (false alarm 1 in 16 000).

    Errors from 16 replicas and from 10 blocks of each trajectory.
    """
    folder, _ = exact
    load = [mdtraj.load(p, top=folder / "beads.pdb") for p in sorted(folder.glob("samples/0*.dcd"))]
    ours = np.array([over_two_bonds(t.xyz) for t in load])
    theirs = [np.load(data / f"{name}.npz")["positions"] for name in "ab"]
    blocks = np.array([over_two_bonds(x) for x in np.concatenate(theirs).reshape(20, -1, N, 3)])
    error = np.hypot(*(v.std(ddof=1) / len(v) ** 0.5 for v in (ours, blocks)))
    assert abs(ours.mean() - blocks.mean()) < 4 * error
    assert error < 1e-3  # of 0.25


def over_two_bonds(positions: np.ndarray) -> float:
    return float(np.linalg.norm(positions[:, 2:] - positions[:, :-2], axis=-1).mean())


def test_the_model_file_holds_the_force_field(exact: tuple[Path, list[str]], data: Path):
    folder, _ = exact
    assert torch.load(folder / "model.pt", weights_only=True)["format"] == 3
    model = load_model(folder)
    assert len(model.potential.terms) == 1  # walls are the force field's
    saved = np.load(data / "a.npz")
    x = torch.from_numpy(saved["positions"][:20]).float()
    _, forces = energy_and_forces(model.potential, x, None)
    assert (
        forces - torch.from_numpy(saved["forces"][:20])
    ).abs().max() < 5  # of 2000; a network's start


def test_a_list_of_pairs_with_a_skin_sees_the_force_field_too(exact: tuple[Path, list[str]]):
    model = load_model(exact[0])
    x = torch.from_numpy(np.load(exact[0] / "start.npz")["positions"])
    kept = VerletForces(model.potential, None, skin=0.1)
    kept(x)
    moved = x + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    wanted = energy_and_forces(model.potential, moved, None)
    for ours, theirs in zip(kept(moved), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-2)


def test_part_of_a_molecule_gets_a_prior_of_the_data(data: Path, tmp_path: Path):
    said: list[str] = []
    start = replace(
        config(data, tmp_path / "cg"),
        data=files(data, "select:index 0 1 2 3 4"),
        network="deeppot-se-l",
        network_options=SMALL,
    )
    result = fit(start, tell=said.append)
    assert "prior from the data: 4 bonds, 3 angles" in said[1]
    assert [type(t).__name__ for t in result.model.potential.terms][1:] == ["Repulsion"]
    assert result.model.potential.terms[1].get_buffer("excluded").shape == (7, 2)
    short = replace(MOVES, ps=0.4)
    sample(SampleConfig(tmp_path / "cg", replicas=8, dynamics=short, threads=1))
    for path in sorted((tmp_path / "cg" / "samples").glob("0*.dcd")):
        x = mdtraj.load(path, top=tmp_path / "cg" / "beads.pdb").xyz
        bonds = np.linalg.norm(np.diff(x, axis=1), axis=-1)
        assert 0.10 < bonds.min() < bonds.max() < 0.20
    again = load_model(tmp_path / "cg").potential
    x = torch.from_numpy(np.load(tmp_path / "cg" / "start.npz")["positions"])
    assert torch.equal(again(x, None), result.model.potential(x, None))


def test_beads_of_one_molecule_have_no_box(data: Path, tmp_path: Path):
    saved = np.load(data / "a.npz")
    np.savez(tmp_path / "boxed.npz", **saved, box=2.0 * np.eye(3))
    source = open_data(tmp_path / "boxed.npz", files(data))
    assert map_positions(source, files(data)).frames.box is None


def test_priors_that_cannot_be_had_are_refused(data: Path):
    source = open_data(data / "a.npz", files(data))
    part = map_forces([source], files(data, "select:index 0 1 2"), 300.0)
    with pytest.raises(InputError, match="molecules are mapped in part"):
        PRIORS["force-field"](part, 300.0)
    bare = open_data(data / "b.npz", files(data, system=None))
    with pytest.raises(InputError, match="there is none; use --prior auto"):
        PRIORS["implicit"](map_forces([bare], files(data, system=None), 300.0), 300.0)
    with pytest.raises(InputError, match="unknown prior 'implicitt'; did you mean 'implicit'"):
        FitConfig(data / "a.npz", prior="implicitt")


def test_implicit_water_is_added_on_demand(data: Path):
    beads = map_forces([open_data(data / "a.npz", files(data))], files(data), 300.0)
    field, words = PRIORS["implicit"](beads, 300.0) or (None, "")
    assert "and implicit water" in words
    assert field is not None
    assert "born" in field.kinds
    assert "water" not in (PRIORS["auto"](beads, 300.0) or (None, ""))[1]


def test_the_last_frames_of_each_trajectory_validate():
    x = torch.arange(30.0)[:, None, None].expand(30, 1, 3)
    frames = Frames(x, None, None, torch.zeros(1, dtype=torch.long))
    training, validation = split(frames, 0.1, (10, 20))
    assert validation.positions[:, 0, 0].tolist() == [9, 28, 29]
    assert len(training) == 27
    with pytest.raises(InputError, match="1 frames are too few"):
        split(frames, 0.1, (29, 1))


def test_trajectories_of_other_atoms_are_refused(data: Path, tmp_path: Path):
    saved = np.load(data / "a.npz")
    np.savez(tmp_path / "c.npz", positions=saved["positions"][:, :4])
    other = files(data, topology=None, system=None, also=(tmp_path / "c.npz",))
    mdtraj.load_pdb(str(data / "a.pdb")).atom_slice(range(4)).save_pdb(str(tmp_path / "c.pdb"))
    start = replace(config(data, tmp_path / "run"), data=other)
    with pytest.raises(InputError, match=r"c.npz has other atoms than"):
        fit(start)


def test_a_map_that_hides_handedness_is_refused_unless_forced(tmp_path: Path):
    """C0 has H, F, N and C; with two of them as beads, it and its mirror image look the same."""
    chiral = molecule("CHFNCOO", [(0, 1), (0, 2), (0, 3), (0, 4), (4, 5), (5, 6)])
    x = 0.08 * np.random.default_rng(0).normal(size=(3, 7, 3))
    mdtraj.Trajectory(x[:1], chiral).save_pdb(str(tmp_path / "p.pdb"))
    np.savez(tmp_path / "p.npz", positions=x, forces=x)
    start = FitConfig(
        tmp_path / "p.npz",
        data=DataConfig(map="select:index 0 3 4 5 6"),
        network_options=SMALL,
    )
    sources = open_all(start.trajectory, start.data, 300.0)
    with pytest.raises(InputError, match=r"handedness of MOL.*C0.*map one of H1, F2 too"):
        check_before_labelling(start, sources)
    check_before_labelling(replace(start, force_achiral=True), sources)
    check_before_labelling(replace(start, data=DataConfig(map="heavy")), sources)


def test_sampling_keeps_the_hand_of_a_center(tmp_path: Path):
    """Four beads about a fifth, with springs of the data and a network that knows nothing."""
    corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 3**0.5
    generator = torch.Generator().manual_seed(2)
    x = torch.zeros(400, 5, 3)
    x[:, 1:] = 0.15 * corners + 0.006 * torch.randn(400, 4, 3, generator=generator)
    field = ForceField(statistical_tables(x, np.array([[0, k] for k in range(1, 5)]), KT))
    types = torch.arange(5)
    torch.manual_seed(0)
    architecture = Architecture("deeppot-se-l", SMALL, 0.9, 5, False)
    potential = architecture.build(types, 300.0, field).float()
    save_model(
        tmp_path / "model.pt",
        Model(architecture, potential, tuple("ABCDE"), torch.full((5,), 12.0), "solute", 300.0),
    )
    forces = VerletForces(load_model(tmp_path).potential.requires_grad_(False), None, skin=0.1)
    step = baoab(forces, torch.full((5,), 12.0), kT=KT, dt=0.002, friction=5.0)
    start = x[:16]
    energy, force = forces(start)
    state = SamplerState(start, torch.zeros_like(start), force, energy)

    def hands(positions: torch.Tensor) -> torch.Tensor:
        a, b, c = (positions[:, k] - positions[:, 0] for k in (1, 2, 3))
        return torch.sign((a * torch.linalg.cross(b, c)).sum(-1))

    for _, later in run(step, state, generator, n_steps=200, every=20):
        assert torch.equal(hands(later.positions), hands(start))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each file of frames is opened, by its name."""
    counts: Counter[str] = Counter()

    def counted(opener: Callable[..., TrajectoryFile]) -> Callable[..., TrajectoryFile]:
        def counting(path: Path, **how: object) -> TrajectoryFile:
            counts[path.name] += 1
            return opener(path, **how)

        return counting

    for name in ("open_positions", "open_forces"):
        monkeypatch.setattr(reader, name, counted(getattr(reader, name)))
    return counts


@pytest.mark.parametrize("name", ["solute", "dihedral:0,1,2,3"])
def test_a_fit_opens_each_trajectory_once(
    name: str, data: Path, tmp_path: Path, opened: Counter[str]
):
    network = "pair-spline" if name == "solute" else "deeppot-se-l"
    start = replace(config(data, tmp_path / "run"), data=files(data, name), network=network)
    fit(start)
    assert opened == {"a.npz": 1, "b.npz": 1}


def test_what_has_to_be_labelled_is_opened_again_and_nothing_else(
    data: Path, tmp_path: Path, opened: Counter[str]
):
    for file in ("a.npz", "a.pdb", "a.system.xml"):
        shutil.copy(data / file, tmp_path / file)
    np.savez(tmp_path / "b.npz", positions=np.load(data / "b.npz")["positions"])
    start = replace(config(tmp_path, tmp_path / "run"), data=files(tmp_path))
    fit(start)
    # before labelling, to label, and with the labels
    assert opened == {"a.npz": 1, "b.npz": 3, "b.forces.npy": 1}
