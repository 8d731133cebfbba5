"""Forces of a network in two passes over the beads, for sampling: nothing but its inputs is stored.

The first pass goes from displacements to the inputs of the fitting nets, the second from the
slopes of the energy in these to pulls on the displacements. Both are made of the loops that
training uses (``loops.py``, ``bispectrum_loops.py``), so that there is one definition of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit, prange

from deepcg.networks.bispectrum_loops import WIDTH, block_adjoint, block_products, gather
from deepcg.networks.loops import (
    MARGIN,
    Basis,
    Loop,
    fill_contraction,
    fill_density,
    fill_gradient,
    fill_spectrum,
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the loops are compiled for."""

    basis: Basis
    channels: int
    axis: int
    triples: int
    n_triples: int

    @property
    def n_pairs(self) -> int:
        """Number of inputs before those of triples."""
        return self.channels * (1 + self.axis * (self.basis.l_max + 1))


@cache
def inputs(sizes: Sizes) -> Loop:
    """Return the loop (d, species, types, place, mix, offset, mean, scale, *products, a, out).

    ``d`` (frames, beads, width, 3), nm; ``species`` as there, -1 in padding; ``types`` (beads,);
    ``place`` (beads, 2): the row of ``out`` of a bead in the first frame and the step from frame
    to frame; ``mix`` (types, splines of all types, channels), ``offset`` (types, channels): what
    becomes of a density; ``mean`` and ``scale`` (types, inputs); ``products``: ends, terms,
    factors, columns of `deepcg.networks.bispectrum.Products`. Set ``a`` (frames * beads,
    harmonics, channels) and the inputs ``out`` (frames * beads, inputs), ordered by ``place``.
    """
    numbers, channels, triples = sizes.basis.numbers, sizes.channels, sizes.triples
    n, width = numbers[:2]
    of_pairs, n_triples = sizes.n_pairs, sizes.n_triples
    two = sizes.basis.l_max, channels, sizes.axis

    @njit(fastmath=True, error_model="numpy")
    def block(
        start,
        d, species, types, place, mix, offset, mean, scale, ends, terms, factors, columns, a, out,
    ):  # fmt: skip
        n_beads, n_types = d.shape[1], mix.shape[1] // width
        total = d.shape[0] * n_beads
        y = np.empty(n, d.dtype)
        rows = np.empty((n_types, width + MARGIN, n), d.dtype)
        spectra = np.empty((two[0] + 1, two[2], channels), d.dtype)
        threefold = np.empty((n_triples, WIDTH), d.dtype)
        for bead in range(start, min(start + WIDTH, total)):
            f, i = bead // n_beads, bead % n_beads
            kind, row = types[i], place[i, 0] + f * place[i, 1]
            fill_density(d, species, f, i, numbers, y, rows)
            for c in range(n):
                for m in range(channels):
                    a[bead, c, m] = 0
            for t in range(n_types):
                for k in range(width):
                    if rows[t, k + MARGIN, 0] == 0:  # nobody is there
                        continue
                    for c in range(n):
                        here = rows[t, k + MARGIN, c]
                        for m in range(channels):
                            a[bead, c, m] += here * mix[kind, t * width + k, m]
            for m in range(channels):
                a[bead, 0, m] -= offset[kind, m]
                out[row, m] = (a[bead, 0, m] - mean[kind, m]) * scale[kind, m]
            fill_spectrum(a, a, bead, two, spectra)
            flat = spectra.reshape(-1)
            for x in range(channels, of_pairs):
                out[row, x] = (flat[x - channels] - mean[kind, x]) * scale[kind, x]
        if triples:
            near = np.empty((n, triples, WIDTH), d.dtype)
            s = np.empty((n, WIDTH), d.dtype)
            gather(a, start, near)
            block_products(near, near, near, ends, terms, factors, columns, s, threefold)
            for bead in range(start, min(start + WIDTH, total)):
                f, i = bead // n_beads, bead % n_beads
                kind, row = types[i], place[i, 0] + f * place[i, 1]
                for x in range(n_triples):
                    at = of_pairs + x
                    value = threefold[x, bead - start]
                    out[row, at] = (value - mean[kind, at]) * scale[kind, at]

    # loops that run in parallel take long to compile: this one is short
    @njit(parallel=True, cache=True, error_model="numpy")
    def loop(
        d, species, types, place, mix, offset, mean, scale, ends, terms, factors, columns, a, out
    ):
        for number in prange((d.shape[0] * d.shape[1] + WIDTH - 1) // WIDTH):
            block(
                number * WIDTH,
                d, species, types, place, mix, offset, mean, scale, ends, terms, factors, columns,
                a, out,
            )  # fmt: skip

    return loop


@cache
def pulls(sizes: Sizes) -> Loop:
    """Return the loop (d, species, types, place, mix, scale, *products, a, slope, g).

    As in ``inputs``; ``slope`` (frames * beads, inputs) is that of the energy in the inputs, in
    their order. Set ``g`` (frames, beads, width, 3) to that in the displacements.
    """
    numbers, channels, triples = sizes.basis.numbers, sizes.channels, sizes.triples
    n, width = numbers[:2]
    of_pairs, n_triples = sizes.n_pairs, sizes.n_triples
    two = sizes.basis.l_max, channels, sizes.axis

    @njit(fastmath=True, error_model="numpy")
    def block(
        start, d, species, types, place, mix, scale, ends, terms, factors, columns, a, slope, g
    ):
        n_beads, n_types = d.shape[1], mix.shape[1] // width
        total = d.shape[0] * n_beads
        y, dy = np.empty(n, d.dtype), np.empty((3, n), d.dtype)
        rows = np.zeros((n_types, width + MARGIN, n), d.dtype)
        spectra = np.empty((two[0] + 1, two[2], channels), d.dtype)
        flat = spectra.reshape(-1)
        back, across = np.empty((n, channels), d.dtype), np.empty((channels, n), d.dtype)
        threefold = np.zeros((n, triples, WIDTH), d.dtype)
        if triples:
            near, room = (
                np.empty((n, triples, WIDTH), d.dtype),
                np.empty((2, n, WIDTH), d.dtype),
            )
            pull = np.zeros((n_triples, WIDTH), d.dtype)
            gather(a, start, near)
            for bead in range(start, min(start + WIDTH, total)):
                f, i = bead // n_beads, bead % n_beads
                kind, row = types[i], place[i, 0] + f * place[i, 1]
                for x in range(n_triples):
                    at = of_pairs + x
                    pull[x, bead - start] = slope[row, at] * scale[kind, at]
            block_adjoint(
                pull, near, near, ends, terms, factors, columns, room[0], room[1], threefold
            )
        for bead in range(start, min(start + WIDTH, total)):
            f, i = bead // n_beads, bead % n_beads
            kind, row = types[i], place[i, 0] + f * place[i, 1]
            for x in range(channels, of_pairs):
                flat[x - channels] = slope[row, x] * scale[kind, x]
            fill_contraction(a, bead, spectra, two, back)
            for m in range(channels):
                back[0, m] += slope[row, m] * scale[kind, m]
            for c in range(n):
                for m in range(triples):
                    back[c, m] += threefold[c, m, bead - start]
                for m in range(channels):
                    across[m, c] = back[c, m]
            for t in range(n_types):
                for k in range(width):
                    for c in range(n):
                        rows[t, k + MARGIN, c] = 0
                    for m in range(channels):
                        weight = mix[kind, t * width + k, m]
                        for c in range(n):
                            rows[t, k + MARGIN, c] += weight * across[m, c]
            fill_gradient(d, species, f, i, numbers, y, dy, rows, g)

    @njit(parallel=True, cache=True, error_model="numpy")
    def loop(d, species, types, place, mix, scale, ends, terms, factors, columns, a, slope, g):
        for number in prange((d.shape[0] * d.shape[1] + WIDTH - 1) // WIDTH):
            block(
                number * WIDTH,
                d, species, types, place, mix, scale, ends, terms, factors, columns, a, slope, g,
            )  # fmt: skip

    return loop
