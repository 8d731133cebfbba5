"""Where noise and the density of frames leave U uncertain: the error of a surface, bin by bin.

Whatever fits them, forces tell differences of U between neighboring bins, each with the variance
of their noise over the number of frames. Of all differences together the weighted least squares is
a Poisson equation, and the covariance of U is the inverse of its operator, D^T W D: D takes
differences, W are their inverse variances. It needs no network, and no second fit.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from deepcg.runtime.arrays import Doubles, Integers
from free_energy import Estimate, Grid
from free_energy.integration import difference_covariance, largest_part
from free_energy.neighbors import faces

WIDTH = 2.0
"""Bins over which numbers and noise are smoothed, a standard deviation: as a network smooths."""

ENOUGH = 20
"""Frames beyond the first of their bin, in all: fewer do not tell the noise."""

LEAST = 1e-3
"""Frames per bin, smoothed, of bins that count as seen."""


def data_error(
    grid: Grid, frames: Integers, mean_force: Estimate[Doubles], density: Doubles
) -> Doubles:
    """Return the standard error of U (*grid) that noise and number of the frames leave, in kJ/mol.

    It is relative to the mean of U over a density, as the error of a free-energy surface is; NaN
    where no frames are near, and everywhere where no bin has enough of them to tell the noise.

    Parameters
    ----------
    grid
        The bins, of one or two coordinates.
    frames
        (*grid), number of frames in each.
    mean_force
        (*grid, d), mean force in each bin, kJ/mol per unit, and its standard error, in which the
        correlation of frames in time is counted.
    density
        (*grid), over which the mean of U is taken for zero; NaN counts as none.
    """
    modes = ["nearest" if period is None else "wrap" for period in grid.periods]

    def smooth(table: Doubles) -> Doubles:
        smoothed: Doubles = gaussian_filter(table, WIDTH, mode=modes)
        return smoothed

    numbers = frames.astype(float)
    # n frames of a bin have n - 1 degrees of freedom, and the square of their mean's error is
    # (n - 1) / n^2 of the variance of one
    told = (frames > 1) & np.isfinite(mean_force.error).all(-1)
    freedom = np.where(told, numbers - 1, 0.0)
    known = smooth(numbers) > LEAST
    if freedom.sum() < ENOUGH:
        return np.full(grid.shape, np.nan)
    squares = np.where(told[..., None], (numbers[..., None] * mean_force.error) ** 2, 0.0)
    mean = squares.sum(tuple(range(len(grid.shape)))) / freedom.sum()
    near = np.stack([smooth(column) for column in np.moveaxis(squares, -1, 0)], -1)
    # where no bin near tells it, the noise is that of all
    noise = (near + LEAST * mean) / (smooth(freedom)[..., None] + LEAST)
    part = largest_part(grid, known)
    precision = (smooth(numbers)[..., None] / noise).reshape(-1, len(grid.shape))
    first, second, weights = _differences(grid, precision, part)
    covariance = difference_covariance(first, second, weights, part)
    return _relative_to(covariance, np.nan_to_num(density)[part], part)


def _differences(
    grid: Grid, precision: Doubles, part: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
) -> tuple[Integers, Integers, Doubles]:
    """Return the bins of each difference of U, and its inverse variance, (n,)."""
    firsts, seconds, weights = [], [], []
    for axis, edges in enumerate(grid.edges):
        first, second = faces(grid, axis, part)
        width = float(edges[1] - edges[0])
        firsts.append(first)
        seconds.append(second)
        weights.append((precision[first, axis] + precision[second, axis]) / 2 / width**2)
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(weights)


def _relative_to(
    covariance: Doubles, density: Doubles, part: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
) -> Doubles:
    """Return errors (*grid) of U less its mean over a density (n,), of the covariance (n, n)."""
    share = (
        density / density.sum() if density.sum() > 0 else np.full(len(density), 1 / len(density))
    )
    with_mean = covariance @ share
    variance = covariance.diagonal() - 2 * with_mean + share @ with_mean
    error = np.full(part.shape, np.nan)
    error[part] = np.sqrt(np.maximum(variance, 0.0))
    return error
