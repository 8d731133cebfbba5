"""Weights laid out for ``fused_loops.py``, and the call of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from deepcg.compute.threads import use_torch_threads
from deepcg.networks.deeppot_se_l.bispectrum import Products, tables
from deepcg.networks.deeppot_se_l.density_loops import MARGIN, Basis
from deepcg.networks.deeppot_se_l.fused_loops import energies_and_pulls
from deepcg.networks.fitting import Groups, Layer, Numbers, PackedNets, layers_of, pack_nets, strips
from deepcg.networks.layers import FirstLayer, Perceptron


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """All numbers of a ``DeepPotSEL``, as the loop reads them.

    Parameters
    ----------
    mix, unmix
        (types, some), of splines into channels and of channels into splines; see
        ``fitting.strips``.
    offset
        (types, channels), taken off the mixed l = 0.
    fitting
        The fitting nets, whose first layers take what is not standardized yet.
    """

    mix: Numbers
    unmix: Numbers
    offset: Numbers
    fitting: PackedNets


def pack(
    mix: Tensor,
    offset: Tensor,
    n_splines: int,
    first_layers: Sequence[FirstLayer],
    nets: Sequence[Perceptron],
) -> Packed:
    """Lay out weights: mix (sides, splines of all types, channels), offset (types, channels).

    ``first_layers`` are those of the fitting nets ``nets``, by type.
    """
    n_types, (sides, _, n) = len(nets), mix.shape
    by_type = mix.view(sides, -1, n_splines, n)
    margin = by_type.new_zeros(sides, by_type.shape[1], MARGIN, n)
    mix = torch.cat([margin, by_type], dim=2).flatten(1, 2)  # the loop's rows have margins
    ways = [strips(side.T) for side in mix], [strips(side) for side in mix]
    there, back = (np.stack([way[min(t, sides - 1)] for t in range(n_types)]) for way in ways)
    fitted = pack_nets(_entered(*one) for one in zip(first_layers, nets, strict=True))
    return Packed(there, back, offset.numpy(), fitted)


def run(
    packed: Packed,
    groups: Groups,
    displacement: Tensor,
    neighbor_types: Tensor,
    basis: Basis,
    axis: int,
    triples: int,
    which: Products,
) -> tuple[Tensor, Tensor]:
    """Return bead energies (frames, beads) and dU/dr_ij, shaped as the displacements."""
    use_torch_threads()
    energy = displacement.new_empty(displacement.shape[:2])
    gradients = torch.empty_like(displacement)
    energies_and_pulls(
        displacement.numpy(),
        neighbor_types.numpy(),
        basis.numbers,
        basis.n_harmonics,
        *groups,
        (packed.offset.shape[1], axis, triples),
        (packed.mix, packed.unmix, packed.offset),
        packed.fitting.arrays,
        tables(which, displacement),
        energy.numpy(),
        gradients.numpy(),
    )
    return energy, gradients


def _entered(first_layer: FirstLayer, net: Perceptron) -> tuple[list[Layer], nn.Linear]:
    """Return the layers of a fitting net behind another first layer."""
    (first, *others), last = layers_of(net)
    weight = torch.cat(list(first_layer.weights), dim=1)
    return [Layer(weight, first_layer.bias, first.factor, 0), *others], last
