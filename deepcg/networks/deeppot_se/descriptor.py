"""From the features F of DeepPot-SE to energies: products of F's columns, then a fitting net."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from deepcg.compute.loops import run_loop
from deepcg.compute.tensor_cache import TensorCache
from deepcg.networks.by_type import ByType, joined
from deepcg.networks.deeppot_se import product_loops
from deepcg.networks.fitting import (
    Groups,
    PackedNets,
    fit_features,
    groups_of,
    layers_of,
    pack_nets,
)
from deepcg.networks.layers import Perceptron


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
    kinds = ByType(types, len(nets), len(descriptor) // len(types))
    rows = kinds.rows(descriptor.view(*kinds.shape, -1))
    return kinds.restored(kinds.each(lambda some, net: net(some), rows, nets))


@dataclass(frozen=True, slots=True, eq=False)
class Fitting:
    """Nets from products of F to energies, for as long as their weights rest; on the CPU.

    Parameters
    ----------
    nets
        For each type.
    products
        What they take.
    packed
        The same nets laid out for compiled loops; ``None`` where there are none.
    """

    nets: Sequence[Perceptron]
    products: Products
    packed: PackedNets | None
    _groups: TensorCache[Groups] = field(default_factory=TensorCache)

    @classmethod
    @torch.no_grad()
    def of(cls, nets: Iterable[nn.Module], products: Products) -> Fitting:
        """Return the nets, laid out where they have hidden layers and single precision."""
        some = [net for net in nets if isinstance(net, Perceptron)]
        single = next(some[0].parameters()).dtype == torch.float32
        packs = single and len(some[0].layers) > 1
        packed = pack_nets(layers_of(net) for net in some) if packs else None
        return cls(some, products, packed)

    @torch.no_grad()
    def energies_and_slopes(
        self, features: Tensor, types: Tensor, scale: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Return what ``energies_of`` does, and ``scale`` times its gradient in F.

        Energies (n_frames, n_beads), kJ/mol, and (n_frames * n_beads, 4, channels), kJ/mol.
        """
        which = self.products.axis, self.products.triangular
        n_frames = len(features) // len(types)
        if self.packed is not None:
            groups = self._groups.get([types], n_frames, lambda: groups_of(types, n_frames))
            energies, slopes = fit_features(features, groups, self.packed, which, scale)
            return energies.view(n_frames, -1), slopes
        descriptor = features.new_empty(len(features), len(self.products))
        run_loop(product_loops.products, features, *which, descriptor)
        kinds = ByType(types, len(self.nets), n_frames)
        rows = kinds.rows(descriptor.view(*kinds.shape, -1)).split(kinds.counts)
        parts = [net.values_and_slopes(part) for part, net in zip(rows, self.nets, strict=True)]
        by_energy, by_kind = zip(*parts, strict=True)
        back, slopes = kinds.restored(joined(by_kind)).flatten(0, 1), torch.empty_like(features)
        run_loop(product_loops.products_back, features, back, *which, scale, slopes)
        return kinds.restored(joined(by_energy)), slopes
