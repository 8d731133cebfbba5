"""Fused loops give what the plain definitions give, and the definitions are harmonics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.special import eval_legendre
from torch import Tensor

from deepcg.geometry.neighbor_list import neighbors
from deepcg.networks import DeepPotSEL
from deepcg.networks.base import switch
from deepcg.networks.deeppot_se_l.density import (
    density,
    harmonics,
    power_spectrum,
    reference_density,
    reference_power_spectrum,
    splines,
)
from deepcg.networks.deeppot_se_l.density_loops import Basis
from deepcg.potentials.beads import NetworkPotential, energy_and_forces

TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5}  # of the largest value; rounding only


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def basis(l_max: int) -> Basis:
    """As a network of cutoff 0.6 nm has by default: l_max = 3 is compiled for its tests too."""
    return Basis(l_max, 16, 0.22, 0.6, 0.3)


def special_distances(of: Basis) -> Tensor:
    """At knots, at the cutoff and beside it, where the switch begins, before the first knot."""
    knots = of.first + of.spacing * torch.arange(-3, of.n_splines)
    edge = [of.cutoff, math.nextafter(of.cutoff, 0), of.cutoff - 1e-9, of.cutoff + 1e-9, 2.0]
    return torch.cat([knots[knots > 0.05], torch.tensor([*edge, of.switch_on, 0.01, 0.1])])


def sample(of: Basis, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Displacements (2, 3, n, 3) along all directions and axes, three types, padding last."""
    generator = torch.Generator().manual_seed(1)
    special = special_distances(of)
    r = torch.cat([special, 0.05 + 0.6 * torch.rand(20, generator=generator)])
    u = torch.randn(2, 3, len(r), 3, generator=generator)
    u[0, 0, :6] = torch.cat([torch.eye(3), -torch.eye(3)])
    d = r[:, None] * u / u.norm(dim=-1, keepdim=True)
    neighbor_types = torch.randint(0, 3, d.shape[:3], generator=generator)
    neighbor_types[0, 1, 15:] = -1
    neighbor_types[1, 2] = -1
    d[neighbor_types < 0] = torch.tensor([1.2, 0, 0])
    return d.to(dtype), neighbor_types


def assert_close(found: Tensor, wanted: Tensor) -> None:
    assert torch.isfinite(wanted).all()
    scale = float(wanted.abs().max())
    assert scale > 0
    torch.testing.assert_close(found, wanted, rtol=0, atol=TOLERANCE[found.dtype] * scale)


def compare_density(l_max: int, dtype: torch.dtype) -> None:
    """Value, gradient in the displacements, and the gradient of a function of that gradient."""
    d, neighbor_types = sample(basis(l_max), dtype)
    generator = torch.Generator().manual_seed(2)
    q, v = None, torch.randn(d.shape, generator=generator).to(dtype)
    results = []
    for build in (density, reference_density):
        x = d.clone().requires_grad_()
        rho = build(x, neighbor_types, basis(l_max), 3)
        if q is None:
            q = torch.randn(rho.shape, generator=generator).to(dtype).requires_grad_()
        (g,) = torch.autograd.grad((rho * q).sum(), x, create_graph=True)
        (back,) = torch.autograd.grad((g * v).sum(), q)
        results.append((rho.detach(), g.detach(), back))
    for found, wanted in zip(*results, strict=True):
        assert_close(found, wanted)


def compare_spectrum(l_max: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    a0 = torch.randn(5, (l_max + 1) ** 2, 7, generator=generator).to(dtype)
    results = []
    for contract in (power_spectrum, reference_power_spectrum):
        a = a0.clone().requires_grad_()
        scale = torch.ones((), dtype=dtype, requires_grad=True)
        d = contract(a * scale, l_max, 3)
        energy = d.sin().sum()
        (g,) = torch.autograd.grad(energy, a, create_graph=True)
        second = torch.autograd.grad(g.square().sum(), [a, scale])
        results.append((d.detach(), g.detach(), *second))
    for found, wanted in zip(*results, strict=True):
        assert_close(found, wanted)


@pytest.mark.parametrize("l_max", range(5))
def test_loops_are_the_plain_definitions_for_every_l(l_max: int):
    compare_density(l_max, torch.float64)
    compare_spectrum(l_max, torch.float64)


def test_loops_are_the_plain_definitions_in_single_precision():
    compare_density(3, torch.float32)
    compare_spectrum(3, torch.float32)


@pytest.mark.slow  # minutes of compiling
@pytest.mark.parametrize("l_max", [0, 1, 2, 4])
def test_loops_are_the_plain_definitions_in_single_precision_for_every_l(l_max: int):
    compare_density(l_max, torch.float32)
    compare_spectrum(l_max, torch.float32)


def test_a_distance_just_below_any_cutoff_stays_inside_its_splines():
    """(r - first) / spacing may be rounded up to the next knot, which has no splines."""
    for cutoff, n in itertools.product(np.arange(0.5, 0.81, 0.01), (8, 20)):
        of = Basis(0, n, 0.22, float(cutoff), 0.3)
        d = torch.zeros(1, 1, 1, 3)
        d[..., 2] = math.nextafter(cutoff, 0)
        rho = density(d, torch.zeros(1, 1, 1, dtype=torch.long), of, 1)
        assert float(rho.abs().max()) < 1e-14  # the rounding of the switch


def test_harmonics_obey_the_addition_theorem():
    generator = torch.Generator().manual_seed(4)
    u = torch.randn(2, 50, 3, generator=generator)
    a, b = u / u.norm(dim=-1, keepdim=True)
    parts = zip(*(harmonics(w, 4).split([1, 3, 5, 7, 9], dim=-1) for w in (a, b)), strict=True)
    for l, (ya, yb) in enumerate(parts):
        wanted = eval_legendre(l, (a * b).sum(-1).numpy())
        np.testing.assert_allclose((ya * yb).sum(-1), wanted, atol=1e-13)


def test_harmonics_are_orthogonal():
    """By a quadrature that is exact for products of two l = 4: 5 x 9 points."""
    z, weight = np.polynomial.legendre.leggauss(5)
    phi = 2 * np.pi * np.arange(9) / 9
    rho = np.sqrt(1 - z**2)[:, None]
    x, y = rho * np.cos(phi), rho * np.sin(phi)
    u = np.stack([x, y, np.broadcast_to(z[:, None], x.shape)], axis=-1)
    rows = harmonics(torch.from_numpy(u), 4).numpy()
    overlap = np.einsum("ijm,ijn,i->mn", rows, rows, weight / 2 / 9)
    norms = np.concatenate([[1 / (2 * l + 1)] * (2 * l + 1) for l in range(5)])
    np.testing.assert_allclose(overlap, np.diag(norms), atol=1e-14)


def test_fewer_harmonics_are_the_first_of_more():
    u = torch.nn.functional.normalize(torch.randn(9, 3), dim=-1)
    full = harmonics(u, 4)
    assert torch.equal(full[:, :4], torch.cat([torch.ones(9, 1), u], dim=1))
    for l_max in range(4):
        assert torch.equal(harmonics(u, l_max), full[:, : (l_max + 1) ** 2])


def test_splines_sum_to_the_switch_from_the_second_knot_on():
    of = basis(0)
    r = torch.linspace(of.first + of.spacing, of.cutoff, 101)
    total = splines(r, of).sum(-1)
    torch.testing.assert_close(total, switch(r, of.switch_on, of.cutoff), rtol=0, atol=1e-14)


def test_the_spectrum_does_not_see_rotations():
    of = basis(4)
    d, neighbor_types = sample(of, torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(5)))
    found = [
        reference_power_spectrum(reference_density(x, neighbor_types, of, 3).flatten(0, 1), 4, 3)
        for x in (d, d @ turn)
    ]
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-12 * float(found[0].abs().max()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_a_loss_on_forces_has_the_same_gradient_by_loops_and_plainly(dtype: torch.dtype):
    generator = torch.Generator().manual_seed(6)
    positions = (torch.rand(2, 20, 3, generator=generator) * 1.0).to(dtype)
    types = torch.arange(20) % 2
    gradients = []
    for plain in (False, True):
        torch.manual_seed(7)
        network = DeepPotSEL(0.6, 2, channels=7, axis=3, plain=plain).to(dtype)
        network.standardize(neighbors(positions, None, 0.6), types)
        potential = NetworkPotential([network], 0.6, types)
        energy, forces = energy_and_forces(potential, positions, None, create_graph=True)
        loss = (forces - 1).square().mean() + energy.mean()
        gradients.append(torch.autograd.grad(loss, list(network.parameters())))
    # in float32 what is summed over beads cancels partly: ten times the rounding of a value
    scale = {torch.float64: 1e-11, torch.float32: 2e-4}[dtype]
    for found, wanted in zip(*gradients, strict=True):
        atol = scale * float(wanted.abs().max())
        torch.testing.assert_close(found, wanted, rtol=0, atol=atol)


def test_second_derivatives_in_positions_need_the_plain_definitions():
    """The loops say NaN instead of something wrong; ``plain`` gives the Hessian."""
    torch.manual_seed(8)
    fused = DeepPotSEL(0.6, 1, channels=7, axis=3)
    plain = DeepPotSEL(0.6, 1, channels=7, axis=3, plain=True)
    plain.load_state_dict(fused.state_dict())
    types = torch.zeros(4, dtype=torch.long)
    positions = 0.3 * torch.rand(1, 4, 3, generator=torch.Generator().manual_seed(9))

    def hessian(network: DeepPotSEL) -> Tensor:
        potential = NetworkPotential([network], 0.6, types)
        found = torch.autograd.functional.hessian(lambda x: potential(x, None).sum(), positions)
        assert isinstance(found, Tensor)
        return found.reshape(12, 12)

    assert torch.isnan(hessian(fused)).all()
    wanted = hessian(plain)
    h = 1e-5  # splines are only C2: an error of about (h / 0.02 nm)^2 in the slope of forces
    columns = []
    for k in range(12):
        step = torch.zeros(12)
        step[k] = h
        moved = [positions + sign * step.view(1, 4, 3) for sign in (-1, 1)]
        potential = NetworkPotential([fused], 0.6, types)
        low, high = (energy_and_forces(potential, x, None)[1].flatten() for x in moved)
        columns.append((low - high) / (2 * h))
    torch.testing.assert_close(
        torch.stack(columns), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max())
    )
