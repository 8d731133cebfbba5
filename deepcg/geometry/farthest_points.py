"""Farthest-point selection: points of a set that differ from one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def farthest_points(
    points: NDArray[np.float64] | Tensor,
    first: int,
    number: int,
    *,
    periodic: Sequence[bool] = (),
    distinct: bool = False,
) -> list[int]:
    """Return the indices of ``number`` points, each the farthest from those before it.

    Parameters
    ----------
    points
        (n, d), in one unit.
    first
        The index to begin with.
    number
        How many; all, if there are no more.
    periodic
        (d,), which coordinates are angles, rad: points on a circle, apart by the chord. None
        where it is empty.
    distinct
        Stop where all that are left equal one that was chosen.
    """
    library: Any = np if isinstance(points, np.ndarray) else torch
    columns = []
    for k, turns in enumerate(periodic):
        x = points[:, k]
        columns += [library.cos(x), library.sin(x)] if turns else [x]
    where = library.stack(columns, -1) if columns else points
    chosen, squares = [first], library.full_like(where[:, 0], library.inf)
    while len(chosen) < min(number, len(points)):
        squares = library.minimum(squares, library.square(where - where[chosen[-1]]).sum(1))
        squares[chosen] = -1  # of equal points each once
        if distinct and not bool((squares > 0).any()):
            break
        chosen.append(int(squares.argmax()))
    return chosen
