"""What begins every loop over the neighbors of a bead: which are near, r, u and the switch w(r).

==============  ======================  ==================  =======
symbol          name here               shape               unit
==============  ======================  ==================  =======
r_ij            d                       (f, i, j, 3)        nm
type of j       neighbor_types          (f, i, j)           -
r_ij            away, all x, y, z       (3 capacity,)       nm
type of j       of                      (capacity,)         -
j               slots                   (capacity,)         -
u = r_ij / r    ux, uy, uz of polar     LANES numbers each  1
r, 1/r          r, inverse of polar     LANES numbers each  nm
x               x of switch             number or vector    1
w, dw/dr        results of switch       number or vector    1, 1/nm
==============  ======================  ==================  =======

Lists of near neighbors have room for ``capacity`` of them; f are frames, i beads, j neighbors. The
switch is defined by ``deepcg.networks.base.switch``; they are tied by
``tests/networks/test_loop_formulas.py::test_the_switch_and_its_slope_are_those_of_the_definition``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from deepcg.compute.loops import Array
from deepcg.compute.simd import LANES, Vec, load, maximum, sqrt


@njit(inline="always", error_model="numpy")
def switch(x: Any, width: float) -> tuple[Any, Any]:
    """Return the quintic switching function w and dw/dr of 0 <= x = (r - start) / width <= 1."""
    # dw/dx of 1 - 10 x^3 + 15 x^4 - 6 x^5 is -30 x^2 (1 - x)^2
    return 1 - x * x * x * (10 - 15 * x + 6 * x * x), -30 / width * x * x * (1 - x) * (1 - x)


@njit(fastmath=True, error_model="numpy")
def near_neighbors(
    d: Array,
    neighbor_types: Array,
    f: int,
    i: int,
    limit: float,
    away: Array,
    of: Array,
    slots: Array,
) -> int:
    """List the neighbors nearer than a limit, given squared, and return how many there are.

    ``away`` (3 capacity,) takes displacements, ``of`` types and ``slots`` where they stand in d.
    """
    capacity, count = len(of), 0
    for j in range(d.shape[2]):
        if neighbor_types[f, i, j] < 0:
            break
        x, y, z = d[f, i, j, 0], d[f, i, j, 1], d[f, i, j, 2]
        # written in any case, kept if near: branches that cannot be foreseen cost more
        away[count], away[capacity + count], away[2 * capacity + count] = x, y, z
        of[count], slots[count] = neighbor_types[f, i, j], j
        if x * x + y * y + z * z < limit:
            count += 1
    return count


@njit(fastmath=True, error_model="numpy")
def polar(away: Array, capacity: int, j: int) -> tuple[Vec, Vec, Vec, Vec, Vec]:
    """Return u, r and 1/r of neighbors j to j + LANES in ``away`` (3 capacity,), nm."""
    x, y = load(away, j, LANES), load(away, capacity + j, LANES)
    z = load(away, 2 * capacity + j, LANES)
    r = sqrt(maximum(x * x + y * y + z * z, 1e-12))  # lanes without a neighbor hold anything
    inverse = 1 / r
    return x * inverse, y * inverse, z * inverse, r, inverse


@njit
def capacity_for(width: int) -> int:
    """Return how long lists of up to ``width`` neighbors are: loops go over whole vectors."""
    return (width // LANES + 2) * LANES


@njit
def lists_of(width: int, dtype: Any) -> tuple[Array, Array, Array]:
    """Return arrays for up to ``width`` neighbors of a bead: displacements, types and slots.

    (3 capacity,), (capacity,) and (capacity,).
    """
    capacity = capacity_for(width)
    return (
        np.ones(3 * capacity, dtype),
        np.zeros(capacity, np.int64),
        np.zeros(capacity, np.int64),
    )
