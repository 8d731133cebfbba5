"""Fused CPU loops behind ``density.py``: one pass over the neighbors, nothing stored per pair.

Loops are compiled for one basis, whose numbers are constants in them, and kept on disk. They
run in parallel over beads; every bead writes its own rows, so that the result does not
depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit, prange

S3, S5, S15, S35 = math.sqrt(3), math.sqrt(5), math.sqrt(15), math.sqrt(35)
S3_8, S5_8, S35_8 = math.sqrt(3 / 8), math.sqrt(5 / 8), math.sqrt(35 / 8)

Loop = Callable[..., None]

CHUNKS = 64
"""Beads are dealt to threads in so many parts: scratch memory is made once for each."""

MARGIN = 3
"""Rows before the first spline, so that four may be added at the first without asking."""


@dataclass(frozen=True, slots=True)
class Basis:
    """Cubic B-splines in r times spherical harmonics up to ``l_max`` (at most 4).

    Spline k is centred on ``first + k * spacing``, nm, and reaches two spacings to either
    side; all fall smoothly to zero between ``switch_on`` and ``cutoff``, nm. The last centre
    lies one spacing beyond the cutoff.
    """

    l_max: int
    n_splines: int
    first: float
    cutoff: float
    switch_on: float

    @property
    def spacing(self) -> float:
        """Distance between the centres of neighboring splines, nm."""
        return (self.cutoff - self.first) / (self.n_splines - 2)

    @property
    def n_harmonics(self) -> int:
        """Number of spherical harmonics."""
        return (self.l_max + 1) ** 2


@njit(fastmath=True, inline="always", error_model="numpy")
def _harmonics(x, y, z, n, out):
    """Fill ``out`` with the harmonics of a unit vector: see ``harmonics``."""
    out[0] = 1
    if n > 1:
        out[1], out[2], out[3] = x, y, z
    if n > 4:
        out[4], out[5], out[6] = S3 * x * y, S3 * y * z, (3 * z * z - 1) / 2
        out[7], out[8] = S3 * x * z, S3 / 2 * (x * x - y * y)
    if n > 9:
        q = 5 * z * z - 1
        out[9], out[10], out[11] = S5_8 * y * (3 * x * x - y * y), S15 * x * y * z, S3_8 * y * q
        out[12], out[13] = z * (5 * z * z - 3) / 2, S3_8 * x * q
        out[14], out[15] = S15 / 2 * z * (x * x - y * y), S5_8 * x * (x * x - 3 * y * y)
    if n > 16:
        q, p = 7 * z * z - 1, 7 * z * z - 3
        out[16], out[17] = S35 / 2 * x * y * (x * x - y * y), S35_8 * y * z * (3 * x * x - y * y)
        out[18], out[19] = S5 / 2 * x * y * q, S5_8 * y * z * p
        out[20], out[21] = (35 * z**4 - 30 * z * z + 3) / 8, S5_8 * x * z * p
        out[22], out[23] = S5 / 4 * (x * x - y * y) * q, S35_8 * x * z * (x * x - 3 * y * y)
        out[24] = S35 / 8 * (x**4 - 6 * x * x * y * y + y**4)


@njit(fastmath=True, inline="always", error_model="numpy")
def _set(d, c, dx, dy, dz):
    d[0, c], d[1, c], d[2, c] = dx, dy, dz


@njit(fastmath=True, inline="always", error_model="numpy")
def _harmonics_slope(x, y, z, n, d):
    """Fill ``d`` (3, n) with the derivatives of the polynomials of ``_harmonics``."""
    _set(d, 0, 0, 0, 0)
    if n > 1:
        _set(d, 1, 1, 0, 0)
        _set(d, 2, 0, 1, 0)
        _set(d, 3, 0, 0, 1)
    if n > 4:
        _set(d, 4, S3 * y, S3 * x, 0)
        _set(d, 5, 0, S3 * z, S3 * y)
        _set(d, 6, 0, 0, 3 * z)
        _set(d, 7, S3 * z, 0, S3 * x)
        _set(d, 8, S3 * x, -S3 * y, 0)
    if n > 9:
        q, a = 5 * z * z - 1, x * x - y * y
        _set(d, 9, S5_8 * 6 * x * y, S5_8 * 3 * a, 0)
        _set(d, 10, S15 * y * z, S15 * x * z, S15 * x * y)
        _set(d, 11, 0, S3_8 * q, S3_8 * 10 * y * z)
        _set(d, 12, 0, 0, (15 * z * z - 3) / 2)
        _set(d, 13, S3_8 * q, 0, S3_8 * 10 * x * z)
        _set(d, 14, S15 * x * z, -S15 * y * z, S15 / 2 * a)
        _set(d, 15, S5_8 * 3 * a, -S5_8 * 6 * x * y, 0)
    if n > 16:
        q, p, a = 7 * z * z - 1, 7 * z * z - 3, x * x - y * y
        t = 3 * (7 * z * z - 1)
        _set(d, 16, S35 / 2 * y * (3 * x * x - y * y), S35 / 2 * x * (x * x - 3 * y * y), 0)
        _set(d, 17, S35_8 * 6 * x * y * z, S35_8 * 3 * z * a, S35_8 * y * (3 * x * x - y * y))
        _set(d, 18, S5 / 2 * y * q, S5 / 2 * x * q, S5 * 7 * x * y * z)
        _set(d, 19, 0, S5_8 * z * p, S5_8 * y * t)
        _set(d, 20, 0, 0, (35 * z**3 - 15 * z) / 2)
        _set(d, 21, S5_8 * z * p, 0, S5_8 * x * t)
        _set(d, 22, S5 / 2 * x * q, -S5 / 2 * y * q, S5 / 2 * 7 * z * a)
        _set(d, 23, S35_8 * 3 * z * a, -S35_8 * 6 * x * y * z, S35_8 * x * (x * x - 3 * y * y))
        _set(d, 24, S35 / 2 * x * (x * x - 3 * y * y), S35 / 2 * y * (y * y - 3 * x * x), 0)


@njit(fastmath=True, error_model="numpy")
def _splines(r, n, first, spacing, switch_on, cutoff):
    """Return the number of the first of four non-zero splines at r, their values and slopes."""
    x = (r - first) / spacing
    k = min(math.floor(x), n - 3)  # just below the cutoff x may be rounded up to n - 2
    t = x - k
    u = 1 - t
    b0, b3 = u * u * u / 6, t * t * t / 6
    b1, b2 = (3 * t - 6) * t * t / 6 + 2 / 3, (3 * u - 6) * u * u / 6 + 2 / 3
    s0, s3 = -u * u / (2 * spacing), t * t / (2 * spacing)
    s1, s2 = (3 * t - 4) * t / (2 * spacing), (4 - 3 * u) * u / (2 * spacing)
    q = max(0.0, (r - switch_on) / (cutoff - switch_on))
    w = 1 - q * q * q * (10 - 15 * q + 6 * q * q)
    dw = -30 * q * q * (1 - q) * (1 - q) / (cutoff - switch_on)
    slopes = s0 * w + b0 * dw, s1 * w + b1 * dw, s2 * w + b2 * dw, s3 * w + b3 * dw
    return int(k) - 1, (b0 * w, b1 * w, b2 * w, b3 * w), slopes


@njit(inline="always")
def _share(chunk, n):
    """Return the first bead of a chunk, and that of the next."""
    return chunk * n // CHUNKS, (chunk + 1) * n // CHUNKS


@cache
def density(basis: Basis) -> Loop:
    """Return the loop (d, species, rho): set ``rho`` to the density of ``plain_density``."""
    n, width, cutoff = basis.n_harmonics, basis.n_splines, basis.cutoff
    first, spacing, on = basis.first, basis.spacing, basis.switch_on

    @njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
    def loop(d, species, rho):
        n_beads, n_types = d.shape[1], rho.shape[3] // width
        real = d.dtype.type  # a plain 1 would turn single precision into double
        one = real(1)
        for chunk in prange(CHUNKS):
            y = np.empty(n, d.dtype)
            rows = np.empty((n_types, width + MARGIN, n), d.dtype)
            begin, end = _share(chunk, d.shape[0] * n_beads)
            for bead in range(begin, end):
                f, i = bead // n_beads, bead % n_beads
                rows[:] = 0
                for j in range(d.shape[2]):
                    t = species[f, i, j]
                    if t < 0:
                        break
                    x, y_, z = d[f, i, j, 0], d[f, i, j, 1], d[f, i, j, 2]
                    r = math.sqrt(x * x + y_ * y_ + z * z)
                    if r >= cutoff:
                        continue
                    inverse = one / r
                    _harmonics(x * inverse, y_ * inverse, z * inverse, n, y)
                    k, b, _ = _splines(r, width, first, spacing, on, cutoff)
                    if k < -MARGIN:  # nearer than any spline reaches
                        continue
                    k += MARGIN
                    b0, b1, b2, b3 = real(b[0]), real(b[1]), real(b[2]), real(b[3])
                    for c in range(n):  # views of rows would cost more than indices
                        yc = y[c]
                        rows[t, k, c] += b0 * yc
                        rows[t, k + 1, c] += b1 * yc
                        rows[t, k + 2, c] += b2 * yc
                        rows[t, k + 3, c] += b3 * yc
                for t in range(n_types):
                    for k in range(width):
                        for c in range(n):
                            rho[f, i, c, t * width + k] = rows[t, k + MARGIN, c]

    return loop


@cache
def gradient(basis: Basis) -> Loop:
    """Return the loop (d, species, q, g): set g_ij = sum_kc q_ikc d(B_k Y_c)/d(r_ij)."""
    n, width, cutoff = basis.n_harmonics, basis.n_splines, basis.cutoff
    first, spacing, on = basis.first, basis.spacing, basis.switch_on

    @njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
    def loop(d, species, q, g):
        n_beads, n_types = d.shape[1], q.shape[3] // width
        real = d.dtype.type
        zero, one = real(0), real(1)
        for chunk in prange(CHUNKS):
            y, dy = np.empty(n, d.dtype), np.empty((3, n), d.dtype)
            rows = np.zeros((n_types, width + MARGIN, n), d.dtype)
            begin, end = _share(chunk, d.shape[0] * n_beads)
            for bead in range(begin, end):
                f, i = bead // n_beads, bead % n_beads
                for t in range(n_types):
                    for k in range(width):
                        for c in range(n):
                            rows[t, k + MARGIN, c] = q[f, i, c, t * width + k]
                g[f, i] = 0
                for j in range(d.shape[2]):
                    t = species[f, i, j]
                    if t < 0:
                        break
                    ux, uy, uz = d[f, i, j, 0], d[f, i, j, 1], d[f, i, j, 2]
                    r = math.sqrt(ux * ux + uy * uy + uz * uz)
                    if r >= cutoff:
                        continue
                    inverse = one / r
                    ux, uy, uz = ux * inverse, uy * inverse, uz * inverse
                    k, b, slope = _splines(r, width, first, spacing, on, cutoff)
                    if k < -MARGIN:
                        continue
                    _harmonics(ux, uy, uz, n, y)
                    _harmonics_slope(ux, uy, uz, n, dy)
                    k += MARGIN
                    b0, b1, b2, b3 = real(b[0]), real(b[1]), real(b[2]), real(b[3])
                    s0, s1 = real(slope[0]), real(slope[1])
                    s2, s3 = real(slope[2]), real(slope[3])
                    radial, wx, wy, wz = zero, zero, zero, zero
                    for c in range(n):
                        q0, q1 = rows[t, k, c], rows[t, k + 1, c]
                        q2, q3 = rows[t, k + 2, c], rows[t, k + 3, c]
                        across = b0 * q0 + b1 * q1 + b2 * q2 + b3 * q3
                        along = s0 * q0 + s1 * q1 + s2 * q2 + s3 * q3
                        radial += y[c] * along
                        wx += across * dy[0, c]
                        wy += across * dy[1, c]
                        wz += across * dy[2, c]
                    uw = ux * wx + uy * wy + uz * wz
                    g[f, i, j, 0] = ux * radial + (wx - ux * uw) * inverse
                    g[f, i, j, 1] = uy * radial + (wy - uy * uw) * inverse
                    g[f, i, j, 2] = uz * radial + (wz - uz * uw) * inverse

    return loop


@cache
def directional(basis: Basis) -> Loop:
    """Return the loop (d, species, v, out): set ``out`` to sum_j v_ij . d(B_k Y_c)/d(r_ij)."""
    n, width, cutoff = basis.n_harmonics, basis.n_splines, basis.cutoff
    first, spacing, on = basis.first, basis.spacing, basis.switch_on

    @njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
    def loop(d, species, v, out):
        n_beads, n_types = d.shape[1], out.shape[3] // width
        real = d.dtype.type
        one = real(1)
        for chunk in prange(CHUNKS):
            y, dy = np.empty(n, d.dtype), np.empty((3, n), d.dtype)
            rows = np.empty((n_types, width + MARGIN, n), d.dtype)
            begin, end = _share(chunk, d.shape[0] * n_beads)
            for bead in range(begin, end):
                f, i = bead // n_beads, bead % n_beads
                rows[:] = 0
                for j in range(d.shape[2]):
                    t = species[f, i, j]
                    if t < 0:
                        break
                    ux, uy, uz = d[f, i, j, 0], d[f, i, j, 1], d[f, i, j, 2]
                    r = math.sqrt(ux * ux + uy * uy + uz * uz)
                    if r >= cutoff:
                        continue
                    inverse = one / r
                    ux, uy, uz = ux * inverse, uy * inverse, uz * inverse
                    k, b, slope = _splines(r, width, first, spacing, on, cutoff)
                    if k < -MARGIN:
                        continue
                    _harmonics(ux, uy, uz, n, y)
                    _harmonics_slope(ux, uy, uz, n, dy)
                    vx, vy, vz = v[f, i, j, 0], v[f, i, j, 1], v[f, i, j, 2]
                    dr = ux * vx + uy * vy + uz * vz
                    vx, vy, vz = (
                        (vx - ux * dr) * inverse,
                        (vy - uy * dr) * inverse,
                        (vz - uz * dr) * inverse,
                    )
                    k += MARGIN
                    b0, b1, b2, b3 = real(b[0]), real(b[1]), real(b[2]), real(b[3])
                    s0, s1 = real(slope[0]), real(slope[1])
                    s2, s3 = real(slope[2]), real(slope[3])
                    for c in range(n):
                        across = dy[0, c] * vx + dy[1, c] * vy + dy[2, c] * vz
                        along = y[c] * dr
                        rows[t, k, c] += s0 * along + b0 * across
                        rows[t, k + 1, c] += s1 * along + b1 * across
                        rows[t, k + 2, c] += s2 * along + b2 * across
                        rows[t, k + 3, c] += s3 * along + b3 * across
                for t in range(n_types):
                    for k in range(width):
                        for c in range(n):
                            out[f, i, c, t * width + k] = rows[t, k + MARGIN, c]

    return loop


@cache
def spectrum(l_max: int, n_channels: int, n_axis: int) -> Loop:
    """Return the loop (a, b, d): set d to (D(a, b) + D(b, a)) / 2 of ``plain_spectrum``."""

    @njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
    def loop(a, b, d):
        half = a.dtype.type(0.5)
        for i in prange(a.shape[0]):
            for l in range(l_max + 1):
                for n in range(n_axis):
                    for m in range(n_channels):
                        d[i, l, n, m] = 0
                for c in range(l * l, (l + 1) * (l + 1)):
                    for n in range(n_axis):
                        an, bn = half * a[i, c, n], half * b[i, c, n]
                        for m in range(n_channels):
                            d[i, l, n, m] += an * b[i, c, m] + bn * a[i, c, m]

    return loop


@cache
def contraction(l_max: int, n_channels: int, n_axis: int) -> Loop:
    """Return the loop (a, g, out): set ``out`` to the gradient of sum(g D(a, a)) in a."""

    @njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
    def loop(a, g, out):
        zero = a.dtype.type(0)
        for i in prange(a.shape[0]):
            for l in range(l_max + 1):
                for c in range(l * l, (l + 1) * (l + 1)):
                    for m in range(n_channels):
                        out[i, c, m] = 0
                    for n in range(n_axis):
                        an, total = a[i, c, n], zero
                        for m in range(n_channels):
                            out[i, c, m] += g[i, l, n, m] * an
                            total += g[i, l, n, m] * a[i, c, m]
                        out[i, c, n] += total

    return loop
