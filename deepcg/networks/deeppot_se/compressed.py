"""DeepPot-SE for inference: tables in place of its embedding nets, of as few columns as will do."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcg.compute.loops import run_loop
from deepcg.compute.simd import LANES
from deepcg.compute.tensor_cache import TensorCache
from deepcg.geometry.neighbor_list import Neighbors
from deepcg.networks.deeppot_se import table_loops
from deepcg.networks.deeppot_se.descriptor import Fitting, Products, energies_of
from deepcg.networks.deeppot_se.environment import (
    EnvironmentModule,
    at_infinity,
    reference_features,
)
from deepcg.networks.deeppot_se.low_rank import reduced, widths_of
from deepcg.networks.deeppot_se.model import DeepPotSE
from deepcg.networks.deeppot_se.tables import (
    DEGREE,
    Knots,
    evaluate,
    fitting_knots,
    packed,
    polynomials,
    unpacked,
)
from deepcg.networks.fast_path import FastPath, checked_path
from deepcg.networks.layers import Perceptron
from deepcg.runtime.errors import InputError

Numbers = NDArray[np.floating[Any]]


class CompressedDeepPotSE(EnvironmentModule):
    """DeepPot-SE whose G(s) are tables: what ``compressed`` makes of one that is trained.

    Parameters
    ----------
    cutoff, switch_on
        nm, as those of the network that it was made of.
    n_types
        Number of bead types.
    channels, axis, fitting, two_sided
        Width of G, and the rest as in ``DeepPotSE``.
    triangular
        Whether the fitting nets take each product of two columns once; see ``Products``.
    low, high, intervals
        Where tables begin and end, in standardized s, and intervals of each.
    plain
        Have no fast path.
    """

    def __init__(
        self,
        cutoff: float,
        n_types: int,
        *,
        channels: int,
        axis: int,
        fitting: Sequence[int],
        low: float,
        high: float,
        intervals: int,
        triangular: bool = False,
        two_sided: bool = False,
        switch_on: float = 0.05,
        plain: bool = False,
    ) -> None:
        super().__init__(cutoff, switch_on, two_sided, torch.ones(n_types), plain)
        self.channels = channels
        self.products = Products(channels, axis, triangular)
        self.knots = Knots(low, high, intervals)
        self.fitting = nn.ModuleList(
            Perceptron(len(self.products), fitting, residual=True) for _ in range(n_types)
        ).requires_grad_(False)
        n_nets, n_blocks = n_types ** (1 + two_sided), -(-channels // LANES)
        shape = n_nets, self.knots.rows, n_blocks, DEGREE + 1, LANES
        self.register_buffer("table", torch.zeros(shape))
        self.register_buffer("far", torch.zeros(n_types, n_types, channels))
        self._kept: TensorCache[Fitting] = TensorCache()

    def forward(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        """Return bead energies (n_frames, n_beads), kJ/mol: the definition.

        Raises
        ------
        InputError
            The weights are to be trained.
        """
        if any(p.requires_grad for p in self.fitting.parameters()):
            raise InputError(
                "a compressed network is for inference: train the one that it was made of"
            )
        features = reference_features(neighbors, types, self.scales, self._embed)
        return energies_of(features, types, self.fitting, self.products)

    def fast_path(self, like: Tensor) -> FastPath | None:
        """Return compiled loops, for inference, if ``like``, of any shape, is on the CPU."""
        if self.plain or like.device.type != "cpu":
            return None
        return checked_path(self.n_types, self, self._energies_and_pair_gradients)

    @torch.no_grad()
    def _energies_and_pair_gradients(
        self, neighbors: Neighbors, types: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return bead energies and dU/dr_ij (n_frames, n_beads, width, 3), kJ/mol/nm."""
        d = neighbors.displacement.detach()
        neighbor_types = neighbors.neighbor_types(types).to(torch.int32)
        known = d, neighbor_types, types, self._scales, self._tables
        features = d.new_empty(d.shape[0] * d.shape[1], 4, self.channels)
        run_loop(table_loops.features, *known, features)
        fitting = self._kept.get(list(self.fitting.parameters()), 0, self._packed)
        energies, slopes = fitting.energies_and_slopes(features, types)
        gradients = d.new_empty(d.shape)
        run_loop(table_loops.pair_gradients, *known, slopes, gradients.flatten(0, 1))
        return energies, gradients

    def _packed(self) -> Fitting:
        return Fitting.of(self.fitting, self.products)

    @property
    def options(self) -> dict[str, Any]:
        """What ``__init__`` takes beside cutoff and types."""
        return {
            "channels": self.channels,
            "axis": self.products.axis,
            "triangular": self.products.triangular,
            "fitting": widths_of(self.fitting[0]),
            "low": self.knots.low,
            "high": self.knots.high,
            "intervals": self.knots.intervals,
            "two_sided": self.two_sided,
            "switch_on": self.switch_on,
        }

    @property
    def _scales(self) -> tuple[Numbers, Numbers, Numbers, float, float, int]:
        """What the loops need to know of s and R."""
        mean, spread, slots = (self.get_buffer(n).numpy() for n in ("mean", "spread", "slots"))
        two_sided = self.n_types * self.two_sided
        return mean, spread, slots, self.switch_on, self.cutoff, two_sided

    @property
    def _tables(self) -> tuple[Numbers, tuple[float, float, int, int], Numbers]:
        """What the loops need to know of the tables."""
        table, far = self.get_buffer("table"), self.get_buffer("far")
        stride = table.shape[2] * (DEGREE + 1) * LANES
        numbers = self.knots.low, 1 / self.knots.width, self.knots.rows, stride
        return table.numpy().reshape(-1), numbers, far.numpy()

    def _embed(self, net: int, s: Tensor) -> Tensor:
        return evaluate(unpacked(self.get_buffer("table")[net], self.channels), self.knots, s)


@torch.no_grad()
def compressed(
    network: DeepPotSE, closest: float, accuracy: float
) -> tuple[CompressedDeepPotSE, float]:
    """Return a network with tables, and the largest relative error of their slopes.

    Tables are made in double precision, and kept in that of the network.

    Parameters
    ----------
    network
        What to compress.
    closest
        nm, the distance to which tables reach: nearer, G is a straight line in s.
    accuracy
        Largest error of dG/ds, over the largest dG/ds, that is allowed.

    Raises
    ------
    InputError
        The accuracy cannot be reached.
    """
    scales, like = network.scales, network.get_buffer("mean")
    nets = copy.deepcopy(network.embeddings).double()
    low, high = float(scales.infinity.min()), float(scales.at(closest).max())
    knots, error = fitting_knots(list(nets), low, high, accuracy)
    fewer = reduced(list(nets), list(network.fitting), network.axis, (low, high), accuracy)
    tables = [polynomials(net, knots) for net in nets]
    if fewer:
        error, tables = max(error, fewer.error), [table @ fewer.basis for table in tables]
    products = fewer.products if fewer else Products(network.channels, network.axis)
    small = CompressedDeepPotSE(
        network.cutoff,
        network.n_types,
        channels=products.channels,
        axis=products.axis,
        triangular=products.triangular,
        fitting=widths_of(network.fitting[0]),
        low=low,
        high=high,
        intervals=knots.intervals,
        two_sided=network.two_sided,
        switch_on=network.switch_on,
        plain=network.plain,
    ).to(like)
    small.fitting.load_state_dict((fewer or network).fitting.state_dict())
    for name in ("mean", "spread", "slots"):
        small.get_buffer(name).copy_(network.get_buffer(name))
    small.get_buffer("table").copy_(torch.stack([packed(table) for table in tables]))
    small.get_buffer("far").copy_(at_infinity(scales, small._embed))
    return small, error
