"""The way back from energies to densities without autograd, for sampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deepcg.networks.base import Entrance, Perceptron
from deepcg.networks.bispectrum import products_of, threefold_adjoint
from deepcg.networks.density import contracted


def energies_and_slopes(
    invariants: Sequence[Tensor], entrance: Entrance, net: Perceptron
) -> tuple[Tensor, list[Tensor]]:
    """Return the energies (beads,) of beads of one type, and their slopes in the invariants."""
    hidden = entrance(invariants)
    with torch.enable_grad():
        moved = hidden.requires_grad_()
        energies = net.beyond(moved)
        (slope,) = torch.autograd.grad(energies.sum(), moved)
    return energies.detach(), [slope @ weight for weight in entrance.weights]


def slopes_of_densities(
    a: Tensor, slopes: Sequence[Tensor], l_max: int, axis: int, triples: int
) -> Tensor:
    """Return the slopes in A (beads, harmonics, channels) from those in its invariants.

    The invariants are A_0, D_l and, if there are any, products of three, as in ``DeepPotSEL``.
    """
    linear, pairs, *threes = slopes
    back = contracted(a, pairs.view(len(a), l_max + 1, axis, a.shape[2]), l_max, axis)
    back[:, 0] += linear
    for three in threes:
        some = a[:, :, :triples]
        back[:, :, :triples] += threefold_adjoint(three, some, some, products_of(l_max, triples))
    return back
