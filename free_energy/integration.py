"""Surfaces from differences between neighboring bins: weighted least squares, sparse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse import csc_array, csr_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from free_energy.arrays import Booleans, Floats, Integers
from free_energy.histogram import Grid, normalized
from free_energy.neighbors import faces


def largest_part(grid: Grid, known: Booleans) -> Booleans:
    """Return which bins (*grid) are of the largest connected part of the known ones.

    Raises
    ------
    ValueError
        None is known.
    """
    pairs = [faces(grid, axis, known) for axis in range(len(grid.shape))]
    first, second = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    graph = csr_array((np.ones(len(first)), (first, second)), shape=(known.size, known.size))
    _, labels = connected_components(graph, directed=False)
    if not known.any():
        raise ValueError("no bin is known")
    largest = np.bincount(labels[known.ravel()]).argmax()
    part: Booleans = known & (labels == largest).reshape(known.shape)
    return part


def difference_solver(
    grid: Grid, first: Integers, second: Integers, weights: Floats, part: Booleans
) -> Callable[[Floats], Floats]:
    """Return the function that gives energies (..., *grid) of differences (..., n), in kT.

    They fit the differences, second minus first, best by weighted least squares, and are normalized
    such that exp(-energy) integrates to 1.

    Parameters
    ----------
    first, second
        (n,), flat numbers of bins; they connect all bins of the part.
    weights
        (n,), inverse variances.
    part
        (*grid), the bins to solve for; NaN elsewhere.
    """
    bins, n = np.flatnonzero(part), len(first)
    gradient = _gradient(first, second, part)
    weighted = (gradient * weights[:, None]).T.tocsc()
    factors = splu((weighted @ gradient).tocsc()) if len(bins) > 1 else None

    def solve(differences: Floats) -> Floats:
        right = weighted @ differences.reshape(-1, n).T
        energies = np.full((right.shape[1], part.size), np.nan)
        energies[:, bins[0]] = 0.0
        if factors is not None:
            energies[:, bins[1:]] = factors.solve(right).T
        return normalized(energies.reshape(*differences.shape[:-1], *grid.shape), grid)

    return solve


def difference_covariance(
    first: Integers, second: Integers, weights: Floats, part: Booleans
) -> Floats:
    """Return the covariance (n_bins, n_bins) of energies that ``difference_solver`` would give.

    Of the bins of the part, in their order, relative to the first of them, whose row is zero: the
    inverse of D^T W D. The parameters are those of ``difference_solver``.
    """
    gradient = _gradient(first, second, part)
    n_bins = int(part.sum())
    covariance = np.zeros((n_bins, n_bins))
    if n_bins > 1:
        normal = ((gradient * weights[:, None]).T @ gradient).toarray()
        covariance[1:, 1:] = cho_solve(cho_factor(normal), np.eye(n_bins - 1))
    return covariance


def _gradient(first: Integers, second: Integers, part: Booleans) -> csc_array:
    """Return D (n, n_bins - 1), which gives differences of energies, the first of them zero."""
    bins, n = np.flatnonzero(part), len(first)
    place = np.full(part.size, -1)
    place[bins] = np.arange(len(bins))
    rows = np.tile(np.arange(n), 2)
    columns = np.concatenate([place[second], place[first]])
    signs = np.repeat([1.0, -1.0], n)
    return csc_array((signs, (rows, columns)), shape=(n, len(bins)))[:, 1:]
