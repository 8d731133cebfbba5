"""Smooth surfaces: every frame is a Gaussian instead of a point.

The frames are counted in bins finer than the Gaussian, which is then a convolution. It is wrapped
around coordinates with a period and reflected at the ends of others: no probability is lost.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter

from free_energy.arrays import Floats, Integers
from free_energy.estimate import Estimate
from free_energy.histogram import Grid, minus_log_density
from free_energy.replicates import count_blocks, frame_weights, jackknife

REACH = 4.0
"""Bandwidths; further from all frames a surface is NaN."""

MOST_PARTS = 16  # of a bin, along a coordinate: a narrower Gaussian is a point
PARTS_PER_BANDWIDTH = 3.0
CANDIDATES = np.geomspace(0.5, 4.0, 10)  # bandwidths in widths of bins


def kernel_surface(
    grid: Grid, values: ArrayLike, *, bandwidth: float | tuple[float, ...]
) -> Callable[[Floats], Floats]:
    """Return the function that gives -ln p, of the grid's shape, of weights of the frames (n,).

    p is the mean over each bin and integrates to 1. For ``jackknife`` and ``bootstrap``. The
    errors know nothing of the bias: p is that of the coordinates plus noise of the bandwidth.

    Parameters
    ----------
    values
        (n, d).
    bandwidth
        Standard deviation of the Gaussian, in the unit of the coordinates: one for all or each.
    """
    smooth, fine = _smoother(grid, bandwidth)
    index = fine.index(values)
    inside, n_bins = index >= 0, int(np.prod(fine.shape))
    where = index[inside]

    def surface(weights: Floats) -> Floats:
        counts = np.bincount(where, weights[inside], n_bins).astype(float)
        return minus_log_density(_coarse(smooth(counts.reshape(fine.shape)), grid), grid)

    return surface


def kernel_energy(
    grid: Grid,
    values: ArrayLike,
    blocks: Integers,
    *,
    weights: ArrayLike | None = None,
    bandwidth: float | tuple[float, ...] | None = None,
) -> Estimate[Floats]:
    """Return -ln p and its error, both (*grid), in kT, as ``histogram_energy`` does.

    Parameters
    ----------
    bandwidth
        See ``kernel_surface``; ``None``: that of ``choose_bandwidth``.
    """
    if bandwidth is None:
        bandwidth = choose_bandwidth(grid, values, blocks, weights=weights)
    surface = kernel_surface(grid, values, bandwidth=bandwidth)
    return jackknife(surface, blocks, weights=weights).estimate()


def choose_bandwidth(
    grid: Grid, values: ArrayLike, blocks: Integers, *, weights: ArrayLike | None = None
) -> tuple[float, ...]:
    """Return the bandwidth of each coordinate whose density fits that of other blocks best.

    Values are (n, d), the numbers of their blocks (n,). Of bandwidths from half a bin to 4 bins,
    the same number of bins in each coordinate, that with the least squared error of the density of
    even blocks against odd ones and the reverse (cross-validation: Bowman, Biometrika 71, 353
    (1984)), scaled by 2^(-1/(d + 4)) to all of the frames. Blocks, not frames, because correlated
    frames would ask for ever finer kernels.
    """
    count_blocks(blocks)
    counted, places = frame_weights(weights, len(blocks)), np.asarray(values, dtype=float)
    halves = [counted * (blocks % 2 == part) for part in (0, 1)]
    errors = [_squared_error(grid, places, halves, candidate) for candidate in CANDIDATES]
    best = CANDIDATES[int(np.argmin(errors))] * 2 ** (-1 / (len(grid.shape) + 4))
    return tuple(float(best * width) for width in _widths(grid))


def _squared_error(grid: Grid, values: Floats, halves: list[Floats], candidate: float) -> float:
    """Return the integral of p^2 - 2 p q: p of one half, q the points of the other, and reverse."""
    smooth, fine = _smoother(grid, tuple(candidate * width for width in _widths(grid)))
    index, n_bins = fine.index(values), int(np.prod(fine.shape))
    counts = [
        np.bincount(index[index >= 0], half[index >= 0], n_bins).astype(float) for half in halves
    ]
    if not min(part.sum() for part in counts) > 0:
        raise ValueError("half of the blocks have no frames on the grid: give the bandwidth")
    even, odd = ((part / part.sum()).reshape(fine.shape) for part in counts)
    pairs = [(smooth(even), odd), (smooth(odd), even)]
    return float(sum(((p - 2 * q) * p).sum() for p, q in pairs)) / fine.volume


def _smoother(
    grid: Grid, bandwidth: float | tuple[float, ...]
) -> tuple[Callable[[Floats], Floats], Grid]:
    """Return the convolution with the Gaussian, and the bins that it works on."""
    widths = _widths(grid)
    bandwidths = bandwidth if isinstance(bandwidth, tuple) else (bandwidth,) * len(widths)
    if len(bandwidths) != len(widths) or not min(bandwidths) > 0:
        raise ValueError(f"the bandwidth is {bandwidth}: give one above 0, for all or for each")
    bins = _refined(grid, bandwidths)
    # counting in bins has already spread the frames by the variance of a bin
    squares = [(b / w) ** 2 - 1 / 12 for b, w in zip(bandwidths, _widths(bins), strict=True)]
    sigmas = [float(np.sqrt(max(square, 0.0))) for square in squares]
    modes = ["reflect" if period is None else "wrap" for period in grid.periods]

    def smooth(counts: Floats) -> Floats:
        spread: Floats = gaussian_filter(counts, sigmas, mode=modes, truncate=REACH)
        return spread

    return smooth, bins


def _refined(grid: Grid, bandwidths: tuple[float, ...]) -> Grid:
    edges = []
    for own, bandwidth, width in zip(grid.edges, bandwidths, _widths(grid), strict=True):
        parts = int(np.clip(np.ceil(PARTS_PER_BANDWIDTH * width / bandwidth), 1, MOST_PARTS))
        edges.append(np.linspace(own[0], own[-1], parts * (len(own) - 1) + 1))
    return Grid(tuple(edges), grid.periods)


def _coarse(fine: Floats, grid: Grid) -> Floats:
    for axis, n in enumerate(grid.shape):
        split = (*fine.shape[:axis], n, fine.shape[axis] // n, *fine.shape[axis + 1 :])
        fine = fine.reshape(split).sum(axis + 1)
    return fine


def _widths(grid: Grid) -> tuple[float, ...]:
    return tuple(float(edges[1] - edges[0]) for edges in grid.edges)
