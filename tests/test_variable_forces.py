"""Forces on collective variables: their mean must be the mean force, whatever makes them.

Exact references: a chain of four atoms whose distribution in internal coordinates is known, drawn
without correlation by rejection and integrated by quadrature; and rigid molecules. Tolerance: 4
standard errors in every bin; a right estimator fails one of 12 bins in 0.1 % of all seeds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from torch import Tensor

from deepcg import general_forces
from deepcg.collective import (
    CollectiveVariables,
    Variable,
    angle,
    build_variables,
    dihedral,
    distance,
)
from deepcg.constraints import Constraints
from deepcg.errors import InputError
from deepcg.frames import Frames
from deepcg.units import BOLTZMANN
from deepcg.variable_forces import VARIABLE_ESTIMATORS, ChosenForces, project_variables

UNIT_KT = 1 / BOLTZMANN  # K: kT = 1
FREE: Constraints = frozenset()
MASSES = np.array([12.0, 1.0, 14.0, 3.0])
EDGES = np.linspace(-np.pi, np.pi, 13)
ALANINE = Path(__file__).parents[2] / "shared" / "data" / "alanine"


def chain(n: int) -> mdtraj.Topology:
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain())
    atoms = [topology.add_atom(f"C{i}", mdtraj.element.carbon, residue) for i in range(n)]
    for a, b in zip(atoms[:-1], atoms[1:], strict=True):
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
    return build(variables, [sample[:200]], held, topology, masses, UNIT_KT)


@pytest.mark.parametrize("name", VARIABLE_ESTIMATORS)
def test_the_mean_force_of_a_chain_is_exact_in_every_bin(name, flexible):
    force = estimator(name, flexible.frames, PHI)(flexible.frames)[:, 0]
    assert np.abs(deviations(force, flexible)).max() < 4


@pytest.mark.parametrize("name", ["general", "general-mass"])
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


def test_the_mean_forces_on_several_coordinates_at_once(flexible):
    """<F_i g + kT dg/dxi_i> = 0 for any smooth g of the coordinates that vanishes at the ends."""
    spelled = f"{PHI};angle:0,1,2;distance:1,2"
    for name in ("general", "general-mass"):
        estimate = estimator(name, flexible.frames, spelled)
        values = estimate.variables(flexible.frames.positions)
        forces = estimate(flexible.frames)
        for i, j in product(range(3), repeat=2):
            g, slope = (torch.sin(values[:, 0]), torch.cos(values[:, 0]))
            if j:
                g, slope = values[:, j] - values[:, j].mean(), torch.ones(len(values))
            residual = forces[:, i] * g + slope * (i == j)
            assert abs(residual.mean()) < 4 * residual.std() / len(values) ** 0.5


def trimer(n: int = 64) -> Frames:
    generator = torch.Generator().manual_seed(1)
    theta = 0.6 + 2 * torch.rand(n, generator=generator, dtype=torch.float64)
    ends = torch.stack([torch.cos(theta), torch.sin(theta), 0 * theta], -1)
    far = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(n, 3)
    positions = torch.stack([1.1 * far, 0 * far, 0.9 * ends], 1)
    x = positions.clone().requires_grad_(True)
    v = 3 * (angle(x) - 1.5).square().sum()
    return Frames(positions, None, -torch.autograd.grad(v, x)[0], torch.zeros(3))


@pytest.mark.parametrize("name", ["general", "general-mass", "least-noise"])
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
