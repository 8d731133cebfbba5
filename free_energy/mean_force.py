"""A surface from its mean force: the energies whose differences fit the forces best.

The difference between neighbouring bins is the width times the mean of their forces; the weighted
least squares of all differences is a sparse linear system. Errors of differences within bins of
width h are of order h^2. Axes are in the order of the coordinates, first the first: F[phi, psi].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from free_energy.estimate import Estimate
from free_energy.histogram import Grid, normalised
from free_energy.neighbours import faces
from free_energy.replicates import Replicates

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


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
    """Of neighbouring bins, of a connected part of the grid."""

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
    solve = _solver(differences)

    def integrate(forces: ArrayLike) -> Floats:
        resampled = np.asarray(forces, dtype=float)
        held = np.where(np.isnan(resampled), force.value, resampled)
        return solve(differences(_flat(grid, held)), grid)

    return integrate


def mean_force_energy(
    grid: Grid,
    force: Estimate[Floats],
    generator: np.random.Generator,
    *,
    n_samples: int = 200,
) -> Integral:
    """Return the surface of a mean force (*grid, d), in kT per unit of the coordinates.

    Its errors follow from those of the forces, taken as independent between bins and normal:
    the replicates are surfaces of forces with as much noise again.
    """
    differences = _differences(grid, force)
    solve = _solver(differences)
    value, error = _flat(grid, force.value), _flat(grid, force.error)
    noise = generator.standard_normal((n_samples, *value.shape)) * error
    energy, samples = solve(differences(value), grid), solve(differences(value + noise), grid)
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
    part = _largest_part(grid, np.asarray(known))
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


def _largest_part(grid: Grid, known: Booleans) -> Booleans:
    pairs = [faces(grid, axis, known) for axis in range(len(grid.shape))]
    first, second = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    graph = csr_array((np.ones(len(first)), (first, second)), shape=(known.size, known.size))
    _, labels = connected_components(graph, directed=False)
    if not known.any():
        raise ValueError("no bin has a mean force with an error")
    largest = np.bincount(labels[known.ravel()]).argmax()
    part: Booleans = known & (labels == largest).reshape(known.shape)
    return part


def _solver(differences: _Differences) -> Callable[[Floats, Grid], Floats]:
    """Return the least-squares energies (..., *grid), normalised, of differences (..., n)."""
    bins = np.flatnonzero(differences.part)
    place = np.full(differences.part.size, -1)
    place[bins] = np.arange(len(bins))
    n = len(differences.first)
    rows = np.tile(np.arange(n), 2)
    columns = np.concatenate([place[differences.second], place[differences.first]])
    signs = np.repeat([1.0, -1.0], n)
    gradient = csc_array((signs, (rows, columns)), shape=(n, len(bins)))[:, 1:]
    weighted = (gradient * differences.weights[:, None]).T.tocsc()
    factors = splu((weighted @ gradient).tocsc()) if len(bins) > 1 else None

    def solve(values: Floats, grid: Grid) -> Floats:
        right = weighted @ values.reshape(-1, n).T
        energies = np.full((right.shape[1], differences.part.size), np.nan)
        energies[:, bins[0]] = 0.0
        if factors is not None:
            energies[:, bins[1:]] = factors.solve(right).T
        return normalised(energies.reshape(*values.shape[:-1], *grid.shape), grid)

    return solve


def _left_over(differences: _Differences, forces: Floats, energies: Floats) -> Floats:
    flat = energies.reshape(*forces.shape[:-2], -1)
    fitted = flat[..., differences.second] - flat[..., differences.first]
    rest = (differences.weights * (differences(forces) - fitted) ** 2).sum(-1)
    left: Floats = np.sqrt(rest)
    return left


def _flat(grid: Grid, forces: Floats) -> Floats:
    d = len(grid.shape)
    return forces.reshape(*forces.shape[: forces.ndim - d - 1], -1, d)
