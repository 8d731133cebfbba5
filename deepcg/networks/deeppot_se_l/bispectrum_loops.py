"""Fused CPU loops behind ``bispectrum.py``: a vector has LANES beads."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from deepcg.compute.simd import LANES, load, store, transpose


@njit(error_model="numpy")
def _gather(a, start, out):
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
def _scatter(sums, turned, start, out):
    """Add LANES beads, which come last in ``sums``, to (beads, numbers) from ``start`` on."""
    size = out.shape[1]
    wide = len(turned) // LANES
    for part in range(0, wide, LANES):
        transpose(sums, part * LANES, LANES, turned, part, wide)
    for lane in range(min(LANES, len(out) - start)):
        for k in range(size):
            out[start + lane, k] += turned[lane * wide + k]


@njit(error_model="numpy")
def _room(size, dtype):
    """Return numbers, zero, for LANES beads, up to whole squares."""
    return np.zeros(-(-size // LANES) * LANES * LANES, dtype)


@njit(fastmath=True, error_model="numpy")
def _coupled(x, y, j, n, terms, factors, wanted, s):
    """Set s_im3 to sum_m1m2 factor x_m1i y_m2j, of those i that are wanted."""
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
def _uncoupled(x, back, j, n, terms, factors, wanted, sums):
    """Add to sums the gradient of sum(back s) in both factors of s, at which x is."""
    height = len(back) // (n * LANES)
    for t in range(len(terms)):
        m1, two, m3 = terms[t, 0] * n, (terms[t, 1] * n + j) * LANES, terms[t, 2]
        scaled = factors[t] * load(x, two, LANES)
        for i in range(n):
            if wanted[i, j]:
                one = (m1 + i) * LANES
                pull = load(back, (i * height + m3) * LANES, LANES)
                # in turn: both may be the same row
                store(sums, one, load(sums, one, LANES) + pull * scaled)
                more = factors[t] * pull * load(x, one, LANES)
                store(sums, two, load(sums, two, LANES) + more)


@njit(error_model="numpy")
def layout(terms, ends, columns):
    """Return the first and the last m3 of each coupling, and which i and j have any column."""
    n_couplings, n = columns.shape[:2]
    rows, wanted = np.zeros((n_couplings, 2), np.int64), np.zeros((n_couplings, n, n), np.bool_)
    for c in range(n_couplings):
        of = terms[ends[c] : ends[c + 1], 2]
        rows[c, 0], rows[c, 1] = of.min(), of.max() + 1
        for i in range(n):
            for j in range(n):
                wanted[c, i, j] = columns[c, i, j].max() >= 0
    return rows, wanted


@njit(fastmath=True, error_model="numpy")
def add_products(x, y, z, n, ends, terms, factors, columns, rows, wanted, s, sums):
    """Add the products of ``products`` to ``sums`` for LANES beads, which come last everywhere.

    ``rows`` and ``wanted`` are those of ``layout``; ``s`` is as large as x, and written to.
    """
    height = len(s) // (n * LANES)
    for c in range(len(ends) - 1):
        part = slice(ends[c], ends[c + 1])
        for j in range(n):
            _coupled(x, y, j, n, terms[part], factors[part], wanted[c], s)
            for i in range(n):
                for k in range(n):
                    if columns[c, i, j, k] < 0:
                        continue
                    column = columns[c, i, j, k] * LANES
                    here = load(sums, column, LANES)
                    for m in range(rows[c, 0], rows[c, 1]):
                        one = load(s, (i * height + m) * LANES, LANES)
                        here = here + one * load(z, (m * n + k) * LANES, LANES)
                    store(sums, column, here)


@njit(fastmath=True, error_model="numpy")
def add_slopes(g, x, y, n, ends, terms, factors, columns, rows, wanted, s, back, sums):
    """Add the gradient of ``adjoint`` to ``sums`` for LANES beads, which come last everywhere.

    ``s`` and ``back`` are as large as x, and written to.
    """
    height = len(s) // (n * LANES)
    for c in range(len(ends) - 1):
        part = slice(ends[c], ends[c + 1])
        for j in range(n):
            _coupled(x, y, j, n, terms[part], factors[part], wanted[c], s)
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
            _uncoupled(x, back, j, n, terms[part], factors[part], wanted[c], sums)


@njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
def products(x, y, z, ends, terms, factors, columns, out):
    """Add the products of x, y and z (beads, components, channels) to ``out`` (beads, columns).

    terms (n, 3) and factors (n,) list the coupled components and their coefficients, coupling c
    from ends[c] up to ends[c + 1]; columns (couplings, n, n, n) says where a product of
    channels goes, -1 for those that repeat others.
    """
    height, n = x.shape[1], x.shape[2]
    rows, wanted = layout(terms, ends, columns)
    for block in prange((len(x) + LANES - 1) // LANES):
        start = block * LANES
        x_, y_ = _room(height * n, x.dtype), _room(height * n, x.dtype)
        z_, s = np.empty_like(x_), np.empty(height * n * LANES, x.dtype)
        _gather(x.reshape(len(x), -1), start, x_)
        _gather(y.reshape(len(x), -1), start, y_)
        _gather(z.reshape(len(x), -1), start, z_)
        sums = _room(out.shape[1], x.dtype)
        add_products(x_, y_, z_, n, ends, terms, factors, columns, rows, wanted, s, sums)
        _scatter(sums, np.empty_like(sums), start, out)


@njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
def adjoint(g, x, y, ends, terms, factors, columns, out):
    """Add to ``out`` the gradient of sum(g products) in one factor, the others being x and y.

    Summed over the three places of the factor; x comes before y in the places that are left.
    """
    height, n = x.shape[1], x.shape[2]
    rows, wanted = layout(terms, ends, columns)
    for block in prange((len(x) + LANES - 1) // LANES):
        start = block * LANES
        x_, y_ = _room(height * n, x.dtype), _room(height * n, x.dtype)
        sums = np.zeros_like(x_)
        s = np.empty(height * n * LANES, x.dtype)
        back, pull = np.empty_like(s), _room(g.shape[1], x.dtype)
        _gather(x.reshape(len(x), -1), start, x_)
        _gather(y.reshape(len(x), -1), start, y_)
        _gather(g, start, pull)
        add_slopes(pull, x_, y_, n, ends, terms, factors, columns, rows, wanted, s, back, sums)
        _scatter(sums, np.empty_like(sums), start, out.reshape(len(x), -1))
