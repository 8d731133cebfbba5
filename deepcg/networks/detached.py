"""The way back through the contractions of densities without autograd, for sampling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepcg.networks.bispectrum import products_of, threefold_adjoint
from deepcg.networks.density import contracted
from deepcg.networks.kinds import ByKind


def energies_and_slopes(
    inputs: Tensor, fittings: nn.ModuleList, kinds: ByKind
) -> tuple[Tensor, Tensor]:
    """Return the energies (rows,) of inputs (rows, inputs), sorted by type, and their slopes."""
    with torch.enable_grad():
        moved = inputs.detach().requires_grad_()
        energies = kinds.each(lambda part, fitting: fitting(part), moved, fittings)
        (slopes,) = torch.autograd.grad(energies.sum(), moved)
    return energies.detach(), slopes


def slopes_of_densities(a: Tensor, slopes: Tensor, l_max: int, axis: int, triples: int) -> Tensor:
    """Return the slopes in A (rows, harmonics, channels) from those in its invariants.

    The invariants are A_0, D_l and the bispectrum, in the order of ``DeepPotSEL``: (rows,
    invariants).
    """
    channels = a.shape[2]
    before = channels * (1 + axis * (l_max + 1))
    pairs = slopes[:, channels:before].view(len(a), l_max + 1, axis, channels)
    back = contracted(a, pairs, l_max, axis)
    back[:, 0] += slopes[:, :channels]
    if triples:
        some, which = a[:, :, :triples], products_of(l_max, triples)
        back[:, :, :triples] += threefold_adjoint(slopes[:, before:], some, some, which)
    return back
