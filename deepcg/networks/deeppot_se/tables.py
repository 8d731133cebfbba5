"""Tables of embedding nets G(s): in each interval of s a polynomial of degree five.

Values and two derivatives are those of the net at every knot, so that the table has two continuous
derivatives, as DeePMD-kit's compressed models have (Lu et al., J. Chem. Theory Comput. 2022, 18,
5559). Beyond the last knot G goes on as a straight line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepcg.compute.simd import LANES
from deepcg.networks.layers import Residual
from deepcg.runtime.errors import InputError

DEGREE = 5

FEWEST, MOST = 32, 1 << 15
"""Intervals of a table."""

INSIDE = (0.2, 0.4, 0.6, 0.8)
"""Places in an interval at which a table is compared with its net."""


@dataclass(frozen=True, slots=True)
class Knots:
    """So many intervals of equal width, from ``low`` to ``high``."""

    low: float
    high: float
    intervals: int

    @property
    def width(self) -> float:
        """Of an interval."""
        return (self.high - self.low) / self.intervals

    @property
    def rows(self) -> int:
        """Polynomials: one for each interval, and the line beyond."""
        return self.intervals + 1

    def places(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Return in which interval s (...) is, and how far from its beginning, in widths."""
        x = (s - self.low) / self.width
        row = x.detach().floor().clamp(0, self.intervals)
        return row.long(), x - row


@torch.no_grad()
def polynomials(net: nn.Module, knots: Knots) -> Tensor:
    """Return coefficients (rows, DEGREE + 1, channels), the constant first; the unit is a width."""
    s = torch.linspace(knots.low, knots.high, knots.rows, dtype=torch.float64)
    value, slope, bend = derivatives(net, s)
    slope, bend = slope * knots.width, bend * knots.width**2
    rise = value[1:] - value[:-1]
    d0, d1, b0, b1 = slope[:-1], slope[1:], bend[:-1], bend[1:]
    between = [
        value[:-1],
        d0,
        b0 / 2,
        10 * rise - 6 * d0 - 4 * d1 - 1.5 * b0 + 0.5 * b1,
        -15 * rise + 8 * d0 + 7 * d1 + 1.5 * b0 - b1,
        6 * rise - 3 * (d0 + d1) - 0.5 * (b0 - b1),
    ]
    none = torch.zeros_like(value[-1])
    beyond = torch.stack([value[-1], slope[-1], none, none, none, none])
    return torch.cat([torch.stack(between, dim=1), beyond[None]])


def evaluate(polynomial: Tensor, knots: Knots, s: Tensor) -> Tensor:
    """Return G (..., channels) at s (...)."""
    row, t = knots.places(s)
    *lower, g = polynomial[row].unbind(-2)
    for coefficient in reversed(lower):
        g = g * t[..., None] + coefficient
    return g


@torch.no_grad()
def slope_error(net: nn.Module, knots: Knots) -> float:
    """Return the largest error of dG/ds in a table, over the largest dG/ds; forces follow it."""
    powers = torch.arange(1, DEGREE + 1, dtype=torch.float64)[:, None]
    slopes = polynomials(net, knots)[:, 1:] * powers / knots.width
    start = torch.linspace(knots.low, knots.high, knots.rows, dtype=torch.float64)[:-1]
    s = (start[:, None] + knots.width * torch.tensor(INSIDE, dtype=torch.float64)).flatten()
    wanted = derivatives(net, s)[1]
    worst, most = (evaluate(slopes, knots, s) - wanted).abs().max(), wanted.abs().max()
    return float(worst / most.clamp(min=1e-300))


def fitting_knots(
    nets: Sequence[nn.Module], low: float, high: float, accuracy: float
) -> tuple[Knots, float]:
    """Return as few knots as will do, by powers of two, and the worst ``slope_error`` of the nets.

    Raises
    ------
    InputError
        The most knots do not do.
    """
    intervals = FEWEST
    while True:
        knots = Knots(low, high, intervals)
        error = max(slope_error(net, knots) for net in nets)
        if error <= accuracy:
            return knots, error
        if intervals >= MOST:
            raise InputError(
                f"{intervals} intervals leave an error of {error:.1g} in the slopes of the "
                f"embedding: give a larger --accuracy or --min-distance"
            )
        intervals *= 2


def packed(polynomial: Tensor) -> Tensor:
    """Return coefficients (rows, k, channels) for the loops: (rows, blocks, k, LANES), padded."""
    rows, k, channels = polynomial.shape
    wide = torch.nn.functional.pad(polynomial, (0, -channels % LANES))
    return wide.view(rows, k, -1, LANES).transpose(1, 2).contiguous()


def unpacked(table: Tensor, channels: int) -> Tensor:
    """Undo ``packed``: return (rows, blocks, k, LANES) as (rows, k, channels)."""
    return table.transpose(1, 2).flatten(2)[:, :, :channels]


def derivatives(net: nn.Module, s: Tensor) -> Tensor:
    """Return G, dG/ds and its slope (3, n, channels) of an embedding net at s (n,)."""
    x = torch.stack([s, torch.ones_like(s), torch.zeros_like(s)])[..., None]
    for layer in net.children():
        assert isinstance(layer, Residual)
        z, slope, bend = x @ layer.linear.weight.T
        t = torch.tanh(z + layer.linear.bias)
        up = 1 - t**2
        y = torch.stack([t, up * slope, up * (bend - 2 * t * slope**2)])
        times = y.shape[-1] // x.shape[-1]
        x = y + x.repeat(1, 1, times) if y.shape[-1] in (x.shape[-1], 2 * x.shape[-1]) else y
    return x
