"""A surface from where the frames are and from the forces on them, together.

Where frames are and what pushes them are two estimates of the same differences between bins, each
with errors of its own: the histogram knows little where frames are few, the mean force little
where it is noisy. Each difference between neighboring bins is the mean of both, weighted by the
inverse squares of their errors, and the surface fits all differences best.

An error of few frames is poorly known itself. So the variance of a bin's mean is taken as that of
one frame over their number, and that of the logarithm of a count as the inverse of this number,
times a factor that is the same for all bins: what the blocks say in the mean.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from free_energy.arrays import Floats, Integers
from free_energy.histogram import Grid, bin_mean_field, histogram_surface
from free_energy.integration import difference_solver, largest_part
from free_energy.neighbors import faces
from free_energy.replicates import jackknife


def combined_surface(
    grid: Grid,
    values: ArrayLike,
    forces: ArrayLike,
    blocks: Integers,
    *,
    weighting: Callable[[Floats], Floats] | None = None,
) -> Callable[[Floats], Floats]:
    """Return the function that gives a surface (*grid), in kT, of how often frames count (n,).

    For ``bootstrap``; NaN outside of the largest part of the grid that bins with frames connect.
    The weights of the differences are those of all frames.

    Parameters
    ----------
    values
        (n, d).
    forces
        (n, d), instantaneous, in kT per unit of the coordinates.
    blocks
        (n,), the number of the independent block that each frame is of, from 0.
    weighting
        From how often frames count (n,) to their weights (n,) in the ensemble without a bias: for
        the histogram only, since the mean force at given values needs none. ``None``: the same.
    """
    weigh = weighting or (lambda times: times)
    histogram, field = histogram_surface(grid, values), bin_mean_field(grid, values, forces)
    index = grid.index(values)
    numbers = np.bincount(index[index >= 0], minlength=int(np.prod(grid.shape)))
    part = largest_part(grid, numbers.reshape(grid.shape) > 0)
    first, second, axis = _all_faces(grid, part)
    widths = np.array([edges[1] - edges[0] for edges in grid.edges])[axis]
    scatter = 1 / numbers[first] + 1 / numbers[second]

    def from_histogram(times: Floats) -> Floats:
        energy = histogram(weigh(times)).ravel()
        differences: Floats = energy[second] - energy[first]
        return differences

    def from_force(times: Floats) -> Floats:
        means = field(times).reshape(-1, len(grid.shape))
        differences: Floats = -widths * (means[first, axis] + means[second, axis]) / 2
        return differences

    ways = (from_histogram, from_force)
    estimates = [jackknife(way, blocks).estimate() for way in ways]
    kinds = (np.zeros_like(axis), axis)  # forces on each coordinate have their own noise
    shares = [
        1 / (scatter * _factors(estimate.error**2 / scatter, kind))
        for estimate, kind in zip(estimates, kinds, strict=True)
    ]
    total = np.add(*shares)
    solve = difference_solver(grid, first, second, total, part)

    def surface(times: Floats) -> Floats:
        found = np.zeros(len(first))
        for way, share, estimate in zip(ways, shares, estimates, strict=True):
            differences = way(times)
            # where resampled frames leave a bin empty, all of them stand in
            found += share * np.where(np.isfinite(differences), differences, estimate.value)
        return solve(found / total)

    return surface


def _all_faces(grid: Grid, part: NDArray[np.bool_]) -> tuple[Integers, Integers, Integers]:
    pairs = [faces(grid, axis, part) for axis in range(len(grid.shape))]
    first, second = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    axis = np.repeat(np.arange(len(pairs)), [len(pair[0]) for pair in pairs])
    return first, second, axis


def _factors(ratios: Floats, kinds: Integers) -> Floats:
    """Return the mean of the known ratios (n,) of each kind, for each: their variance is large."""
    factors = np.empty(len(ratios))
    for kind in np.unique(kinds):
        own = kinds == kind
        known = ratios[own & np.isfinite(ratios)]
        # no bin is seen by two blocks: frames count as if they were independent
        factors[own] = known.mean() if len(known) and known.mean() > 0 else 1.0
    return factors
