"""Mean forces from restrained dynamics: exact answers, their errors, and fits to them."""

from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torsion_chain import torsion_energy, torsion_force, write_chain

from deepcg.atomistic.restrained_dynamics import Run, bench
from deepcg.atomistic.restraints import BeadRestraint
from deepcg.atomistic.system import read_system
from deepcg.forces.mean_force_labels import MeanForceLabels, load_labels, mean_force
from deepcg.mapping.beads import LinearMapping
from deepcg.runtime.errors import InputError
from deepcg.runtime.progress import Progress, silent
from deepcg.training.config import TrainingConfig
from deepcg.trajectory.frames import Frames
from deepcg.units import thermal_energy
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fit.collective_variables import CVFit
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.label.command import LabelConfig, label_trajectory
from deepcg.workflow.label.restrain_config import RestrainConfig

REFERENCE = openmm.Platform.getPlatform("Reference")
KT = thermal_energy(300)
TORSION = "dihedral:0,1,2,3"

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
    springs = BeadRestraint(mapping, width, KT)
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
    return write_chain(tmp_path_factory.mktemp("chain"), "chain", chains(400, seed=3))


def labelled(
    trajectory: Path,
    output: Path,
    *,
    progress: Progress = silent,
    forces_without: tuple[str, ...] = (),
    **settings: object,
) -> MeanForceLabels:
    restraints = RestrainConfig(TORSION, estimator="inverse-gradient", **settings)  # type: ignore[arg-type]
    config = LabelConfig(
        trajectory,
        output,
        forces_without=forces_without,
        platform="Reference",
        restrain=True,
        restraints=restraints,
    )
    path = label_trajectory(config, progress)
    assert isinstance(path, Path)
    return load_labels(path)


@pytest.fixture(scope="module")
def torsions(chain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    labelled(chain, folder, number=60, ps=3.0, friction=5.0)
    return folder / "chain.labels.npz"


def test_mean_forces_of_a_torsion_and_their_errors(torsions: Path) -> None:
    """60 runs: the spread of z has an error of 0.1, with errors of 16 to 31 blocks 0.11; one of
    120 values of z is beyond 4.5 once in 300 (t of 15)."""
    labels = load_labels(torsions)
    exact = torsion_force(labels.coordinates)
    for forces, errors in (
        (labels.forces, labels.errors),
        (labels.spring_forces, labels.spring_errors),
    ):
        z = (forces - exact) / errors
        assert 0.7 < z.std() < 1.4
        assert abs(z).max() < 4.5
        assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert 0.7 < labels.disagreement < 1.4


def test_labels_cover_the_torsion(torsions: Path) -> None:
    """60 of 400 frames, each as far from the others as can be: no gap of two bins of 60."""
    turns = np.sort(load_labels(torsions).coordinates[:, 0])
    assert np.diff(turns, append=turns[0] + 2 * np.pi).max() < 2 * 2 * np.pi / 60


def test_soft_springs_average_over_their_width(chain: Path, tmp_path: Path) -> None:
    """A width of 0.2 rad: 12 labels are the averages of the force that quadrature tells, and not
    the force at the mean. Chi square of 12 (t of 15) is above 50 once in 10 000."""
    labels = labelled(chain, tmp_path, number=12, ps=4.0, friction=5.0, width_rad=0.2)
    stiffness = KT / 0.2**2
    targets = labels.coordinates - labels.spring_forces / stiffness
    apart = np.linspace(-1.5, 1.5, 2001)
    phi = targets + apart  # (12, 2001)
    density = np.exp(-(torsion_energy(phi) + stiffness / 2 * apart**2) / KT)
    exact = (density * torsion_force(phi)).sum(1) / density.sum(1)
    forces, errors = labels.forces[:, 0], labels.errors[:, 0]
    assert np.square((forces - exact) / errors).sum() < 50
    at_mean = torsion_force(labels.coordinates[:, 0])
    assert np.square((forces - at_mean) / errors).sum() > 70


def test_a_fit_to_labels_finds_u_within_its_error(torsions: Path, tmp_path: Path) -> None:
    """The rms of z is 1.2 for honest errors (t of 7); U has some ten independent regions."""
    config = FitConfig(
        torsions,
        output=tmp_path / "run",
        data=DataConfig(map=TORSION),
        training=TrainingConfig(steps=120, batch_size=20, learning_rate=3e-2, validations=3),
        validation_fraction=0.1,
        threads=1,
    )
    said: list[str] = []
    result = fit(config, tell=said.append)
    assert isinstance(result, CVFit)
    assert result.surface is not None
    (phi,) = result.surface.grid.centers
    energy = result.surface.energy
    exact = torsion_energy(phi)
    off = energy.value - energy.value.mean() - (exact - exact.mean())
    assert 0.3 < np.sqrt(np.square(off / energy.error).mean()) < 2
    assert energy.error.max() < 1  # of a U that runs over 14 kJ/mol
    assert said[0].startswith("60 frames in dihedral 0-1-2-3\n60 mean forces on dihedral:0,1,2,3")


# -- what is there already ------------------------------------------------------------------------

QUICK = {"number": 4, "ps": 0.7, "equilibration_ps": 0.1}


class Cut(Exception):
    """The job was cut off."""


def cut_after(labels: int) -> Progress:
    def progress(done: int, total: int, what: str) -> None:
        if done == labels and what == "restrained dynamics":
            raise Cut

    return progress


def test_what_was_cut_off_ends_with_the_same_labels(chain: Path, tmp_path: Path) -> None:
    whole = labelled(chain, tmp_path / "whole", **QUICK)
    with pytest.raises(Cut):
        labelled(chain, tmp_path / "cut", progress=cut_after(2), **QUICK)
    half = load_labels(tmp_path / "cut" / "chain.labels.npz")
    assert len(half) == 2
    ended = labelled(chain, tmp_path / "cut", **QUICK)
    for name in ("coordinates", "forces", "errors", "spring_forces", "difference_errors"):
        assert np.array_equal(getattr(ended, name), getattr(whole, name)), name
        assert np.array_equal(getattr(ended, name)[:2], getattr(half, name)), name


def test_labels_that_are_whole_are_left_alone(chain: Path, tmp_path: Path) -> None:
    labelled(chain, tmp_path, **QUICK)
    before = (tmp_path / "chain.labels.npz").stat().st_mtime_ns
    labelled(chain, tmp_path, progress=cut_after(4), **QUICK)
    assert (tmp_path / "chain.labels.npz").stat().st_mtime_ns == before


@pytest.mark.parametrize("other", [{"seed": 2}, {"number": 5}, {"width_rad": 0.04}])
def test_other_labels_are_not_written_over(
    chain: Path, tmp_path: Path, other: dict[str, float]
) -> None:
    labelled(chain, tmp_path, **QUICK)
    (name,) = other
    with pytest.raises(InputError, match=f"has labels with {name} = .*move it away"):
        labelled(chain, tmp_path, **{**QUICK, **other})


def test_a_file_of_something_else_is_not_written_over(chain: Path, tmp_path: Path) -> None:
    (tmp_path / "chain.labels.npz").write_text("nothing")
    with pytest.raises(InputError, match="is no file of labels: move it away"):
        labelled(chain, tmp_path, **QUICK)


def test_a_bias_in_the_system_is_left_out_of_restrained_dynamics(tmp_path: Path) -> None:
    chain = write_chain(tmp_path, "chain", chains(50, seed=3))
    plain = labelled(chain, tmp_path / "plain", **QUICK)
    path = chain.with_suffix(".system.xml")
    system = read_system(path)
    bias = openmm.CustomCVForce("20*cos(phi)")
    phi = openmm.CustomTorsionForce("theta")
    phi.addTorsion(0, 1, 2, 3)
    bias.addCollectiveVariable("phi", phi)
    system.addForce(bias)
    path.write_text(openmm.XmlSerializer.serialize(system))
    with pytest.raises(InputError, match="collective variables, as in metadynamics"):
        labelled(chain, tmp_path / "biased", **QUICK)
    without = labelled(chain, tmp_path / "without", forces_without=("CustomCVForce",), **QUICK)
    np.testing.assert_array_equal(without.forces, plain.forces)
    assert without.task["forces_without"] == ["CustomCVForce"]


def test_another_seed_gives_other_labels(chain: Path, tmp_path: Path) -> None:
    one, other = (labelled(chain, tmp_path / str(k), seed=k, **QUICK) for k in (1, 2))
    assert not np.isin(one.forces, other.forces).any()


# -- dynamics -------------------------------------------------------------------------------------


def test_only_forces_go_from_the_system_to_the_bench() -> None:
    system = pairs()
    for force in (
        openmm.AndersenThermostat(300, 1),
        openmm.MonteCarloBarostat(1, 300),
    ):
        system.addForce(force)
    kept = [type(force).__name__ for force in bench(system, REFERENCE).system.getForces()]
    assert kept == ["CustomExternalForce", "CustomCompoundBondForce"]
    assert system.getNumForces() == 5


def test_forces_are_without_springs_and_on_atoms_alone() -> None:
    """Of an atom pulled by way of a virtual site: the forces on the two add up to nothing."""
    system = openmm.System()
    for mass in (12.0, 12.0, 0.0, 12.0):
        system.addParticle(mass)
    system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.3, 0.7))
    bonds = openmm.HarmonicBondForce()
    bonds.addBond(2, 3, 0.1, 1000)
    system.addForce(bonds)
    place = bench(system, REFERENCE)
    positions = np.array([[[0, 0, 0], [0.1, 0, 0], [0.07, 0, 0], [0.07, 0.2, 0]]])
    forces = place.with_forces(open_frames(positions)).forces
    assert forces is not None
    wanted = torch.tensor([[0, 30.0, 0], [0, 70.0, 0], [0, 0, 0], [0, -100.0, 0]])
    torch.testing.assert_close(forces[0], wanted.double())
    springs = openmm.CustomExternalForce("1e4*x")
    springs.addParticle(3)
    run = Run(1e-6, 0, 3, 1, 1e-3, 1.0)
    (atoms,) = place.run([springs], open_frames(positions), run, seed=1)
    torch.testing.assert_close(atoms.forces, wanted.double().expand(3, 4, 3), atol=0.1, rtol=0)


def test_a_system_leaves_a_group_of_forces_to_the_springs() -> None:
    system = openmm.System()
    system.addParticle(1.0)
    for group in range(32):
        force = openmm.CustomExternalForce("x^2")
        force.setForceGroup(group)
        system.addForce(force)
    run = Run(0.001, 0, 4, 1, 300.0, 1.0)
    with pytest.raises(InputError, match="all 32 force groups"):
        next(bench(system, REFERENCE).run([], open_frames(np.zeros((1, 1, 3))), run, 1))
