"""The bispectrum: its coefficients, its invariance, what it sees, and its fused loops."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from deepcg.networks import DeepPotSEL
from deepcg.networks.deeppot_se_l.bispectrum import (
    COUPLINGS,
    bispectrum,
    gaunt,
    products_of,
    reference_bispectrum,
)
from deepcg.networks.deeppot_se_l.density import harmonics, reference_power_spectrum

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}  # of the largest value; rounding only


def densities(n_beads: int, n: int, l_max: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(n_beads)
    return torch.randn(n_beads, (l_max + 1) ** 2, n, generator=generator, dtype=dtype)


def environment(u: Tensor, weights: Tensor) -> Tensor:
    """Return the density (1, harmonics, channels) of neighbors in directions u (n, 3)."""
    return torch.einsum("jc,jn->cn", harmonics(u, 3), weights)[None]


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_coefficients_couple_harmonics_as_their_products_do(coupling):
    table = gaunt(coupling)
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    y = harmonics(u / u.norm(dim=1, keepdim=True), 4)
    l1, l2, l3 = (y[:, l * l : (l + 1) ** 2] for l in coupling)
    # sum_m1m2m3 table Y Y Y of one direction is a rotation invariant of it: a constant
    value = torch.einsum("ua,ub,uc,abc->u", l1, l2, l3, table)
    torch.testing.assert_close(value, value[:1].expand(4000), rtol=1e-11, atol=0)
    assert value[0] > 0.1
    assert float(table.norm()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("build", [bispectrum, reference_bispectrum])
def test_rotations_reflections_and_inversion_change_nothing(build):
    generator = torch.Generator().manual_seed(1)
    u = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    u = u / u.norm(dim=1, keepdim=True)
    weights = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    turn = torch.tensor(Rotation.random(random_state=2).as_matrix())
    before = build(environment(u, weights), 3)
    for changed in (u @ turn, -u, u @ turn * torch.tensor([1.0, 1.0, -1.0])):
        after = build(environment(changed, weights), 3)
        torch.testing.assert_close(after, before, rtol=1e-11, atol=1e-11)


def test_products_are_all_different_and_complete():
    # (1,1,2): 6 x 3, (2,2,2): 10, (1,2,3): 27, (2,3,3): 6 x 3 for three channels
    assert products_of(3, 3).n_columns == 18 + 10 + 27 + 18
    assert products_of(2, 3).n_columns == 28
    assert products_of(1, 3).n_columns == 0
    assert products_of(3, 0).n_columns == 0
    a = densities(400, 2)
    b = reference_bispectrum(a, 3)
    assert torch.linalg.matrix_rank(b) == b.shape[1]


def test_it_tells_apart_what_the_power_spectrum_cannot():
    """Two sets of neighbors with the same pairs of angles, but other triangles."""
    # on a ring of 8 places these have the same set of differences, and are no mirror images
    homometric = (torch.tensor([0, 1, 3, 4]), torch.tensor([0, 1, 2, 5]))
    rings = []
    for places in homometric:
        phi = places.double() * (2 * torch.pi / 8)
        u = torch.stack([phi.cos(), phi.sin(), 0 * phi], dim=1)
        rings.append(environment(u, torch.ones(4, 1, dtype=torch.float64)))
    power = [reference_power_spectrum(a, 3, 1) for a in rings]
    torch.testing.assert_close(power[0], power[1], rtol=1e-12, atol=1e-12)
    triples = [reference_bispectrum(a, 3) for a in rings]
    assert (triples[0] - triples[1]).abs().max() > 0.01 * triples[0].abs().max()


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("n_beads", "n", "l_max"), [(1, 4, 3), (131, 3, 3), (70, 4, 2), (5, 2, 4)])
def test_fused_loops_give_the_definition_and_its_derivatives(n_beads, n, l_max, dtype):
    a = densities(n_beads, n, l_max, dtype).requires_grad_()
    v = densities(n_beads + 1, n, l_max, dtype)[:n_beads]
    g = torch.ones(n_beads, products_of(l_max, n).n_columns, dtype=dtype)
    g = (g + 0.1 * torch.arange(g.shape[1])).to(dtype).requires_grad_()

    def values(build) -> list[Tensor]:
        b = build(a, l_max)
        (slope,) = torch.autograd.grad((b * g).sum(), a, create_graph=True)
        return [b, slope, *torch.autograd.grad((slope * v).sum(), (a, g))]

    for fused, plain in zip(values(bispectrum), values(reference_bispectrum), strict=True):
        scale = float(plain.detach().abs().max())
        torch.testing.assert_close(fused, plain, rtol=0, atol=TOLERANCE[dtype] * scale)


def test_a_network_without_triples_has_no_new_weights():
    none, some = (DeepPotSEL(0.6, 1, triples=n) for n in (0, 3))
    width = none.get_buffer("feature_mean").shape[1]
    assert some.get_buffer("feature_mean").shape[1] == width + products_of(3, 3).n_columns
    assert none.radial.shape == some.radial.shape


def test_all_couplings_are_even_and_close_a_triangle():
    for l1, l2, l3 in COUPLINGS:
        assert (l1 + l2 + l3) % 2 == 0
        assert abs(l1 - l2) <= l3 <= l1 + l2
    assert len(set(COUPLINGS)) == len(COUPLINGS)
    assert all(list(c) == sorted(c) for c in COUPLINGS)
