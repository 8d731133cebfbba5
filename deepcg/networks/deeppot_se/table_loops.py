"""Compiled loops of a compressed DeepPot-SE, from displacements to F, and back to pair gradients.

F_cm = sum_j R_jc G_m(s_j) / n with the s and R of ``pair_loops``, where G_m is a polynomial of
degree five in each interval of s. Nothing is stored per pair: neighbors are described LANES at a
time, tables are looked up where their values are used, and channels go in blocks of LANES, whose
sums stay in registers.

======================  ==========================  =====================  ==========
symbol                  name here                   shape                  unit
======================  ==========================  =====================  ==========
r_ij                    d; away                     (f, i, j, 3)           nm
u, r, 1/r               ux, uy, uz, r, inverse      LANES numbers each     1, nm
w, dw/dr                w, dw                       LANES numbers each     1, 1/nm
mean, sigma             mean, spread                (types,), (types, 2)   1/nm
R_c = (s, q u)          seen, rows 0 to 3           (ROWS, capacity)       1
ds/dr, dq/dr, q/r       seen, rows 4 to 6           (ROWS, capacity)       1/nm
u                       seen, rows 7 to 9           (ROWS, capacity)       1
interval of s           seen, row 10                (ROWS, capacity)       1
x, place in it          seen, row 11; x             (ROWS, capacity)       widths
coefficients of G_m     table; c2 ... c5            (.., 6, LANES)         1
G_m, dG_m/dx            g, dg                       LANES channels         1
F_cm; dU/dF_cm          f                           (4 m,)                 1; kJ/mol
n, s G(s) at infinity   slots, far                  (types,), (.., m)      1
dU/dr_ij                out of pair_gradients       (i, j, 3)              kJ/mol/nm
======================  ==========================  =====================  ==========

F is defined by ``deepcg.networks.deeppot_se.environment.reference_features``, G by
``deepcg.networks.deeppot_se.tables.evaluate``; they are tied by
``tests/workflow/test_compress.py::test_loops_do_what_the_definition_says``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from deepcg.compute.loops import CHUNKS, Array, compiled, padded, share
from deepcg.compute.simd import LANES, floor, load, maximum, minimum, peek, store, total
from deepcg.networks.neighbor_loops import lists_of, near_neighbors, polar, switch

Scales = tuple[Array, Array, Array, float, float, int]
Numbers = tuple[float, float, int, int]
Tables = tuple[Array, Numbers, Array]

ROWS = 12
"""Of what is known of a neighbor: R (4), ds/dr, dq/dr and q/r, where R is (s, q u) and both are
scaled, the unit vector u, and in which interval of the table s is and how far in it."""


@compiled(fastmath=True)
def features(
    d: Array, neighbor_types: Array, types: Array, scales: Scales, tables: Tables, out: Array
) -> None:
    """Set ``out`` (beads, 4, channels) to F.

    Parameters
    ----------
    d, neighbor_types
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
            # sum_j R_jc G_m(s_j), near neighbors
            _add_up(count, here * two_sided, of, seen, table, numbers, f.ravel())
            # those that are missing are at infinity, with R = (s, 0)
            counts[:] = slots
            for k in range(count):
                counts[of[k]] -= 1
            for there in range(len(slots)):
                for m in range(channels):
                    f[0, m] += counts[there] * far[here, there, m]
            out[bead] = f[:, :channels] * share_of_one


@compiled(fastmath=True)
def pair_gradients(
    d: Array,
    neighbor_types: Array,
    types: Array,
    scales: Scales,
    tables: Tables,
    slopes: Array,
    out: Array,
) -> None:
    """Set the pair gradients ``out`` (beads, width, 3): of sum(slopes F) in displacements.

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
            known = of, seen, table, numbers, f.ravel()
            _set_pair_gradients(count, here * two_sided, *known, places, out[bead])


@njit(fastmath=True, error_model="numpy")
def _look(
    near: tuple[Array, Array, int, int],
    here: int,
    scales: Scales,
    numbers: Numbers,
    away: Array,
    of: Array,
    places: Array,
    seen: Array,
) -> int:
    """List and describe the near neighbors of a bead of type ``here``; return how many."""
    mean, spread, _, on, cutoff, _ = scales
    low, widths, n_rows, _ = numbers
    d, neighbor_types, frame, i = near
    count = near_neighbors(d, neighbor_types, frame, i, cutoff * cutoff, away, of, places)
    capacity, inverse_width = len(of), 1 / (cutoff - on)
    of_s, of_q = 1 / spread[here, 0], 1 / spread[here, 1]
    for j in range(0, count, LANES):
        # s0 = w / r and ds0/dr = (dw/dr - s0) / r
        ux, uy, uz, r, inverse = polar(away, capacity, j)
        w, dw = switch(minimum(maximum((r - on) * inverse_width, 0), 1), cutoff - on)
        s = w * inverse
        ds = (dw - s) * inverse
        # q, s, and in which interval s is and how far in it
        q, scaled = s * of_q, (s - mean[here]) * of_s
        x = (scaled - low) * widths
        interval = minimum(maximum(floor(x), 0), n_rows - 1)
        store(seen, j, scaled)
        store(seen, capacity + j, q * ux)
        store(seen, 2 * capacity + j, q * uy)
        store(seen, 3 * capacity + j, q * uz)
        store(seen, 4 * capacity + j, ds * of_s)
        store(seen, 5 * capacity + j, ds * of_q)
        store(seen, 6 * capacity + j, q * inverse)
        store(seen, 7 * capacity + j, ux)
        store(seen, 8 * capacity + j, uy)
        store(seen, 9 * capacity + j, uz)
        store(seen, 10 * capacity + j, interval)
        store(seen, 11 * capacity + j, x - interval)
    return count


@njit(inline="always")
def _begin(k: int, first_net: int, of: Array, seen: Array, numbers: Numbers) -> int:
    """Return where the coefficients of a neighbor's interval begin."""
    _, _, n_rows, stride = numbers
    interval = int(peek(seen, 10 * len(of) + k))
    return int(((first_net + peek(of, k)) * n_rows + interval) * stride)


@njit(fastmath=True, error_model="numpy")
def _add_up(
    count: int, first_net: int, of: Array, seen: Array, table: Array, numbers: Numbers, f: Array
) -> None:
    """Set ``f`` (4 wide,) to sum_j R_j G_j over listed neighbors."""
    capacity, wide = len(of), len(f) // 4
    for m in range(0, wide, LANES):
        f0 = f1 = f2 = f3 = load(f, m, LANES) * 0
        for k in range(count):
            at, x = _begin(k, first_net, of, seen, numbers) + 6 * m, peek(seen, 11 * capacity + k)
            # G_m(s_j), a polynomial in x
            g = load(table, at + 5 * LANES, LANES)
            g = g * x + load(table, at + 4 * LANES, LANES)
            g = g * x + load(table, at + 3 * LANES, LANES)
            g = g * x + load(table, at + 2 * LANES, LANES)
            g = g * x + load(table, at + LANES, LANES)
            g = g * x + load(table, at, LANES)
            # F_cm += R_jc G_m
            f0, f1 = f0 + g * peek(seen, k), f1 + g * peek(seen, capacity + k)
            f2, f3 = f2 + g * peek(seen, 2 * capacity + k), f3 + g * peek(seen, 3 * capacity + k)
        store(f, m, f0)
        store(f, wide + m, f1)
        store(f, 2 * wide + m, f2)
        store(f, 3 * wide + m, f3)


@njit(fastmath=True, error_model="numpy")
def _set_pair_gradients(
    count: int,
    first_net: int,
    of: Array,
    seen: Array,
    table: Array,
    numbers: Numbers,
    f: Array,
    places: Array,
    out: Array,
) -> None:
    """Set rows of ``out`` (width, 3) to dU/dr_ij of listed neighbors from dU/dF, f (4 wide,)."""
    capacity, wide = len(of), len(f) // 4
    for k in range(count):
        x, r0, r1 = peek(seen, 11 * capacity + k), peek(seen, k), peek(seen, capacity + k)
        r2, r3 = peek(seen, 2 * capacity + k), peek(seen, 3 * capacity + k)
        ds = b0 = b1 = b2 = b3 = load(f, 0, LANES) * 0
        for m in range(0, wide, LANES):
            at = _begin(k, first_net, of, seen, numbers) + 6 * m
            c5, c4 = load(table, at + 5 * LANES, LANES), load(table, at + 4 * LANES, LANES)
            c3, c2 = load(table, at + 3 * LANES, LANES), load(table, at + 2 * LANES, LANES)
            # G_m and dG_m/dx: the derivative of g x + c is dg x + g
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
            # what is summed over channels: dG_m/dx sum_c dU/dF_cm R_c, and G_m dU/dF_cm
            ds = ds + dg * (f0 * r0 + f1 * r1 + f2 * r2 + f3 * r3)
            b0, b1, b2, b3 = b0 + g * f0, b1 + g * f1, b2 + g * f2, b3 + g * f3
        # dU/ds, as R_0 is s and dx/ds is 1 / width, and b = dU/d(q u)
        change, p1 = total(ds) * numbers[1] + total(b0), total(b1)
        p2, p3 = total(b2), total(b3)
        ux, uy, uz = (
            peek(seen, 7 * capacity + k),
            peek(seen, 8 * capacity + k),
            peek(seen, 9 * capacity + k),
        )
        # u (dU/ds ds/dr + b . u (dq/dr - q/r)) + b q/r
        along, q_r = p1 * ux + p2 * uy + p3 * uz, peek(seen, 6 * capacity + k)
        radial = change * peek(seen, 4 * capacity + k)
        radial = radial + along * (peek(seen, 5 * capacity + k) - q_r)
        own = out[places[k]]
        own[0], own[1], own[2] = (
            radial * ux + q_r * p1,
            radial * uy + q_r * p2,
            radial * uz + q_r * p3,
        )
