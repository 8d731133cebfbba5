"""Surfaces from differences between neighboring bins: weighted least squares, sparse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
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
    bins = np.flatnonzero(part)
    place = np.full(part.size, -1)
    place[bins] = np.arange(len(bins))
    n = len(first)
    rows = np.tile(np.arange(n), 2)
    columns = np.concatenate([place[second], place[first]])
    signs = np.repeat([1.0, -1.0], n)
    gradient = csc_array((signs, (rows, columns)), shape=(n, len(bins)))[:, 1:]
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
