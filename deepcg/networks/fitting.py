"""Fitting nets laid out for ``fitting_loops.py``, beads in groups for it, and the call of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcg.compute.simd import LANES
from deepcg.compute.threads import use_torch_threads
from deepcg.networks.fitting_loops import STRIP, energies_and_slopes
from deepcg.networks.layers import Perceptron, Residual

Numbers = NDArray[np.float32]
Groups = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, slots=True, eq=False)
class PackedNets:
    """The numbers of fitting nets of one shape, as the loops read them.

    Parameters
    ----------
    sizes
        (layers + 1,), inputs, and neurons of each hidden layer.
    repeats
        (layers,), how often a layer adds its input to what it makes.
    weights
        (types, some): of a layer, its weights, those of its way back and factors of what it makes.
    places
        (layers + 1, 3), where these three begin; last, the output's bias, followed by its weights.
    """

    sizes: NDArray[np.int64]
    repeats: NDArray[np.int64]
    weights: Numbers
    places: NDArray[np.int64]

    @property
    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Numbers, NDArray[np.int64]]:
        """All of it, in this order: (layers + 1,), (layers,), (types, some) and (layers + 1, 3)."""
        return self.sizes, self.repeats, self.weights, self.places


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer of a fitting net: factor * tanh(W x + b), with x added as often as it repeats."""

    weight: Tensor
    bias: Tensor
    factor: Tensor
    repeats: int


def layers_of(net: Perceptron) -> tuple[list[Layer], nn.Linear]:
    """Return the hidden layers of a net, and the one after them."""
    *hidden, last = (layer for layer in net.layers if not isinstance(layer, nn.Tanh))
    assert isinstance(last, nn.Linear)
    return [_layer(layer) for layer in hidden], last


def pack_nets(nets: Iterable[tuple[Sequence[Layer], nn.Linear]]) -> PackedNets:
    """Lay out nets of one shape, one for each type; see ``layers_of``."""
    packed = [_pack(layers, last) for layers, last in nets]
    first = packed[0]
    weights = np.concatenate([one.weights for one in packed])
    return PackedNets(first.sizes, first.repeats, weights, first.places)


def strips(weight: Tensor, bias: Tensor | None = None) -> Numbers:
    """Return a linear layer (outputs, inputs) in strips of outputs, the last filled with zeros.

    Of each strip the biases come first, then for every input the weights of all outputs.
    """
    n_out, n_in = weight.shape
    table = weight.new_zeros(-(-n_out // STRIP) * STRIP, n_in + 1)
    table[:n_out, 1:] = weight
    if bias is not None:
        table[:n_out, 0] = bias
    numbers: Numbers = table.view(-1, STRIP, n_in + 1).mT.flatten().numpy()
    return numbers


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


def fit_features(
    features: Tensor, groups: Groups, nets: PackedNets, which: tuple[int, bool], scale: float
) -> tuple[Tensor, Tensor]:
    """Return bead energies (beads,), kJ/mol, and ``scale`` times their gradient in F.

    Parameters
    ----------
    features
        F (beads, 4, channels), in single precision, on the CPU.
    which
        Axis of the products, and whether they are triangular; see ``descriptor.Products``.
    """
    use_torch_threads()
    energies, slopes = features.new_empty(len(features)), torch.empty_like(features)
    energies_and_slopes(
        features.numpy(), *groups, nets.arrays, *which, scale, energies.numpy(), slopes.numpy()
    )
    return energies, slopes


def _layer(layer: nn.Module) -> Layer:
    if isinstance(layer, Residual):
        of = layer.linear
        factor = torch.ones_like(of.bias) if layer.timestep is None else layer.timestep
        return Layer(of.weight, of.bias, factor, layer.repeats)
    assert isinstance(layer, nn.Linear)
    return Layer(layer.weight, layer.bias, torch.ones_like(layer.bias), 0)


def _pack(layers: Sequence[Layer], last: nn.Linear) -> PackedNets:
    parts: list[Numbers] = []
    places, at = [], 0
    for layer in layers:
        ways = strips(layer.weight, layer.bias), strips(layer.weight.T), layer.factor.numpy()
        places.append([at, at + len(ways[0]), at + len(ways[0]) + len(ways[1])])
        parts += ways
        at += sum(map(len, ways))
    parts.append(torch.cat([last.bias, last.weight[0]]).numpy())
    places.append([at] * 3)
    sizes = [layers[0].weight.shape[1], *(len(layer.weight) for layer in layers)]
    repeats = [layer.repeats for layer in layers]
    weights = np.concatenate(parts)[None]
    return PackedNets(np.array(sizes), np.array(repeats), weights, np.array(places))
