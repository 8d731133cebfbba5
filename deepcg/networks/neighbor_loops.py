"""Compiled pieces that begin every loop over the neighbors of a bead: who is near, and where."""

from __future__ import annotations

import numpy as np
from numba import njit

from deepcg.compute.simd import LANES, load, maximum, sqrt


@njit(fastmath=True, error_model="numpy")
def near_neighbors(d, neighbor_types, f, i, limit, away, of, slots):
    """List the neighbors nearer than a limit, given squared, and return how many there are.

    ``away`` (3, room) takes displacements, ``of`` types and ``slots`` where they stand in ``d``.
    """
    room, count = len(of), 0
    for j in range(d.shape[2]):
        if neighbor_types[f, i, j] < 0:
            break
        x, y, z = d[f, i, j, 0], d[f, i, j, 1], d[f, i, j, 2]
        # written in any case, kept if near: branches that cannot be foreseen cost more
        away[count], away[room + count], away[2 * room + count] = x, y, z
        of[count], slots[count] = neighbor_types[f, i, j], j
        if x * x + y * y + z * z < limit:
            count += 1
    return count


@njit(fastmath=True, error_model="numpy")
def polar(away, room, j):
    """Return the directions of neighbors j to j + LANES, their distances and inverse distances."""
    x, y, z = load(away, j, LANES), load(away, room + j, LANES), load(away, 2 * room + j, LANES)
    r = sqrt(maximum(x * x + y * y + z * z, 1e-12))  # lanes without a neighbor hold anything
    inverse = 1 / r
    return x * inverse, y * inverse, z * inverse, r, inverse


@njit
def lists_of(room, dtype):
    """Return arrays for the neighbors of a bead: displacements, types and slots."""
    room = (room // LANES + 2) * LANES
    return np.ones(3 * room, dtype), np.zeros(room, np.int64), np.zeros(room, np.int64)
