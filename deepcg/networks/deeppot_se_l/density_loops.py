"""Fused CPU loops behind ``density.py``: one pass over the neighbors, nothing stored per pair.

They run in parallel over beads; every bead writes its own rows, so that the result does not
depend on the number of threads. What is the same for every neighbor is worked out for LANES of them
at once, and what is the same for every harmonic for all of these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit, prange

from deepcg.compute.loops import CHUNKS, Loop, padded, share
from deepcg.compute.simd import (
    LANES,
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
from deepcg.networks.neighbor_loops import lists_of, near_neighbors, polar

S3, S5, S15, S35 = math.sqrt(3), math.sqrt(5), math.sqrt(15), math.sqrt(35)
S3_8, S5_8, S35_8 = math.sqrt(3 / 8), math.sqrt(5 / 8), math.sqrt(35 / 8)


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
    def numbers(self) -> tuple[int, float, float, float, float]:
        """What loops need to know: splines, first center, spacing, switch and cutoff, nm."""
        return self.n_splines, self.first, self.spacing, self.switch_on, self.cutoff

    @property
    def n_harmonics(self) -> int:
        """Number of spherical harmonics."""
        return (self.l_max + 1) ** 2


@njit(fastmath=True, error_model="numpy")
def _harmonics(x, y, z, n, out):
    """Fill the rows of ``out`` (n, LANES) with the harmonics of LANES unit vectors."""
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
def _harmonics_slope(x, y, z, n, d):
    """Fill ``d`` (n, 3, LANES) with the derivatives of the polynomials of ``_harmonics``."""
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
def _splines(r, n, first, spacing, switch_on, cutoff, rows, b):
    """Find the four splines that are not zero at LANES distances.

    ``rows`` takes the place of the first among rows with a MARGIN; ``b`` (8, LANES) the values of
    the four and their slopes.
    """
    x = (r - first) / spacing
    k = minimum(floor(x), n - 3)  # just below the cutoff x may be rounded up to n - 2
    t = x - k
    u = 1 - t
    q = maximum((r - switch_on) / (cutoff - switch_on), 0)
    w = 1 - q * q * q * (10 - 15 * q + 6 * q * q)
    dw = -30 / (cutoff - switch_on) * q * q * (1 - q) * (1 - q)
    b0, b3 = u * u * u / 6, t * t * t / 6
    b1, b2 = (3 * t - 6) * t * t / 6 + 2 / 3, (3 * u - 6) * u * u / 6 + 2 / 3
    half = w / (2 * spacing)
    store(rows, 0, maximum(k - 1 + MARGIN, -1))
    put(b, 0, b0 * w, b1 * w, b2 * w)
    put(b, 3, b3 * w, b0 * dw - u * u * half, b1 * dw + (3 * t - 4) * t * half)
    store(b, 6 * LANES, b2 * dw + (4 - 3 * u) * u * half)
    store(b, 7 * LANES, b3 * dw + t * t * half)


@njit
def workspace(wide, dtype):
    """Return what loops over LANES neighbors at once write to: eight arrays."""
    b, rows, three = np.zeros(8 * LANES, dtype), np.zeros(LANES, dtype), np.zeros(3 * LANES, dtype)
    y, turned = np.zeros(wide * LANES, dtype), np.zeros(wide * LANES, dtype)
    across, along = np.zeros(wide * LANES, dtype), np.zeros(wide * LANES, dtype)
    return b, rows, three, y, np.zeros(3 * wide * LANES, dtype), turned, across, along


@njit(fastmath=True, error_model="numpy")
def add_neighbors(away, of, count, numbers, n, wide, work, sums):
    """Add B_k Y_c of listed neighbors to ``sums``: for every type MARGIN rows and one per spline.

    A row has ``wide`` numbers, of which the first ``n`` are the harmonics'.
    """
    width, first, spacing, on, cutoff = numbers
    b, rows, _, y, _, turned, _, _ = work
    for j in range(0, count, LANES):
        ux, uy, uz, r, _ = polar(away, len(of), j)
        _splines(r, width, first, spacing, on, cutoff, rows, b)
        _harmonics(ux, uy, uz, n, y)
        for part in range(0, wide, LANES):
            transpose(y, part * LANES, LANES, turned, part, wide)
        for lane in range(min(LANES, count - j)):
            row = int(peek(rows, lane))
            if row < 0:  # nearer than any spline reaches
                continue
            at = (peek(of, j + lane) * (width + MARGIN) + row) * wide
            for part in range(0, wide, LANES):
                yc = load(turned, lane * wide + part, LANES)
                for k in range(4):
                    here = at + k * wide + part
                    store(sums, here, load(sums, here, LANES) + peek(b, k * LANES + lane) * yc)


@njit(fastmath=True, error_model="numpy")
def _mixed_rows(table, at, wide, lane, b, across, along):
    """Set row ``lane`` of two arrays to the sums of four rows times splines, and their slopes."""
    for part in range(0, wide, LANES):
        here = at + part
        q0, q1 = load(table, here, LANES), load(table, here + wide, LANES)
        q2, q3 = load(table, here + 2 * wide, LANES), load(table, here + 3 * wide, LANES)
        b0, b1 = peek(b, lane), peek(b, LANES + lane)
        b2, b3 = peek(b, 2 * LANES + lane), peek(b, 3 * LANES + lane)
        store(across, lane * wide + part, b0 * q0 + b1 * q1 + b2 * q2 + b3 * q3)
        b0, b1 = peek(b, 4 * LANES + lane), peek(b, 5 * LANES + lane)
        b2, b3 = peek(b, 6 * LANES + lane), peek(b, 7 * LANES + lane)
        store(along, lane * wide + part, b0 * q0 + b1 * q1 + b2 * q2 + b3 * q3)


@njit(fastmath=True, error_model="numpy")
def pull_neighbors(away, of, slots, count, numbers, n, wide, work, table, g):
    """Set ``g`` (room, 3) of listed neighbors to sum_kc q_kc d(B_k Y_c)/d(r_ij).

    ``table`` holds q in rows like those of ``add_neighbors``.
    """
    width, first, spacing, on, cutoff = numbers
    b, rows, pull, y, dy, turned, across, along = work
    for j in range(0, count, LANES):
        ux, uy, uz, r, inverse = polar(away, len(of), j)
        _splines(r, width, first, spacing, on, cutoff, rows, b)
        for lane in range(min(LANES, count - j)):
            row = max(0, int(peek(rows, lane)))
            at = (peek(of, j + lane) * (width + MARGIN) + row) * wide
            _mixed_rows(table, at, wide, lane, b, across, along)
        _harmonics(ux, uy, uz, n, y)
        _harmonics_slope(ux, uy, uz, n, dy)
        for part in range(0, wide, LANES):
            transpose(along, part, wide, turned, part * LANES, LANES)
        radial = 0 * r
        for c in range(n):
            radial = radial + load(y, c * LANES, LANES) * load(turned, c * LANES, LANES)
        for part in range(0, wide, LANES):
            transpose(across, part, wide, turned, part * LANES, LANES)
        wx, wy, wz = 0 * r, 0 * r, 0 * r
        for c in range(1, n):
            weight = load(turned, c * LANES, LANES)
            wx = wx + weight * load(dy, 3 * c * LANES, LANES)
            wy = wy + weight * load(dy, (3 * c + 1) * LANES, LANES)
            wz = wz + weight * load(dy, (3 * c + 2) * LANES, LANES)
        uw = ux * wx + uy * wy + uz * wz
        put(
            pull,
            0,
            ux * radial + (wx - ux * uw) * inverse,
            uy * radial + (wy - uy * uw) * inverse,
            uz * radial + (wz - uz * uw) * inverse,
        )
        for lane in range(min(LANES, count - j)):
            if peek(rows, lane) >= 0:
                slot = peek(slots, j + lane)
                g[slot, 0], g[slot, 1] = peek(pull, lane), peek(pull, LANES + lane)
                g[slot, 2] = peek(pull, 2 * LANES + lane)


@njit(error_model="numpy")
def _write_rows(sums, width, wide, out):
    """Set ``out`` (harmonics, types * splines) to rows of ``wide``, without their margins."""
    for t in range(out.shape[1] // width):
        for k in range(width):
            at = (t * (width + MARGIN) + k + MARGIN) * wide
            for c in range(out.shape[0]):
                out[c, t * width + k] = sums[at + c]


@njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
def density(d, neighbor_types, numbers, n, rho):
    """Set ``rho`` to that of ``reference_density``: n harmonics, and the numbers of the basis."""
    wide = padded(n)
    width, cutoff, n_beads = numbers[0], numbers[4], d.shape[1]
    n_types = rho.shape[3] // width
    for chunk in prange(CHUNKS):
        away, of, slots = lists_of(d.shape[2], d.dtype)
        work = workspace(wide, d.dtype)
        sums = np.empty(n_types * (width + MARGIN) * wide, d.dtype)
        begin, end = share(chunk, d.shape[0] * n_beads)
        for bead in range(begin, end):
            f, i = bead // n_beads, bead % n_beads
            count = near_neighbors(d, neighbor_types, f, i, cutoff * cutoff, away, of, slots)
            sums[:] = 0
            add_neighbors(away, of, count, numbers, n, wide, work, sums)
            _write_rows(sums, width, wide, rho[f, i])


@njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
def gradient(d, neighbor_types, numbers, n, q, g):
    """Set g_ij to sum_kc q_ikc d(B_k Y_c)/d(r_ij), for n harmonics and the numbers of the basis."""
    wide = padded(n)
    width, cutoff, n_beads = numbers[0], numbers[4], d.shape[1]
    n_types = q.shape[3] // width
    for chunk in prange(CHUNKS):
        away, of, slots = lists_of(d.shape[2], d.dtype)
        work = workspace(wide, d.dtype)
        table = np.zeros(n_types * (width + MARGIN) * wide, d.dtype)
        begin, end = share(chunk, d.shape[0] * n_beads)
        for bead in range(begin, end):
            f, i = bead // n_beads, bead % n_beads
            for t in range(n_types):
                for k in range(width):
                    at = (t * (width + MARGIN) + k + MARGIN) * wide
                    for c in range(n):
                        table[at + c] = q[f, i, c, t * width + k]
            g[f, i] = 0
            count = near_neighbors(d, neighbor_types, f, i, cutoff * cutoff, away, of, slots)
            pull_neighbors(away, of, slots, count, numbers, n, wide, work, table, g[f, i])


@njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
def directional(d, neighbor_types, numbers, n, v, out):
    """Set ``out`` to sum_j v_ij . d(B_k Y_c)/d(r_ij), for n harmonics."""
    wide = padded(n)
    width, first, spacing, on, cutoff = numbers
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
                _splines(r, width, first, spacing, on, cutoff, rows, b)
                _harmonics(ux, uy, uz, n, y)
                _harmonics_slope(ux, uy, uz, n, dy)
                for lane in range(min(LANES, count - j)):
                    slot = peek(slots, j + lane)
                    for x in range(3):
                        speed[x * LANES + lane] = v[f, i, slot, x]
                vx, vy, vz = (
                    load(speed, 0, LANES),
                    load(speed, LANES, LANES),
                    load(speed, 2 * LANES, LANES),
                )
                dr = ux * vx + uy * vy + uz * vz
                vx, vy, vz = (
                    (vx - ux * dr) * inverse,
                    (vy - uy * dr) * inverse,
                    (vz - uz * dr) * inverse,
                )
                for c in range(n):
                    dx, dy_, dz = (
                        load(dy, 3 * c * LANES, LANES),
                        load(dy, (3 * c + 1) * LANES, LANES),
                        load(dy, (3 * c + 2) * LANES, LANES),
                    )
                    store(across, c * LANES, dx * vx + dy_ * vy + dz * vz)
                    store(y, c * LANES, load(y, c * LANES, LANES) * dr)
                for part in range(0, wide, LANES):
                    transpose(y, part * LANES, LANES, along, part, wide)
                    transpose(across, part * LANES, LANES, turned, part, wide)
                for lane in range(min(LANES, count - j)):
                    row = int(peek(rows, lane))
                    if row < 0:
                        continue
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
    """Return the loop (a, b, d): set d to (D(a, b) + D(b, a)) / 2 of ``reference_power_spectrum``.

    ``width`` divides the number of channels: see ``divisor``.
    """

    @njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
    def loop(a, b, d):
        a_, b_, d_ = a.ravel(), b.ravel(), d.ravel()
        _, n_l, n_axis, n_channels = d.shape
        for i in prange(a.shape[0]):
            for l in range(n_l):
                first = (i * a.shape[1] + l * l) * n_channels
                for n in range(n_axis):
                    to = ((i * n_l + l) * n_axis + n) * n_channels
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

    @njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
    def loop(a, g, out):
        a_, g_, out_ = a.ravel(), g.ravel(), out.ravel()
        _, n_l, n_axis, n_channels = g.shape
        for i in prange(a.shape[0]):
            for l in range(n_l):
                pulls = (i * n_l + l) * n_axis * n_channels
                for c in range(l * l, (l + 1) * (l + 1)):
                    row = (i * a.shape[1] + c) * n_channels
                    for m in range(0, n_channels, width):
                        here = load(g_, pulls + m, width) * a_[row]
                        for n in range(1, n_axis):
                            here = here + load(g_, pulls + n * n_channels + m, width) * a_[row + n]
                        store(out_, row + m, here)
                    for n in range(n_axis):
                        pull = pulls + n * n_channels
                        for m in range(0, n_channels, width):
                            product = load(g_, pull + m, width) * load(a_, row + m, width)
                            out_[row + n] += total(product)

    return loop
