"""From the features of DeepPot-SE to energies: D = F F_<^T, then a fitting net for every type."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from deepcg.networks.base import Perceptron
from deepcg.networks.kinds import ByKind, joined


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


@torch.no_grad()
def energies_and_slopes(
    features: Tensor, types: Tensor, fitting: Iterable[nn.Module], axis: int
) -> tuple[Tensor, Tensor]:
    """Return what ``energies_of`` does, and its gradient in F, without autograd."""
    nets = [net for net in fitting if isinstance(net, Perceptron)]
    some = features[:, :, :axis]
    descriptor = (features.mT @ some).flatten(1)
    kinds = ByKind(types, len(nets), len(descriptor) // len(types))
    rows = kinds.rows(descriptor.view(*kinds.shape, -1))
    parts = zip(rows.split(kinds.counts), nets, strict=True)
    energies, by_kind = zip(*(net.values_and_slopes(part) for part, net in parts), strict=True)
    back = kinds.restored(joined(by_kind)).reshape(len(features), features.shape[2], axis)
    slopes = some @ back.mT
    slopes[:, :, :axis] += features @ back
    return kinds.restored(joined(energies)), slopes
