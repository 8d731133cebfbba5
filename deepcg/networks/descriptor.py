"""From the features of DeepPot-SE to energies: D = F F_<^T, then a fitting net for every type."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from deepcg.networks.kinds import ByKind


def energies_of(features: Tensor, types: Tensor, fitting: Iterable[nn.Module], axis: int) -> Tensor:
    """Return bead energies (n_frames, n_beads), kJ/mol.

    Parameters
    ----------
    features
        F (n_frames * n_beads, 4, channels).
    types
        (n_beads,), integers from 0.
    fitting
        Nets from D, flattened, to energies, for each type.
    axis
        Columns of F_<.
    """
    nets = list(fitting)
    descriptor = (features.mT @ features[:, :, :axis]).flatten(1)
    kinds = ByKind(types, len(nets), len(descriptor) // len(types))
    rows = kinds.rows(descriptor.view(*kinds.shape, -1))
    return kinds.restored(kinds.each(lambda some, net: net(some), rows, nets))


def energies_and_slopes(
    features: Tensor, types: Tensor, fitting: Iterable[nn.Module], axis: int
) -> tuple[Tensor, Tensor]:
    """Return what ``energies_of`` does, and its gradient in F, detached."""
    with torch.enable_grad():
        moved = features.detach().requires_grad_()
        energies = energies_of(moved, types, fitting, axis)
        (slopes,) = torch.autograd.grad(energies.sum(), moved)
    return energies.detach(), slopes
