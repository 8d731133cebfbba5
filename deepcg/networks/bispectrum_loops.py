"""Fused CPU loops behind ``bispectrum.py``: beads side by side in the innermost loop."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

WIDTH = 64
"""Beads that one pass works on."""


@njit(error_model="numpy")
def _gather(a, start, out):
    """Copy beads ``start`` to ``start + WIDTH`` of (beads, components, channels), beads last."""
    for w in range(WIDTH):
        bead = min(start + w, len(a) - 1)
        for c in range(out.shape[0]):
            for n in range(out.shape[1]):
                out[c, n, w] = a[bead, c, n]


@njit(fastmath=True, error_model="numpy")
def _coupled(x, i, y, j, first, last, terms, factors, s):
    """Set s_m3 to sum_m1m2 factor x_m1i y_m2j."""
    s[:] = 0
    for t in range(first, last):
        m1, m2, m3 = terms[t, 0], terms[t, 1], terms[t, 2]
        for w in range(WIDTH):
            s[m3, w] += factors[t] * x[m1, i, w] * y[m2, j, w]


@njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
def products(x, y, z, ends, terms, factors, columns, out):
    """Add the products of x, y and z (beads, components, channels) to ``out`` (beads, columns).

    terms (n, 3) and factors (n,) list the coupled components and their coefficients, coupling c
    from ends[c] up to ends[c + 1]; columns (couplings, n, n, n) says where a product of
    channels goes, -1 for those that repeat others.
    """
    n_components, n = x.shape[1], x.shape[2]
    for block in prange((len(x) + WIDTH - 1) // WIDTH):
        start = block * WIDTH
        here = np.empty((3, n_components, n, WIDTH), x.dtype)
        _gather(x, start, here[0])
        _gather(y, start, here[1])
        _gather(z, start, here[2])
        s = np.empty((n_components, WIDTH), x.dtype)
        sums = np.zeros((out.shape[1], WIDTH), x.dtype)
        for c in range(len(ends) - 1):
            first, last = ends[c], ends[c + 1]
            low, high = terms[first:last, 2].min(), terms[first:last, 2].max() + 1
            for i in range(n):
                for j in range(n):
                    if columns[c, i, j].max() < 0:
                        continue
                    _coupled(here[0], i, here[1], j, first, last, terms, factors, s)
                    for k in range(n):
                        column = columns[c, i, j, k]
                        if column < 0:
                            continue
                        for m in range(low, high):
                            for w in range(WIDTH):
                                sums[column, w] += s[m, w] * here[2, m, k, w]
        for w in range(min(WIDTH, len(x) - start)):
            for column in range(out.shape[1]):
                out[start + w, column] += sums[column, w]


@njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
def adjoint(g, x, y, ends, terms, factors, columns, out):
    """Add to ``out`` the gradient of sum(g products) in one factor, the others being x and y.

    Summed over the three places of the factor; x comes before y in the places that are left.
    """
    n_components, n = x.shape[1], x.shape[2]
    for block in prange((len(x) + WIDTH - 1) // WIDTH):
        start = block * WIDTH
        here = np.empty((2, n_components, n, WIDTH), x.dtype)
        _gather(x, start, here[0])
        _gather(y, start, here[1])
        pull = np.empty((g.shape[1], WIDTH), x.dtype)
        for w in range(WIDTH):
            for column in range(g.shape[1]):
                pull[column, w] = g[min(start + w, len(x) - 1), column]
        s = np.empty((n_components, WIDTH), x.dtype)
        back = np.empty((n_components, WIDTH), x.dtype)
        sums = np.zeros((n_components, n, WIDTH), x.dtype)
        for c in range(len(ends) - 1):
            first, last = ends[c], ends[c + 1]
            low, high = terms[first:last, 2].min(), terms[first:last, 2].max() + 1
            for i in range(n):
                for j in range(n):
                    if columns[c, i, j].max() < 0:
                        continue
                    _coupled(here[0], i, here[1], j, first, last, terms, factors, s)
                    back[:] = 0
                    for k in range(n):
                        column = columns[c, i, j, k]
                        if column < 0:
                            continue
                        for m in range(low, high):
                            for w in range(WIDTH):
                                sums[m, k, w] += pull[column, w] * s[m, w]
                                back[m, w] += pull[column, w] * here[1, m, k, w]
                    for t in range(first, last):
                        m1, m2, m3 = terms[t, 0], terms[t, 1], terms[t, 2]
                        for w in range(WIDTH):
                            f = factors[t] * back[m3, w]
                            sums[m1, i, w] += f * here[0, m2, j, w]
                            sums[m2, j, w] += f * here[0, m1, i, w]
        for w in range(min(WIDTH, len(x) - start)):
            for component in range(n_components):
                for k in range(n):
                    out[start + w, component, k] += sums[component, k, w]
