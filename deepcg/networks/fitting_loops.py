"""Fitting nets in compiled loops: LANES beads go through all layers and back together.

A vector holds the beads, of one type, so that all do the same and no number waits for its neighbor.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from deepcg.compute.loops import padded
from deepcg.compute.simd import LANES, load, maximum, minimum, peek, store, transpose

STRIP = 8
"""Outputs of a linear layer that are summed at once: as many sums hide the time of an addition."""


@njit(fastmath=True, error_model="numpy")
def linear(x, n_in, weights, at, n_strips, out, stride):
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
def tanh(x):
    """Return tanh to 4e-7: x P(x^2) / Q(x^2), fitted to the least relative error up to 9."""
    x = minimum(maximum(x, -9), 9)
    z = x * x
    p = ((1.33544785e-8 * z + 2.06089468e-5) * z + 3.49557985e-3) * z + 1.33810187e-1
    q = ((7.77648221e-7 * z + 3.28562129e-4) * z + 2.58769508e-2) * z + 4.67143343e-1
    return x * (p * z + 1) / (q * z + 1)


@njit(error_model="numpy")
def room_for(sizes, dtype):
    """Return what ``fit`` writes to: a row for each hidden layer, and two more."""
    wide = _strips(sizes[1:].max()) * STRIP * LANES
    return np.empty((len(sizes) - 1, wide), dtype), np.empty(wide, dtype), np.empty(wide, dtype)


@njit(inline="always")
def _strips(n):
    return -(-n // STRIP)


@njit(fastmath=True, error_model="numpy")
def fit(inputs, net, room, energies):
    """Set ``energies`` of LANES beads, and ``inputs`` to their gradient in these.

    ``inputs`` have room for a whole number of strips; ``net`` is that of ``fitting.PackedNets``,
    with the weights of one type.
    """
    sizes, repeats, weights, places = net
    curves, x, slope = room
    n_layers, source = len(sizes) - 1, inputs
    for layer in range(n_layers):
        n_in, n_out, curve = sizes[layer], sizes[layer + 1], curves[layer]
        linear(source, n_in, weights, places[layer, 0], _strips(n_out), curve, LANES)
        for k in range(n_out - 1, -1, -1):  # from behind: the input is where the output goes
            step = peek(weights, places[layer, 2] + k)
            y = tanh(load(curve, k * LANES, LANES))
            store(curve, k * LANES, (1 - y * y) * step)
            y = y * step
            if repeats[layer]:
                y = y + load(source, k % n_in * LANES, LANES)
            store(x, k * LANES, y)
        source = x
    at = places[n_layers, 0]
    energy = load(x, 0, LANES) * 0 + weights[at]
    for k in range(sizes[n_layers]):
        energy = energy + load(x, k * LANES, LANES) * peek(weights, at + 1 + k)
        store(slope, k * LANES, energy * 0 + peek(weights, at + 1 + k))
    store(energies, 0, energy)
    for layer in range(n_layers - 1, -1, -1):
        n_in, curve, target = sizes[layer], curves[layer], x if layer else inputs
        for k in range(0, sizes[layer + 1] * LANES, LANES):
            store(curve, k, load(curve, k, LANES) * load(slope, k, LANES))
        linear(curve, sizes[layer + 1], weights, places[layer, 1], _strips(n_in), target, LANES)
        for repeat in range(repeats[layer]):
            for k in range(0, n_in * LANES, LANES):
                also = load(slope, repeat * n_in * LANES + k, LANES)
                store(target, k, load(target, k, LANES) + also)
        x, slope = slope, x


@njit(fastmath=True, error_model="numpy")
def _products(f, channels, axis, triangular, out):
    """Set ``out`` to the products of columns of F, ``f`` (4 channels, LANES), of LANES beads."""
    wide, place = channels * LANES, 0
    for a in range(0, wide, LANES):
        f0, f1 = load(f, a, LANES), load(f, wide + a, LANES)
        f2, f3 = load(f, 2 * wide + a, LANES), load(f, 3 * wide + a, LANES)
        for b in range(0, a + LANES if triangular else axis * LANES, LANES):
            there = f0 * load(f, b, LANES) + f1 * load(f, wide + b, LANES)
            there = there + f2 * load(f, 2 * wide + b, LANES) + f3 * load(f, 3 * wide + b, LANES)
            store(out, place, there)
            place += LANES


@njit(fastmath=True, error_model="numpy")
def _products_back(f, channels, axis, triangular, slopes, out):
    """Set ``out`` (4 channels, LANES) to the gradient of sum(slopes D) in F."""
    wide, place = channels * LANES, 0
    for a in range(0, 4 * wide, LANES):
        store(out, a, load(f, a, LANES) * 0)
    for a in range(0, wide, LANES):
        f0, f1 = load(f, a, LANES), load(f, wide + a, LANES)
        f2, f3 = load(f, 2 * wide + a, LANES), load(f, 3 * wide + a, LANES)
        u0 = u1 = u2 = u3 = f0 * 0
        for b in range(0, a + LANES if triangular else axis * LANES, LANES):
            slope, b1, b2, b3 = load(slopes, place, LANES), wide + b, 2 * wide + b, 3 * wide + b
            u0, u1 = u0 + slope * load(f, b, LANES), u1 + slope * load(f, b1, LANES)
            u2, u3 = u2 + slope * load(f, b2, LANES), u3 + slope * load(f, b3, LANES)
            store(out, b, load(out, b, LANES) + slope * f0)
            store(out, b1, load(out, b1, LANES) + slope * f1)
            store(out, b2, load(out, b2, LANES) + slope * f2)
            store(out, b3, load(out, b3, LANES) + slope * f3)
            place += LANES
        store(out, a, load(out, a, LANES) + u0)
        store(out, wide + a, load(out, wide + a, LANES) + u1)
        store(out, 2 * wide + a, load(out, 2 * wide + a, LANES) + u2)
        store(out, 3 * wide + a, load(out, 3 * wide + a, LANES) + u3)


@njit(fastmath=True, parallel=True, cache=True, error_model="numpy")
def energies_and_slopes(features, beads, kinds, net, axis, triangular, scale, energies, out):
    """Set energies (beads,) and ``out`` (beads, 4, channels), ``scale`` times their gradient in F.

    ``features`` (beads, 4, channels) are F; ``beads`` (groups, LANES) of one type each, ``kinds``
    (groups,); ``net`` sizes, repeats, weights and places of ``fitting.PackedNets``.
    """
    channels, dtype = features.shape[2], features.dtype
    sizes, repeats, weights, places = net
    n, wide = 4 * channels, padded(4 * channels)
    for group in prange(len(beads)):
        about, own = np.zeros((LANES, wide), dtype), np.empty(LANES, dtype)
        x, back = np.empty(wide * LANES, dtype), np.zeros(wide * LANES, dtype)
        inputs, room = np.zeros(_strips(sizes[0]) * STRIP * LANES, dtype), room_for(sizes, dtype)
        for lane in range(LANES):
            about[lane, :n] = features[beads[group, lane]].ravel()
        for part in range(0, wide, LANES):
            transpose(about.ravel(), part, wide, x, part * LANES, LANES)
        _products(x, channels, axis, triangular, inputs)
        fit(inputs, (sizes, repeats, weights[kinds[group]], places), room, own)
        _products_back(x, channels, axis, triangular, inputs, back)
        for part in range(0, wide, LANES):
            transpose(back, part * LANES, LANES, about.ravel(), part, wide)
        for lane in range(LANES):
            bead = beads[group, lane]
            if lane and bead == beads[group, lane - 1]:
                break
            energies[bead] = own[lane]
            for c in range(4):
                for m in range(channels):
                    out[bead, c, m] = about[lane, c * channels + m] * scale
