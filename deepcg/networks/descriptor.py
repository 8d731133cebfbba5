"""From the features F of DeepPot-SE to energies: products of F's columns, then a fitting net."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepcg.networks import product_loops
from deepcg.networks.base import Perceptron
from deepcg.networks.density import run_loop
from deepcg.networks.kinds import ByKind, joined


@dataclass(frozen=True, slots=True)
class Products:
    """Which products D_ab = sum_c F_ca F_cb of the columns of F (4, channels) there are.

    Parameters
    ----------
    channels, axis
        All a < channels with all b < axis.
    triangular
        Only those with b <= a: the rest are the same. The axis is as wide as F.
    """

    channels: int
    axis: int
    triangular: bool = False

    def __len__(self) -> int:
        """Return how many."""
        half = self.channels * (self.channels + 1) // 2
        return half if self.triangular else self.channels * self.axis

    def of(self, features: Tensor) -> Tensor:
        """Return D (beads, n) of F (beads, 4, channels), differentiable."""
        if not self.triangular:
            return (features.mT @ features[:, :, : self.axis]).flatten(1)
        first, second = torch.tril_indices(self.channels, self.channels)
        return (features.mT @ features)[:, first, second]


def energies_of(
    features: Tensor, types: Tensor, fitting: Iterable[nn.Module], products: Products
) -> Tensor:
    """Return bead energies (n_frames, n_beads), kJ/mol.

    Parameters
    ----------
    features
        F (n_frames * n_beads, 4, channels).
    types
        (n_beads,), integers from 0.
    fitting
        Nets from D to energies, for each type.
    products
        What D is made of.
    """
    nets, descriptor = list(fitting), products.of(features)
    kinds = ByKind(types, len(nets), len(descriptor) // len(types))
    rows = kinds.rows(descriptor.view(*kinds.shape, -1))
    return kinds.restored(kinds.each(lambda some, net: net(some), rows, nets))


@torch.no_grad()
def energies_and_slopes(
    features: Tensor,
    types: Tensor,
    fitting: Iterable[nn.Module],
    products: Products,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return what ``energies_of`` does, and ``scale`` times its gradient in F; on the CPU."""
    nets = [net for net in fitting if isinstance(net, Perceptron)]
    which = products.axis, products.triangular
    descriptor = features.new_empty(len(features), len(products))
    run_loop(product_loops.products, features, *which, descriptor)
    kinds = ByKind(types, len(nets), len(descriptor) // len(types))
    rows = kinds.rows(descriptor.view(*kinds.shape, -1))
    parts = zip(rows.split(kinds.counts), nets, strict=True)
    energies, by_kind = zip(*(net.values_and_slopes(part) for part, net in parts), strict=True)
    back = kinds.restored(joined(by_kind)).flatten(0, 1)
    slopes = torch.empty_like(features)
    run_loop(product_loops.products_back, features, back, *which, scale, slopes)
    return kinds.restored(joined(energies)), slopes
