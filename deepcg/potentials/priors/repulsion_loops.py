"""Compiled loop of the repulsion: bead energies and pair gradients of excluded volume.

U_i = 1/2 sum_j h x_ij^3, with x_ij = (onset - r_ij) / width where that is positive, else 0.

===========  ==============  ===================  =========
symbol       name here       shape                unit
===========  ==============  ===================  =========
r_ij         d; x, y, z      (f, i, j, 3)         nm
r            r               of a pair            nm
onset        onset           (types, types)       nm
width        width           a number             nm
h            height          a number             kJ/mol
x_ij         inside          of a pair            1
U_i          energy          (f, i)               kJ/mol
dU_i/dr_ij   pair_gradient   (f, i, j, 3)         kJ/mol/nm
===========  ==============  ===================  =========

It is defined by ``deepcg.potentials.priors.repulsion.Repulsion.forward``; they are tied by
``tests/potentials/test_repulsion_loops.py::test_the_loop_is_the_definition_and_its_gradient``.
"""

from __future__ import annotations

import math

from numba import njit, prange

from deepcg.compute.loops import Array, compiled


@compiled()
def repel(
    d: Array,
    index: Array,
    count: Array,
    types: Array,
    onset: Array,
    excluded: Array,
    height: float,
    width: float,
    energy: Array,
    pair_gradient: Array,
) -> None:
    """Set bead energies (frames, beads) and dU/dr_ij, shaped as the displacements ``d``."""
    n, limit = d.shape[1], onset.max() ** 2
    for bead in prange(d.shape[0] * n):
        f, i = bead // n, bead % n
        energy[f, i] = 0
        pair_gradient[f, i] = 0
        for slot in range(count[f, i]):
            x, y, z = d[f, i, slot, 0], d[f, i, slot, 1], d[f, i, slot, 2]
            square = x * x + y * y + z * z
            if square >= limit:
                continue  # as nearly all are
            # x_ij
            j = index[f, i, slot]
            r = math.sqrt(square)
            inside = (onset[types[i], types[j]] - r) / width
            if inside <= 0 or _held(i, j, excluded):
                continue
            # each of the two beads has half of h x^3
            energy[f, i] += 0.5 * height * inside**3
            # dU/dr / r, as dr/dr_ij = r_ij / r
            slope = -1.5 * height / width * inside**2 / r
            own = pair_gradient[f, i, slot]
            own[0], own[1], own[2] = slope * x, slope * y, slope * z


@njit(error_model="numpy")
def _held(i: int, j: int, excluded: Array) -> bool:
    """Return whether i and j are one of the pairs ``excluded`` (n_pairs, 2), in either order."""
    held = False
    for k in range(len(excluded)):
        a, b = excluded[k, 0], excluded[k, 1]
        held |= (a == i and b == j) or (a == j and b == i)
    return held
