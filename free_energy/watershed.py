"""Basins found from the surface itself: flooded from below, parted where the waters meet."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from free_energy.arrays import Floats, Integers
from free_energy.histogram import Grid
from free_energy.neighbors import steps


def watershed(energies: ArrayLike, grid: Grid, *, depth: float) -> Integers:
    """Return the number of the basin of each bin (*grid), from 0 for the deepest; -1 where NaN.

    Parameters
    ----------
    energies
        (*grid), kT.
    depth
        A basin whose lowest bin is less than this below its lowest saddle, in kT, is a part of
        the deeper one behind it: choose several times the error of the surface.
    """
    surface = np.asarray(energies, dtype=float)
    flat, known = surface.ravel(), np.isfinite(surface)
    touching = _touching(grid, known)
    lake = np.full(flat.size, -1, dtype=np.int64)  # by the number of its lowest bin
    outlet = np.arange(flat.size)

    def root(k: int) -> int:
        while outlet[k] != k:
            outlet[k] = outlet[outlet[k]]
            k = int(outlet[k])
        return k

    order = np.argsort(flat, kind="stable")[: np.count_nonzero(known)]
    for k in order.tolist():
        wet = [j for j in touching[k] if lake[j] >= 0]
        lake[k] = k if not wet else lake[min(wet, key=flat.__getitem__)]
        meeting = sorted({root(int(lake[j])) for j in wet}, key=lambda bottom: flat[bottom])
        for shallow in meeting[1:]:
            if flat[k] - flat[shallow] < depth:
                outlet[shallow] = meeting[0]
    bottoms = np.array([root(int(bottom)) for bottom in lake[order]], dtype=np.int64)
    return _numbered(bottoms, order, flat).reshape(grid.shape)


def _touching(grid: Grid, known: NDArray[np.bool_]) -> list[list[int]]:
    first, second, _ = steps(grid, known)
    ends = np.concatenate([first, second])
    order = np.argsort(ends, kind="stable")
    others = np.concatenate([second, first])[order]
    cuts = np.cumsum(np.bincount(ends, minlength=known.size))[:-1]
    return [part.tolist() for part in np.split(others, cuts)]


def _numbered(bottoms: Integers, order: Integers, flat: Floats) -> Integers:
    numbers = np.full(flat.size, -1, dtype=np.int64)
    deepest = np.unique(bottoms)
    rank = np.argsort(np.argsort(flat[deepest], kind="stable"), kind="stable")
    numbers[order] = rank[np.searchsorted(deepest, bottoms)]
    return numbers
