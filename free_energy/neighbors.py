"""Which bins of a grid touch, across the ends of a period too."""

from __future__ import annotations

from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from free_energy.arrays import Booleans, Integers
from free_energy.histogram import Grid

Scalar = TypeVar("Scalar", np.bool_, np.int64)


def faces(grid: Grid, axis: int, known: Booleans) -> tuple[Integers, Integers]:
    """Return flat numbers of bins and of the next along an axis, both among the known (*grid)."""
    offset = np.zeros(len(grid.shape), dtype=int)
    offset[axis] = 1
    return _pairs(grid, tuple(offset), known)


def steps(grid: Grid, known: Booleans) -> tuple[Integers, Integers, NDArray[np.float64]]:
    """Return all pairs of known bins that touch, once each, and the lengths of the steps in bins.

    Bins are numbers in the flat grid, all three are (n_pairs,); ``known`` is (*grid). A diagonal
    counts only between known corners, lest it slip through a thin wall.
    """
    firsts, seconds, lengths = [], [], []
    for offset in product((-1, 0, 1), repeat=len(grid.shape)):
        if offset <= (0,) * len(offset):  # zero, or the reverse of one that is taken
            continue
        passable = known.copy()
        for axis in np.flatnonzero(offset) if np.count_nonzero(offset) > 1 else []:
            corner = [0 if a == axis else step for a, step in enumerate(offset)]
            passable &= _shifted(known, tuple(corner))
        first, second = _pairs(grid, offset, known, passable)
        firsts.append(first)
        seconds.append(second)
        lengths.append(np.full(len(first), np.sqrt(np.count_nonzero(offset))))
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(lengths)


def _pairs(
    grid: Grid, offset: tuple[int, ...], known: Booleans, passable: Booleans | None = None
) -> tuple[Integers, Integers]:
    numbers = np.arange(known.size).reshape(grid.shape)
    use = (known if passable is None else passable) & _shifted(known, offset)
    for axis, (step, n, period) in enumerate(zip(offset, grid.shape, grid.periods, strict=True)):
        if step and (period is None or n < 3):  # of two bins, the way round is the way back
            end = [slice(None)] * len(grid.shape)
            end[axis] = slice(n - 1, None) if step > 0 else slice(0, 1)
            use = use.copy()
            use[tuple(end)] = False
    return numbers[use], _shifted(numbers, offset)[use]


def _shifted(array: NDArray[Scalar], offset: tuple[int, ...]) -> NDArray[Scalar]:
    """Return at each bin what is at the bin one offset further."""
    return np.roll(array, [-step for step in offset], tuple(range(array.ndim)))
