"""Weights laid out for ``fused_loops.py``, and the call of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcg.networks.base import Entrance, Perceptron
from deepcg.networks.bispectrum import Products, tables
from deepcg.networks.fused_loops import STRIP, energies_and_pulls
from deepcg.networks.loops import MARGIN, Basis
from deepcg.threads import use_torch_threads
from deepcg.vectors import LANES

Numbers = NDArray[np.float32]
Groups = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """All numbers of a ``DeepPotSEL``, as the loop reads them.

    Parameters
    ----------
    mix, unmix
        (types, some), of splines into channels and of channels into splines: see ``_strips``.
    offset
        (types, channels), taken off the mixed l = 0.
    sizes
        (layers + 1,), inputs of the fitting nets, and neurons of each hidden layer.
    weights
        (types, some), of the fitting nets, layer after layer, each followed by its way back.
    places
        (layers + 1, 2), where the weights of a layer begin, and those of its way back.
    """

    mix: Numbers
    unmix: Numbers
    offset: Numbers
    sizes: NDArray[np.int64]
    weights: Numbers
    places: NDArray[np.int64]


def pack(
    mix: Tensor,
    offset: Tensor,
    n_splines: int,
    entrances: Sequence[Entrance],
    nets: Sequence[Perceptron],
) -> Packed:
    """Lay out weights: mix (sides, splines of all types, channels), offset (types, channels).

    ``entrances`` are the first layers of the fitting nets ``nets``, by type.
    """
    n_types, (sides, _, n) = len(nets), mix.shape
    by_type = mix.view(sides, -1, n_splines, n)
    margin = by_type.new_zeros(sides, by_type.shape[1], MARGIN, n)
    mix = torch.cat([margin, by_type], dim=2).flatten(1, 2)  # the loop's rows have margins
    ways = [_strips(side.T) for side in mix], [_strips(side) for side in mix]
    there, back = (np.stack([way[min(t, sides - 1)] for t in range(n_types)]) for way in ways)
    fitted = [_net(entrance, net) for entrance, net in zip(entrances, nets, strict=True)]
    _, sizes, places = fitted[0]
    weights = np.stack([numbers for numbers, _, _ in fitted])
    return Packed(there, back, offset.numpy(), sizes, weights, places)


def groups_of(types: Tensor, n_frames: int) -> Groups:
    """Return all beads of a batch in groups of LANES of one type, (groups, LANES), and the types.

    Where there are not enough for a group the last is repeated.
    """
    of = np.tile(types.numpy(), n_frames)
    groups, kinds = [], []
    for kind in np.unique(of):
        beads = np.flatnonzero(of == kind)
        missing = -len(beads) % LANES
        groups.append(np.concatenate([beads, np.repeat(beads[-1:], missing)]).reshape(-1, LANES))
        kinds.append(np.full(len(groups[-1]), kind))
    return np.concatenate(groups), np.concatenate(kinds)


def run(
    packed: Packed,
    groups: Groups,
    displacement: Tensor,
    species: Tensor,
    basis: Basis,
    axis: int,
    triples: int,
    which: Products,
) -> tuple[Tensor, Tensor]:
    """Return bead energies (frames, beads) and dU/dr_ij, shaped as the displacements."""
    use_torch_threads()
    energy, pulls = displacement.new_empty(displacement.shape[:2]), torch.empty_like(displacement)
    energies_and_pulls(
        displacement.numpy(),
        species.numpy(),
        basis.numbers,
        basis.n_harmonics,
        *groups,
        (packed.offset.shape[1], axis, triples),
        (packed.mix, packed.unmix, packed.offset),
        (packed.sizes, packed.weights, packed.places),
        tables(which, displacement),
        energy.numpy(),
        pulls.numpy(),
    )
    return energy, pulls


def _net(
    entrance: Entrance, net: Perceptron
) -> tuple[Numbers, NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of a fitting net, its sizes and where its layers begin."""
    layers = [layer for layer in net.layers if isinstance(layer, nn.Linear)]
    first = torch.cat(list(entrance.weights), dim=1)
    weights = [first, *(layer.weight for layer in layers[1:-1])]
    biases = [entrance.bias, *(layer.bias for layer in layers[1:-1])]
    last = layers[-1]
    parts: list[Numbers] = []
    places, at = [], 0
    for weight, bias in zip(weights, biases, strict=True):
        ways = _strips(weight, bias), _strips(weight.T)
        places.append([at, at + len(ways[0])])
        parts += ways
        at += sum(map(len, ways))
    parts.append(torch.cat([last.bias, last.weight[0]]).numpy())
    places.append([at, at])
    sizes = [first.shape[1], *(len(weight) for weight in weights)]
    return np.concatenate(parts), np.array(sizes), np.array(places)


def _strips(weight: Tensor, bias: Tensor | None = None) -> Numbers:
    """Return a linear layer (outputs, inputs) in strips of outputs, the last filled with zeros.

    Of each strip the biases come first, then for every input the weights of all outputs.
    """
    n_out, n_in = weight.shape
    table = weight.new_zeros(-(-n_out // STRIP) * STRIP, n_in + 1)
    table[:n_out, 1:] = weight
    if bias is not None:
        table[:n_out, 0] = bias
    strips: Numbers = table.view(-1, STRIP, n_in + 1).mT.flatten().numpy()
    return strips
