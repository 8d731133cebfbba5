"""The whole of a ``DeepPotSEL`` and its pair gradients, in one compiled loop for the CPU.

rho_ck to A_cn = sum_k rho_ck M_kn - mean, to the features (A_0n, D_lnm, B_abc), to U, and back.
LANES beads go through all stages together, so that what one stage leaves for the next stays in the
cache. About a bead, a vector holds harmonics or neighbors; in the invariants and the fitting net,
where every bead does the same, it holds the beads.

========================  ===========================  =======================  =========
symbol                    name here                    shape                    unit
========================  ===========================  =======================  =========
r_ij                      d; away                      (f, i, j, 3)             nm
rho_ck, one bead          sums                         (types, k, c)            1
M_kn                      mix, of a type               ``fitting.strips``       1
M_kn, for the way back    unmix, of a type             ``fitting.strips``       1
mean of A_0n              offset                       (types, n)               1
A_cn                      about; x                     (LANES beads, n, c);     1
                                                       (c, n, LANES beads)
A_0n, D_lnm, B_abc        inputs                       (features, LANES)        1
A of products of three    some                         (c, a, LANES)            1
U_i                       energies; e                  (LANES,); (f, i)         kJ/mol
dU/d(features)            inputs, after ``fit``        (features, LANES)        kJ/mol
dU/dA_cn                  back; about                  as A_cn                  kJ/mol
dU/drho_ck, one bead      sums                         (types, k, c)            kJ/mol
dU/dr_ij                  g                            (f, i, j, 3)             kJ/mol/nm
========================  ===========================  =======================  =========

f are frames, i beads, j neighbors, k splines, c harmonics, n and m channels, m with any n < n_axis
in D. Density, bispectrum and net are those of ``density_loops``, ``bispectrum_loops`` and
``fitting_loops``. All is defined by ``deepcg.networks.deeppot_se_l.model.DeepPotSEL.forward``; they
are tied by
``tests/networks/test_fused_deeppot_se_l.py::test_compiled_forces_are_those_of_the_definition``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from deepcg.compute.loops import Array, compiled, padded
from deepcg.compute.simd import LANES, load, store, transpose
from deepcg.networks.deeppot_se_l.bispectrum_loops import (
    Couplings,
    Threes,
    add_products,
    add_slopes,
    layout,
)
from deepcg.networks.deeppot_se_l.density_loops import (
    MARGIN,
    Numbers,
    add_neighbors,
    set_pair_gradients,
    workspace,
)
from deepcg.networks.fitting_loops import STRIP, Net, fit, linear, scratch_for, strips_of
from deepcg.networks.neighbor_loops import capacity_for, near_neighbors


@njit(fastmath=True, error_model="numpy")
def _power_spectrum(x: Array, n_l: int, n_axis: int, n: int, out: Array, at: int) -> None:
    """Write the power spectrum D_lij = sum_c x_ci x_cj, i < n_axis, to ``out`` from row at on."""
    for l in range(n_l):
        for i in range(n_axis):
            for j in range(n):
                first = l * l * n
                here = load(x, (first + i) * LANES, LANES) * load(x, (first + j) * LANES, LANES)
                for c in range(1, 2 * l + 1):
                    row = first + c * n
                    more = load(x, (row + i) * LANES, LANES) * load(x, (row + j) * LANES, LANES)
                    here = here + more
                store(out, (at + (l * n_axis + i) * n + j) * LANES, here)


@njit(fastmath=True, error_model="numpy")
def _power_spectrum_slopes(
    x: Array, n_l: int, n_axis: int, n: int, g: Array, at: int, out: Array
) -> None:
    """Set ``out`` to the gradient in x of sum(g D), g from row ``at`` on."""
    for l in range(n_l):
        for c in range(l * l, (l + 1) * (l + 1)):
            row = c * n
            # D_lij = sum_c x_ci x_cj: its gradient in x_cj, sum_i g_lij x_ci
            for j in range(n):
                first = at + l * n_axis * n + j
                here = load(g, first * LANES, LANES) * load(x, row * LANES, LANES)
                for i in range(1, n_axis):
                    slope = load(g, (first + i * n) * LANES, LANES)
                    here = here + slope * load(x, (row + i) * LANES, LANES)
                store(out, (row + j) * LANES, here)
            # and in x_ci, sum_j g_lij x_cj
            for i in range(n_axis):
                first = at + (l * n_axis + i) * n
                here = load(out, (row + i) * LANES, LANES)
                for j in range(n):
                    slope = load(g, (first + j) * LANES, LANES)
                    here = here + slope * load(x, (row + j) * LANES, LANES)
                store(out, (row + i) * LANES, here)


@njit(error_model="numpy")
def _copy(source: Array, stride: int, target: Array, width: int, rows: int) -> None:
    """Copy the first ``width`` of every ``stride`` vectors, for so many rows."""
    for c in range(rows):
        for i in range(width):
            store(target, (c * width + i) * LANES, load(source, (c * stride + i) * LANES, LANES))


@njit(fastmath=True, error_model="numpy")
def _add_copy(source: Array, width: int, target: Array, stride: int, rows: int) -> None:
    """Add what ``_copy`` would have copied."""
    for c in range(rows):
        for i in range(width):
            to = (c * stride + i) * LANES
            more = load(source, (c * width + i) * LANES, LANES)
            store(target, to, load(target, to, LANES) + more)


@njit(fastmath=True, error_model="numpy")
def _energies_and_slopes(
    x: Array, n_l: int, channels: tuple[int, int, int], net: Net, threes: Threes, back: Array
) -> Array:
    """Return the energies of LANES beads, and set ``back`` to their gradient in A, x.

    Both hold harmonics, channels and beads, in this order; ``back`` is zero. ``channels`` are the
    numbers of all, of axis neurons and of those in products of three; ``net`` what ``fit`` needs
    to know; ``threes`` what ``bispectrum_loops`` does.
    """
    n, n_axis, n_some = channels
    sizes = net[0]
    dtype, once, first = x.dtype, n * LANES, n * (1 + n_l * n_axis) * LANES
    # the features A_0, D and, of the first n_some channels, B
    inputs = np.zeros(strips_of(sizes[0]) * STRIP * LANES, dtype)
    inputs[:once] = x[:once]
    _power_spectrum(x, n_l, n_axis, n, inputs, n)
    some = np.empty(n_l * n_l * n_some * LANES, dtype)
    s, t, slopes = np.empty_like(some), np.empty_like(some), np.zeros_like(some)
    if n_some:
        _copy(x, n, some, n_some, n_l * n_l)
        add_products(some, some, some, n_some, threes, s, inputs[first:])
    # U, and dU/d(features) in place of these
    energies = np.empty(LANES, dtype)
    fit(inputs, net, scratch_for(sizes, dtype), energies)
    # dU/dA: what D, A_0 and B add
    _power_spectrum_slopes(x, n_l, n_axis, n, inputs, n, back)
    _add_copy(inputs, n, back, n, 1)
    if n_some:
        add_slopes(inputs[first:], some, some, n_some, threes, s, t, slopes)
        _add_copy(slopes, n_some, back, n, n_l * n_l)
    return energies


@njit(error_model="numpy")
def _turn(about: Array, n: int, wide: int, x: Array, back: bool) -> None:
    """Copy rows of beads (LANES, n * wide or more) to x (wide, n, LANES), or the other way back."""
    flat, step = about.ravel(), about.shape[1]
    for m in range(n):
        for part in range(0, wide, LANES):
            at, to = m * wide + part, (part * n + m) * LANES
            if back:
                transpose(x, to, n * LANES, flat, at, step)
            else:
                transpose(flat, at, step, x, to, n * LANES)


@compiled(fastmath=True)
def energies_and_pulls(
    d: Array,
    neighbor_types: Array,
    numbers: Numbers,
    n_harmonics: int,
    beads: Array,
    kinds: Array,
    channels: tuple[int, int, int],
    mixing: tuple[Array, Array, Array],
    net: Net,
    couplings: Couplings,
    e: Array,
    g: Array,
) -> None:
    """Set bead energies e and pair gradients dU/dr_ij g.

    Given displacements (frames, beads, width, 3) and types (frames, beads, width) of neighbors; the
    numbers of the basis, and that of harmonics; beads in groups of LANES of one type (groups,
    LANES), the last repeated where there are fewer, and these types (groups,); the numbers of
    channels, of axis neurons and of channels in products of three; mix, unmix and offset, and
    the numbers of ``PackedNets``; what ``bispectrum_loops`` needs to know of products of three.
    """
    wide, n_l = padded(n_harmonics), round(n_harmonics**0.5)
    width, cutoff, n_beads, n, dtype = numbers[0], numbers[4], d.shape[1], channels[0], d.dtype
    mix, unmix, offset = mixing
    sizes, repeats, weights, places = net
    threes = layout(couplings)
    n_rows, strips = len(offset) * (width + MARGIN), strips_of(n)
    back_strips = strips_of(n_rows)
    for group in prange(len(beads)):
        kind, scratch = kinds[group], workspace(wide, dtype)
        capacity = capacity_for(d.shape[2])
        away, of = np.ones((LANES, 3 * capacity), dtype), np.zeros((LANES, capacity), np.int64)
        slots, count = np.zeros((LANES, capacity), np.int64), np.zeros(LANES, np.int64)
        sums = np.zeros(back_strips * STRIP * wide, dtype)
        about = np.empty((LANES, strips * STRIP * wide), dtype)
        for lane in range(LANES):
            f, i = beads[group, lane] // n_beads, beads[group, lane] % n_beads
            # rho_ck
            lists = away[lane], of[lane], slots[lane]
            count[lane] = near_neighbors(d, neighbor_types, f, i, cutoff * cutoff, *lists)
            sums[:] = 0
            add_neighbors(*lists[:2], count[lane], numbers, n_harmonics, wide, scratch, sums)
            # A_cn = sum_k rho_ck M_kn, less the mean of c = 0
            linear(sums, n_rows, mix[kind], 0, strips, about[lane], wide)
            for m in range(n):
                about[lane, m * wide] -= offset[kind, m]
        # U and dU/dA of all beads at once
        x = np.empty(wide * n * LANES, dtype)
        back = np.zeros_like(x)
        _turn(about, n, wide, x, False)
        fitted = sizes, repeats, weights[kind], places
        energies = _energies_and_slopes(x, n_l, channels, fitted, threes, back)
        _turn(about, n, wide, back, True)
        for lane in range(LANES):
            if lane and beads[group, lane] == beads[group, lane - 1]:
                break
            f, i = beads[group, lane] // n_beads, beads[group, lane] % n_beads
            e[f, i], g[f, i] = energies[lane], 0
            # dU/drho_ck = sum_n dU/dA_cn M_kn, and dU/dr_ij
            linear(about[lane], n, unmix[kind], 0, back_strips, sums, wide)
            near = count[lane], numbers, n_harmonics, wide, scratch, sums
            set_pair_gradients(away[lane], of[lane], slots[lane], *near, g[f, i])
