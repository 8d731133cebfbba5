"""Compiled loops of control variates: what rotations of molecules do to functions of pairs.

L is the generator of rotations of a molecule about its bead, L_k v = e_k x v on its arms, and tau
its torque. Of each function phi = B_k(|d|) e of two sites, with e the vector between the beads or
an arm, one control variate is C = sum_m (tau_m . L_m phi + kT L_m^2 phi); d = base + e_b - e_a.
With p = B_k, p1 = p'/|d|, q = (p'' - p1) / |d|^2, and an arm e that moves d by sign times itself,

    tau . L p = sign p1 (tau x e) . d
    L^2 p = e^2 (p'' + p1) - q (e . d)^2 - 2 sign p1 e . d
    tau . L e = tau x e,    L^2 e = -2 e
    2 sum_k (L_k p) (L_k e) = 2 sign p1 (e^2 d - (e . d) e)

=======================  =========================  ======================  ==============
symbol                   name here                  shape                   unit
=======================  =========================  ======================  ==============
R_j - R_i                near; base                 (i, j, 3); (3,)         nm
e_a, e_b                 arms; here, there          (i, a, 3); (3,)         nm
tau_i                    torques                    (i, 3)                  kJ/mol
tau x e                  turned, turned_here ...    (3,)                    kJ/mol nm
d, |d|                   d, distance                (3,), a number          nm
B_k, B_k', B_k''         p, dp, ddp                 in spacings             1
p1, p''                  p1, p2                     numbers                 1/nm^2
tau . L p + kT L^2 p     generated                  a number                kJ/mol
C                        out                        (i, columns, 3)         kJ/mol nm
=======================  =========================  ======================  ==============

i and j are beads, a and b their sites, k splines. Splines are those of
``deepcg.compute.formula_loops.cubic_b_splines``; C is defined in the docstring of
``deepcg.forces.control_variates``. They are tied by
``tests/forces/test_rotation_loops.py::test_variates_are_those_of_the_generator``.
"""

from __future__ import annotations

from numba import njit, prange

from deepcg.compute.formula_loops import Vector3, cross, cubic_b_splines, dot
from deepcg.compute.loops import Array, compiled


@njit(inline="always", error_model="numpy")
def _on_radial(
    sign: float, arm: Vector3, turned: Vector3, d: Vector3, p1: float, p2: float, kT: float
) -> float:
    """Return tau . L p + kT L^2 p of p(|d|), where turning the arm moves d by ``sign`` times it.

    ``turned`` is torque x arm; p1 = p'/|d|, and p2 = p''.
    """
    along, arm2 = dot(arm, d), dot(arm, arm)
    q = (p2 - p1) / dot(d, d)
    laplacian = arm2 * (p2 + p1) - q * along * along - 2 * sign * p1 * along
    generated: float = sign * p1 * dot(turned, d) + kT * laplacian
    return generated


@njit(inline="always", error_model="numpy")
def _add_on_arm(
    out: Array,
    generated: float,
    sign: float,
    arm: Vector3,
    turned: Vector3,
    d: Vector3,
    p: float,
    p1: float,
    kT: float,
) -> None:
    """Add tau . L (p e) + kT L^2 (p e), where e is the arm that turns; see ``_on_radial``."""
    along, arm2 = dot(arm, d), dot(arm, arm)
    for k in range(3):
        # the product rule: (tau . L p + kT L^2 p) e + p (tau . L e + kT L^2 e) + 2 kT L p . L e
        mixed = 2 * sign * p1 * (arm2 * d[k] - along * arm[k])
        out[k] += generated * arm[k] + p * turned[k] + kT * (mixed - 2 * p * arm[k])


@compiled()
def rotated_pairs(
    near: Array,
    index: Array,
    count: Array,
    arms: Array,
    torques: Array,
    kinds: Array,
    moves: Array,
    columns: Array,
    first: float,
    spacing: float,
    n_splines: int,
    kT: float,
    out: Array,
) -> None:
    """Add the control variates of one frame to ``out`` (n_beads, n_variates, 3).

    near (n_beads, width, 3), index and count: as in ``Neighbors``; arms (n_beads, n_sites, 3);
    torques (n_beads, 3); kinds (n_beads, n_sites), -1 where a bead has fewer sites; moves
    (n_kinds,), whether rotations move the site; columns (n_kinds, n_kinds), the first column of
    every ordered pair of kinds, or -1.
    """
    for i in prange(len(near)):
        for slot in range(count[i]):
            j = index[i, slot]
            base = (near[i, slot, 0], near[i, slot, 1], near[i, slot, 2])
            for a in range(arms.shape[1]):
                for b in range(arms.shape[1]):
                    if kinds[i, a] < 0 or kinds[j, b] < 0:
                        continue
                    column = columns[kinds[i, a], kinds[j, b]]
                    if column < 0:
                        continue
                    here = (arms[i, a, 0], arms[i, a, 1], arms[i, a, 2])
                    there = (arms[j, b, 0], arms[j, b, 1], arms[j, b, 2])
                    turned_here = cross(torques[i], here)
                    turned_there = cross(torques[j], there)
                    d = (
                        base[0] + there[0] - here[0],
                        base[1] + there[1] - here[1],
                        base[2] + there[2] - here[2],
                    )
                    distance = dot(d, d) ** 0.5
                    x = (distance - first) / spacing
                    whole = int(x // 1)
                    values, slopes, bends = cubic_b_splines(x - whole)
                    for piece in range(4):
                        k = whole - 3 + piece
                        if k < 0 or k >= n_splines:
                            continue
                        p, dp, ddp = values[piece], slopes[piece], bends[piece]
                        # p'/|d| and p''
                        p1, p2 = dp / (spacing * distance), ddp / spacing**2
                        # tau . L p + kT L^2 p, of both molecules
                        generated = 0.0
                        if moves[kinds[i, a]]:
                            generated += _on_radial(-1, here, turned_here, d, p1, p2, kT)
                        if moves[kinds[j, b]]:
                            generated += _on_radial(1, there, turned_there, d, p1, p2, kT)
                        # phi = p (R_j - R_i), which does not turn
                        for c in range(3):
                            out[i, column + k, c] += generated * base[c]
                        # phi = p e_a, and phi = p e_b: the arm of one molecule turns with it
                        slot_k = column + n_splines + k
                        if moves[kinds[i, a]]:
                            _add_on_arm(
                                out[i, slot_k], generated, -1, here, turned_here, d, p, p1, kT
                            )
                            slot_k += n_splines
                        if moves[kinds[j, b]]:
                            _add_on_arm(
                                out[i, slot_k], generated, 1, there, turned_there, d, p, p1, kT
                            )
