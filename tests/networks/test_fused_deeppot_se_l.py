"""The compiled forces of ``DeepPotSEL`` in single precision, against its plain definition."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from deepcg.geometry.neighbor_list import Neighbors, PairList, neighbors
from deepcg.networks import DeepPotSEL
from deepcg.networks.fast_path import by_autograd

CUTOFF = 0.45


def environments(n_types: int, n_beads: int = 37) -> tuple[Neighbors, Tensor]:
    """Return two frames of beads, more than one group of them and not a whole number."""
    generator = torch.Generator().manual_seed(n_types)
    box = torch.diag(torch.tensor([1.1, 1.0, 1.2], dtype=torch.float64)).expand(2, 3, 3)
    x = torch.rand(2, n_beads, 3, generator=generator, dtype=torch.float64)
    types = torch.randint(n_types, (n_beads,), generator=generator)
    return neighbors(x, box, CUTOFF), types


def network(near: Neighbors, types: Tensor, n_types: int, **options: object) -> DeepPotSEL:
    torch.manual_seed(1)
    net = DeepPotSEL(CUTOFF, n_types, n_splines=7, first_knot=0.1, **options).double()
    net.standardize(near, types)
    return net


def plain(net: DeepPotSEL, near: Neighbors, types: Tensor) -> tuple[Tensor, Tensor]:
    """Return energies and pair gradients of the definition."""
    return by_autograd(net, near, types)


def single(near: Neighbors) -> Neighbors:
    return replace(near, displacement=near.displacement.float())


def fused(net: DeepPotSEL, near: Neighbors, types: Tensor) -> tuple[Tensor, Tensor]:
    return inferred(copy.deepcopy(net).float(), single(near), types)


def inferred(net: DeepPotSEL, near: Neighbors, types: Tensor) -> tuple[Tensor, Tensor]:
    path = net.fast_path(near.displacement)
    assert path is not None
    assert path.energies_and_pair_gradients is not None
    return path.energies_and_pair_gradients(near, types)


def rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


@pytest.mark.parametrize(
    ("n_types", "options"),
    [
        (1, {"l_max": 0, "channels": 5, "axis": 3, "fitting": (7,)}),
        (1, {"l_max": 1, "channels": 8, "fitting": (24, 24)}),
        (2, {"l_max": 2, "channels": 9, "axis": 2, "triples": 2, "fitting": (9, 5, 3)}),
        (3, {"l_max": 3, "channels": 16, "triples": 4, "two_sided": True}),
        (1, {"l_max": 3, "channels": 16, "triples": 0}),
        (2, {"l_max": 4, "channels": 17, "triples": 3, "two_sided": True, "fitting": (33, 8)}),
    ],
)
def test_compiled_forces_are_those_of_the_definition(n_types: int, options: dict) -> None:
    near, types = environments(n_types)
    net = network(near, types, n_types, **options)
    exact = plain(net, near, types)
    rounded = plain(copy.deepcopy(net).float(), single(near), types)
    for found, usual, wanted in zip(fused(net, near, types), rounded, exact, strict=True):
        # the hyperbolic tangent is good to 4e-7, and sums in another order round otherwise
        assert rms(found - wanted) < 3 * rms(usual - wanted) + 4e-7 * rms(wanted)
        assert rms(found - wanted) < 1e-4 * rms(wanted)


def test_in_double_precision_and_without_hidden_layers_there_is_only_autograd() -> None:
    near, types = environments(1)
    bare = network(near, types, 1, fitting=()).float()
    for net, like in ((network(near, types, 1), near), (bare, single(near))):
        path = net.fast_path(like.displacement)
        assert path is not None
        assert path.energies_and_pair_gradients is None


def test_beads_without_neighbors_have_an_energy_and_no_gradients() -> None:
    near, types = environments(1)
    net = network(near, types, 1)
    alone = replace(near, displacement=torch.full_like(near.displacement, 1.0))
    energy, _ = plain(net, alone, types)
    e, g = fused(net, alone, types)
    assert rms(e - energy) < 1e-5 * rms(energy)
    assert not g.any()


def test_types_looked_up_before_serve_the_plain_definition() -> None:
    near, types = environments(2)
    net = network(near, types, 2, plain=True)
    listed = PairList(near.index, torch.zeros_like(near.displacement), near.count)
    known = replace(near, kinds=listed.with_types(types).kinds)
    assert torch.equal(net(known, types), net(near, types))


def test_new_weights_are_noticed() -> None:
    near, types = environments(2)
    net = network(near, types, 2).float()
    near = single(near)
    before, _ = inferred(net, near, types)
    again, _ = inferred(net, near, types)
    assert torch.equal(before, again)
    other = network(environments(2)[0], types, 2, channels=16).float()
    with torch.no_grad():
        other.radial.mul_(1.5)
    net.load_state_dict(other.state_dict())
    after, _ = inferred(net, near, types)
    assert torch.equal(after, inferred(other, near, types)[0])
    assert not torch.equal(after, before)


def test_a_copy_does_not_take_what_was_made_of_the_original() -> None:
    near, types = environments(1)
    net = network(near, types, 1).float()
    near = single(near)
    before, _ = inferred(net, near, types)
    clone = copy.deepcopy(net)
    with torch.no_grad():
        clone.radial.mul_(1.5)
    after, _ = inferred(clone, near, types)
    assert not torch.equal(after, before)
    assert torch.equal(inferred(net, near, types)[0], before)
