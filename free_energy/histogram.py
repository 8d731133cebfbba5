"""Histograms of a few coordinates: free energies and conditional means, with errors of blocks.

Energies are in kT. Axes are in the order of the coordinates, first the first: F[phi, psi].
Frames of biased runs are reweighted. The error of a free energy is that of the delete-one-block
jackknife; that of a mean is the one of a ratio of block sums (Cochran, Sampling Techniques,
3rd ed., equation 6.13).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from free_energy.arrays import Floats, Integers
from free_energy.estimate import Estimate
from free_energy.replicates import count_blocks, jackknife


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Equal bins of d coordinates.

    Parameters
    ----------
    edges
        Of each coordinate, (n_bins + 1,), evenly spaced.
    periods
        Of each coordinate, ``None`` where it has none. The edges of a periodic one span a period.
    """

    edges: tuple[Floats, ...]
    periods: tuple[float | None, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of bins of each coordinate."""
        return tuple(len(edges) - 1 for edges in self.edges)

    @property
    def centers(self) -> tuple[Floats, ...]:
        """Middles of the bins (n_bins,) of each coordinate."""
        return tuple((edges[1:] + edges[:-1]) / 2 for edges in self.edges)

    @property
    def volume(self) -> float:
        """Volume of a bin."""
        return float(np.prod([edges[1] - edges[0] for edges in self.edges]))

    def points(self, per_bin: int = 1) -> Floats:
        """Return (n_bins, per_bin ** d, d) points that fill the bins evenly."""
        offsets = (np.arange(per_bin) + 0.5) / per_bin - 0.5
        within = [offsets * (edges[1] - edges[0]) for edges in self.edges]
        inside = np.stack(np.meshgrid(*within, indexing="ij"), -1).reshape(-1, len(self.edges))
        middles = np.stack(np.meshgrid(*self.centers, indexing="ij"), -1)
        points: Floats = middles.reshape(-1, 1, len(self.edges)) + inside
        return points

    def index(self, values: ArrayLike) -> Integers:
        """Return the flat number of the bin of each of the values (n, d); -1 outside."""
        columns = np.asarray(values, dtype=float).T
        numbers = []
        for column, edges, period in zip(columns, self.edges, self.periods, strict=True):
            width = edges[1] - edges[0]
            n = len(edges) - 1
            number = np.floor((column - edges[0]) / width).astype(np.int64)
            if period is None:
                number[column == edges[-1]] = n - 1
            numbers.append(number if period is None else number % n)
        pairs = zip(numbers, self.shape, strict=True)
        inside = np.logical_and.reduce([(k >= 0) & (k < n) for k, n in pairs])
        held = [np.where(inside, k, 0) for k in numbers]
        return np.where(inside, np.ravel_multi_index(held, self.shape), -1)


def grid_over(values: ArrayLike, periods: Sequence[float | None], n_bins: int) -> Grid:
    """Return n_bins per coordinate: a whole period about zero, or the range of values (n, d)."""
    columns = np.asarray(values, dtype=float).T
    edges = []
    for column, period in zip(columns, periods, strict=True):
        low, high = (column.min(), column.max()) if period is None else (-period / 2, period / 2)
        if not high > low:
            raise ValueError(f"a coordinate is {low:g} in every frame: it has no histogram")
        edges.append(np.linspace(low, high, n_bins + 1))
    return Grid(tuple(edges), tuple(periods))


def block_labels(lengths: Sequence[int], n_blocks: int) -> Integers:
    """Return the block of each frame, (n_frames,): n_blocks contiguous ones in every series."""
    labels, first = [], 0
    for length in lengths:
        n = min(n_blocks, length)
        labels.append(first + np.arange(length) * n // length)
        first += n
    return np.concatenate(labels)


def histogram_surface(grid: Grid, values: ArrayLike) -> Callable[[Floats], Floats]:
    """Return the function that gives -ln p, of the grid's shape, of weights of the frames (n,).

    p integrates to 1; NaN where no weight is. For ``jackknife`` and ``bootstrap``.

    Parameters
    ----------
    values
        (n, d).
    """
    index, n_bins = grid.index(values), int(np.prod(grid.shape))
    inside = index >= 0
    where = index[inside]

    def surface(weights: Floats) -> Floats:
        counts = np.bincount(where, weights[inside], n_bins).astype(float)
        return minus_log_density(counts.reshape(grid.shape), grid)

    return surface


def histogram_energy(
    grid: Grid, values: ArrayLike, blocks: Integers, *, weights: ArrayLike | None = None
) -> Estimate[Floats]:
    """Return -ln p and its error, both of the grid's shape, in kT; p integrates to 1.

    NaN where there are no frames; the error is NaN also where all frames are of one block.

    Parameters
    ----------
    values
        (n, d).
    blocks
        (n,), the number of the independent block that each frame is of, from 0; two or more.
    weights
        (n,), exp(bias / kT) of frames of a biased run; ``None``: all count the same.
    """
    return jackknife(histogram_surface(grid, values), blocks, weights=weights).estimate()


def bin_means(
    grid: Grid, values: ArrayLike, samples: ArrayLike, blocks: Integers
) -> Estimate[Floats]:
    """Return the mean of samples (n,) over the frames of each bin and its error.

    NaN where there are no frames; the error is NaN also where all frames are of one block.
    Weights are not needed: a bias on the coordinates leaves means at fixed coordinates alone.
    """
    n_blocks, index = count_blocks(blocks), grid.index(values)
    counts = _sums(grid, index, blocks, None, n_blocks)
    sums = _sums(grid, index, blocks, samples, n_blocks)
    n = _or_nan(counts.sum(0))
    mean = sums.sum(0) / n
    seen = _or_nan((counts > 0).sum(0) - 1.0)
    residuals = np.where(counts > 0, sums - counts * mean, 0.0)
    error = np.sqrt((residuals**2).sum(0) * (seen + 1) / seen) / n
    return Estimate(mean.reshape(grid.shape), error.reshape(grid.shape))


def bin_mean_field(grid: Grid, values: ArrayLike, samples: ArrayLike) -> Callable[[Floats], Floats]:
    """Return the function that gives means (*grid, m) of samples (n, m) of weights of frames (n,).

    NaN where no weight is. For ``jackknife`` and ``bootstrap``.

    Parameters
    ----------
    values
        (n, d).
    """
    index, n_bins = grid.index(values), int(np.prod(grid.shape))
    inside = index >= 0
    where, columns = index[inside], np.asarray(samples, dtype=float)[inside].T

    def means(weights: Floats) -> Floats:
        held = weights[inside]
        sums = np.stack([np.bincount(where, held * column, n_bins) for column in columns], -1)
        field: Floats = sums / _or_nan(np.bincount(where, held, n_bins).astype(float))[:, None]
        return field.reshape(*grid.shape, -1)

    return means


def normalized(surfaces: ArrayLike, grid: Grid) -> Floats:
    """Return surfaces (..., *grid), in kT, shifted such that exp(-energy) integrates to 1.

    NaN is left out of the integral.
    """
    shifted = np.asarray(surfaces, dtype=float)
    axes = tuple(range(-len(grid.shape), 0))
    lowest = np.nanmin(shifted, axis=axes, keepdims=True)
    total = np.nansum(np.exp(lowest - shifted), axis=axes, keepdims=True)
    energies: Floats = shifted - lowest + np.log(total * grid.volume)
    return energies


def minus_log_density(counts: Floats, grid: Grid) -> Floats:
    """Return -ln p (*grid) of what is in each bin; p integrates to 1, NaN where nothing is."""
    if not counts.sum() > 0:
        return np.full(counts.shape, np.nan)
    energies: Floats = -np.log(_or_nan(counts) / (counts.sum() * grid.volume))
    return energies


def _sums(
    grid: Grid, index: Integers, blocks: Integers, amounts: ArrayLike | None, n_blocks: int
) -> Floats:
    """Return (n_blocks, n_bins), the sum of the amounts (n,), or the number, of the frames."""
    n_bins, inside = int(np.prod(grid.shape)), index >= 0
    where = (blocks * n_bins + index)[inside]
    what: NDArray[Any] | None = None if amounts is None else np.asarray(amounts, float)[inside]
    return np.bincount(where, what, n_blocks * n_bins).astype(float).reshape(n_blocks, n_bins)


def _or_nan(counts: Floats) -> Floats:
    return np.where(counts > 0, counts, np.nan)
