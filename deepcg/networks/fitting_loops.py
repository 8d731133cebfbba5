"""Compiled fitting nets, single precision: LANES beads go through all layers and back together.

A vector holds the beads, of one type, so that all do the same and no number waits for its neighbor.
Layer l is y = a tanh(W x + b) + x, the last x repeated as often as the widths allow, or left out;
the energy is U = c + w . y of the last layer. Forces need dU/dx, of the first x.

=====================  =====================  ===========================  ======
symbol                 name here              shape                        unit
=====================  =====================  ===========================  ======
F                      features, f            (i, 4, m); (4 m, LANES)      1
D                      inputs                 (n, LANES)                   1
x, y                   source, x              (n, LANES)                   1
W, b                   weights, at places     see ``PackedNets``           1
a                      step                   number of a neuron           1
a (1 - tanh^2)         curve                  (layer, n, LANES)            1
repeats of x           repeats                (layers,)                    1
U                      energies               (LANES,) or (i,)             kJ/mol
dU/dy, dU/dx           slope, x               (n, LANES)                   kJ/mol
dU/dD                  inputs, slopes         (n, LANES)                   kJ/mol
dU/dF                  out                    (i, 4, m); (4 m, LANES)      kJ/mol
=====================  =====================  ===========================  ======

i are beads, m channels, n numbers of a layer. The nets are defined by
``deepcg.networks.layers.Perceptron.forward``, energies of features by
``deepcg.networks.deeppot_se.descriptor.energies_of``; they are tied by
``tests/networks/test_fitting.py::test_energies_and_slopes_are_those_of_autograd``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from deepcg.compute.loops import Array, compiled, padded
from deepcg.compute.simd import LANES, Vec, load, maximum, minimum, peek, store, transpose

Net = tuple[Array, Array, Array, Array]
"""Sizes, repeats, weights of one type and places of ``fitting.PackedNets``."""

Scratch = tuple[Array, Array, Array]

STRIP = 8
"""Outputs of a linear layer that are summed at once: as many sums hide the time of an addition."""


@njit(fastmath=True, error_model="numpy")
def linear(
    x: Array, n_in: int, weights: Array, at: int, n_strips: int, out: Array, stride: int
) -> None:
    """Set rows of ``out`` to bias + weights x, whose rows are of ``stride`` numbers, vectors each.

    x is flat (n_in, stride), ``out`` flat (n_strips * STRIP, stride). From ``at`` on, ``weights``
    holds for each strip STRIP biases, and STRIP weights of each input.
    """
    for part in range(0, stride, LANES):
        for strip in range(n_strips):
            b = at + strip * STRIP * (n_in + 1)
            w = b + STRIP
            v = load(x, part, LANES)
            # the bias, and the first input: sums begin without a zero
            s0 = v * peek(weights, w) + peek(weights, b)
            s1 = v * peek(weights, w + 1) + peek(weights, b + 1)
            s2 = v * peek(weights, w + 2) + peek(weights, b + 2)
            s3 = v * peek(weights, w + 3) + peek(weights, b + 3)
            s4 = v * peek(weights, w + 4) + peek(weights, b + 4)
            s5 = v * peek(weights, w + 5) + peek(weights, b + 5)
            s6 = v * peek(weights, w + 6) + peek(weights, b + 6)
            s7 = v * peek(weights, w + 7) + peek(weights, b + 7)
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
def tanh(x: Vec) -> Vec:
    """Return tanh to 4e-7: x P(x^2) / Q(x^2), fitted to the least relative error up to 9."""
    x = minimum(maximum(x, -9), 9)
    z = x * x
    p = ((1.33544785e-8 * z + 2.06089468e-5) * z + 3.49557985e-3) * z + 1.33810187e-1
    q = ((7.77648221e-7 * z + 3.28562129e-4) * z + 2.58769508e-2) * z + 4.67143343e-1
    return x * (p * z + 1) / (q * z + 1)


@njit(error_model="numpy")
def scratch_for(sizes: Array, dtype: Any) -> Scratch:
    """Return what ``fit`` writes to: (layers, wide), a row for each hidden layer, and two more."""
    wide = strips_of(sizes[1:].max()) * STRIP * LANES
    return np.empty((len(sizes) - 1, wide), dtype), np.empty(wide, dtype), np.empty(wide, dtype)


@njit(inline="always")
def strips_of(n: int) -> int:
    """Return how many strips n outputs are."""
    return -(-n // STRIP)


@njit(fastmath=True, error_model="numpy")
def fit(inputs: Array, net: Net, scratch: Scratch, energies: Array) -> None:
    """Set ``energies`` (LANES,), kJ/mol, of beads, and ``inputs`` to their gradient in these.

    ``inputs``, flat (n, LANES), have room for a whole number of strips; ``net`` is that of
    ``fitting.PackedNets``, with the weights of one type.
    """
    sizes, repeats, weights, places = net
    curves, x, slope = scratch
    n_layers, source = len(sizes) - 1, inputs
    # y = a tanh(W x + b) + x, layer after layer
    for layer in range(n_layers):
        n_in, n_out, curve = sizes[layer], sizes[layer + 1], curves[layer]
        linear(source, n_in, weights, places[layer, 0], strips_of(n_out), curve, LANES)
        # from behind: the output goes where the input is, and this is needed for k % n_in
        for k in range(n_out - 1, -1, -1):
            step = peek(weights, places[layer, 2] + k)
            y = tanh(load(curve, k * LANES, LANES))
            # dy/d(W x + b), for the way back
            store(curve, k * LANES, (1 - y * y) * step)
            y = y * step
            if repeats[layer]:
                y = y + load(source, k % n_in * LANES, LANES)
            store(x, k * LANES, y)
        source = x
    # U = c + w . y, and dU/dy = w
    at = places[n_layers, 0]
    energy = load(x, 0, LANES) * 0 + weights[at]
    for k in range(sizes[n_layers]):
        energy = energy + load(x, k * LANES, LANES) * peek(weights, at + 1 + k)
        store(slope, k * LANES, energy * 0 + peek(weights, at + 1 + k))
    store(energies, 0, energy)
    # dU/dx = W^T (a (1 - tanh^2) dU/dy) + dU/dy, layer before layer
    for layer in range(n_layers - 1, -1, -1):
        n_in, curve, target = sizes[layer], curves[layer], x if layer else inputs
        for k in range(0, sizes[layer + 1] * LANES, LANES):
            store(curve, k, load(curve, k, LANES) * load(slope, k, LANES))
        linear(curve, sizes[layer + 1], weights, places[layer, 1], strips_of(n_in), target, LANES)
        # the part of x that was added, as often as it was
        for repeat in range(repeats[layer]):
            for k in range(0, n_in * LANES, LANES):
                also = load(slope, repeat * n_in * LANES + k, LANES)
                store(target, k, load(target, k, LANES) + also)
        x, slope = slope, x


@njit(fastmath=True, error_model="numpy")
def _products(f: Array, channels: int, axis: int, triangular: bool, out: Array) -> None:
    """Set ``out`` to D_ab = sum_c F_ca F_cb of LANES beads; ``f`` (4 channels, LANES) is F."""
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
def _products_back(
    f: Array, channels: int, axis: int, triangular: bool, slopes: Array, out: Array
) -> None:
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
            # the product rule's first part: dU/dF_ca += sum_b dU/dD_ab F_cb
            u0, u1 = u0 + slope * load(f, b, LANES), u1 + slope * load(f, b1, LANES)
            u2, u3 = u2 + slope * load(f, b2, LANES), u3 + slope * load(f, b3, LANES)
            # its second: dU/dF_cb += dU/dD_ab F_ca
            store(out, b, load(out, b, LANES) + slope * f0)
            store(out, b1, load(out, b1, LANES) + slope * f1)
            store(out, b2, load(out, b2, LANES) + slope * f2)
            store(out, b3, load(out, b3, LANES) + slope * f3)
            place += LANES
        store(out, a, load(out, a, LANES) + u0)
        store(out, wide + a, load(out, wide + a, LANES) + u1)
        store(out, 2 * wide + a, load(out, 2 * wide + a, LANES) + u2)
        store(out, 3 * wide + a, load(out, 3 * wide + a, LANES) + u3)


@compiled(fastmath=True)
def energies_and_slopes(
    features: Array,
    beads: Array,
    kinds: Array,
    net: Net,
    axis: int,
    triangular: bool,
    scale: float,
    energies: Array,
    out: Array,
) -> None:
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
        inputs = np.zeros(strips_of(sizes[0]) * STRIP * LANES, dtype)
        scratch = scratch_for(sizes, dtype)
        # F, beads last: (4 channels, LANES)
        for lane in range(LANES):
            about[lane, :n] = features[beads[group, lane]].ravel()
        for part in range(0, wide, LANES):
            transpose(about.ravel(), part, wide, x, part * LANES, LANES)
        # F to D to U, and back to dU/dD and dU/dF
        _products(x, channels, axis, triangular, inputs)
        fit(inputs, (sizes, repeats, weights[kinds[group]], places), scratch, own)
        _products_back(x, channels, axis, triangular, inputs, back)
        for part in range(0, wide, LANES):
            transpose(back, part * LANES, LANES, about.ravel(), part, wide)
        for lane in range(LANES):
            bead = beads[group, lane]
            # where there are not enough beads for a group, the last one fills it
            if lane and bead == beads[group, lane - 1]:
                break
            energies[bead] = own[lane]
            for c in range(4):
                for m in range(channels):
                    out[bead, c, m] = about[lane, c * channels + m] * scale
