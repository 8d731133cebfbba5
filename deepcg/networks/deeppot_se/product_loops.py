"""Compiled loops of the descriptor D of DeepPot-SE: products of columns of F, and the way back.

==============  ===========  ===================  =============
symbol          name here    shape                unit
==============  ===========  ===================  =============
F_ca            features     (i, 4, a)            1
D_ab            out, row     (i, n)               1
dU/dD_ab        slopes       (i, n)               kJ/mol
dU/dF_ca        out, up      (i, 4, a)            kJ/mol
==============  ===========  ===================  =============

i are beads, a and b channels; the pairs (a, b), n of them, are those with b < axis, or with b <= a
if triangular, in the order of rows. D is defined by
``deepcg.networks.deeppot_se.descriptor.Products.of``; they are tied, in double precision, by
``tests/networks/test_fitting.py::test_energies_and_slopes_are_those_of_autograd``.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from deepcg.compute.loops import CHUNKS, Array, compiled, padded, share
from deepcg.compute.simd import LANES, load, store, total


@compiled(fastmath=True)
def products(features: Array, axis: int, triangular: bool, out: Array) -> None:
    """Set ``out`` (beads, n) to D_ab = sum_c F_ca F_cb."""
    n_beads, channels = len(features), features.shape[2]
    for chunk in prange(CHUNKS):
        for bead in range(*share(chunk, n_beads)):
            f, row, place = features[bead], out[bead], 0
            for a in range(channels):
                f0, f1, f2, f3 = f[0, a], f[1, a], f[2, a], f[3, a]
                some = a + 1 if triangular else axis
                for b in range(some):
                    row[place + b] = f0 * f[0, b] + f1 * f[1, b] + f2 * f[2, b] + f3 * f[3, b]
                place += some


@compiled(fastmath=True)
def products_back(
    features: Array, slopes: Array, axis: int, triangular: bool, scale: float, out: Array
) -> None:
    """Set ``out`` (beads, 4, channels) to the gradient of sum(slopes D) in F, times a number.

    Rows of slopes and of F are copied to where they fill whole vectors.
    """
    n_beads, channels = len(features), features.shape[2]
    wide = padded(channels)
    for chunk in prange(CHUNKS):
        f, up = np.zeros((4, wide), features.dtype), np.zeros((4, wide), features.dtype)
        given, summed = f.ravel(), up.ravel()
        row, nothing = np.zeros(wide, features.dtype), np.zeros(LANES, features.dtype)
        for bead in range(*share(chunk, n_beads)):
            f[:, :channels], up[:], place = features[bead], 0, 0
            for a in range(channels):
                some = a + 1 if triangular else axis
                for b in range(some):
                    row[b] = slopes[bead, place + b]
                f0, f1, f2, f3 = f[0, a], f[1, a], f[2, a], f[3, a]
                u0 = u1 = u2 = u3 = load(nothing, 0, LANES)
                # what a triangle's row leaves out is zero yet: its rows only grow longer
                for b in range(0, some, LANES):
                    slope = load(row, b, LANES)
                    b1, b2, b3 = wide + b, 2 * wide + b, 3 * wide + b
                    # the product rule's first part: dU/dF_ca += sum_b dU/dD_ab F_cb
                    u0, u1 = u0 + slope * load(given, b, LANES), u1 + slope * load(given, b1, LANES)
                    u2 = u2 + slope * load(given, b2, LANES)
                    u3 = u3 + slope * load(given, b3, LANES)
                    # its second: dU/dF_cb += dU/dD_ab F_ca
                    store(summed, b, load(summed, b, LANES) + slope * f0)
                    store(summed, b1, load(summed, b1, LANES) + slope * f1)
                    store(summed, b2, load(summed, b2, LANES) + slope * f2)
                    store(summed, b3, load(summed, b3, LANES) + slope * f3)
                up[0, a] += total(u0)
                up[1, a] += total(u1)
                up[2, a] += total(u2)
                up[3, a] += total(u3)
                place += some
            row[:] = 0
            for c in range(4):
                for m in range(channels):
                    out[bead, c, m] = up[c, m] * scale
