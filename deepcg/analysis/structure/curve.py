"""A function with an error band, and the distance of two."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcg.runtime.arrays import Doubles
from free_energy import Blocks, Estimate, jensen_shannon, mean_of_blocks


@dataclass(frozen=True, eq=False)
class Curve:
    """A function of one variable, known in independent blocks.

    Parameters
    ----------
    name
        What it is: "g_OO(r)".
    x
        (n,), bin centers or lag times.
    blocks
        (n_blocks, n), the function in each block, in the order of time.
    weights
        (n_blocks,), how much each block counts (frames, or counts for a ratio).
    x_label, y_label
        Axis names with units.
    density
        Whether it is a histogram that integrates to 1.
    """

    name: str
    x: Doubles
    blocks: Doubles
    weights: Doubles
    x_label: str
    y_label: str
    density: bool = False

    @cached_property
    def estimate(self) -> Estimate[Doubles]:
        """The mean over the blocks and its standard error, (n,) each."""
        return mean_of_blocks(self.blocks, self.weights)

    @property
    def y(self) -> Doubles:
        """The function (n,)."""
        return self.estimate.value

    @property
    def error(self) -> Doubles:
        """Its standard error (n,)."""
        return self.estimate.error

    @property
    def x_unit(self) -> str:
        """The unit in ``x_label``; empty where there is none."""
        return _unit(self.x_label)

    @property
    def y_unit(self) -> str:
        """The unit in ``y_label``; empty where there is none."""
        return _unit(self.y_label)

    def inside(self, window: tuple[float, float], length: float) -> Blocks:
        """Return the function in a window of x, in blocks of ``length`` inefficiencies."""
        return Blocks(self.blocks[:, within(self.x, window)], self.weights, length)

    def halves(self) -> tuple[Doubles, Doubles]:
        """Return the function (n,) in the first and in the second half of the blocks."""
        middle = len(self.blocks) // 2
        parts = slice(None, middle), slice(middle, None)
        first, second = (np.average(self.blocks[p], 0, _some(self.weights[p])) for p in parts)
        return first, second


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two curves are apart within a window of x.

    ``rms`` and ``largest`` (and ``at``, where that is) of the difference; ``js`` the
    Jensen-Shannon divergence in nats over the whole range, for densities only.
    """

    rms: float
    largest: float
    at: float
    js: float | None


def histogram_density(
    name: str, edges: Doubles, counts: NDArray[Any], x_label: str, y_label: str
) -> Curve:
    """Return the density that counts (n_blocks, n) between edges (n + 1,) make, block by block.

    Blocks weigh as much as they have counts, so that their mean is the density of all.
    """
    weights = counts.sum(1).astype(np.float64)
    heights = counts / (np.maximum(weights, 1)[:, None] * np.diff(edges))
    x = (edges[1:] + edges[:-1]) / 2
    return Curve(name, x, heights, weights, x_label, y_label, density=True)


def distance(a: Curve, b: Curve, window: tuple[float, float]) -> Distance:
    """Return the distance of two curves on the same grid."""
    if not np.allclose(a.x, b.x, rtol=0, atol=1e-12):
        raise ValueError(f"{a.name}: the two curves are on different grids")
    return _distance(a, a.y, b.y, window)


def noise_floor(curve: Curve, window: tuple[float, float]) -> Distance:
    """Return the distance between the first and the second half of the same data."""
    return _distance(curve, *curve.halves(), window)


def expected_rms(a: Curve, b: Curve, window: tuple[float, float]) -> float:
    """Return the rms difference that the errors of both curves alone lead one to expect."""
    inside = within(a.x, window)
    return float(np.sqrt(np.mean(a.error[inside] ** 2 + b.error[inside] ** 2)))


def support(curve: Curve) -> tuple[float, float]:
    """Return the first and last x where a density reaches a hundredth of its peak."""
    there = np.flatnonzero(curve.y >= 0.01 * curve.y.max())
    return float(curve.x[there[0]]), float(curve.x[there[-1]])


def within(x: Doubles, window: tuple[float, float]) -> NDArray[np.bool_]:
    """Return which x (n,) lie in the window, its ends included."""
    return (x >= window[0] - 1e-9) & (x <= window[1] + 1e-9)


def _distance(curve: Curve, a: Doubles, b: Doubles, window: tuple[float, float]) -> Distance:
    inside = within(curve.x, window)
    gap = np.abs(a - b)[inside]
    if len(gap) == 0:
        raise ValueError(f"{curve.name}: no points between {window[0]:g} and {window[1]:g}")
    return Distance(
        rms=float(np.sqrt(np.mean(gap**2))),
        largest=float(gap.max()),
        at=float(curve.x[inside][gap.argmax()]),
        js=jensen_shannon(a, b) if curve.density else None,
    )


def _unit(label: str) -> str:
    found = re.search(r" \(([^)]+)\)$", label)
    return found[1] if found else ""


def _some(weights: Doubles) -> Doubles:
    return weights if weights.sum() > 0 else np.ones_like(weights)
