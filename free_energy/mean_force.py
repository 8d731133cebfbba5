"""A surface from its mean force: the energies whose differences fit the forces best.

The difference between neighboring bins is the width times the mean of their forces; the weighted
least squares of all differences is a sparse linear system. Errors of differences within bins of
width h are of order h^2. Axes are in the order of the coordinates, first the first: F[phi, psi].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from free_energy.arrays import Booleans, Floats, Integers
from free_energy.estimate import Estimate
from free_energy.histogram import Grid
from free_energy.integration import difference_solver, largest_part
from free_energy.neighbors import faces
from free_energy.replicates import Replicates


@dataclass(frozen=True, slots=True, eq=False)
class Integral:
    """A surface and how far the forces are from being its gradient.

    Parameters
    ----------
    energy
        (*grid), in kT; exp(-energy) integrates to 1.
    misfit
        Rms of what is left of the forces, over that of their errors alone: about 1 where all is
        right; above, the field has a curl, the errors are too small or the bins too wide. NaN
        where nothing is left over: in one coordinate without a period, or without errors.
    """

    energy: Replicates
    misfit: float


@dataclass(frozen=True, slots=True, eq=False)
class _Differences:
    """Of neighboring bins, of a connected part of the grid."""

    first: Integers
    second: Integers
    axis: Integers
    weights: Floats
    part: Booleans
    widths: Floats

    def __call__(self, forces: Floats) -> Floats:
        """Return the differences of the energy (..., n), of forces (..., bins, d)."""
        held = forces[..., self.first, self.axis] + forces[..., self.second, self.axis]
        differences: Floats = -self.widths[self.axis] * held / 2
        return differences

    def solver(self, grid: Grid) -> Callable[[Floats], Floats]:
        """Return the function that gives energies (..., *grid) of differences (..., n)."""
        return difference_solver(grid, self.first, self.second, self.weights, self.part)


def mean_force_integrator(grid: Grid, force: Estimate[Floats]) -> Callable[[ArrayLike], Floats]:
    """Return the function that gives energies (..., *grid) of forces (..., *grid, d), in kT.

    The weights of the differences are those of the errors given here; bins where a force or
    error is not finite are left out, and of unconnected parts all but the largest: NaN there.
    For ``jackknife`` and ``bootstrap`` of ``bin_mean_field``: where that is NaN, as resampled
    frames may leave a bin empty, the force given here stands in for it.

    Parameters
    ----------
    force
        (*grid, d): minus the gradient of the energy, in kT per unit of the coordinates. Errors
        that are zero throughout weigh all differences alike.
    """
    differences = _differences(grid, force)
    solve = differences.solver(grid)

    def integrate(forces: ArrayLike) -> Floats:
        resampled = np.asarray(forces, dtype=float)
        held = np.where(np.isnan(resampled), force.value, resampled)
        return solve(differences(_flat(grid, held)))

    return integrate


def mean_force_energy(
    grid: Grid, force: Estimate[Floats], generator: np.random.Generator, *, n_samples: int = 200
) -> Integral:
    """Return the surface of a mean force (*grid, d), in kT per unit of the coordinates.

    Its errors follow from those of the forces, taken as independent between bins and normal:
    the replicates are surfaces of forces with as much noise again.
    """
    differences = _differences(grid, force)
    solve = differences.solver(grid)
    value, error = _flat(grid, force.value), _flat(grid, force.error)
    noise = generator.standard_normal((n_samples, *value.shape)) * error
    energy, samples = solve(differences(value)), solve(differences(value + noise))
    energies = Replicates(energy, samples, float(np.sqrt(n_samples / (n_samples - 1))))
    left = _left_over(differences, value, energy)
    expected = _left_over(differences, noise, samples - energy)
    scale = float(np.sqrt((expected**2).mean()))
    tiny = 1e-9 * float(np.sqrt((differences.weights * differences(value) ** 2).sum()))
    return Integral(energies, float(left) / scale if scale > tiny else float("nan"))


def _differences(grid: Grid, force: Estimate[Floats]) -> _Differences:
    shape = (*grid.shape, len(grid.shape))
    if force.value.shape != shape or force.error.shape != shape:
        raise ValueError(
            f"mean forces and errors have shapes {force.value.shape} and {force.error.shape}, "
            f"not {shape}"
        )
    known = np.isfinite(force.value + force.error).all(axis=-1)
    part = largest_part(grid, np.asarray(known))
    pairs = [faces(grid, axis, part) for axis in range(len(grid.shape))]
    first, second = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    axis = np.repeat(np.arange(len(pairs)), [len(pair[0]) for pair in pairs])
    widths = np.array([edges[1] - edges[0] for edges in grid.edges])
    squares = _flat(grid, force.error) ** 2
    variance = widths[axis] ** 2 * (squares[first, axis] + squares[second, axis])
    # an error of zero among others is that of few frames: it must not rule over all the rest
    floor = 1e-3 * np.median(variance) if len(variance) else 0.0
    weights = 1 / np.maximum(variance, floor) if floor > 0 else np.ones(len(axis))
    return _Differences(first, second, axis, weights, part, widths)


def _left_over(differences: _Differences, forces: Floats, energies: Floats) -> Floats:
    flat = energies.reshape(*forces.shape[:-2], -1)
    fitted = flat[..., differences.second] - flat[..., differences.first]
    rest = (differences.weights * (differences(forces) - fitted) ** 2).sum(-1)
    left: Floats = np.sqrt(rest)
    return left


def _flat(grid: Grid, forces: Floats) -> Floats:
    d = len(grid.shape)
    return forces.reshape(*forces.shape[: forces.ndim - d - 1], -1, d)
