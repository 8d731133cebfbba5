"""Fused CPU loops behind ``pair_features.py``: sums over the neighbors that are within the cutoff.

Loops run in parallel over beads; every bead writes its own rows, so that the result does not
depend on the number of threads. Innermost are channels, which lie together in memory.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

NUMBERS = 8
"""Of a pair: s, q, ds/dr, dq/dr, q/r and the unit vector u; s and q = s0 s are scaled."""


@njit(parallel=True, cache=True, error_model="numpy")
def count_pairs(d, species, limit, counts):
    """Set ``counts`` (beads, types) to the neighbors of each type nearer than a limit, squared."""
    n = d.shape[1]
    for bead in prange(d.shape[0] * n):
        f, i = bead // n, bead % n
        counts[bead] = 0
        for j in range(d.shape[2]):
            if species[f, i, j] < 0:
                break
            x, y, z = d[f, i, j, 0], d[f, i, j, 1], d[f, i, j, 2]
            if x * x + y * y + z * z < limit:
                counts[bead, species[f, i, j]] += 1


@njit(parallel=True, cache=True, error_model="numpy")
def fill_pairs(d, species, types, two_sided, mean, spread, numbers, first, slots, nets, geometry):
    """Describe pairs, those of a bead after one another from ``first`` (beads + 1,) on.

    ``slots`` (pairs,) are their places in ``d``, ``nets`` (pairs,) their embedding nets,
    ``geometry`` (pairs, NUMBERS) what they look like; ``numbers`` are switch and cutoff.
    """
    on, cutoff = numbers
    n, n_types = d.shape[1], len(mean)
    for bead in prange(d.shape[0] * n):
        f, i = bead // n, bead % n
        here, pair = types[i], first[bead]
        for j in range(d.shape[2]):
            if pair == first[bead + 1]:
                break
            x, y, z = d[f, i, j, 0], d[f, i, j, 1], d[f, i, j, 2]
            square = x * x + y * y + z * z
            if not square < cutoff * cutoff:
                continue
            r = np.sqrt(np.float64(square))
            k = min(max((r - on) / (cutoff - on), 0.0), 1.0)
            w = 1 - k * k * k * (10 - 15 * k + 6 * k * k)
            dw = -30 * k * k * (1 - k) * (1 - k) / (cutoff - on)
            s = w / r
            ds = (dw - s) / r
            own = geometry[pair]
            own[0], own[1] = (s - mean[here]) / spread[here, 0], s / spread[here, 1]
            own[2], own[3] = ds / spread[here, 0], ds / spread[here, 1]
            own[4] = s / spread[here, 1] / r
            own[5], own[6], own[7] = x / r, y / r, z / r
            slots[pair] = j
            nets[pair] = here * n_types * two_sided + species[f, i, j]
            pair += 1


@njit(cache=True, error_model="numpy")
def sort_pairs(nets, ends, rows):
    """Set ``rows`` (pairs,) to places in which pairs are sorted by net; ``ends`` (nets,) to ends.

    A counting sort, which keeps the order within a net.
    """
    ends[:] = 0
    for net in nets:
        ends[net] += 1
    place = np.cumsum(ends) - ends
    for pair, net in enumerate(nets):
        rows[pair] = place[net]
        place[net] += 1
    ends[:] = place


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def features(first, rows, geometry, g, out):
    """Set ``out`` (beads, 4, channels) to sum_j R_jc G_jm."""
    for bead in prange(len(first) - 1):
        f0, f1, f2, f3 = out[bead]
        out[bead] = 0
        for pair in range(first[bead], first[bead + 1]):
            own, row = geometry[pair], g[rows[pair]]
            r0, r1, r2, r3 = own[0], own[1] * own[5], own[1] * own[6], own[1] * own[7]
            for m in range(len(row)):
                f0[m] += r0 * row[m]
                f1[m] += r1 * row[m]
                f2[m] += r2 * row[m]
                f3[m] += r3 * row[m]


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def features_back(first, rows, geometry, slopes, back):
    """Set ``back`` (pairs, channels), sorted as G, to the gradient of sum(slopes F) in G."""
    for bead in prange(len(first) - 1):
        f0, f1, f2, f3 = slopes[bead]
        for pair in range(first[bead], first[bead + 1]):
            own, row = geometry[pair], back[rows[pair]]
            r0, r1, r2, r3 = own[0], own[1] * own[5], own[1] * own[6], own[1] * own[7]
            for m in range(len(row)):
                row[m] = r0 * f0[m] + r1 * f1[m] + r2 * f2[m] + r3 * f3[m]


@njit(inline="always")
def pull(own, ds, b1, b2, b3, out):
    """Set ``out`` (3,) to dU/dr of a pair from dU/ds and the slopes in its vector q u."""
    along = b1 * own[5] + b2 * own[6] + b3 * own[7]
    radial = ds * own[2] + along * (own[3] - own[4])
    out[0] = radial * own[5] + own[4] * b1
    out[1] = radial * own[6] + own[4] * b2
    out[2] = radial * own[7] + own[4] * b3


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def pulls(first, rows, slots, geometry, g, dg, slopes, out):
    """Set ``out`` (beads, width, 3) to the gradient of sum(slopes F) in displacements."""
    for bead in prange(len(first) - 1):
        out[bead] = 0
        f0, f1, f2, f3 = slopes[bead]
        for pair in range(first[bead], first[bead + 1]):
            own, row, change = geometry[pair], g[rows[pair]], dg[rows[pair]]
            r0, r1, r2, r3 = own[0], own[1] * own[5], own[1] * own[6], own[1] * own[7]
            ds = b1 = b2 = b3 = 0 * r0
            for m in range(len(row)):
                a = r0 * f0[m] + r1 * f1[m] + r2 * f2[m] + r3 * f3[m]
                ds += change[m] * a + row[m] * f0[m]
                b1 += row[m] * f1[m]
                b2 += row[m] * f2[m]
                b3 += row[m] * f3[m]
            pull(own, ds, b1, b2, b3, out[bead, slots[pair]])


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def pulls_back(first, rows, slots, geometry, g, dg, slopes, v, back_g, back_dg, back_slopes):
    """Set the gradients of sum(v pulls) in G, dG/ds and the slopes; ``v`` (beads, width, 3)."""
    for bead in prange(len(first) - 1):
        f0, f1, f2, f3 = slopes[bead]
        s0, s1, s2, s3 = back_slopes[bead]
        back_slopes[bead] = 0
        for pair in range(first[bead], first[bead + 1]):
            own, row, change = geometry[pair], g[rows[pair]], dg[rows[pair]]
            on_g, on_dg = back_g[rows[pair]], back_dg[rows[pair]]
            speed = v[bead, slots[pair]]
            r0, r1, r2, r3 = own[0], own[1] * own[5], own[1] * own[6], own[1] * own[7]
            along = speed[0] * own[5] + speed[1] * own[6] + speed[2] * own[7]
            t0, turn = along * own[2], along * (own[3] - own[4])
            t1 = turn * own[5] + own[4] * speed[0]
            t2 = turn * own[6] + own[4] * speed[1]
            t3 = turn * own[7] + own[4] * speed[2]
            for m in range(len(row)):
                on_g[m] = t0 * f0[m] + t1 * f1[m] + t2 * f2[m] + t3 * f3[m]
                on_dg[m] = t0 * (r0 * f0[m] + r1 * f1[m] + r2 * f2[m] + r3 * f3[m])
                moved = t0 * change[m]
                s0[m] += moved * r0 + t0 * row[m]
                s1[m] += moved * r1 + t1 * row[m]
                s2[m] += moved * r2 + t2 * row[m]
                s3[m] += moved * r3 + t3 * row[m]


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def layer(x, z, out):
    """Set ``out`` (2n, wide) to what a layer makes of values and slopes ``x`` (2n, narrow).

    ``z`` holds tanh(W x + b) in its first half and W x' in its second.
    """
    n, narrow, wide = len(x) // 2, x.shape[1], z.shape[1]
    repeats = wide // narrow if wide in (narrow, 2 * narrow) else 0
    for i in prange(n):
        for m in range(wide):
            t = z[i, m]
            out[i, m] = t
            out[n + i, m] = (1 - t * t) * z[n + i, m]
        for k in range(repeats):
            for m in range(narrow):
                out[i, k * narrow + m] += x[i, m]
                out[n + i, k * narrow + m] += x[n + i, m]


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def layer_back(slopes, z, back):
    """Set ``back`` (2n, wide) to the gradient in W x + b and in W x' of that of ``layer``."""
    n = len(z) // 2
    for i in prange(n):
        for m in range(z.shape[1]):
            t, change = z[i, m], slopes[n + i, m]
            up = 1 - t * t
            back[n + i, m] = change * up
            back[i, m] = (slopes[i, m] - 2 * t * z[n + i, m] * change) * up
