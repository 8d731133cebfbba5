"""Mean forces from restrained dynamics: exact answers, their errors, and fits to them."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from deepcg.cli import main
from deepcg.collective import CollectiveVariables, Variable
from deepcg.errors import InputError
from deepcg.frames import Frames
from deepcg.mapping import LinearMapping
from deepcg.mean_force_labels import MeanForceLabels, are_labels, load_labels, mean_force
from deepcg.microscopic import WaterSimulation, simulate_water
from deepcg.restrained import Run, bench
from deepcg.springs import BeadSprings, VariableSprings, check_step
from deepcg.training import ForceSamples, TrainingConfig, label_weights, train
from deepcg.units import thermal_energy
from deepcg.workflow.beads import DataConfig
from deepcg.workflow.fit import Fit, fit
from deepcg.workflow.fit_config import FitConfig
from deepcg.workflow.fit_variables import SurfaceFit
from deepcg.workflow.label import LabelConfig, label_trajectory
from deepcg.workflow.restrain import spread_out
from deepcg.workflow.restrain_config import RestrainConfig

REFERENCE = openmm.Platform.getPlatform("Reference")
KT = thermal_energy(300)
TORSION = "dihedral:0,1,2,3"
AMPLITUDE = 5.0  # kJ/mol, of cos(3 phi)

Floats = NDArray[np.float64]

# -- beads with hidden partners: U is harmonic --------------------------------------------------

PAIRS = 30
TO_ORIGIN, BOND, HIDDEN = 300.0, 2000.0, 500.0  # kJ/mol/nm^2
SLOPE = TO_ORIGIN + BOND * HIDDEN / (BOND + HIDDEN)


def pairs() -> openmm.System:
    """Return particles 2k, which a spring holds to the origin, bonded to 2k + 1, likewise."""
    system = openmm.System()
    origin = openmm.CustomExternalForce("k/2*(x^2+y^2+z^2)")
    origin.addPerParticleParameter("k")
    bonds = openmm.CustomCompoundBondForce(2, f"{BOND}/2*pointdistance(x1,y1,z1,x2,y2,z2)^2")
    for k in range(PAIRS):
        system.addParticle(12.0)
        system.addParticle(2.0)
        origin.addParticle(2 * k, [TO_ORIGIN])
        origin.addParticle(2 * k + 1, [HIDDEN])
        bonds.addBond([2 * k, 2 * k + 1])
    for force in (origin, bonds, openmm.CMMotionRemover()):
        system.addForce(force)
    return system


def first_of_pairs() -> LinearMapping:
    place = (np.arange(PAIRS), 2 * np.arange(PAIRS))
    weights = csr_array((np.ones(PAIRS), place), shape=(PAIRS, 2 * PAIRS))
    types = torch.zeros(PAIRS, dtype=torch.long)
    return LinearMapping(weights, types, torch.full((PAIRS,), 12.0), ("A",))


def open_frames(positions: Floats) -> Frames:
    return Frames(
        torch.from_numpy(positions), None, None, torch.zeros(positions.shape[1], dtype=torch.long)
    )


def restrained_pairs(width: float, seed: int) -> tuple[Floats, Floats, Floats]:
    """Return z of the instantaneous force and of the springs' pull, and their difference's."""
    mapping = first_of_pairs()
    springs = BeadSprings(mapping, width, KT)
    rng = np.random.default_rng(seed)
    start = open_frames(rng.normal(0, 0.1, (1, 2 * PAIRS, 3)))
    targets = springs.values(start)[0]
    run = Run(0.002, 1000, 600, 20, 300.0, 10.0)
    held = springs.forces(targets, periodic=False)
    atoms = Frames.join(bench(pairs(), REFERENCE).run(held, start, run, seed))
    forces = mapping(atoms.forces).numpy()
    moved = springs.displacements(springs.values(atoms), targets)
    label = mean_force(moved, forces, targets, springs.stiffness)
    exact = -SLOPE * label.coordinates
    return (
        (label.force.value - exact) / label.force.error,
        (label.springs.value - exact) / label.springs.error,
        label.difference.value / label.difference.error,
    )


def test_mean_forces_of_harmonic_pairs_and_their_errors() -> None:
    """30 beads of 3 components, 3 runs: 270 values of z, whose spread has an error of 0.05."""
    z, pull, apart = np.concatenate(
        [np.stack(restrained_pairs(0.005, seed)).reshape(3, -1) for seed in (1, 2, 3)], axis=1
    )
    assert 0.8 < z.std() < 1.2
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert 0.8 < pull.std() < 1.4  # springs swing, see MeanForce: 1.14 in 1440
    assert 0.8 < apart.std() < 1.4


# -- a torsion whose U is known ------------------------------------------------------------------


def torsion_force(phi: Floats) -> Floats:
    """Return -dU/dphi: bonds and angles do not know of phi, and nor does its volume element."""
    return 3 * AMPLITUDE * np.sin(3 * phi) - 3 * np.cos(phi)


def chain_system() -> openmm.System:
    system = openmm.System()
    for _ in range(4):
        system.addParticle(12.0)
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for k in range(3):
        bonds.addBond(k, k + 1, 0.15, 1e5)
    for k in range(2):
        angles.addAngle(k, k + 1, k + 2, 1.9, 400.0)
    torsion = openmm.CustomTorsionForce(f"{AMPLITUDE}*cos(3*theta)+3*sin(theta)")
    torsion.addTorsion(0, 1, 2, 3)
    for force in (bonds, angles, torsion):
        system.addForce(force)
    return system


def chains(n_frames: int, seed: int) -> Floats:
    """Return positions (n, 4, 3) with torsions at random."""
    rng = np.random.default_rng(seed)
    turn = rng.uniform(-np.pi, np.pi, n_frames)
    x = np.zeros((n_frames, 4, 3))
    x[:, 0], x[:, 2], x[:, 3] = [0.14, 0, -0.05], [0, 0, 0.15], [0, 0, 0.2]
    x[:, 3, 0], x[:, 3, 1] = 0.14 * np.cos(turn), 0.14 * np.sin(turn)
    return x + rng.normal(0, 0.002, x.shape)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chain")
    topology = mdtraj.Topology()
    residue = topology.add_residue("BUT", topology.add_chain())
    atoms = [topology.add_atom(f"C{k}", mdtraj.element.carbon, residue) for k in range(4)]
    for one, other in pairwise(atoms):
        topology.add_bond(one, other)
    trajectory = mdtraj.Trajectory(chains(400, seed=3).astype(np.float32), topology)
    trajectory.save_dcd(str(folder / "chain.dcd"))
    trajectory[:1].save_pdb(str(folder / "chain.pdb"))
    xml = openmm.XmlSerializer.serialize(chain_system())
    (folder / "chain.system.xml").write_text(xml)
    return folder / "chain.dcd"


def labelled(trajectory: Path, output: Path, **settings: object) -> MeanForceLabels:
    restraints = RestrainConfig(**{"map": TORSION, "estimator": "general", **settings})  # type: ignore[arg-type]
    config = LabelConfig(
        trajectory, output, platform="Reference", restrain=True, restraints=restraints
    )
    path = label_trajectory(config)
    assert isinstance(path, Path)
    return load_labels(path)


@pytest.fixture(scope="module")
def torsions(chain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    labelled(chain, folder, number=60, ps=4.0, friction=5.0)
    return folder / "chain.labels.npz"


def test_mean_forces_of_a_torsion_and_their_errors(torsions: Path) -> None:
    labels = load_labels(torsions)
    exact = torsion_force(labels.coordinates)
    for forces, errors in (
        (labels.forces, labels.errors),
        (labels.spring_forces, labels.spring_errors),
    ):
        z = (forces - exact) / errors
        print(z.std(), abs(z).max(), errors.mean(), labels.disagreement)
