"""How DeepPot-SE is evaluated while its weights rest: in as few channels as rounding allows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from deepcg.compute.loops import run_loop
from deepcg.compute.onednn import linear
from deepcg.compute.simd import LANES
from deepcg.geometry.neighbor_list import Neighbors
from deepcg.networks.deeppot_se import pair_loops
from deepcg.networks.deeppot_se.descriptor import Fitting
from deepcg.networks.deeppot_se.environment import Scales
from deepcg.networks.deeppot_se.low_rank import reduced
from deepcg.networks.deeppot_se.pair_features import (
    Embedded,
    Pairs,
    features_of,
    pair_gradients_of_features,
)

CLOSEST = 0.05
"""nm, to which channels are reduced; where beads are nearer than that, they are not."""

LEAST = 1e-13
"""What singular vectors in double precision can be asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationPath:
    """From G and its slopes to energies and forces.

    Parameters
    ----------
    basis
        (channels, k), ``None`` of all channels; k with columns of zeros fills vectors.
    fitting
        Nets from products of columns of the features.
    far
        What neighbors at infinity add, see ``environment.at_infinity``.
    """

    basis: Tensor | None
    fitting: Fitting
    far: Tensor

    def energies_and_slopes(
        self, features: Tensor, pairs: Pairs, types: Tensor, scales: Scales
    ) -> tuple[Tensor, Tensor]:
        """Return bead energies and their gradient in sums over near neighbors.

        The sums (beads, 4, channels) are completed in place.
        """
        run_loop(pair_loops.complete, types, pairs.counts, scales.slots, self.far, features)
        scale = 1 / float(scales.slots.sum())
        return self.fitting.energies_and_slopes(features, types, scale)

    def energies_and_pair_gradients(
        self, neighbors: Neighbors, types: Tensor, scales: Scales, pairs: Pairs, g: Embedded
    ) -> tuple[Tensor, Tensor]:
        """Return bead energies (n_frames, n_beads) and dU/dr_ij (n_frames, n_beads, width, 3).

        kJ/mol and kJ/mol/nm; see ``DeepPotSE.fast_path``.
        """
        d, width = neighbors.displacement.detach(), self.fitting.products.channels
        if self.basis is not None:
            value, slope = (linear(one, self.basis.T) for one in (g.value, g.slope))
            g = replace(g, value=value, slope=slope)
        features = features_of(d, pairs, g)[:, :, :width].contiguous()
        energies, slopes = self.energies_and_slopes(features, pairs, types, scales)
        slopes = pad(slopes, (0, g.value.shape[1] - width))
        return energies, pair_gradients_of_features(slopes, pairs, g, d.shape)


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationPaths:
    """That of all channels, and that of few for s up to ``high``, if there is one."""

    whole: EvaluationPath
    few: EvaluationPath | None
    high: float

    def at(self, s: Sequence[Tensor]) -> EvaluationPath:
        """Return the way for these s (rows,), of each embedding net."""
        if self.few is None or any(len(some) and float(some.max()) > self.high for some in s):
            return self.whole
        return self.few


@torch.no_grad()
def ways(embeddings: nn.ModuleList, whole: EvaluationPath, scales: Scales) -> EvaluationPaths:
    """Return how a network of these embedding nets may be evaluated."""
    high = float(scales.at(CLOSEST).max())
    accuracy = max(torch.finfo(whole.far.dtype).eps, LEAST)
    nets, fitting = list(copy.deepcopy(embeddings).double()), list(whole.fitting.nets)
    ends = float(scales.infinity.min()), high
    made = reduced(nets, fitting, whole.fitting.products.axis, ends, accuracy)
    if made is None:
        return EvaluationPaths(whole, None, high)
    basis = made.basis.to(whole.far)
    wide = pad(basis, (0, -basis.shape[1] % LANES)).contiguous()
    few = EvaluationPath(wide, Fitting.of(made.fitting, made.products), whole.far @ basis)
    return EvaluationPaths(whole, few, high)
