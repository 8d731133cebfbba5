"""The whole of a ``DeepPotSEL`` and of its gradient, in one compiled loop for the CPU.

LANES beads go through all stages together, so that what one stage leaves for the next stays in the
cache. About a bead, a vector holds harmonics or neighbors; in the invariants and the fitting net,
where every bead does the same, it holds the beads.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from deepcg.networks.bispectrum_loops import add_products, add_slopes, layout
from deepcg.networks.loops import (
    MARGIN,
    add_neighbors,
    near_neighbors,
    padded,
    pull_neighbors,
    workspace,
)
from deepcg.vectors import LANES, load, maximum, minimum, peek, store, transpose

STRIP = 8
"""Outputs of a linear layer that are summed at once: as many sums hide the time of an addition."""


@njit(fastmath=True, error_model="numpy")
def _linear(x, n_in, weights, at, n_strips, out, stride):
    """Set rows of ``out`` to bias + weights x, whose rows are of ``stride`` numbers, vectors each.

    From ``at`` on, ``weights`` holds for each strip STRIP biases, and STRIP weights of each input.
    """
    for part in range(0, stride, LANES):
        for strip in range(n_strips):
            b = at + strip * STRIP * (n_in + 1)
            w = b + STRIP
            v = load(x, part, LANES)
            s0, s1 = (
                v * peek(weights, w) + peek(weights, b),
                v * peek(weights, w + 1) + peek(weights, b + 1),
            )
            s2, s3 = (
                v * peek(weights, w + 2) + peek(weights, b + 2),
                v * peek(weights, w + 3) + peek(weights, b + 3),
            )
            s4, s5 = (
                v * peek(weights, w + 4) + peek(weights, b + 4),
                v * peek(weights, w + 5) + peek(weights, b + 5),
            )
            s6, s7 = (
                v * peek(weights, w + 6) + peek(weights, b + 6),
                v * peek(weights, w + 7) + peek(weights, b + 7),
            )
            for k in range(1, n_in):
                v = load(x, k * stride + part, LANES)
                w += STRIP
                s0, s1 = s0 + v * peek(weights, w), s1 + v * peek(weights, w + 1)
                s2, s3 = s2 + v * peek(weights, w + 2), s3 + v * peek(weights, w + 3)
                s4, s5 = s4 + v * peek(weights, w + 4), s5 + v * peek(weights, w + 5)
                s6, s7 = s6 + v * peek(weights, w + 6), s7 + v * peek(weights, w + 7)
            to = strip * STRIP * stride + part
            store(out, to, s0)
            store(out, to + stride, s1)
            store(out, to + 2 * stride, s2)
            store(out, to + 3 * stride, s3)
            store(out, to + 4 * stride, s4)
            store(out, to + 5 * stride, s5)
            store(out, to + 6 * stride, s6)
            store(out, to + 7 * stride, s7)


@njit(fastmath=True, error_model="numpy")
def _tanh(x):
    """Return tanh to 4e-7: x P(x^2) / Q(x^2), fitted to the least relative error up to 9."""
    x = minimum(maximum(x, -9), 9)
    z = x * x
    p = ((1.33544785e-8 * z + 2.06089468e-5) * z + 3.49557985e-3) * z + 1.33810187e-1
    q = ((7.77648221e-7 * z + 3.28562129e-4) * z + 2.58769508e-2) * z + 4.67143343e-1
    return x * (p * z + 1) / (q * z + 1)


@njit(fastmath=True, error_model="numpy")
def _spectrum(x, n_l, n_axis, n, out, at):
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
def _fit(inputs, sizes, weights, places, hidden, slopes, energies):
    """Set ``energies`` of LANES beads, and ``inputs`` to their gradient in these.

    ``sizes`` are the numbers of inputs and of the neurons of each hidden layer; ``places`` (layers,
    2) where the weights of each begin, and those of the way back; last, those of the output.
    """
    n_layers, top = len(sizes) - 1, len(hidden) // max(len(sizes) - 1, 1)
    x = inputs
    for layer in range(n_layers):
        strips, y = -(-sizes[layer + 1] // STRIP), hidden[layer * top : (layer + 1) * top]
        _linear(x, sizes[layer], weights, places[layer, 0], strips, y, LANES)
        for k in range(sizes[layer + 1]):
            store(y, k * LANES, _tanh(load(y, k * LANES, LANES)))
        x = y
    at, wide = places[n_layers, 0], sizes[n_layers]
    energy = load(x, 0, LANES) * weights[at + 1] + weights[at]
    for k in range(1, wide):
        energy = energy + load(x, k * LANES, LANES) * weights[at + 1 + k]
    store(energies, 0, energy)
    for k in range(wide):
        y = load(x, k * LANES, LANES)
        store(slopes, k * LANES, (1 - y * y) * weights[at + 1 + k])
    for layer in range(n_layers - 1, 0, -1):
        y = hidden[(layer - 1) * top : layer * top]
        back = hidden[layer * top : (layer + 1) * top]  # its values are not needed any more
        strips = -(-sizes[layer] // STRIP)
        _linear(slopes, sizes[layer + 1], weights, places[layer, 1], strips, back, LANES)
        for k in range(sizes[layer]):
            one = load(y, k * LANES, LANES)
            store(slopes, k * LANES, (1 - one * one) * load(back, k * LANES, LANES))
    strips = -(-sizes[0] // STRIP)
    _linear(slopes, sizes[1], weights, places[0, 1], strips, inputs, LANES)


@njit(fastmath=True, error_model="numpy")
def _energies_and_slopes(x, n_l, channels, net, threes, back):
    """Return the energies of LANES beads, and set ``back`` to their gradient in A, x.

    Both hold harmonics, channels and beads, in this order; ``back`` is zero. ``channels`` are the
    numbers of all, of axis neurons and of those in products of three; ``net`` what ``_fit`` needs
    to know; ``threes`` what ``bispectrum_loops`` does.
    """
    n, n_axis, n_some = channels
    sizes, weights, places = net
    dtype, linear, first = x.dtype, n * LANES, n * (1 + n_l * n_axis) * LANES
    inputs = np.zeros(-(-sizes[0] // STRIP) * STRIP * LANES, dtype)
    inputs[:linear] = x[:linear]
    _spectrum(x, n_l, n_axis, n, inputs, n)
    some = np.empty(n_l * n_l * n_some * LANES, dtype)
    s, t, slopes = np.empty_like(some), np.empty_like(some), np.zeros_like(some)
    if n_some:
        _copy(x, n, some, n_some, n_l * n_l)
        add_products(some, some, some, n_some, *threes, s, inputs[first:])
    top = -(-sizes[1:].max() // STRIP) * STRIP * LANES
    hidden, energies = np.empty((len(sizes) - 1) * top, dtype), np.empty(LANES, dtype)
    _fit(inputs, sizes, weights, places, hidden, np.empty(top, dtype), energies)
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
    d, species, numbers, n_harmonics, beads, kinds, channels, mixing, net, couplings, e, g
):
    """Set bead energies e and dU/dr_ij g.

    Given displacements (frames, beads, room, 3) and types (frames, beads, room) of neighbors; the
    numbers of the basis, and that of harmonics; beads in groups of LANES of one type (groups,
    LANES), the last repeated where there are fewer, and these types (groups,); the numbers of
    channels, of axis neurons and of channels in products of three; mix, unmix and offset, and
    sizes, weights and places of ``Packed``; what ``bispectrum_loops`` needs to know of products
    of three.
    """
    wide, n_l = padded(n_harmonics), round(n_harmonics**0.5)
    width, cutoff, n_beads, n, dtype = numbers[0], numbers[4], d.shape[1], channels[0], d.dtype
    mix, unmix, offset = mixing
    sizes, weights, places = net
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
            count[lane] = near_neighbors(d, species, f, i, cutoff * cutoff, *lists)
            sums[:] = 0
            add_neighbors(*lists[:2], count[lane], numbers, n_harmonics, wide, work, sums)
            _linear(sums, n_rows, mix[kind], 0, strips, about[lane], wide)
            for m in range(n):
                about[lane, m * wide] -= offset[kind, m]
        x = np.empty(wide * n * LANES, dtype)
        back = np.zeros_like(x)
        _turn(about, n, wide, x, False)
        fitted = sizes, weights[kind], places
        energies = _energies_and_slopes(x, n_l, channels, fitted, threes, back)
        _turn(about, n, wide, back, True)
        for lane in range(LANES):
            if lane and beads[group, lane] == beads[group, lane - 1]:
                break
            f, i = beads[group, lane] // n_beads, beads[group, lane] % n_beads
            lists = away[lane], of[lane], slots[lane]
            e[f, i], g[f, i] = energies[lane], 0
            _linear(about[lane], n, unmix[kind], 0, back_strips, sums, wide)
            pull_neighbors(*lists, count[lane], numbers, n_harmonics, wide, work, sums, g[f, i])
