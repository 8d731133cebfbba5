"""The whole of a ``DeepPotSEL`` and of its gradient, in one compiled loop for the CPU.

LANES beads go through all stages together, so that what one stage leaves for the next stays in the
cache. About a bead, a vector holds harmonics or neighbors; in the invariants and the fitting net,
where every bead does the same, it holds the beads.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from deepcg.compute.loops import padded
from deepcg.compute.simd import LANES, load, store, transpose
from deepcg.networks.deeppot_se_l.bispectrum_loops import add_products, add_slopes, layout
from deepcg.networks.deeppot_se_l.density_loops import (
    MARGIN,
    add_neighbors,
    pull_neighbors,
    workspace,
)
from deepcg.networks.fitting_loops import STRIP, fit, linear, room_for
from deepcg.networks.neighbor_loops import near_neighbors


@njit(fastmath=True, error_model="numpy")
def _power_spectrum(x, n_l, n_axis, n, out, at):
    """Write D_lij = sum_c x_ci x_cj, i < n_axis, to ``out`` from row ``at`` on."""
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
def _spectrum_slopes(x, n_l, n_axis, n, g, at, out):
    """Set ``out`` to the gradient in x of sum(g D), g from row ``at`` on."""
    for l in range(n_l):
        for c in range(l * l, (l + 1) * (l + 1)):
            row = c * n
            for j in range(n):
                pull = at + l * n_axis * n + j
                here = load(g, pull * LANES, LANES) * load(x, row * LANES, LANES)
                for i in range(1, n_axis):
                    slope = load(g, (pull + i * n) * LANES, LANES)
                    here = here + slope * load(x, (row + i) * LANES, LANES)
                store(out, (row + j) * LANES, here)
            for i in range(n_axis):
                pull = at + (l * n_axis + i) * n
                here = load(out, (row + i) * LANES, LANES)
                for j in range(n):
                    slope = load(g, (pull + j) * LANES, LANES)
                    here = here + slope * load(x, (row + j) * LANES, LANES)
                store(out, (row + i) * LANES, here)


@njit(error_model="numpy")
def _copy(source, stride, target, width, rows):
    """Copy the first ``width`` of every ``stride`` vectors, for so many rows."""
    for c in range(rows):
        for i in range(width):
            store(target, (c * width + i) * LANES, load(source, (c * stride + i) * LANES, LANES))


@njit(fastmath=True, error_model="numpy")
def _add_copy(source, width, target, stride, rows):
    """Add what ``_copy`` would have copied."""
    for c in range(rows):
        for i in range(width):
            to = (c * stride + i) * LANES
            more = load(source, (c * width + i) * LANES, LANES)
            store(target, to, load(target, to, LANES) + more)


@njit(fastmath=True, error_model="numpy")
def _energies_and_slopes(x, n_l, channels, net, threes, back):
    """Return the energies of LANES beads, and set ``back`` to their gradient in A, x.

    Both hold harmonics, channels and beads, in this order; ``back`` is zero. ``channels`` are the
    numbers of all, of axis neurons and of those in products of three; ``net`` what ``fit`` needs
    to know; ``threes`` what ``bispectrum_loops`` does.
    """
    n, n_axis, n_some = channels
    sizes = net[0]
    dtype, once, first = x.dtype, n * LANES, n * (1 + n_l * n_axis) * LANES
    inputs = np.zeros(-(-sizes[0] // STRIP) * STRIP * LANES, dtype)
    inputs[:once] = x[:once]
    _power_spectrum(x, n_l, n_axis, n, inputs, n)
    some = np.empty(n_l * n_l * n_some * LANES, dtype)
    s, t, slopes = np.empty_like(some), np.empty_like(some), np.zeros_like(some)
    if n_some:
        _copy(x, n, some, n_some, n_l * n_l)
        add_products(some, some, some, n_some, *threes, s, inputs[first:])
    energies = np.empty(LANES, dtype)
    fit(inputs, net, room_for(sizes, dtype), energies)
    _spectrum_slopes(x, n_l, n_axis, n, inputs, n, back)
    _add_copy(inputs, n, back, n, 1)
    if n_some:
        add_slopes(inputs[first:], some, some, n_some, *threes, s, t, slopes)
        _add_copy(slopes, n_some, back, n, n_l * n_l)
    return energies


@njit(error_model="numpy")
def _turn(about, n, wide, x, back):
    """Copy rows of beads (LANES, n * wide or more) to x (wide, n, LANES), or the other way back."""
    flat, step = about.ravel(), about.shape[1]
    for m in range(n):
        for part in range(0, wide, LANES):
            at, to = m * wide + part, (part * n + m) * LANES
            if back:
                transpose(x, to, n * LANES, flat, at, step)
            else:
                transpose(flat, at, step, x, to, n * LANES)


@njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
def energies_and_pulls(
    d, neighbor_types, numbers, n_harmonics, beads, kinds, channels, mixing, net, couplings, e, g
):
    """Set bead energies e and dU/dr_ij g.

    Given displacements (frames, beads, room, 3) and types (frames, beads, room) of neighbors; the
    numbers of the basis, and that of harmonics; beads in groups of LANES of one type (groups,
    LANES), the last repeated where there are fewer, and these types (groups,); the numbers of
    channels, of axis neurons and of channels in products of three; mix, unmix and offset, and
    the numbers of ``PackedNets``; what ``bispectrum_loops`` needs to know of products of three.
    """
    wide, n_l = padded(n_harmonics), round(n_harmonics**0.5)
    width, cutoff, n_beads, n, dtype = numbers[0], numbers[4], d.shape[1], channels[0], d.dtype
    mix, unmix, offset = mixing
    sizes, repeats, weights, places = net
    threes = (*couplings, *layout(couplings[1], couplings[0], couplings[3]))
    n_rows, strips = len(offset) * (width + MARGIN), -(-n // STRIP)
    back_strips = -(-n_rows // STRIP)
    for group in prange(len(beads)):
        kind, work = kinds[group], workspace(wide, dtype)
        room = (d.shape[2] // LANES + 2) * LANES
        away, of = np.ones((LANES, 3 * room), dtype), np.zeros((LANES, room), np.int64)
        slots, count = np.zeros((LANES, room), np.int64), np.zeros(LANES, np.int64)
        sums = np.zeros(back_strips * STRIP * wide, dtype)
        about = np.empty((LANES, strips * STRIP * wide), dtype)
        for lane in range(LANES):
            f, i = beads[group, lane] // n_beads, beads[group, lane] % n_beads
            lists = away[lane], of[lane], slots[lane]
            count[lane] = near_neighbors(d, neighbor_types, f, i, cutoff * cutoff, *lists)
            sums[:] = 0
            add_neighbors(*lists[:2], count[lane], numbers, n_harmonics, wide, work, sums)
            linear(sums, n_rows, mix[kind], 0, strips, about[lane], wide)
            for m in range(n):
                about[lane, m * wide] -= offset[kind, m]
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
            lists = away[lane], of[lane], slots[lane]
            e[f, i], g[f, i] = energies[lane], 0
            linear(about[lane], n, unmix[kind], 0, back_strips, sums, wide)
            pull_neighbors(*lists, count[lane], numbers, n_harmonics, wide, work, sums, g[f, i])
