"""Fused CPU loops of a compressed DeepPot-SE, from displacements to F, and back.

Nothing is stored per pair: neighbors are described LANES at a time, tables are looked up where
their values are used, and channels go in blocks of LANES, whose sums stay in registers.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from deepcg.compute.loops import CHUNKS, padded, share
from deepcg.compute.simd import LANES, floor, load, maximum, minimum, peek, store, total
from deepcg.networks.neighbor_loops import lists_of, near_neighbors, polar

ROWS = 12
"""Of what is known of a neighbor: R (4), ds/dr, dq/dr and q/r, where R is (s, q u) and both are
scaled, the unit vector u, and in which interval of the table s is and how far in it."""


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def features(d, neighbor_types, types, scales, tables, out):
    """Set ``out`` (beads, 4, channels) to F.

    Parameters
    ----------
    d, species
        Displacements (frames, beads, width, 3), nm, and types, -1 in padding.
    types
        (beads,), of one frame.
    scales
        Mean, spread, slots, switch and cutoff, see ``environment.Scales``, and how many nets of a
        bead's type come before those of the next: their number, or 0 where nets are one-sided.
    tables
        Flat, of (nets, intervals, blocks, 6, LANES); lowest s, intervals per unit of s, intervals
        and numbers per interval; and what neighbors at infinity add, (types, types, channels).
    """
    (n_frames, n, width, _), (table, numbers, far) = d.shape, tables
    slots, two_sided = scales[2], scales[5]
    channels, share_of_one = out.shape[2], 1 / slots.sum()
    for chunk in prange(CHUNKS):
        away, of, places = lists_of(width, d.dtype)
        seen, counts = np.zeros(ROWS * len(of), d.dtype), np.zeros(len(slots), d.dtype)
        f = np.zeros((4, padded(channels)), d.dtype)
        for bead in range(*share(chunk, n_frames * n)):
            near, here = (d, neighbor_types, bead // n, bead % n), types[bead % n]
            count = _look(near, here, scales, numbers, away, of, places, seen)
            _add_up(count, here * two_sided, of, seen, table, numbers, f.ravel())
            counts[:] = slots
            for k in range(count):
                counts[of[k]] -= 1
            for there in range(len(slots)):
                for m in range(channels):
                    f[0, m] += counts[there] * far[here, there, m]
            out[bead] = f[:, :channels] * share_of_one


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def pulls(d, neighbor_types, types, scales, tables, slopes, out):
    """Set ``out`` (beads, width, 3) to the gradient of sum(slopes F) in displacements.

    ``slopes`` (beads, 4, channels); the rest is as in ``features``.
    """
    (n_frames, n, width, _), (table, numbers, _) = d.shape, tables
    two_sided, channels, share_of_one = scales[5], slopes.shape[2], 1 / scales[2].sum()
    for chunk in prange(CHUNKS):
        away, of, places = lists_of(width, d.dtype)
        seen, f = np.zeros(ROWS * len(of), d.dtype), np.zeros((4, padded(channels)), d.dtype)
        for bead in range(*share(chunk, n_frames * n)):
            near, here = (d, neighbor_types, bead // n, bead % n), types[bead % n]
            count = _look(near, here, scales, numbers, away, of, places, seen)
            f[:, :channels] = slopes[bead] * share_of_one
            out[bead] = 0
            _pull(count, here * two_sided, of, seen, table, numbers, f.ravel(), places, out[bead])


@njit(fastmath=True, error_model="numpy")
def _look(near, here, scales, numbers, away, of, places, seen):
    """List and describe the near neighbors of a bead of type ``here``; return how many."""
    mean, spread, _, on, cutoff, _ = scales
    low, widths, n_rows, _ = numbers
    d, neighbor_types, frame, i = near
    count = near_neighbors(d, neighbor_types, frame, i, cutoff * cutoff, away, of, places)
    room, inverse_width = len(of), 1 / (cutoff - on)
    of_s, of_q = 1 / spread[here, 0], 1 / spread[here, 1]
    for j in range(0, count, LANES):
        ux, uy, uz, r, inverse = polar(away, room, j)
        k = minimum(maximum((r - on) * inverse_width, 0), 1)
        w = 1 - k * k * k * (10 - 15 * k + 6 * k * k)
        s = w * inverse
        ds = (k * k * (1 - k) * (1 - k) * (-30 * inverse_width) - s) * inverse
        q, scaled = s * of_q, (s - mean[here]) * of_s
        x = (scaled - low) * widths
        interval = minimum(maximum(floor(x), 0), n_rows - 1)
        store(seen, j, scaled)
        store(seen, room + j, q * ux)
        store(seen, 2 * room + j, q * uy)
        store(seen, 3 * room + j, q * uz)
        store(seen, 4 * room + j, ds * of_s)
        store(seen, 5 * room + j, ds * of_q)
        store(seen, 6 * room + j, q * inverse)
        store(seen, 7 * room + j, ux)
        store(seen, 8 * room + j, uy)
        store(seen, 9 * room + j, uz)
        store(seen, 10 * room + j, interval)
        store(seen, 11 * room + j, x - interval)
    return count


@njit(inline="always")
def _begin(k, first_net, of, seen, numbers):
    """Return where the coefficients of a neighbor's interval begin."""
    _, _, n_rows, stride = numbers
    interval = int(peek(seen, 10 * len(of) + k))
    return ((first_net + peek(of, k)) * n_rows + interval) * stride


@njit(fastmath=True, error_model="numpy")
def _add_up(count, first_net, of, seen, table, numbers, f):
    """Set ``f`` (4 wide,) to sum_j R_j G_j over listed neighbors."""
    room, wide = len(of), len(f) // 4
    for m in range(0, wide, LANES):
        f0 = f1 = f2 = f3 = load(f, m, LANES) * 0
        for k in range(count):
            at, x = _begin(k, first_net, of, seen, numbers) + 6 * m, peek(seen, 11 * room + k)
            g = load(table, at + 5 * LANES, LANES)
            g = g * x + load(table, at + 4 * LANES, LANES)
            g = g * x + load(table, at + 3 * LANES, LANES)
            g = g * x + load(table, at + 2 * LANES, LANES)
            g = g * x + load(table, at + LANES, LANES)
            g = g * x + load(table, at, LANES)
            f0, f1 = f0 + g * peek(seen, k), f1 + g * peek(seen, room + k)
            f2, f3 = f2 + g * peek(seen, 2 * room + k), f3 + g * peek(seen, 3 * room + k)
        store(f, m, f0)
        store(f, wide + m, f1)
        store(f, 2 * wide + m, f2)
        store(f, 3 * wide + m, f3)


@njit(fastmath=True, error_model="numpy")
def _pull(count, first_net, of, seen, table, numbers, f, places, out):
    """Set rows of ``out`` (width, 3) to dU/dr of listed neighbors from dU/dF, ``f`` (4 wide,)."""
    room, wide = len(of), len(f) // 4
    for k in range(count):
        x, r0, r1 = peek(seen, 11 * room + k), peek(seen, k), peek(seen, room + k)
        r2, r3 = peek(seen, 2 * room + k), peek(seen, 3 * room + k)
        ds = b0 = b1 = b2 = b3 = load(f, 0, LANES) * 0
        for m in range(0, wide, LANES):
            at = _begin(k, first_net, of, seen, numbers) + 6 * m
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
        change, p1 = total(ds) * numbers[1] + total(b0), total(b1)
        p2, p3 = total(b2), total(b3)
        ux, uy, uz = peek(seen, 7 * room + k), peek(seen, 8 * room + k), peek(seen, 9 * room + k)
        along, q_r = p1 * ux + p2 * uy + p3 * uz, peek(seen, 6 * room + k)
        radial = change * peek(seen, 4 * room + k) + along * (peek(seen, 5 * room + k) - q_r)
        own = out[places[k]]
        own[0], own[1], own[2] = (
            radial * ux + q_r * p1,
            radial * uy + q_r * p2,
            radial * uz + q_r * p3,
        )
