"""DeepPot-SE shares what twins see, and needs few channels: both change nothing but the time."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from deepcg.geometry.neighbor_list import Neighbors, neighbors
from deepcg.networks import DeepPotSE
from deepcg.networks.deeppot_se.descriptor import Products
from deepcg.networks.deeppot_se.inference import CLOSEST
from deepcg.networks.deeppot_se.low_rank import basis_of, reduced
from deepcg.networks.deeppot_se.pair_features import Pairs, Rows
from deepcg.networks.deeppot_se.tables import derivatives
from deepcg.potentials.beads import NetworkPotential

CUTOFF, N = 0.55, 27
BOX = torch.tensor([[1.2, 0, 0], [0.15, 1.2, 0], [-0.2, 0.1, 1.2]], dtype=torch.float64)


def beads() -> Tensor:
    """A jittered lattice of 27 beads, nm, in two frames."""
    generator = torch.Generator().manual_seed(3)
    grid = 0.4 * torch.cartesian_prod(*[torch.arange(3.0)] * 3).double()
    return grid + 0.12 * torch.rand(2, N, 3, generator=generator, dtype=torch.float64)


def environments(dtype: torch.dtype, cutoff: float = CUTOFF + 0.03) -> Neighbors:
    return neighbors(beads().to(dtype), BOX.to(dtype).expand(2, 3, 3), cutoff)


def network(dtype: torch.dtype, n_types: int = 1, two_sided: bool = False) -> DeepPotSE:
    torch.manual_seed(1)
    made = DeepPotSE(
        CUTOFF, n_types, embedding=(16, 32, 64), axis=24, fitting=(40, 40), two_sided=two_sided
    ).to(dtype)
    made.standardize(environments(dtype), torch.arange(N) % n_types)
    return made


def difference(found: Tensor, wanted: Tensor) -> float:
    """Return the rms difference over the rms."""
    return float((found - wanted).double().square().mean().sqrt() / wanted.double().std())


@pytest.mark.parametrize("n_types", [1, 2])
def test_twins_are_the_pairs_of_one_type_the_other_way(n_types: int):
    types, dtype = torch.arange(N) % n_types, torch.float32
    whole = network(dtype, n_types)
    near = environments(dtype)
    pairs = Pairs.within(near, types, whole.scales)
    where = Rows.of(pairs, near, types, n_types)
    owner = torch.repeat_interleave(torch.arange(len(pairs.counts)), pairs.counts.sum(1))
    alike = types[owner % len(types)] == types[where.others % len(types)]
    has = where.reverse_pairs >= 0
    assert bool((has == alike).all())
    assert bool(alike.any())
    mine, its = torch.arange(len(owner))[has], where.reverse_pairs[has]
    assert bool((where.reverse_pairs[its] == mine).all())
    assert bool((owner[its] == where.others[has]).all())
    assert bool((where.rows[its] == where.rows[has]).all())
    d = near.displacement.flatten(0, 1)[owner, pairs.slots]
    assert float((d[mine] + d[its]).abs().max()) < 1e-5
    n_rows = int((~has).sum() + has.sum() // 2)
    assert sum(len(s) for s in where.s) == n_rows
    assert bool((where.rows.bincount(minlength=n_rows) > 0).all())
    torch.testing.assert_close(torch.cat(where.s)[where.rows], pairs.geometry[:, 0])


@pytest.mark.parametrize(("n_types", "two_sided"), [(1, False), (2, False), (2, True)])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 3e-6), (torch.float64, 1e-11)])
def test_few_channels_give_the_forces_of_the_definition(
    n_types: int, two_sided: bool, dtype: torch.dtype, limit: float
):
    types = torch.arange(N) % n_types
    whole = network(dtype, n_types, two_sided)
    exact = copy.deepcopy(whole).double()
    exact.plain = True
    near = environments(dtype)
    # four nets of other scales, or 13 digits of two, need too many channels
    fewer = n_types == 1 or (dtype == torch.float32 and not two_sided)
    assert (whole._ways.few is not None) == fewer
    energy, pulled = NetworkPotential([whole], CUTOFF, types).forces(near)
    wanted_energy, wanted = NetworkPotential([exact], CUTOFF, types).forces(
        environments(torch.float64)
    )
    assert difference(pulled, wanted) < limit
    torch.testing.assert_close(energy.double(), wanted_energy, rtol=limit, atol=0)


def test_nearer_beads_have_all_channels():
    """Channels that are few enough to hold far away would be too few where nobody looked."""
    whole = network(torch.float64)
    ways, mean = whole._ways, whole.scales.at(0.3)
    assert ways.at([mean]) is ways.few
    assert ways.at([mean, whole.scales.at(0.9 * CLOSEST)]) is ways.whole
    positions = torch.tensor([[[0.0, 0, 0], [0.3 * CLOSEST, 0, 0], [0.3, 0.1, 0]]]).double()
    types = torch.zeros(3, dtype=torch.long)
    near = neighbors(positions, None, CUTOFF)
    _, found = NetworkPotential([whole], CUTOFF, types).forces(near)
    whole.plain = True
    _, wanted = NetworkPotential([whole], CUTOFF, types).forces(near)
    assert difference(found, wanted) < 1e-12


def test_changed_weights_are_looked_at_anew():
    whole = network(torch.float64)
    before = whole._ways
    assert whole._ways is before
    with torch.no_grad():
        next(iter(whole.parameters())).mul_(1.1)
    assert whole._ways is not before


def test_a_basis_is_as_small_as_its_accuracy_allows():
    nets = list(network(torch.float64, 2).embeddings.requires_grad_(False))
    loose, loosely = basis_of(nets, -1.0, 3.0, 1e-3)
    tight, tightly = basis_of(nets, -1.0, 3.0, 1e-7)
    assert loose.shape[1] < tight.shape[1] < 64
    assert 1e-7 < loosely < 1e-3
    assert 0 < tightly < 1e-7
    torch.testing.assert_close(tight.T @ tight, torch.eye(tight.shape[1], dtype=torch.float64))
    s = torch.linspace(-0.9, 2.9, 77, dtype=torch.float64)
    for net in nets:
        for g in derivatives(net, s)[:2]:
            assert float((g @ tight @ tight.T - g).abs().max() / g.abs().max()) < 1e-6


def test_triangles_of_products():
    f = torch.rand(5, 4, 7, dtype=torch.float64)
    whole, half = Products(7, 7).of(f), Products(7, 7, triangular=True).of(f)
    assert half.shape == (5, len(Products(7, 7, triangular=True)))
    first, second = torch.tril_indices(7, 7)
    torch.testing.assert_close(half, whole.view(5, 7, 7)[:, first, second])


def test_what_cannot_be_reduced_is_left():
    torch.manual_seed(0)
    embedding, ends = (4, 8), (-1.0, 3.0)
    # of 16 products none are saved, and of 8 x 3 the sums are added to the first layer's outputs
    for axis, fitting in ((2, (20, 20)), (3, (24, 24))):
        made = DeepPotSE(CUTOFF, 1, embedding=embedding, axis=axis, fitting=fitting).double()
        assert reduced(list(made.embeddings), list(made.fitting), axis, ends, 1e-12) is None
