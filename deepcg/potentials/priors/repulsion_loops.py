"""Compiled loop behind ``repulsion.py``."""

from __future__ import annotations

import math

from numba import njit, prange


@njit(parallel=True, cache=True, error_model="numpy")
def repel(d, index, count, types, onset, excluded, height, width, energy, pull):
    """Set bead energies (frames, beads) and dU/dr_ij, shaped as the displacements ``d``."""
    n, limit = d.shape[1], onset.max() ** 2
    for bead in prange(d.shape[0] * n):
        f, i = bead // n, bead % n
        energy[f, i] = 0
        pull[f, i] = 0
        for slot in range(count[f, i]):
            x, y, z = d[f, i, slot, 0], d[f, i, slot, 1], d[f, i, slot, 2]
            square = x * x + y * y + z * z
            if square >= limit:
                continue  # as nearly all are
            j = index[f, i, slot]
            r = math.sqrt(square)
            inside = (onset[types[i], types[j]] - r) / width
            if inside <= 0 or _held(i, j, excluded):
                continue
            energy[f, i] += 0.5 * height * inside**3
            slope = -1.5 * height / width * inside**2 / r
            pull[f, i, slot, 0], pull[f, i, slot, 1] = slope * x, slope * y
            pull[f, i, slot, 2] = slope * z


@njit(error_model="numpy")
def _held(i, j, excluded):
    held = False
    for k in range(len(excluded)):
        a, b = excluded[k, 0], excluded[k, 1]
        held |= (a == i and b == j) or (a == j and b == i)
    return held
