"""Fused CPU loops of a compressed DeepPot-SE: tables are looked up where their values are used.

As in ``pair_loops.py``, but nothing is stored per pair and channel: channels go in blocks of LANES,
whose sums over neighbors stay in registers.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from deepcg.networks.loops import CHUNKS, share
from deepcg.networks.pair_loops import fill_rows, longest, pull
from deepcg.vectors import LANES, load, store, total


@njit(error_model="numpy")
def _look_up(begin, end, nets, geometry, numbers, places, t, rows):
    """Find where in the table the pairs of a bead are: places, the rest t, and R (4, room)."""
    low, widths, n_rows, stride = numbers
    fill_rows(begin, end, geometry, rows)
    for pair in range(begin, end):
        k = pair - begin
        x = (geometry[pair, 0] - low) * widths
        row = min(max(int(np.floor(x)), 0), n_rows - 1)
        t[k] = x - row
        places[k] = (nets[pair] * n_rows + row) * stride


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def features(first, nets, geometry, table, numbers, out):
    """Set ``out`` (beads, 4, channels) to sum_j R_jc G_jm.

    ``table`` is flat, of (nets, rows, blocks, 6, LANES); ``numbers`` are the lowest s, intervals
    per unit of s, and the rows and numbers per row of a net.
    """
    n, channels, room = len(out), out.shape[2], longest(first)
    for chunk in prange(CHUNKS):
        places, t = np.empty(room, np.int64), np.empty(room, table.dtype)
        r, sums = np.empty((4, room), table.dtype), np.zeros((4, LANES), table.dtype)
        flat, nothing = sums.ravel(), np.zeros(LANES, table.dtype)
        for bead in range(*share(chunk, n)):
            begin, end = first[bead], first[bead + 1]
            _look_up(begin, end, nets, geometry, numbers, places, t, r)
            for m in range(0, channels, LANES):
                f0 = f1 = f2 = f3 = load(nothing, 0, LANES)
                for k in range(end - begin):
                    at, x = places[k] + 6 * m, t[k]
                    g = load(table, at + 5 * LANES, LANES)
                    g = g * x + load(table, at + 4 * LANES, LANES)
                    g = g * x + load(table, at + 3 * LANES, LANES)
                    g = g * x + load(table, at + 2 * LANES, LANES)
                    g = g * x + load(table, at + LANES, LANES)
                    g = g * x + load(table, at, LANES)
                    f0, f1 = f0 + g * r[0, k], f1 + g * r[1, k]
                    f2, f3 = f2 + g * r[2, k], f3 + g * r[3, k]
                store(flat, 0, f0)
                store(flat, LANES, f1)
                store(flat, 2 * LANES, f2)
                store(flat, 3 * LANES, f3)
                some = min(LANES, channels - m)
                out[bead, :, m : m + some] = sums[:, :some]


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def pulls(first, nets, slots, geometry, table, numbers, slopes, out):
    """Set ``out`` (beads, width, 3) to the gradient of sum(slopes F) in displacements."""
    n, channels, room = len(out), slopes.shape[2], longest(first)
    wide = numbers[3] // 6
    for chunk in prange(CHUNKS):
        places, t = np.empty(room, np.int64), np.empty(room, table.dtype)
        r, padded = np.empty((4, room), table.dtype), np.zeros((4, wide), table.dtype)
        f, nothing = padded.ravel(), np.zeros(LANES, table.dtype)
        for bead in range(*share(chunk, n)):
            begin, end = first[bead], first[bead + 1]
            _look_up(begin, end, nets, geometry, numbers, places, t, r)
            out[bead] = 0
            padded[:, :channels] = slopes[bead]
            for k in range(end - begin):
                x, r0, r1, r2, r3 = t[k], r[0, k], r[1, k], r[2, k], r[3, k]
                ds = b0 = b1 = b2 = b3 = load(nothing, 0, LANES)
                for m in range(0, wide, LANES):
                    at = places[k] + 6 * m
                    c5, c4 = load(table, at + 5 * LANES, LANES), load(table, at + 4 * LANES, LANES)
                    c3, c2 = load(table, at + 3 * LANES, LANES), load(table, at + 2 * LANES, LANES)
                    g = c5 * x + c4
                    dg = c5 * x + g
                    g = g * x + c3
                    dg = dg * x + g
                    g = g * x + c2
                    dg = dg * x + g
                    g = g * x + load(table, at + LANES, LANES)
                    dg = dg * x + g
                    g = g * x + load(table, at, LANES)
                    f0, f1 = load(f, m, LANES), load(f, wide + m, LANES)
                    f2, f3 = load(f, 2 * wide + m, LANES), load(f, 3 * wide + m, LANES)
                    ds = ds + dg * (f0 * r0 + f1 * r1 + f2 * r2 + f3 * r3)
                    b0, b1, b2, b3 = b0 + g * f0, b1 + g * f1, b2 + g * f2, b3 + g * f3
                change = total(ds) * numbers[1] + total(b0)
                place = out[bead, slots[begin + k]]
                pull(geometry[begin + k], change, total(b1), total(b2), total(b3), place)
