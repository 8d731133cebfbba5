"""The features of DeepPot-SE, sum_j G(s_j) R_j over the neighbors j within the cutoff, on the CPU.

Only true neighbors are looked at, not padding, and what two beads of one type see of one another is
embedded once. The embedding is followed with its slope in s, which is all that forces need of it,
so that autograd goes through it once, in the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepcg.compute.loops import run_loop
from deepcg.compute.onednn import apply, linear, tanh_linear
from deepcg.geometry.neighbor_list import Neighbors
from deepcg.networks.deeppot_se import pair_loops
from deepcg.networks.deeppot_se.environment import Scales
from deepcg.networks.layers import Residual


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The pairs within the cutoff, those of a bead after one another.

    Parameters
    ----------
    first
        (beads + 1,), the first pair of each bead of each frame.
    slots
        (pairs,), their places among the neighbors.
    nets
        (pairs,), the numbers of their embedding nets.
    geometry
        (pairs, NUMBERS), see ``pair_loops``.
    counts
        (beads, n_types), neighbors of each type.
    """

    first: Tensor
    slots: Tensor
    nets: Tensor
    geometry: Tensor
    counts: Tensor

    @classmethod
    def within(cls, neighbors: Neighbors, types: Tensor, scales: Scales) -> Pairs:
        """Return the pairs of neighbors of beads of these types (n_beads,)."""
        d, neighbor_types = (
            neighbors.displacement.detach(),
            neighbors.neighbor_types(types).to(torch.int32),
        )
        f, n, _, _ = d.shape
        counts = torch.empty(f * n, scales.n_types, dtype=torch.int64)
        run_loop(pair_loops.count_pairs, d, neighbor_types, scales.cutoff**2, counts)
        first = torch.zeros(f * n + 1, dtype=torch.int64)
        torch.cumsum(counts.sum(1), 0, out=first[1:])
        total = int(first[-1])
        slots, nets = torch.empty(2, total, dtype=torch.int64)
        geometry = d.new_empty(total, pair_loops.NUMBERS)
        run_loop(
            pair_loops.fill_pairs,
            *(d, neighbor_types, types, scales.two_sided, scales.mean, scales.spread),
            *((scales.switch_on, scales.cutoff), first, slots, nets, geometry),
        )
        return cls(first, slots, nets, geometry, counts)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Where the G of pairs are: two beads of one type see one another by the same G.

    Parameters
    ----------
    reverse_pairs
        (pairs,), of the pair of i and j that of j and i; -1 if this has a G of its own.
    others
        (pairs,), the beads j, counted through all frames.
    rows
        (pairs,), the rows of G, sorted by net; the same for reverse pairs.
    s
        Those of the rows of each net.
    """

    reverse_pairs: Tensor
    others: Tensor
    rows: Tensor
    s: tuple[Tensor, ...]

    @classmethod
    def of(cls, pairs: Pairs, neighbors: Neighbors, types: Tensor, n_nets: int) -> Rows:
        """Return the rows of pairs, of so many embedding nets; ``types`` is (n_beads,)."""
        total = len(pairs.slots)
        reverse_pairs, others, rows = torch.empty(3, total, dtype=torch.int64)
        reverse_pairs.fill_(-1)
        given = pairs.first, pairs.slots, types, neighbors.index
        run_loop(pair_loops.find_reverse_pairs, *given, others.numpy(), reverse_pairs)
        s, ends = np.empty(total, pairs.geometry.numpy().dtype), np.zeros(n_nets, np.int64)
        run_loop(pair_loops.number_rows, pairs.nets, reverse_pairs, pairs.geometry, s, ends, rows)
        parts = torch.from_numpy(s[: ends[-1]]).tensor_split(torch.from_numpy(ends[:-1]))
        return cls(reverse_pairs, others, rows, tuple(parts))


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """G and dG/ds (rows, channels) of pairs."""

    where: Rows
    value: Tensor
    slope: Tensor


def features_of(displacement: Tensor, pairs: Pairs, g: Embedded) -> Tensor:
    """Return sum_j R_j G_j (beads, 4, channels)."""
    return apply(_Features, g.value, pairs, g.where) + apply(_Nothing, displacement, g, pairs)


def pair_gradients_of_features(
    slopes: Tensor, pairs: Pairs, g: Embedded, shape: torch.Size
) -> Tensor:
    """Return dU/dr_ij, of the shape of the displacements, from dU/dF (beads, 4, channels)."""
    out = slopes.new_empty(shape)
    given = pairs.first, g.where.rows, pairs.slots, pairs.geometry, g.value, g.slope, slopes
    run_loop(pair_loops.pair_gradients, *given, out.flatten(0, 1))
    return out


def values_and_slopes(net: nn.Module, s: Tensor) -> tuple[Tensor, Tensor]:
    """Return G(s) and dG/ds (pairs, channels) of a net, differentiable in its weights."""
    both = torch.cat([s, torch.ones_like(s)])[:, None]
    for layer in net.children():
        assert isinstance(layer, Residual)
        both = apply(_Layer, both, layer.linear.weight, layer.linear.bias)
    value, slope = both.view(2, len(s), both.shape[1]).unbind()
    return value, slope


class _Features(torch.autograd.Function):
    """The features as a function of G."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, pairs: Pairs, where: Rows) -> Tensor:
        ctx.shape, ctx.pairs, ctx.where = g.shape, pairs, where
        out = g.new_empty(len(pairs.first) - 1, 4, g.shape[1])
        run_loop(pair_loops.features, pairs.first, where.rows, pairs.geometry, g, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None, None]:
        pairs, where = ctx.pairs, ctx.where
        back = slopes.new_empty(ctx.shape)
        places = pairs.first, where.rows, where.reverse_pairs, where.others
        run_loop(pair_loops.features_back, *places, pairs.geometry, slopes, back)
        return back, None, None


class _Nothing(torch.autograd.Function):
    """Zeros that change with displacements as features do.

    They are apart from ``_Features`` so that neither way back is gone where only the other is asked
    for: forces need this one, and their training the other.
    """

    @staticmethod
    def forward(ctx: Any, d: Tensor, g: Embedded, pairs: Pairs) -> Tensor:
        ctx.save_for_backward(d)
        ctx.g, ctx.pairs = g, pairs
        return g.value.new_zeros(len(pairs.first) - 1, 4, g.value.shape[1])

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None, None]:
        (d,), g = ctx.saved_tensors, ctx.g
        return apply(_PairGradients, d, g.value, g.slope, slopes, ctx.pairs, g.where), None, None


class _PairGradients(torch.autograd.Function):
    """dU/dr_ij, linear in the slopes, and in G and dG/ds together: the way back to all three.

    Their dependence on the displacements is not followed, since force matching differentiates
    forces in the parameters only: whoever asks for it gets NaN. The plain definition has Hessians.
    """

    @staticmethod
    def forward(
        ctx: Any, d: Tensor, g: Tensor, change: Tensor, slopes: Tensor, pairs: Pairs, where: Rows
    ) -> Tensor:
        ctx.save_for_backward(d, g, change, slopes)
        ctx.pairs, ctx.where = pairs, where
        return pair_gradients_of_features(slopes, pairs, Embedded(where, g, change), d.shape)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None, None]:
        d, g, change, slopes = ctx.saved_tensors
        pairs, where = ctx.pairs, ctx.where
        outs = torch.empty_like(g), torch.empty_like(g), slopes.new_empty(slopes.shape)
        places = pairs.first, where.rows, where.reverse_pairs, where.others, pairs.slots
        run_loop(
            pair_loops.pair_gradients_back,
            *places,
            pairs.geometry,
            g,
            change,
            slopes,
            v.flatten(0, 1),
            *outs,
        )
        return d.new_full((), torch.nan).expand_as(d), *outs, None, None


class _Layer(torch.autograd.Function):
    """tanh(W x + b), with x added where widths allow it, and its slope, below one another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        n = len(x) // 2
        t, change = tanh_linear(x[:n], weight, bias), linear(x[n:], weight)
        ctx.save_for_backward(x, weight, t, change)
        out = t.new_empty(2 * n, len(weight))
        run_loop(pair_loops.layer, x, t, change, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight, t, change = ctx.saved_tensors
        back = torch.empty_like(slopes)
        run_loop(pair_loops.layer_back, slopes, t, change, back)
        down = None
        if ctx.needs_input_grad[0]:
            narrow, wide = weight.shape[1], weight.shape[0]
            parts = slopes.split(narrow, dim=1) if wide in (narrow, 2 * narrow) else ()
            down = linear(back, weight.T)
            for part in parts:
                down += part
        return down, linear(back.T, x.T), back[: len(x) // 2].sum(0)
