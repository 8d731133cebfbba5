"""Springs on coarse coordinates: OpenMM's against their definition, their bias, their swing."""

import math
from itertools import pairwise

import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from deepcg.atomistic.restraints import (
    FEWEST_STEPS,
    BeadRestraint,
    CVRestraint,
    Restraint,
    check_step,
)
from deepcg.mapping.beads import LinearMapping
from deepcg.mapping.collective_variables import (
    CollectiveVariables,
    Variable,
    angle,
    dihedral,
    distance,
)
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames
from deepcg.units import thermal_energy

KT = thermal_energy(300)
EDGE = 2.0  # nm
MASSES = np.array([12.0, 1.0, 16.0, 3.0, 0.0])

Floats = NDArray[np.float64]


def frame(positions: Floats, *, periodic: bool) -> Frames:
    box = torch.eye(3, dtype=torch.float64)[None] * EDGE if periodic else None
    types = torch.zeros(len(positions), dtype=torch.long)
    return Frames(torch.from_numpy(positions)[None], box, None, types)


def at_random(seed: int) -> Floats:
    return np.random.default_rng(seed).uniform(0, 0.4, (5, 3))


def of_chain(*, molecules: list[int] | None = None) -> CVRestraint:
    """Return springs on a dihedral, an angle and a distance of the first four atoms."""
    variables = (
        Variable("phi", (0, 1, 2, 3), dihedral, 2 * math.pi, "rad"),
        Variable("theta", (1, 2, 3), angle, None, "rad"),
        Variable("d", (0, 3), distance, None, "nm"),
    )
    owners = None if molecules is None else np.array(molecules)
    return CVRestraint(CollectiveVariables(variables, 5, owners), np.array([0.03, 0.05, 0.003]), KT)


def of_beads() -> BeadRestraint:
    """Return springs on an atom, and on the center of mass of three and a massless site."""
    rows = csr_array(
        np.array([[1, 0, 0, 0, 0], [0, 1, 16, 3, 0]], float) / np.array([[1.0], [20.0]])
    )
    types = torch.zeros(2, dtype=torch.long)
    return BeadRestraint(LinearMapping(rows, types, torch.tensor([12.0, 20.0]), ("A",)), 0.004, KT)


def pull(
    springs: Restraint, targets: Floats, positions: Floats, *, periodic: bool
) -> tuple[float, Floats]:
    """Return the energy and the forces (5, 3) of the springs by OpenMM."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(EDGE * np.eye(3)))
    for mass in MASSES:
        system.addParticle(mass)
    for force in springs.forces(targets, periodic=periodic):
        system.addForce(force)
    reference = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), reference)
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def exact(energy: Tensor, positions: Tensor) -> tuple[float, Floats]:
    (gradient,) = torch.autograd.grad(energy, positions)
    return energy.item(), -gradient[0].numpy()


def assert_same(found: tuple[float, Floats], wanted: tuple[float, Floats]) -> None:
    """Both are in double precision: what differs is the rounding of arc cosines."""
    assert found[0] == pytest.approx(wanted[0], rel=1e-6)
    np.testing.assert_allclose(found[1], wanted[1], atol=1e-6 * np.abs(wanted[1]).max())


@pytest.mark.parametrize("turn", [-2 * math.pi, 0, 0.3, 3.0, 3.3, 2 * math.pi + 0.1])
def test_springs_pull_variables_along_their_gradients_the_short_way(turn: float) -> None:
    springs, atoms = of_chain(), frame(at_random(1), periodic=False)
    targets = springs.values(atoms)[0] + np.array([turn, 0.04, -0.02])
    apart = springs.displacements(springs.values(atoms), targets)[0]
    assert abs(apart[0]) <= math.pi
    assert math.cos(apart[0]) == pytest.approx(math.cos(turn))
    near = torch.from_numpy(springs.values(atoms)[0] - apart)  # the targets' images
    positions = atoms.positions.requires_grad_()
    moved = springs.variables(positions)[0] - near
    wanted = exact((torch.from_numpy(springs.stiffness) / 2 * moved**2).sum(), positions)
    assert_same(pull(springs, targets, at_random(1), periodic=False), wanted)


def test_a_distance_between_molecules_is_that_of_nearest_images() -> None:
    positions = at_random(2)
    positions[3] += [1.7, 0, -1.9]
    springs = of_chain(molecules=[0, 0, 0, 1, 1])
    atoms = frame(positions, periodic=True)
    assert springs.values(atoms)[0, 2] < EDGE / 2 < np.linalg.norm(positions[3] - positions[0])
    targets = springs.values(atoms)[0] - np.array([0.1, 0.2, 0.05])
    moving = atoms.positions.requires_grad_()
    apart = springs.variables(moving, atoms.box)[0] - torch.from_numpy(targets)
    wanted = exact((torch.from_numpy(springs.stiffness) / 2 * apart**2).sum(), moving)
    assert_same(pull(springs, targets, positions, periodic=True), wanted)


@pytest.mark.parametrize("periodic", [False, True])
def test_springs_pull_beads_by_their_weights(periodic: bool) -> None:
    springs, atoms = of_beads(), frame(at_random(3), periodic=periodic)
    targets = springs.values(atoms)[0] + np.random.default_rng(3).normal(0, 0.01, (2, 3))
    apart = springs.displacements(springs.values(atoms), targets)[0]
    k = float(springs.stiffness)
    assert k == pytest.approx(KT / 0.004**2)
    wanted = k / 2 * float((apart**2).sum()), -k * (springs.mapping.weights.T @ apart)
    assert_same(pull(springs, targets, at_random(3), periodic=periodic), wanted)


def test_what_openmm_has_no_spring_for_is_refused() -> None:
    height = Variable("height", (0,), lambda x: x[..., 0, 2], None, "nm")
    with pytest.raises(InputError, match="'height' cannot be restrained: only dihedrals"):
        CVRestraint(CollectiveVariables((height,), 5), np.array([0.1]), KT)


def test_springs_swing_at_the_frequency_that_they_tell() -> None:
    """A distance swings with the reduced mass, a center of mass with the whole."""
    variable = Variable("d", (0, 3), distance, None, "nm")
    springs = CVRestraint(CollectiveVariables((variable,), 5), np.array([0.003]), KT)
    atoms = frame(at_random(4), periodic=False)
    k = KT / 0.003**2
    assert springs.frequency(atoms, MASSES) == pytest.approx(math.sqrt(k * (1 / 12 + 1 / 3)))
    lightest = KT / 0.004**2 / 12  # the atom, not the three of 20 Da
    assert of_beads().frequency(atoms, MASSES) == pytest.approx(math.sqrt(lightest))


def test_a_step_too_long_for_the_springs_is_refused_with_one_that_will_do() -> None:
    atoms = frame(at_random(4), periodic=False)
    period = 2 * math.pi / of_beads().frequency(atoms, MASSES)
    check_step(of_beads(), atoms, MASSES, 0.99 * period / FEWEST_STEPS)
    with pytest.raises(InputError, match="or a larger width") as caught:
        check_step(of_beads(), atoms, MASSES, 1.01 * period / FEWEST_STEPS)
    longest = float(str(caught.value).split("at most ")[1].split(",")[0]) / 1000  # ps
    assert 0.98 * period < FEWEST_STEPS * longest
    check_step(of_beads(), atoms, MASSES, longest)


def test_the_bias_of_a_width_falls_with_its_square() -> None:
    """The mean force at the mean coordinate, by quadrature, for U = 5 cos(3 xi) + 3 sin(xi)."""
    x = np.linspace(-math.pi, math.pi, 20001)
    force = 15 * np.sin(3 * x) - 3 * np.cos(x)
    left = []
    for width in (0.08, 0.04, 0.02):
        k, target = KT / width**2, 0.7
        energy = 5 * np.cos(3 * x) + 3 * np.sin(x) + k / 2 * (x - target) ** 2
        density = np.exp(-(energy - energy.min()) / KT)
        density /= density.sum()
        mean = density @ x
        assert density @ force == pytest.approx(k * (mean - target), rel=1e-6)
        curvature = -135 * math.sin(3 * mean) + 3 * math.cos(mean)
        bias = density @ force - (15 * math.sin(3 * mean) - 3 * math.cos(mean))
        assert bias == pytest.approx(KT / (2 * k) * curvature, rel=20 * width**2)
        left.append(abs(bias - KT / (2 * k) * curvature))
    for wide, narrow in pairwise(left):
        assert 12 < wide / narrow < 20  # the next order: 2^4
