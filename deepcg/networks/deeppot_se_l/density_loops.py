"""Compiled loops of the density of neighbors, its power spectrum, and their derivatives.

rho_ck = sum_j B_k(r_ij) Y_c(u_ij), over neighbors of each type, B_k being switched cubic B-splines
and Y_c real spherical harmonics. Of a density A on channels, the power spectrum is D_lnm =
sum_c A_cn A_cm over the c of one l. One pass over the neighbors, nothing stored per pair.

The loops run in parallel over beads; every bead writes its own rows, so that the result does not
depend on the number of threads. What is the same for every neighbor is worked out for LANES of them
at once, and what is the same for every harmonic for all of these.

==========================  =======================  =========================  ===========
symbol                      name here                shape                      unit
==========================  =======================  =========================  ===========
r_ij                        d; away                  (f, i, j, 3)               nm
u, r, 1/r                   ux, uy, uz, r, inverse   LANES neighbors each       1, nm
w(r), dw/dr                 w, dw                    LANES neighbors each       1, 1/nm
four B_k, switched          b, rows 0 to 3           (8, LANES neighbors)       1
their dB_k/dr               b, rows 4 to 7           (8, LANES neighbors)       1/nm
first k of these            rows                     (LANES neighbors,)         -
Y_c                         y                        (c, LANES neighbors)       1
dY_c/du                     dy, d                    (c, 3, LANES neighbors)    1
rho_ck                      sums; rho                (types, k, c); (.., c, k)  1
q_ck = dU/drho_ck           table; q                 (types, k, c); (.., c, k)  kJ/mol
sum_k q_ck B_k              across                   (LANES neighbors, c)       kJ/mol
sum_k q_ck dB_k/dr          along                    (LANES neighbors, c)       kJ/mol/nm
dU/dr_ij                    g                        (f, i, j, 3)               kJ/mol/nm
v_ij                        v                        (f, i, j, 3)               any
A_cn; D_lnm; dU/dD_lnm      a, b; d; g               (i, c, n); (i, l, n, m)    any
==========================  =======================  =========================  ===========

f are frames, i beads, j neighbors, k splines, c harmonics, those of l from l * l on. Rows of
``sums`` and ``table`` are ``wide`` numbers, of which n are harmonics; each type has MARGIN rows
more. The definitions are ``deepcg.networks.deeppot_se_l.density.reference_density`` and
``deepcg.networks.deeppot_se_l.density.reference_power_spectrum``; they are tied by
``tests/networks/test_density.py::test_loops_are_the_plain_definitions_for_every_l``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import njit, prange

from deepcg.compute.formula_loops import cubic_b_splines
from deepcg.compute.loops import CHUNKS, Array, Loop, compiled, padded, share
from deepcg.compute.simd import (
    LANES,
    Vec,
    floor,
    load,
    maximum,
    minimum,
    peek,
    put,
    store,
    total,
    transpose,
)
from deepcg.networks.neighbor_loops import lists_of, near_neighbors, polar, switch

S3, S5, S15, S35 = math.sqrt(3), math.sqrt(5), math.sqrt(15), math.sqrt(35)
S3_8, S5_8, S35_8 = math.sqrt(3 / 8), math.sqrt(5 / 8), math.sqrt(35 / 8)

Numbers = tuple[int, float, float, float, float]
"""Of a basis: splines, first center, spacing, switch and cutoff, nm."""

Scratch = tuple[Array, Array, Array, Array, Array, Array, Array, Array]

MARGIN = 3
"""Rows before the first spline, so that four may be added at the first without asking."""


@dataclass(frozen=True, slots=True)
class Basis:
    """Cubic B-splines in r times spherical harmonics up to ``l_max`` (at most 4).

    Spline k is centered on ``first + k * spacing``, nm, and reaches two spacings to either
    side; all fall smoothly to zero between ``switch_on`` and ``cutoff``, nm. The last center
    lies one spacing beyond the cutoff.
    """

    l_max: int
    n_splines: int
    first: float
    cutoff: float
    switch_on: float

    @property
    def spacing(self) -> float:
        """Distance between the centers of neighboring splines, nm."""
        return (self.cutoff - self.first) / (self.n_splines - 2)

    @property
    def numbers(self) -> Numbers:
        """What loops need to know: splines, first center, spacing, switch and cutoff, nm."""
        return self.n_splines, self.first, self.spacing, self.switch_on, self.cutoff

    @property
    def n_harmonics(self) -> int:
        """Number of spherical harmonics."""
        return (self.l_max + 1) ** 2


@njit(fastmath=True, error_model="numpy")
def _harmonics(x: Vec, y: Vec, z: Vec, n: int, out: Array) -> None:
    """Fill the rows of ``out`` (n, LANES) with Y_c, real spherical harmonics, of LANES u."""
    # l = 0, l = 1 in the order x, y, z, and a block for each further l in the order m = -l ... l
    store(out, 0, 0 * x + 1)
    if n > 1:
        put(out, 1, x, y, z)
    if n > 4:
        put(out, 4, S3 * x * y, S3 * y * z, (3 * z * z - 1) / 2)
        store(out, 7 * LANES, S3 * x * z)
        store(out, 8 * LANES, S3 / 2 * (x * x - y * y))
    if n > 9:
        q, a = 5 * z * z - 1, x * x - y * y
        put(out, 9, S5_8 * y * (2 * x * x + a), S15 * x * y * z, S3_8 * y * q)
        put(out, 12, z * (q - 2) / 2, S3_8 * x * q, S15 / 2 * z * a)
        store(out, 15 * LANES, S5_8 * x * (a - 2 * y * y))
    if n > 16:
        q, p, a = 7 * z * z - 1, 7 * z * z - 3, x * x - y * y
        up, down = 2 * x * x + a, a - 2 * y * y
        put(out, 16, S35 / 2 * x * y * a, S35_8 * y * z * up, S5 / 2 * x * y * q)
        put(out, 19, S5_8 * y * z * p, ((5 * p - 15) * z * z + 3) / 8, S5_8 * x * z * p)
        put(out, 22, S5 / 4 * a * q, S35_8 * x * z * down, S35 / 8 * (a * a - 4 * x * x * y * y))


@njit(fastmath=True, error_model="numpy")
def _harmonics_slope(x: Vec, y: Vec, z: Vec, n: int, d: Array) -> None:
    """Fill ``d`` (n, 3, LANES) with dY_c/du, of the polynomials of ``_harmonics``."""
    # as if x, y and z were free: what points along u is taken off where the slopes are used
    none = 0 * x
    put(d, 0, none, none, none)
    if n > 1:
        put(d, 3, none + 1, none, none)
        put(d, 6, none, none + 1, none)
        put(d, 9, none, none, none + 1)
    if n > 4:
        put(d, 12, S3 * y, S3 * x, none)
        put(d, 15, none, S3 * z, S3 * y)
        put(d, 18, none, none, 3 * z)
        put(d, 21, S3 * z, none, S3 * x)
        put(d, 24, S3 * x, -1 * S3 * y, none)
    if n > 9:
        q, a = 5 * z * z - 1, x * x - y * y
        put(d, 27, S5_8 * 6 * x * y, S5_8 * 3 * a, none)
        put(d, 30, S15 * y * z, S15 * x * z, S15 * x * y)
        put(d, 33, none, S3_8 * q, S3_8 * 10 * y * z)
        put(d, 36, none, none, (15 * z * z - 3) / 2)
        put(d, 39, S3_8 * q, none, S3_8 * 10 * x * z)
        put(d, 42, S15 * x * z, -1 * S15 * y * z, S15 / 2 * a)
        put(d, 45, S5_8 * 3 * a, -1 * S5_8 * 6 * x * y, none)
    if n > 16:
        q, p, a = 7 * z * z - 1, 7 * z * z - 3, x * x - y * y
        t, up, down = 3 * q, 2 * x * x + a, a - 2 * y * y
        put(d, 48, S35 / 2 * y * up, S35 / 2 * x * down, none)
        put(d, 51, S35_8 * 6 * x * y * z, S35_8 * 3 * z * a, S35_8 * y * up)
        put(d, 54, S5 / 2 * y * q, S5 / 2 * x * q, S5 * 7 * x * y * z)
        put(d, 57, none, S5_8 * z * p, S5_8 * y * t)
        put(d, 60, none, none, (35 * z * z - 15) * z / 2)
        put(d, 63, S5_8 * z * p, none, S5_8 * x * t)
        put(d, 66, S5 / 2 * x * q, -1 * S5 / 2 * y * q, S5 / 2 * 7 * z * a)
        put(d, 69, S35_8 * 3 * z * a, -1 * S35_8 * 6 * x * y * z, S35_8 * x * down)
        put(d, 72, S35 / 2 * x * down, -1 * S35 / 2 * y * up, none)


@njit(fastmath=True, error_model="numpy")
def _splines(r: Vec, numbers: Numbers, rows: Array, b: Array) -> None:
    """Find the four switched B-splines that are not zero at LANES distances.

    ``rows`` takes the place of the first among rows with a MARGIN; ``b`` (8, LANES) the values of
    the four and their slopes in r, 1/nm.
    """
    n, first, spacing, switch_on, cutoff = numbers
    # which splines, and where between their centers
    x = (r - first) / spacing
    k = minimum(floor(x), n - 3)  # just below the cutoff x may be rounded up to n - 2
    (b0, b1, b2, b3), (d0, d1, d2, d3), _ = cubic_b_splines(x - k)
    w, dw = switch(maximum((r - switch_on) / (cutoff - switch_on), 0), cutoff - switch_on)
    # d(w B)/dr = B dw/dr + w dB/dt / spacing
    rate = w / spacing
    store(rows, 0, maximum(k - 1 + MARGIN, -1))
    put(b, 0, b0 * w, b1 * w, b2 * w)
    put(b, 3, b3 * w, b0 * dw + d0 * rate, b1 * dw + d1 * rate)
    store(b, 6 * LANES, b2 * dw + d2 * rate)
    store(b, 7 * LANES, b3 * dw + d3 * rate)


@njit
def workspace(wide: int, dtype: Any) -> Scratch:
    """Return what loops over LANES neighbors at once write to: eight arrays."""
    b, rows, three = np.zeros(8 * LANES, dtype), np.zeros(LANES, dtype), np.zeros(3 * LANES, dtype)
    y, turned = np.zeros(wide * LANES, dtype), np.zeros(wide * LANES, dtype)
    across, along = np.zeros(wide * LANES, dtype), np.zeros(wide * LANES, dtype)
    return b, rows, three, y, np.zeros(3 * wide * LANES, dtype), turned, across, along


@njit(fastmath=True, error_model="numpy")
def add_neighbors(
    away: Array,
    of: Array,
    count: int,
    numbers: Numbers,
    n: int,
    wide: int,
    scratch: Scratch,
    sums: Array,
) -> None:
    """Add B_k Y_c of listed neighbors to ``sums``: for every type MARGIN rows and one per spline.

    It is flat (rows, wide), and the first ``n`` numbers of a row are the harmonics'.
    """
    width = numbers[0]
    b, rows, _, y, _, turned, _, _ = scratch
    for j in range(0, count, LANES):
        ux, uy, uz, r, _ = polar(away, len(of), j)
        # B_k and Y_c, the latter with the harmonics of a neighbor side by side
        _splines(r, numbers, rows, b)
        _harmonics(ux, uy, uz, n, y)
        for part in range(0, wide, LANES):
            transpose(y, part * LANES, LANES, turned, part, wide)
        for lane in range(min(LANES, count - j)):
            row = int(peek(rows, lane))
            if row < 0:  # nearer than any spline reaches
                continue
            # rho_ck += B_k Y_c of the four k
            at = (peek(of, j + lane) * (width + MARGIN) + row) * wide
            for part in range(0, wide, LANES):
                yc = load(turned, lane * wide + part, LANES)
                for k in range(4):
                    here = at + k * wide + part
                    store(sums, here, load(sums, here, LANES) + peek(b, k * LANES + lane) * yc)


@njit(fastmath=True, error_model="numpy")
def _mixed_rows(
    table: Array, at: int, wide: int, lane: int, b: Array, across: Array, along: Array
) -> None:
    """Set row ``lane`` of two arrays to the sums of four rows times splines, and their slopes."""
    for part in range(0, wide, LANES):
        here = at + part
        q0, q1 = load(table, here, LANES), load(table, here + wide, LANES)
        q2, q3 = load(table, here + 2 * wide, LANES), load(table, here + 3 * wide, LANES)
        # sum_k q_ck B_k
        b0, b1 = peek(b, lane), peek(b, LANES + lane)
        b2, b3 = peek(b, 2 * LANES + lane), peek(b, 3 * LANES + lane)
        store(across, lane * wide + part, b0 * q0 + b1 * q1 + b2 * q2 + b3 * q3)
        # sum_k q_ck dB_k/dr
        b0, b1 = peek(b, 4 * LANES + lane), peek(b, 5 * LANES + lane)
        b2, b3 = peek(b, 6 * LANES + lane), peek(b, 7 * LANES + lane)
        store(along, lane * wide + part, b0 * q0 + b1 * q1 + b2 * q2 + b3 * q3)


@njit(fastmath=True, error_model="numpy")
def set_pair_gradients(
    away: Array,
    of: Array,
    slots: Array,
    count: int,
    numbers: Numbers,
    n: int,
    wide: int,
    scratch: Scratch,
    table: Array,
    g: Array,
) -> None:
    """Set ``g`` (j, 3) of listed neighbors to dU/dr_ij = sum_kc q_kc d(B_k Y_c)/d(r_ij).

    ``table`` holds q in rows like those of ``add_neighbors``.
    """
    width = numbers[0]
    b, rows, gradient, y, dy, turned, across, along = scratch
    for j in range(0, count, LANES):
        ux, uy, uz, r, inverse = polar(away, len(of), j)
        _splines(r, numbers, rows, b)
        # sums over k of q_ck B_k and of q_ck dB_k/dr, for one neighbor after the other
        for lane in range(min(LANES, count - j)):
            row = max(0, int(peek(rows, lane)))
            at = (peek(of, j + lane) * (width + MARGIN) + row) * wide
            _mixed_rows(table, at, wide, lane, b, across, along)
        _harmonics(ux, uy, uz, n, y)
        _harmonics_slope(ux, uy, uz, n, dy)
        # dU/dr = sum_c Y_c sum_k q_ck dB_k/dr
        for part in range(0, wide, LANES):
            transpose(along, part, wide, turned, part * LANES, LANES)
        radial = 0 * r
        for c in range(n):
            radial = radial + load(y, c * LANES, LANES) * load(turned, c * LANES, LANES)
        # dU/du = sum_c dY_c/du sum_k q_ck B_k, without c = 0, which is constant
        for part in range(0, wide, LANES):
            transpose(across, part, wide, turned, part * LANES, LANES)
        wx, wy, wz = 0 * r, 0 * r, 0 * r
        for c in range(1, n):
            weight = load(turned, c * LANES, LANES)
            wx = wx + weight * load(dy, 3 * c * LANES, LANES)
            wy = wy + weight * load(dy, (3 * c + 1) * LANES, LANES)
            wz = wz + weight * load(dy, (3 * c + 2) * LANES, LANES)
        # dU/dr_ij = u dU/dr + (1 - u u) dU/du / r
        uw = ux * wx + uy * wy + uz * wz
        gx = ux * radial + (wx - ux * uw) * inverse
        gy = uy * radial + (wy - uy * uw) * inverse
        gz = uz * radial + (wz - uz * uw) * inverse
        put(gradient, 0, gx, gy, gz)
        for lane in range(min(LANES, count - j)):
            if peek(rows, lane) >= 0:
                slot = peek(slots, j + lane)
                g[slot, 0], g[slot, 1] = peek(gradient, lane), peek(gradient, LANES + lane)
                g[slot, 2] = peek(gradient, 2 * LANES + lane)


@njit(error_model="numpy")
def _write_rows(sums: Array, width: int, wide: int, out: Array) -> None:
    """Set ``out`` (harmonics, types * splines) to rows of ``wide``, without their margins."""
    for t in range(out.shape[1] // width):
        for k in range(width):
            at = (t * (width + MARGIN) + k + MARGIN) * wide
            for c in range(out.shape[0]):
                out[c, t * width + k] = sums[at + c]


@compiled(fastmath=True)
def density(d: Array, neighbor_types: Array, numbers: Numbers, n: int, rho: Array) -> None:
    """Set ``rho`` (f, i, c, types * k) to that of ``reference_density``.

    Of n harmonics c, and the numbers of the basis, at d (f, i, j, 3), nm.
    """
    wide = padded(n)
    width, cutoff, n_beads = numbers[0], numbers[4], d.shape[1]
    n_types = rho.shape[3] // width
    for chunk in prange(CHUNKS):
        away, of, slots = lists_of(d.shape[2], d.dtype)
        scratch = workspace(wide, d.dtype)
        sums = np.empty(n_types * (width + MARGIN) * wide, d.dtype)
        begin, end = share(chunk, d.shape[0] * n_beads)
        for bead in range(begin, end):
            f, i = bead // n_beads, bead % n_beads
            count = near_neighbors(d, neighbor_types, f, i, cutoff * cutoff, away, of, slots)
            sums[:] = 0
            add_neighbors(away, of, count, numbers, n, wide, scratch, sums)
            _write_rows(sums, width, wide, rho[f, i])


@compiled(fastmath=True)
def gradient(d: Array, neighbor_types: Array, numbers: Numbers, n: int, q: Array, g: Array) -> None:
    """Set the pair gradients g_ij to sum_kc q_ikc d(B_k Y_c)/d(r_ij).

    Of n harmonics c, and the numbers of the basis; g (f, i, j, 3) and q (f, i, c, types * k).
    """
    wide = padded(n)
    width, cutoff, n_beads = numbers[0], numbers[4], d.shape[1]
    n_types = q.shape[3] // width
    for chunk in prange(CHUNKS):
        away, of, slots = lists_of(d.shape[2], d.dtype)
        scratch = workspace(wide, d.dtype)
        table = np.zeros(n_types * (width + MARGIN) * wide, d.dtype)
        begin, end = share(chunk, d.shape[0] * n_beads)
        for bead in range(begin, end):
            f, i = bead // n_beads, bead % n_beads
            # q in rows of harmonics, behind margins that stay zero
            for t in range(n_types):
                for k in range(width):
                    at = (t * (width + MARGIN) + k + MARGIN) * wide
                    for c in range(n):
                        table[at + c] = q[f, i, c, t * width + k]
            g[f, i] = 0
            count = near_neighbors(d, neighbor_types, f, i, cutoff * cutoff, away, of, slots)
            lists = away, of, slots
            set_pair_gradients(*lists, count, numbers, n, wide, scratch, table, g[f, i])


@compiled(fastmath=True)
def directional(
    d: Array, neighbor_types: Array, numbers: Numbers, n: int, v: Array, out: Array
) -> None:
    """Set ``out`` (f, i, c, types * k) to sum_j v_ij . d(B_k Y_c)/d(r_ij), for n harmonics c."""
    wide = padded(n)
    width, cutoff = numbers[0], numbers[4]
    n_beads, n_types = d.shape[1], out.shape[3] // width
    for chunk in prange(CHUNKS):
        away, of, slots = lists_of(d.shape[2], d.dtype)
        b, rows, speed, y, dy, turned, across, along = workspace(wide, d.dtype)
        sums = np.empty(n_types * (width + MARGIN) * wide, d.dtype)
        begin, end = share(chunk, d.shape[0] * n_beads)
        for bead in range(begin, end):
            f, i = bead // n_beads, bead % n_beads
            count = near_neighbors(d, neighbor_types, f, i, cutoff * cutoff, away, of, slots)
            sums[:] = 0
            for j in range(0, count, LANES):
                ux, uy, uz, r, inverse = polar(away, len(of), j)
                _splines(r, numbers, rows, b)
                _harmonics(ux, uy, uz, n, y)
                _harmonics_slope(ux, uy, uz, n, dy)
                for lane in range(min(LANES, count - j)):
                    slot = peek(slots, j + lane)
                    for x in range(3):
                        speed[x * LANES + lane] = v[f, i, slot, x]
                vx, vy = load(speed, 0, LANES), load(speed, LANES, LANES)
                vz = load(speed, 2 * LANES, LANES)
                # along v, r changes by dr = v . u, and u by (v - u dr) / r, which v is from here on
                dr = ux * vx + uy * vy + uz * vz
                vx, vy = (vx - ux * dr) * inverse, (vy - uy * dr) * inverse
                vz = (vz - uz * dr) * inverse
                # v . d(B_k Y_c)/dr_ij = B_k (dY_c/du . du) + dB_k/dr (Y_c dr): what is in brackets
                for c in range(n):
                    dx, dy_ = load(dy, 3 * c * LANES, LANES), load(dy, (3 * c + 1) * LANES, LANES)
                    dz = load(dy, (3 * c + 2) * LANES, LANES)
                    store(across, c * LANES, dx * vx + dy_ * vy + dz * vz)
                    store(y, c * LANES, load(y, c * LANES, LANES) * dr)
                for part in range(0, wide, LANES):
                    transpose(y, part * LANES, LANES, along, part, wide)
                    transpose(across, part * LANES, LANES, turned, part, wide)
                for lane in range(min(LANES, count - j)):
                    row = int(peek(rows, lane))
                    if row < 0:
                        continue
                    # times B_k and dB_k/dr of the four k
                    at = (peek(of, j + lane) * (width + MARGIN) + row) * wide
                    for part in range(0, wide, LANES):
                        ac = load(turned, lane * wide + part, LANES)
                        al = load(along, lane * wide + part, LANES)
                        for k in range(4):
                            here = at + k * wide + part
                            b0, b1 = peek(b, k * LANES + lane), peek(b, (k + 4) * LANES + lane)
                            store(sums, here, load(sums, here, LANES) + (b0 * ac + b1 * al))
            _write_rows(sums, width, wide, out[f, i])


@cache
def spectrum(width: int) -> Loop:
    """Return the loop (a, b, d): set d to the power spectrum D, made bilinear and symmetric.

    (D(a, b) + D(b, a)) / 2, with D(a, a) that of ``reference_power_spectrum``.

    ``width`` divides the number of channels: see ``divisor``.
    """

    @compiled(fastmath=True)
    def loop(a: Array, b: Array, d: Array) -> None:
        a_, b_, d_ = a.ravel(), b.ravel(), d.ravel()
        _, n_l, n_axis, n_channels = d.shape
        for i in prange(a.shape[0]):
            for l in range(n_l):
                first = (i * a.shape[1] + l * l) * n_channels
                for n in range(n_axis):
                    to = ((i * n_l + l) * n_axis + n) * n_channels
                    # sum_c (a_cn b_cm + b_cn a_cm) / 2 over the 2 l + 1 harmonics c of l
                    for m in range(0, n_channels, width):
                        here = load(b_, first + m, width) * a_[first + n]
                        here = here + load(a_, first + m, width) * b_[first + n]
                        for c in range(1, 2 * l + 1):
                            row = first + c * n_channels
                            here = here + load(b_, row + m, width) * a_[row + n]
                            here = here + load(a_, row + m, width) * b_[row + n]
                        store(d_, to + m, here * 0.5)

    return loop


@cache
def contraction(width: int) -> Loop:
    """Return the loop (a, g, out): set ``out`` to the gradient of sum(g D(a, a)) in a."""

    @compiled(fastmath=True)
    def loop(a: Array, g: Array, out: Array) -> None:
        a_, g_, out_ = a.ravel(), g.ravel(), out.ravel()
        _, n_l, n_axis, n_channels = g.shape
        for i in prange(a.shape[0]):
            for l in range(n_l):
                slopes = (i * n_l + l) * n_axis * n_channels
                for c in range(l * l, (l + 1) * (l + 1)):
                    row = (i * a.shape[1] + c) * n_channels
                    # D_lnm = sum_c a_cn a_cm: its gradient in a_cm, sum_n g_lnm a_cn
                    for m in range(0, n_channels, width):
                        here = load(g_, slopes + m, width) * a_[row]
                        for n in range(1, n_axis):
                            slope = load(g_, slopes + n * n_channels + m, width)
                            here = here + slope * a_[row + n]
                        store(out_, row + m, here)
                    # and in a_cn, sum_m g_lnm a_cm
                    for n in range(n_axis):
                        at = slopes + n * n_channels
                        for m in range(0, n_channels, width):
                            product = load(g_, at + m, width) * load(a_, row + m, width)
                            out_[row + n] += total(product)

    return loop
