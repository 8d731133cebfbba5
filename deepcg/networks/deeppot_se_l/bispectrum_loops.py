"""Compiled loops of the bispectrum of the density, and its derivatives: a vector has LANES beads.

T(x, y, z)_abc = sum_m1m2m3 G_m1m2m3 x_m1a y_m2b z_m3c of densities, for each coupling (l1, l2, l3)
and all channels a, b, c; the bispectrum is B = T(A, A, A). Loops first couple two factors,
s_am3 = sum_m1m2 G_m1m2m3 x_m1a y_m2b, for one channel b at a time.

====================  ===========================  ======================  ====================
symbol                name here                    shape                   unit
====================  ===========================  ======================  ====================
x, y, z               x, y, z; x_, y_, z_          (i, m, a); beads last   any
T_abc                 out, sums                    (i, columns)            that of x y z
column of T_abc       columns                      (couplings, a, b, c)    -1: as another
m1, m2, m3            terms, of one coupling       (terms, 3)              -
G_m1m2m3              factors, of one coupling     (terms,)                1
a, b, c               i, j, k                      -                       -
s_am3                 s                            (a, m, LANES)           that of x y
which a of each b     wanted                       (couplings, a, b)       -
g_abc = dU/dT_abc     g, slope                     (i, columns)            kJ/mol
dU/ds_am3             back                         (a, m, LANES)           any
dU/dx_ma              out of adjoint, sums         (i, m, a)               any
====================  ===========================  ======================  ====================

i are beads, m all components (l, m) of the harmonics, from l * l on. B is defined by
``deepcg.networks.deeppot_se_l.bispectrum.reference_bispectrum``; they are tied by
``tests/networks/test_bispectrum.py::test_fused_loops_give_the_definition_and_its_derivatives``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from deepcg.compute.loops import Array, compiled, padded
from deepcg.compute.simd import LANES, load, store, transpose

Couplings = tuple[Array, ...]
"""Ends, terms, factors and columns, see ``products``."""

Threes = tuple[Array, Array, Array, Array, Array, Array]
"""The same, and what ``layout`` adds to them."""


@njit(error_model="numpy")
def _gather(a: Array, start: int, out: Array) -> None:
    """Copy LANES beads of (beads, numbers) from ``start`` on, beads last; the last one again."""
    size, whole = a.shape[1], 0
    if start + LANES <= len(a):
        whole = size - size % LANES
        flat = a.ravel()
        for part in range(0, whole, LANES):
            transpose(flat, start * size + part, size, out, part * LANES, LANES)
    for lane in range(LANES):
        for k in range(whole, size):
            out[k * LANES + lane] = a[min(start + lane, len(a) - 1), k]


@njit(error_model="numpy")
def _scatter(sums: Array, turned: Array, start: int, out: Array) -> None:
    """Add LANES beads, which come last in ``sums``, to (beads, numbers) from ``start`` on."""
    size = out.shape[1]
    wide = len(turned) // LANES
    for part in range(0, wide, LANES):
        transpose(sums, part * LANES, LANES, turned, part, wide)
    for lane in range(min(LANES, len(out) - start)):
        for k in range(size):
            out[start + lane, k] += turned[lane * wide + k]


@njit(error_model="numpy")
def _zeros(size: int, dtype: Any) -> Array:
    """Return numbers, zero, for LANES beads, up to whole squares."""
    return np.zeros(padded(size) * LANES, dtype)


@njit(fastmath=True, error_model="numpy")
def _coupled(
    x: Array, y: Array, j: int, n: int, terms: Array, factors: Array, wanted: Array, s: Array
) -> None:
    """Set s_im3 to sum_m1m2 G_m1m2m3 x_m1i y_m2j, of those i that are wanted."""
    s[:] = 0
    height = len(s) // (n * LANES)
    for t in range(len(terms)):
        m1, m2, m3 = terms[t, 0], terms[t, 1], terms[t, 2]
        scaled = factors[t] * load(y, (m2 * n + j) * LANES, LANES)
        for i in range(n):
            if wanted[i, j]:
                to = (i * height + m3) * LANES
                store(s, to, load(s, to, LANES) + scaled * load(x, (m1 * n + i) * LANES, LANES))


@njit(fastmath=True, error_model="numpy")
def _uncoupled(
    x: Array, back: Array, j: int, n: int, terms: Array, factors: Array, wanted: Array, sums: Array
) -> None:
    """Add to sums the gradient of sum(back s) in both factors of s, at which x is."""
    height = len(back) // (n * LANES)
    for t in range(len(terms)):
        m1, two, m3 = terms[t, 0] * n, (terms[t, 1] * n + j) * LANES, terms[t, 2]
        scaled = factors[t] * load(x, two, LANES)
        for i in range(n):
            if wanted[i, j]:
                one = (m1 + i) * LANES
                slope = load(back, (i * height + m3) * LANES, LANES)
                # in the first factor: G dU/ds_im3 x_m2j; in the second: G dU/ds_im3 x_m1i
                # in turn: both may be the same row
                store(sums, one, load(sums, one, LANES) + slope * scaled)
                more = factors[t] * slope * load(x, one, LANES)
                store(sums, two, load(sums, two, LANES) + more)


@njit(error_model="numpy")
def layout(couplings: Couplings) -> Threes:
    """Add the first and one past the last m3 of each coupling, and which i, j have columns.

    (couplings, 2), and bool, (couplings, channels, channels).
    """
    ends, terms, factors, columns = couplings
    n_couplings, n = columns.shape[:2]
    rows, wanted = np.zeros((n_couplings, 2), np.int64), np.zeros((n_couplings, n, n), np.bool_)
    for c in range(n_couplings):
        of = terms[ends[c] : ends[c + 1], 2]
        rows[c, 0], rows[c, 1] = of.min(), of.max() + 1
        for i in range(n):
            for j in range(n):
                wanted[c, i, j] = columns[c, i, j].max() >= 0
    return ends, terms, factors, columns, rows, wanted


@njit(fastmath=True, error_model="numpy")
def add_products(
    x: Array, y: Array, z: Array, n: int, threes: Threes, s: Array, sums: Array
) -> None:
    """Add the products of ``products`` to ``sums`` for LANES beads, which come last everywhere.

    x, y and z are flat (m, a, LANES), ``sums`` flat (columns, LANES). ``threes`` are those
    of ``layout``; ``s`` is as large as x, and written to.
    """
    ends, terms, factors, columns, rows, wanted = threes
    height = len(s) // (n * LANES)
    for c in range(len(ends) - 1):
        part = slice(ends[c], ends[c + 1])
        for j in range(n):
            _coupled(x, y, j, n, terms[part], factors[part], wanted[c], s)
            for i in range(n):
                for k in range(n):
                    if columns[c, i, j, k] < 0:
                        continue
                    # T_ijk = sum_m3 s_im3 z_m3k
                    column = columns[c, i, j, k] * LANES
                    here = load(sums, column, LANES)
                    for m in range(rows[c, 0], rows[c, 1]):
                        one = load(s, (i * height + m) * LANES, LANES)
                        here = here + one * load(z, (m * n + k) * LANES, LANES)
                    store(sums, column, here)


@njit(fastmath=True, error_model="numpy")
def add_slopes(
    g: Array, x: Array, y: Array, n: int, threes: Threes, s: Array, back: Array, sums: Array
) -> None:
    """Add the gradient of ``adjoint`` to ``sums`` for LANES beads, which come last everywhere.

    x, y and ``sums`` are flat (m, a, LANES), g is flat (columns, LANES). ``s`` and ``back`` are as
    large as x, and written to.
    """
    ends, terms, factors, columns, rows, wanted = threes
    height = len(s) // (n * LANES)
    for c in range(len(ends) - 1):
        part = slice(ends[c], ends[c + 1])
        for j in range(n):
            _coupled(x, y, j, n, terms[part], factors[part], wanted[c], s)
            # T_ijk is linear in its third factor, with slope s_im3, and in s_im3, with slope y_m3k
            back[:] = 0
            for i in range(n):
                for k in range(n):
                    if columns[c, i, j, k] < 0:
                        continue
                    slope = load(g, columns[c, i, j, k] * LANES, LANES)
                    for m in range(rows[c, 0], rows[c, 1]):
                        at, mk = (i * height + m) * LANES, (m * n + k) * LANES
                        store(sums, mk, load(sums, mk, LANES) + slope * load(s, at, LANES))
                        store(back, at, load(back, at, LANES) + slope * load(y, mk, LANES))
            # and s_im3 in its first and second
            _uncoupled(x, back, j, n, terms[part], factors[part], wanted[c], sums)


@compiled(fastmath=True)
def products(x: Array, y: Array, z: Array, couplings: Couplings, out: Array) -> None:
    """Add T(x, y, z) of x, y and z (beads, components, channels) to ``out`` (beads, columns).

    The couplings: terms (n, 3) and factors (n,) list the coupled components and their
    coefficients, coupling c from ends[c] up to ends[c + 1]; columns (couplings, n, n, n) says
    where a product of channels goes, -1 for those that repeat others.
    """
    height, n = x.shape[1], x.shape[2]
    threes = layout(couplings)
    for block in prange((len(x) + LANES - 1) // LANES):
        start = block * LANES
        x_, y_ = _zeros(height * n, x.dtype), _zeros(height * n, x.dtype)
        z_, s = np.empty_like(x_), np.empty(height * n * LANES, x.dtype)
        _gather(x.reshape(len(x), -1), start, x_)
        _gather(y.reshape(len(x), -1), start, y_)
        _gather(z.reshape(len(x), -1), start, z_)
        sums = _zeros(out.shape[1], x.dtype)
        add_products(x_, y_, z_, n, threes, s, sums)
        _scatter(sums, np.empty_like(sums), start, out)


@compiled(fastmath=True)
def adjoint(g: Array, x: Array, y: Array, couplings: Couplings, out: Array) -> None:
    """Add to ``out`` the gradient of sum(g products) in one factor, the others being x and y.

    Summed over the three places of the factor; x comes before y in the places that are left. These
    and ``out`` are (i, m, a), g is (i, columns).
    """
    height, n = x.shape[1], x.shape[2]
    threes = layout(couplings)
    for block in prange((len(x) + LANES - 1) // LANES):
        start = block * LANES
        x_, y_ = _zeros(height * n, x.dtype), _zeros(height * n, x.dtype)
        sums = np.zeros_like(x_)
        s = np.empty(height * n * LANES, x.dtype)
        back, slopes = np.empty_like(s), _zeros(g.shape[1], x.dtype)
        _gather(x.reshape(len(x), -1), start, x_)
        _gather(y.reshape(len(x), -1), start, y_)
        _gather(g, start, slopes)
        add_slopes(slopes, x_, y_, n, threes, s, back, sums)
        _scatter(sums, np.empty_like(sums), start, out.reshape(len(x), -1))
