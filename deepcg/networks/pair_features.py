"""The features of DeepPot-SE, sum_j G(s_j) R_j over the neighbors j within the cutoff, on the CPU.

Only true neighbors are looked at, not padding. The embedding is followed with its slope in s,
which is all that forces need of it, so that autograd goes through it once, in the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepcg.neighbors import Neighbors
from deepcg.networks import pair_loops
from deepcg.networks.base import Residual, apply
from deepcg.networks.density import run_loop
from deepcg.networks.environment import Scales


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
        d, species = neighbors.displacement.detach(), neighbors.species(types).to(torch.int32)
        f, n, _, _ = d.shape
        counts = torch.empty(f * n, scales.n_types, dtype=torch.int64)
        run_loop(pair_loops.count_pairs, d, species, scales.cutoff**2, counts)
        first = torch.zeros(f * n + 1, dtype=torch.int64)
        torch.cumsum(counts.sum(1), 0, out=first[1:])
        total = int(first[-1])
        slots, nets = torch.empty(2, total, dtype=torch.int64)
        geometry = d.new_empty(total, pair_loops.NUMBERS)
        run_loop(
            pair_loops.fill_pairs,
            *(d, species, types, scales.two_sided, scales.mean, scales.spread),
            *((scales.switch_on, scales.cutoff), first, slots, nets, geometry),
        )
        return cls(first, slots, nets, geometry, counts)

    def sorted(self, n_nets: int) -> tuple[Tensor, list[Tensor]]:
        """Return where pairs go if sorted by net (pairs,), and s of the pairs of each net."""
        s, total = self.geometry[:, 0], len(self.slots)
        if n_nets == 1:
            return torch.arange(total), [s.contiguous()]
        ends, rows = np.empty(n_nets, np.int64), torch.empty(total, dtype=torch.int64)
        run_loop(pair_loops.sort_pairs, self.nets, ends, rows)
        ordered = torch.empty_like(s).index_copy_(0, rows, s)
        return rows, list(ordered.tensor_split(torch.from_numpy(ends[:-1])))


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """G and dG/ds of pairs, (pairs, channels) each, sorted by net; ``rows`` (pairs,): where."""

    rows: Tensor
    value: Tensor
    slope: Tensor


def features_of(displacement: Tensor, pairs: Pairs, g: Embedded) -> Tensor:
    """Return sum_j R_j G_j (beads, 4, channels)."""
    return apply(_Features, displacement, g.value, g.slope, pairs, g.rows)


def pulls_of_features(slopes: Tensor, pairs: Pairs, g: Embedded, shape: torch.Size) -> Tensor:
    """Return dU/dr_ij, of the shape of the displacements, from dU/dF (beads, 4, channels)."""
    out = slopes.new_empty(shape)
    given = pairs.first, g.rows, pairs.slots, pairs.geometry, g.value, g.slope, slopes
    run_loop(pair_loops.pulls, *given, out.flatten(0, 1))
    return out


def values_and_slopes(net: nn.Module, s: Tensor) -> tuple[Tensor, Tensor]:
    """Return G(s) and dG/ds (pairs, channels) of a net, differentiable in its weights."""
    both = torch.cat([s, torch.ones_like(s)])[:, None]
    for layer in net.children():
        assert isinstance(layer, Residual)
        both = apply(_Layer, both, layer.linear.weight, layer.linear.bias)
    return both[: len(s)], both[len(s) :]


class _Features(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, d: Tensor, g: Tensor, change: Tensor, pairs: Pairs, rows: Tensor
    ) -> Tensor:
        ctx.save_for_backward(d, g, change)
        ctx.pairs, ctx.rows = pairs, rows
        out = g.new_empty(len(pairs.first) - 1, 4, g.shape[1])
        run_loop(pair_loops.features, pairs.first, rows, pairs.geometry, g, out)
        return out

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        pull = back = None
        d, g, change = ctx.saved_tensors
        if ctx.needs_input_grad[0]:
            pull = apply(_Pulls, d, g, change, slopes, ctx.pairs, ctx.rows)
        if ctx.needs_input_grad[1]:
            back = torch.empty_like(g)
            given = ctx.pairs.first, ctx.rows, ctx.pairs.geometry, slopes
            run_loop(pair_loops.features_back, *given, back)
        return pull, back, None, None, None


class _Pulls(torch.autograd.Function):
    """Pulls are linear in the slopes, and in G and dG/ds together: the way back to all three.

    Their dependence on the displacements is not followed, since force matching differentiates
    forces in the parameters only: whoever asks for it gets NaN. The plain definition has Hessians.
    """

    @staticmethod
    def forward(
        ctx: Any,
        d: Tensor,
        g: Tensor,
        change: Tensor,
        slopes: Tensor,
        pairs: Pairs,
        rows: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(d, g, change, slopes)
        ctx.pairs, ctx.rows = pairs, rows
        return pulls_of_features(slopes, pairs, Embedded(rows, g, change), d.shape)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None, None]:
        d, g, change, slopes = ctx.saved_tensors
        pairs = ctx.pairs
        outs = torch.empty_like(g), torch.empty_like(g), slopes.new_empty(slopes.shape)
        given = pairs.first, ctx.rows, pairs.slots, pairs.geometry, g, change, slopes
        run_loop(pair_loops.pulls_back, *given, v.flatten(0, 1), *outs)
        return d.new_full((), torch.nan).expand_as(d), *outs, None, None


class _Layer(torch.autograd.Function):
    """tanh(W x + b), with x added where widths allow it, and its slope, below one another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        z, n = x @ weight.T, len(x) // 2
        z[:n].add_(bias).tanh_()
        ctx.save_for_backward(x, weight, z)
        out = torch.empty_like(z)
        run_loop(pair_loops.layer, x, z, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight, z = ctx.saved_tensors
        back = torch.empty_like(z)
        run_loop(pair_loops.layer_back, slopes, z, back)
        down = None
        if ctx.needs_input_grad[0]:
            down = back @ weight
            narrow, wide = weight.shape[1], weight.shape[0]
            if wide in (narrow, 2 * narrow):
                for part in slopes.split(narrow, dim=1):
                    down += part
        return down, back.T @ x, back[: len(x) // 2].sum(0)
