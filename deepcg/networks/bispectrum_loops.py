"""Fused CPU loops behind ``bispectrum.py``: a vector has LANES beads."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from deepcg.vectors import LANES, load, store


@njit(error_model="numpy")
def _gather(a, start, out):
    """Copy LANES beads of (beads, components, channels) from ``start`` on, beads last."""
    n = a.shape[2]
    for lane in range(LANES):
        bead = min(start + lane, len(a) - 1)
        for c in range(a.shape[1]):
            for k in range(n):
                out[(c * n + k) * LANES + lane] = a[bead, c, k]


@njit(fastmath=True, error_model="numpy")
def _coupled(x, i, y, j, n, first, last, terms, factors, s):
    """Set s_m3 to sum_m1m2 factor x_m1i y_m2j."""
    s[:] = 0
    for t in range(first, last):
        m1, m2, m3 = terms[t, 0] * n + i, terms[t, 1] * n + j, terms[t, 2] * LANES
        both = load(x, m1 * LANES, LANES) * load(y, m2 * LANES, LANES)
        store(s, m3, load(s, m3, LANES) + factors[t] * both)


@njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
def products(x, y, z, ends, terms, factors, columns, out):
    """Add the products of x, y and z (beads, components, channels) to ``out`` (beads, columns).

    terms (n, 3) and factors (n,) list the coupled components and their coefficients, coupling c
    from ends[c] up to ends[c + 1]; columns (couplings, n, n, n) says where a product of
    channels goes, -1 for those that repeat others.
    """
    n_components, n = x.shape[1], x.shape[2]
    for block in prange((len(x) + LANES - 1) // LANES):
        start = block * LANES
        x_ = np.empty(n_components * n * LANES, x.dtype)
        y_, z_ = np.empty_like(x_), np.empty_like(x_)
        _gather(x, start, x_)
        _gather(y, start, y_)
        _gather(z, start, z_)
        s = np.empty(n_components * LANES, x.dtype)
        sums = np.zeros(out.shape[1] * LANES, x.dtype)
        for c in range(len(ends) - 1):
            first, last = ends[c], ends[c + 1]
            low, high = terms[first:last, 2].min(), terms[first:last, 2].max() + 1
            for i in range(n):
                for j in range(n):
                    if columns[c, i, j].max() < 0:
                        continue
                    _coupled(x_, i, y_, j, n, first, last, terms, factors, s)
                    for k in range(n):
                        if columns[c, i, j, k] < 0:
                            continue
                        column = columns[c, i, j, k] * LANES
                        here = load(sums, column, LANES)
                        for m in range(low, high):
                            here = here + load(s, m * LANES, LANES) * load(
                                z_, (m * n + k) * LANES, LANES
                            )
                        store(sums, column, here)
        for lane in range(min(LANES, len(x) - start)):
            for column in range(out.shape[1]):
                out[start + lane, column] += sums[column * LANES + lane]


@njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
def adjoint(g, x, y, ends, terms, factors, columns, out):
    """Add to ``out`` the gradient of sum(g products) in one factor, the others being x and y.

    Summed over the three places of the factor; x comes before y in the places that are left.
    """
    n_components, n = x.shape[1], x.shape[2]
    for block in prange((len(x) + LANES - 1) // LANES):
        start = block * LANES
        x_ = np.empty(n_components * n * LANES, x.dtype)
        y_, sums = np.empty_like(x_), np.zeros_like(x_)
        _gather(x, start, x_)
        _gather(y, start, y_)
        pull = np.empty(g.shape[1] * LANES, x.dtype)
        for lane in range(LANES):
            for column in range(g.shape[1]):
                pull[column * LANES + lane] = g[min(start + lane, len(x) - 1), column]
        s = np.empty(n_components * LANES, x.dtype)
        back = np.empty_like(s)
        for c in range(len(ends) - 1):
            first, last = ends[c], ends[c + 1]
            low, high = terms[first:last, 2].min(), terms[first:last, 2].max() + 1
            for i in range(n):
                for j in range(n):
                    if columns[c, i, j].max() < 0:
                        continue
                    _coupled(x_, i, y_, j, n, first, last, terms, factors, s)
                    back[:] = 0
                    for k in range(n):
                        if columns[c, i, j, k] < 0:
                            continue
                        slope = load(pull, columns[c, i, j, k] * LANES, LANES)
                        for m in range(low, high):
                            at, mk = m * LANES, (m * n + k) * LANES
                            store(sums, mk, load(sums, mk, LANES) + slope * load(s, at, LANES))
                            store(back, at, load(back, at, LANES) + slope * load(y_, mk, LANES))
                    for t in range(first, last):
                        one, two = (terms[t, 0] * n + i) * LANES, (terms[t, 1] * n + j) * LANES
                        f = factors[t] * load(back, terms[t, 2] * LANES, LANES)
                        # in turn: both may be the same row
                        store(sums, one, load(sums, one, LANES) + f * load(x_, two, LANES))
                        store(sums, two, load(sums, two, LANES) + f * load(x_, one, LANES))
        for lane in range(min(LANES, len(x) - start)):
            for component in range(n_components):
                for k in range(n):
                    out[start + lane, component, k] += sums[(component * n + k) * LANES + lane]
