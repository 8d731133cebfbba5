"""Forces on collective variables: their mean must be the mean force, whatever makes them.

Exact references: a chain of four atoms whose distribution in internal coordinates is known, drawn
without correlation by rejection and integrated by quadrature; and rigid molecules. Tolerance: 4
standard errors in every bin; a right estimator fails one of 12 bins in 0.1 % of all seeds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise, product

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from paths import SHARED
from torch import Tensor

from deepcg.forces import inverse_gradient
from deepcg.forces.constraints import Constraints
from deepcg.forces.cv_estimators import (
    VARIABLE_ESTIMATORS,
    ChosenForces,
    project_variables,
    variable_estimator,
)
from deepcg.mapping.collective_variables import (
    CollectiveVariables,
    Variable,
    angle,
    build_variables,
    dihedral,
    distance,
)
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.topology import MoleculeGraph
from deepcg.units import BOLTZMANN
from deepcg.workflow.dataset.beads import DataConfig

UNIT_KT = 1 / BOLTZMANN  # K: kT = 1
FREE: Constraints = frozenset()
MASSES = np.array([12.0, 1.0, 14.0, 3.0])
EDGES = np.linspace(-np.pi, np.pi, 13)
ALANINE = SHARED / "alanine"


def chain(n: int) -> mdtraj.Topology:
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain())
    atoms = [topology.add_atom(f"C{i}", mdtraj.element.carbon, residue) for i in range(n)]
    for a, b in pairwise(atoms):
        topology.add_bond(a, b)
    return topology


def energy(r: Tensor, theta: Tensor, phi: Tensor, ends: Tensor) -> Tensor:
    """Everything but the harmonic terms: torsion, phi-angle coupling, 1-4 repulsion."""
    coupling = 1.5 * torch.cos(phi) * (theta[..., 0] - 1.9) + 2 * torch.sin(phi) * (r[..., 1] - 1)
    return 1.2 * (1 + torch.cos(3 * phi)) + coupling + 4 * torch.exp(-2 * ends)


def harmonic(r: Tensor, theta: Tensor) -> Tensor:
    return 25 * (r - 1).square().sum(-1) + 15 * (theta - 1.9).square().sum(-1)


def placed(r: Tensor, theta: Tensor, phi: Tensor) -> Tensor:
    """Positions (n, 4, 3) of internal coordinates."""
    zero = torch.zeros_like(phi)
    second = torch.stack([r[:, 0], zero, zero], -1)
    out = [-torch.cos(theta[:, 0]), torch.sin(theta[:, 0]), zero]
    third = second + r[:, 1:2] * torch.stack(out, -1)
    along = torch.nn.functional.normalize(third - second, dim=-1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(second, along), dim=-1)
    side = torch.linalg.cross(normal, along)
    step = -torch.cos(theta[:, 1:]) * along + torch.sin(theta[:, 1:]) * (
        torch.cos(phi)[:, None] * side + torch.sin(phi)[:, None] * normal
    )
    return torch.stack([torch.zeros_like(second), second, third, third + r[:, 2:] * step], 1)


def metric(theta: Tensor, masses: np.ndarray) -> Tensor:
    """det Z of three rigid bonds in a row."""
    m = 1 / torch.as_tensor(masses)
    p, q = torch.cos(theta[..., 0]) * m[1], torch.cos(theta[..., 1]) * m[2]
    a, b, c = m[0] + m[1], m[1] + m[2], m[2] + m[3]
    return a * b * c - a * q.square() - c * p.square()


def density(r: Tensor, theta: Tensor, phi: Tensor, *, rigid: bool) -> Tensor:
    """Of (r, theta, phi), relative to the Gaussians of the harmonic terms, kT = 1."""
    weight = torch.sin(theta).prod(-1) * torch.exp(
        -energy(r, theta, phi, distance(placed(r, theta, phi)[:, [0, 3]]))
    )
    return weight * (metric(theta, MASSES).sqrt() if rigid else r.square().prod(-1))


@dataclass(frozen=True)
class Sample:
    frames: Frames
    phi: np.ndarray
    exact: np.ndarray  # mean force in every bin


def drawn(n: int, *, rigid: bool) -> Sample:
    """Independent frames of the chain, with forces, and the exact mean force in the bins."""
    generator = torch.Generator().manual_seed(7)
    normal = torch.randn(12 * n, 5, generator=generator, dtype=torch.float64)
    r = 1 + normal[:, :3] * (0 if rigid else 50**-0.5)
    theta = 1.9 + normal[:, 3:] * 30**-0.5
    phi = np.pi * (2 * torch.rand(12 * n, generator=generator, dtype=torch.float64) - 1)
    weight = density(r, theta, phi, rigid=rigid).nan_to_num()
    chance = torch.rand(12 * n, generator=generator, dtype=torch.float64)
    keep = (chance < weight / weight.max()).nonzero()[:n, 0]
    positions = placed(r[keep], theta[keep], phi[keep])
    frames = Frames(positions, None, chain_forces(positions, rigid=rigid), torch.zeros(4))
    return Sample(frames, phi[keep].numpy(), exact_forces(rigid=rigid))


def chain_forces(positions: Tensor, *, rigid: bool) -> Tensor:
    x = positions.clone().requires_grad_(True)
    r = (x[:, 1:] - x[:, :-1]).norm(dim=-1)
    theta = torch.stack([angle(x[:, :3]), angle(x[:, 1:])], -1)
    # a rigid bond of length 1 may pull as it likes: constraint forces are not part of V
    soft = torch.ones_like(r) if rigid else r
    v = harmonic(soft, theta) + energy(r, theta, dihedral(x), distance(x[:, [0, 3]]))
    return -torch.autograd.grad(v.sum(), x)[0]


def exact_forces(*, rigid: bool) -> np.ndarray:
    """Mean force in a bin, kT [p(b) - p(a)] / int_a^b p, by Gauss quadrature."""
    x, w = np.polynomial.hermite_e.hermegauss(7)
    nodes = torch.as_tensor(list(product(x, repeat=2 if rigid else 5)))
    weights = torch.as_tensor(list(product(w, repeat=2 if rigid else 5))).prod(-1)
    theta = 1.9 + nodes[:, -2:] * 30**-0.5
    r = torch.ones(len(nodes), 3, dtype=torch.float64)
    if not rigid:
        r = 1 + nodes[:, :3] * 50**-0.5

    def p(phi: float) -> float:
        angles = torch.full((len(nodes),), float(phi), dtype=torch.float64)
        return float((weights * density(r, theta, angles, rigid=rigid)).sum())

    x, w = np.polynomial.legendre.leggauss(5)
    half = (EDGES[1] - EDGES[0]) / 2
    inside = [
        sum(w[k] * p(c + half * x[k]) for k in range(5)) * half
        for c in (EDGES[1:] + EDGES[:-1]) / 2
    ]
    return np.diff([p(edge) for edge in EDGES]) / inside


def deviations(force: Tensor, sample: Sample) -> np.ndarray:
    """(12,), bin means less the exact ones, in standard errors."""
    values, index = force.double().numpy(), np.digitize(sample.phi, EDGES) - 1
    bins = [values[index == k] for k in range(12)]
    error = np.array([b.std() / len(b) ** 0.5 for b in bins])
    return (np.array([b.mean() for b in bins]) - sample.exact) / error


@pytest.fixture(scope="module")
def flexible() -> Sample:
    return drawn(50_000, rigid=False)


@pytest.fixture(scope="module")
def rigid() -> Sample:
    return drawn(50_000, rigid=True)


PHI = "dihedral:0,1,2,3"
HELD: Constraints = frozenset({frozenset(range(4))})


def estimator(name: str, sample: Frames, spelled: str, held: Constraints = FREE) -> ChosenForces:
    topology = chain(sample.n_sites)
    variables = build_variables(spelled, topology)
    build, masses = VARIABLE_ESTIMATORS[name], MASSES[: sample.n_sites]
    return build(variables, [sample[:200]], held, MoleculeGraph(topology), masses, UNIT_KT)


@pytest.mark.parametrize("name", VARIABLE_ESTIMATORS)
def test_the_mean_force_of_a_chain_is_exact_in_every_bin(name, flexible):
    force = estimator(name, flexible.frames, PHI)(flexible.frames)[:, 0]
    assert np.abs(deviations(force, flexible)).max() < 4


@pytest.mark.parametrize("name", ["inverse-gradient", "inverse-gradient-mass"])
def test_without_the_divergence_the_same_test_fails(name, flexible):
    found = estimator(name, flexible.frames, PHI).candidates[0][0].forces
    wrong = replace(found, kT=0.0)(flexible.frames)[:, 0]
    assert np.abs(deviations(wrong, flexible)).max() > 8


def test_every_group_that_may_move_gives_the_same_mean(flexible):
    estimate = estimator("rotation", flexible.frames, PHI)
    assert len(estimate.candidates[0]) == 2  # both ends
    for candidate in estimate.candidates[0]:
        assert np.abs(deviations(candidate.forces(flexible.frames), flexible)).max() < 4


@pytest.mark.parametrize("name", VARIABLE_ESTIMATORS)
def test_the_mean_force_of_a_chain_of_rigid_bonds_is_exact(name, rigid):
    force = estimator(name, rigid.frames, PHI, HELD)(rigid.frames)[:, 0]
    assert np.abs(deviations(force, rigid)).max() < 4


def stein(forces: Tensor, values: Tensor, i: int, j: int) -> float:
    """Return <F_i g + kT dg/dxi_i>, which is 0 for any g of coordinate j, in standard errors."""
    g, slope = values[:, j] - values[:, j].mean(), torch.ones(len(values))
    if values[:, j].min() < -3:  # a dihedral
        g, slope = torch.sin(values[:, j]), torch.cos(values[:, j])
    residual = forces[:, i] * g + slope * (i == j)
    return float(residual.mean() / (residual.std() / len(values) ** 0.5))


@pytest.mark.parametrize("name", ["inverse-gradient", "inverse-gradient-mass"])
def test_the_mean_forces_on_several_coordinates_at_once(name, flexible):
    estimate = estimator(name, flexible.frames, f"{PHI};angle:0,1,2;distance:1,2")
    values, forces = estimate.variables(flexible.frames.positions), estimate(flexible.frames)
    for i, j in product(range(3), repeat=2):
        assert abs(stein(forces, values, i, j)) < 4


@pytest.mark.parametrize("spelled", ["angle:0,1,2", "distance:1,2", "distance:0,3", "angle:3,1,0"])
def test_closed_forms_of_angles_and_distances_have_the_right_mean(spelled, flexible):
    estimate = estimator("rotation", flexible.frames, spelled)
    values = estimate.variables(flexible.frames.positions)
    for candidate in estimate.candidates[0]:
        assert abs(stein(candidate.forces(flexible.frames)[:, None], values, 0, 0)) < 4


def trimer(n: int = 64) -> Frames:
    generator = torch.Generator().manual_seed(1)
    theta = 0.6 + 2 * torch.rand(n, generator=generator, dtype=torch.float64)
    ends = torch.stack([torch.cos(theta), torch.sin(theta), 0 * theta], -1)
    far = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(n, 3)
    positions = torch.stack([1.1 * far, 0 * far, 0.9 * ends], 1)
    x = positions.clone().requires_grad_(True)
    v = 3 * (angle(x) - 1.5).square().sum()
    return Frames(positions, None, -torch.autograd.grad(v, x)[0], torch.zeros(3))


@pytest.mark.parametrize("name", ["inverse-gradient", "inverse-gradient-mass", "least-noise"])
def test_the_force_on_the_angle_of_two_rigid_bonds_is_exact_in_every_frame(name):
    """U(theta) = V - kT ln sin - kT/2 ln det Z: nothing is hidden, so there is no noise."""
    frames = trimer()
    force = estimator(name, frames, "angle:0,1,2", frozenset({frozenset(range(3))}))(frames)
    theta = angle(frames.positions).requires_grad_(True)
    m = 1 / MASSES
    z = (m[0] + m[1]) * (m[1] + m[2]) - torch.cos(theta).square() * m[1] ** 2
    u = 3 * (theta - 1.5).square() - torch.log(torch.sin(theta)) - torch.log(z) / 2
    exact = -torch.autograd.grad(u.sum(), theta)[0]
    torch.testing.assert_close(force[:, 0], exact, rtol=1e-9, atol=1e-9)


def test_turning_one_rigid_bond_against_another_is_refused():
    with pytest.raises(InputError, match="a constraint joins the atoms"):
        estimator("rotation", trimer(), "angle:0,1,2", frozenset({frozenset(range(3))}))


def test_the_angle_of_rigid_bonds_needs_the_factor_of_their_momenta(monkeypatch):
    frames, held = trimer(), frozenset({frozenset(range(3))})
    estimate = estimator("inverse-gradient", frames, "angle:0,1,2", held)
    right = estimate(frames)
    monkeypatch.setattr(inverse_gradient, "_manifold", lambda rows, j, masses, b: 0 * b[:, :, 0])
    assert (estimate(frames) - right).abs().max() > 0.1


BENT = np.array([12.0, 2.0, 14.0])


def bent_molecules(n: int) -> tuple[openmm.System, np.ndarray]:
    """Return n trimers far apart, with rigid bonds, a light middle and a soft angle."""
    # OpenMM's constraint solver takes a HarmonicAngleForce for stiff, and then fails at times
    system, soft = openmm.System(), openmm.CustomAngleForce("25 * (theta - 1.2)^2")
    for first in range(0, 3 * n, 3):
        for mass in BENT:
            system.addParticle(mass)
        system.addConstraint(first, first + 1, 0.11)
        system.addConstraint(first + 1, first + 2, 0.09)
        soft.addAngle(first, first + 1, first + 2)
    system.addForce(soft)
    return system, np.tile([[0.11, 0, 0], [0, 0, 0], [0, 0.09, 0]], (n, 1))


def dynamics(n_molecules: int, n_frames: int) -> Frames:
    """Frames (n_frames * n_molecules, 3, 3) of constrained Langevin dynamics at 300 K."""
    system, start = bent_molecules(n_molecules)
    integrator = openmm.LangevinMiddleIntegrator(300, 5, 0.001)
    integrator.setRandomNumberSeed(3)
    integrator.setConstraintTolerance(1e-7)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform("Reference"))
    context.setPositions(start)
    integrator.step(1000)
    positions, forces = [], []
    for _ in range(n_frames):
        integrator.step(40)
        state = context.getState(positions=True, forces=True)
        positions.append(state.getPositions(asNumpy=True)._value.reshape(-1, 3, 3))
        forces.append(state.getForces(asNumpy=True)._value.reshape(-1, 3, 3))
    x, f = (torch.from_numpy(np.concatenate(v)) for v in (positions, forces))
    return Frames(x, None, f, torch.zeros(3))


def test_dynamics_with_constraints_samples_what_the_estimator_holds():
    """<F> = <dU/dtheta> = 0 over constrained dynamics; errors by molecule, false alarm 2e-4."""
    n, kT = 60, 300 * BOLTZMANN
    frames = dynamics(n, 250)
    build, topology = VARIABLE_ESTIMATORS["inverse-gradient"], chain(3)
    held = frozenset({frozenset(range(3))})
    variables = build_variables("angle:0,1,2", topology)
    estimate = build(variables, [frames[::50]], held, MoleculeGraph(topology), BENT, 300.0)
    theta = variables(frames.positions)[:, 0]
    without = 50 * (1.2 - theta) + kT / torch.tan(theta)  # no det Z
    right, wrong = (f.reshape(-1, n).mean(0) for f in (estimate(frames)[:, 0], without))
    assert abs(right.mean()) < 4 * right.std() / n**0.5
    assert abs(wrong.mean()) > 6 * wrong.std() / n**0.5


def waters(n: int) -> tuple[mdtraj.Topology, Frames, np.ndarray]:
    """Two rigid waters at random, with forces between sites and Boltzmann weights (n,)."""
    topology = mdtraj.Topology()
    for _ in range(2):
        residue = topology.add_residue("HOH", topology.add_chain())
        o, *hydrogens = (
            topology.add_atom(name, mdtraj.element.Element.getBySymbol(name[0]), residue)
            for name in ("O", "H1", "H2")
        )
        for h in hydrogens:
            topology.add_bond(o, h)
    generator = torch.Generator().manual_seed(5)
    body = torch.tensor([[0, 0, 0], [0.0957, 0, 0], [-0.024, 0.0927, 0]], dtype=torch.float64)
    q, r = torch.linalg.qr(torch.randn(2 * n, 3, 3, generator=generator, dtype=torch.float64))
    turned = (body @ (q * r.diagonal(dim1=1, dim2=2).sign()[:, None])).reshape(n, 2, 3, 3)
    distances = 0.25 + 0.25 * torch.rand(n, generator=generator, dtype=torch.float64)
    turned[:, 1, :, 0] += distances[:, None]
    x = turned.reshape(n, 6, 3).requires_grad_()
    apart = (x[:, :3, None] - x[:, None, 3:]).norm(dim=-1)
    charge = torch.tensor([-0.8, 0.4, 0.4], dtype=torch.float64)
    v = 40 * (charge[:, None] * charge * torch.exp(-5 * apart)).sum((1, 2))
    f = -torch.autograd.grad(v.sum(), x)[0]
    weights = distances.square() * torch.exp(-v.detach() / (300 * BOLTZMANN))
    return topology, Frames(x.detach(), None, f, torch.zeros(6)), weights.numpy()


WATER_MASSES = np.array([15.999, 1.008, 1.008] * 2)
SETTLED = frozenset({frozenset(range(3)), frozenset(range(3, 6))})


def test_rigid_waters_give_one_mean_force_by_shifts_and_by_gradients():
    topology, frames, weights = waters(20_000)
    variables = build_variables("distance:0,3", topology)
    forces = {
        name: build(
            variables, [frames[:100]], SETTLED, MoleculeGraph(topology), WATER_MASSES, 300.0
        )(frames)
        for name, build in VARIABLE_ESTIMATORS.items()
    }
    index = np.digitize(variables(frames.positions)[:, 0], np.linspace(0.25, 0.5, 7)) - 1
    for name in ("inverse-gradient", "inverse-gradient-mass", "least-noise"):
        difference = weights * (forces[name] - forces["rotation"])[:, 0].numpy()
        for bin_ in range(6):
            some = difference[index == bin_]
            assert abs(some.mean()) <= 4 * some.std() / len(some) ** 0.5


@pytest.mark.parametrize("name", VARIABLE_ESTIMATORS)
@pytest.mark.parametrize("spelled", ["distance:0,1", "angle:1,0,2"])
def test_coordinates_that_rigid_water_holds_are_refused(name, spelled):
    topology, frames, _ = waters(50)
    variables = build_variables(spelled, topology)
    with pytest.raises(InputError, match=r"constraint"):
        VARIABLE_ESTIMATORS[name](
            variables, [frames], SETTLED, MoleculeGraph(topology), WATER_MASSES, 300.0
        )


def test_moving_one_atom_of_rigid_water_is_never_chosen():
    topology, frames, _ = waters(50)
    variables = build_variables("distance:0,3", topology)
    build = VARIABLE_ESTIMATORS["rotation"]
    free = build(variables, [frames], FREE, MoleculeGraph(topology), WATER_MASSES, 300.0)
    held = build(variables, [frames], SETTLED, MoleculeGraph(topology), WATER_MASSES, 300.0)
    sizes = [[len(c.forces.moved) for c in e.candidates[0]] for e in (free, held)]
    assert sorted(sizes[0]) == [1, 1, 3, 3]
    assert sizes[1] == [3, 3]


def test_a_rigid_group_with_more_held_pairs_than_it_needs():
    """Methane is held by 10 pairs where 9 would do; U(r) = V - 2 kT ln r of its carbon."""
    topology = mdtraj.Topology()
    for elements in ("CHHHH", "C"):
        residue = topology.add_residue("MOL", topology.add_chain())
        some = [
            topology.add_atom(e, mdtraj.element.Element.getBySymbol(e), residue) for e in elements
        ]
        for hydrogen in some[1:]:
            topology.add_bond(some[0], hydrogen)
    body = 0.063 * torch.tensor([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]])
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(40, 6, 3, generator=generator, dtype=torch.float64)
    x[:, :5] = x[:, :1] + body.double() @ torch.linalg.qr(x[:, 1:4])[0]
    f, arm = torch.zeros_like(x), x[:, 5] - x[:, 0]
    f[:, 5], f[:, 0] = -3 * arm, 3 * arm
    frames, masses = Frames(x, None, f, torch.zeros(6)), np.array([12.0, 1, 1, 1, 1, 12])
    variables = build_variables("distance:0,5", topology)
    for name in ("inverse-gradient", "inverse-gradient-mass"):
        held = frozenset({frozenset(range(5))})
        force = VARIABLE_ESTIMATORS[name](
            variables, [frames], held, MoleculeGraph(topology), masses, UNIT_KT
        )
        r = arm.norm(dim=-1)
        torch.testing.assert_close(force(frames)[:, 0], 2 / r - 3 * r)


def test_two_names_of_one_coordinate_are_refused(flexible):
    with pytest.raises(InputError, match="depend on one another"):
        estimator("least-noise", flexible.frames, "dihedral:0,1,2,3;dihedral:3,2,1,0")


def test_a_function_of_ones_own_has_the_general_estimators_only(flexible):
    topology = chain(4)
    width = Variable("width", (0, 3), lambda x: distance(x) ** 2, None, "nm^2")
    variables = build_variables([width], topology)
    arguments = variables, [flexible.frames[:200]], FREE, MoleculeGraph(topology), MASSES, UNIT_KT
    with pytest.raises(InputError, match="width has no closed form"):
        VARIABLE_ESTIMATORS["rotation"](*arguments)
    force = VARIABLE_ESTIMATORS["least-noise"](*arguments)(flexible.frames)[:, 0]
    plain = estimator("rotation", flexible.frames, "distance:0,3")(flexible.frames)[:, 0]
    r = distance(flexible.frames.positions[:, [0, 3]])
    # U(r^2) = U(r) + kT ln 2r: the same force but for the Jacobian
    difference = force * 2 * r - (plain - 1 / r)
    assert abs(difference.mean()) < 4 * difference.std() / len(r) ** 0.5


def alanine() -> tuple[CollectiveVariables, Frames, mdtraj.Topology]:
    if not ALANINE.is_dir():
        pytest.skip("needs the shared alanine trajectories")
    topology = mdtraj.load_topology(str(ALANINE / "alanine.pdb")).subset(range(22))
    with np.load(ALANINE / "walker-b.npz") as file:
        x, f = (torch.from_numpy(file[name]) for name in ("positions", "forces"))
    frames = Frames(x, None, f, torch.zeros(22, dtype=torch.long))
    return build_variables("dihedrals", topology), frames, topology


def test_the_quieter_side_of_each_bond_of_alanine_is_chosen():
    """Measured: phi 55 kJ/mol/rad from the side of ACE and 61 from NME, psi 54 and 28."""
    variables, frames, topology = alanine()
    masses = np.array([atom.element.mass for atom in topology.atoms])
    build = VARIABLE_ESTIMATORS["rotation"]
    estimate = build(variables, [frames[::65]], FREE, MoleculeGraph(topology), masses, 300.0)
    phi, psi = (some[0].forces for some in estimate.candidates)
    assert phi.moved.tolist() == [0, 1, 2, 3, 4, 5, 7]  # ACE and H of N
    assert psi.moved.tolist() == list(range(15, 22))  # O and NME
    assert estimate.noise == pytest.approx([55, 28], rel=0.1)
    assert "force on psi ALA 2: rigid motion of 7 atoms with NME3-N" in estimate.describe()
    (part,) = project_variables([frames[:10]], variables, estimate)
    torch.testing.assert_close(part.forces, estimate(frames[:10]))


def test_a_mixture_of_the_forces_on_alanine_is_quieter_than_each():
    """On frames it was not made from. The mean square falls by a fifth, at the least."""
    variables, frames, topology = alanine()
    masses = np.array([atom.element.mass for atom in topology.atoms])
    estimate = VARIABLE_ESTIMATORS["least-noise"](
        variables, [frames[::65]], FREE, MoleculeGraph(topology), masses, 300.0
    )
    for mixture in estimate.mixtures:
        assert sum(mixture.weights) == pytest.approx(1, abs=1e-9)
        assert 1 < len(mixture.parts) < 6
    held_out = frames[30::65]
    alone = VARIABLE_ESTIMATORS["rotation"](
        variables, [held_out], FREE, MoleculeGraph(topology), masses, 300.0
    )
    square = estimate(held_out).double().square().mean(0).numpy()
    assert (square < 0.8 * alone.noise**2).all()
    # 200 frames tell an rms to 5 %
    assert np.sqrt(square) == pytest.approx(estimate.noise, rel=0.2)
    assert estimate.describe().count("rigid motion of 7 atoms with") > 2


def test_all_estimators_agree_on_alanine():
    """<(F - F') g> = 0 for any g(phi, psi), biased or not; 26 blocks of 0.1 ns."""
    variables, frames, topology = alanine()
    masses = np.array([atom.element.mass for atom in topology.atoms])
    values = variables(frames.positions).double()
    waves = [torch.ones(len(frames))] + [
        f(k * values[:, i]) for f in (torch.sin, torch.cos) for k in (1, 2) for i in (0, 1)
    ]
    found = {
        name: build(variables, [frames[::65]], FREE, MoleculeGraph(topology), masses, 300.0)(
            frames
        ).double()
        for name, build in VARIABLE_ESTIMATORS.items()
    }
    for name in ("inverse-gradient", "inverse-gradient-mass", "least-noise"):
        for wave in waves:
            products = (found[name] - found["rotation"]) * wave[:, None]
            blocks = products.reshape(26, 500, 2).mean(1)
            z = blocks.mean(0) / (blocks.std(0) / 26**0.5)
            assert z.abs().max() < 4.5  # false alarm 0.8 % over 54 Student-t with 25 degrees


def test_names_of_before_are_the_estimators_of_now() -> None:
    """Run folders and files of labels have them; no choice of today shows them."""
    for old, name in (("general", "inverse-gradient"), ("general-mass", "inverse-gradient-mass")):
        assert variable_estimator(old) is variable_estimator(name) is VARIABLE_ESTIMATORS[name]
        assert DataConfig(map="dihedrals", estimator=old).estimator == old  # as the file has it
    with pytest.raises(InputError, match=r"'generic' .*choices: inverse-gradient, inverse-gra"):
        variable_estimator("generic")
