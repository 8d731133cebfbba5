"""Compiled loops of force fields: U and -dU/dR in one pass, sums of the terms of ``KINDS``.

Frames are independent of one another and shared out among threads. All arithmetic is in double
precision, whatever that of the positions.

======================  =========================  ======================  ============
symbol                  name here                  shape                   unit
======================  =========================  ======================  ============
R                       positions; x               (f, i, 3); (i, 3)       nm
U                       energy                     (f,)                    kJ/mol
-dU/dR                  force                      (f, i, 3); (i, 3)       kJ/mol/nm
beads of a term         atoms; i, j, k, l          (terms, 2 to 4)         -
q_0, k                  center, k or stiffness     numbers                 of q; kJ/mol/q^2
q - q_0                 off                        a number                nm, rad, nm^3
n, phase, k             period, phase, height      numbers                 1, rad, kJ/mol
q q', sigma, epsilon    charges, sigma, epsilon    numbers                 e^2, nm, kJ/mol
r_j - r_i               d; a, b, c; first ...      (3,)                    nm
I_ij, dI_ij/dr          value, slopes              (i, j)                  1/nm, 1/nm^2
B_i, Born radius        born                       (i,)                    nm
dB_i/dI_i               born_slope                 (i,)                    nm^2
dU/dB_i                 by_radius                  (i,)                    kJ/mol/nm
f_GB                    screened                   a number                nm
======================  =========================  ======================  ============

Energies are defined by ``deepcg.potentials.priors.force_field.KINDS``, which name the equations,
and ``deepcg.potentials.priors.obc2.born_energies``; they are tied by
``tests/potentials/test_force_field.py::test_loops_are_the_definitions_and_their_slopes``.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from deepcg.compute.formula_loops import Vector3, cross, dot
from deepcg.compute.loops import Array, compiled
from deepcg.potentials.priors.obc2 import OFFSET, PROBE, TENSION, WATER
from deepcg.units import COULOMB

Terms = tuple[Array, Array]
"""The ``atoms`` and the ``parameters`` of one kind."""

_NO_DIRECTION = 1e-18  # nm^4: below, an angle is straight


@njit(inline="always", error_model="numpy")
def _between(x: Array, start: int, end: int) -> Vector3:
    return x[end, 0] - x[start, 0], x[end, 1] - x[start, 1], x[end, 2] - x[start, 2]


@njit(inline="always", error_model="numpy")
def _push(force: Array, bead: int, scale: float, direction: Vector3) -> None:
    for k in range(3):
        force[bead, k] += scale * direction[k]


@njit(error_model="numpy")
def _bonds(x: Array, force: Array, atoms: Array, parameters: Array) -> float:
    energy = 0.0
    for t in range(len(atoms)):
        i, j = atoms[t]
        center, k = parameters[t]
        d = _between(x, i, j)
        r = math.sqrt(dot(d, d))
        energy += k / 2 * (r - center) ** 2
        # -dU/dr_j = -U' d/r
        slope = k * (r - center) / r
        _push(force, i, slope, d)
        _push(force, j, -slope, d)
    return energy


@njit(error_model="numpy")
def _angles(x: Array, force: Array, atoms: Array, parameters: Array) -> float:
    energy = 0.0
    for t in range(len(atoms)):
        i, j, k = atoms[t]
        center, stiffness = parameters[t]
        a, b = _between(x, j, i), _between(x, j, k)
        # theta = atan2(|a x b|, a . b)
        normal = cross(a, b)
        square = dot(normal, normal)
        sine = math.sqrt(max(square, _NO_DIRECTION))
        off = math.atan2(sine, dot(a, b)) - center
        energy += stiffness / 2 * off**2
        slope = stiffness * off / sine if square > _NO_DIRECTION else 0.0
        # d(theta)/da = a x (a x b) / (a^2 |a x b|), d(theta)/db = (a x b) x b / (b^2 |a x b|)
        at_i = -slope / dot(a, a)
        at_k = -slope / dot(b, b)
        to_i, to_k = cross(a, normal), cross(normal, b)
        _push(force, i, at_i, to_i)
        _push(force, k, at_k, to_k)
        _push(force, j, -at_i, to_i)
        _push(force, j, -at_k, to_k)
    return energy


@njit(error_model="numpy")
def _torsions(x: Array, force: Array, atoms: Array, parameters: Array) -> float:
    energy = 0.0
    for t in range(len(atoms)):
        i, j, k, l = atoms[t]
        period, phase, height = parameters[t]
        first, middle, last = _between(x, i, j), _between(x, j, k), _between(x, k, l)
        # phi = atan2(|b2| b1 . (b2 x b3), (b1 x b2) . (b2 x b3)) of b1, b2, b3
        near, far = cross(first, middle), cross(middle, last)
        square = dot(middle, middle)
        long = math.sqrt(square)
        angle = period * math.atan2(long * dot(first, far), dot(near, far)) - phase
        energy += height * (1 + math.cos(angle))
        # -dU/d(phi) d(phi)/dr of the ends is along the normals b1 x b2 and b2 x b3
        slope = height * period * math.sin(angle)
        at_i = -slope * long / dot(near, near)
        at_l = slope * long / dot(far, far)
        # those of the middle two follow: there is no net force and no torque
        before, after = dot(first, middle) / square, dot(last, middle) / square
        _push(force, i, at_i, near)
        _push(force, l, at_l, far)
        _push(force, j, -(1 + before) * at_i, near)
        _push(force, j, after * at_l, far)
        _push(force, k, -(1 + after) * at_l, far)
        _push(force, k, before * at_i, near)
    return energy


@njit(error_model="numpy")
def _volumes(x: Array, force: Array, atoms: Array, parameters: Array) -> float:
    energy = 0.0
    for t in range(len(atoms)):
        i, j, k, l = atoms[t]
        center, stiffness = parameters[t]
        a, b, c = _between(x, i, j), _between(x, i, k), _between(x, i, l)
        # V = a . (b x c), so that dV/da = b x c, and the others in turn
        at_a = cross(b, c)
        off = dot(a, at_a) - center
        energy += stiffness / 2 * off**2
        for bead, area in ((j, at_a), (k, cross(c, a)), (l, cross(a, b))):
            _push(force, bead, -stiffness * off, area)
            _push(force, i, stiffness * off, area)
    return energy


@njit(error_model="numpy")
def _pairs(x: Array, force: Array, atoms: Array, parameters: Array) -> float:
    energy = 0.0
    for t in range(len(atoms)):
        i, j = atoms[t]
        charges, sigma, epsilon = parameters[t]
        d = _between(x, i, j)
        inverse = 1 / math.sqrt(dot(d, d))
        six = (sigma * inverse) ** 6
        electric = COULOMB * charges * inverse
        energy += electric + 4 * epsilon * six * (six - 1)
        # -U'/r
        push = (electric + 24 * epsilon * six * (2 * six - 1)) * inverse**2
        _push(force, i, -push, d)
        _push(force, j, push, d)
    return energy


@njit(inline="always", error_model="numpy")
def _descreening(r: float, radius: float, reach: float) -> tuple[float, float]:
    """Return the pair integral I_ij of ``obc2._descreening`` and dI_ij/dr, 1/nm and 1/nm^2."""
    upper = r + reach
    if radius >= upper:
        return 0.0, 0.0
    # from L, the atom's surface or where the sphere of radius ``reach`` begins, to H = r + reach
    inner = abs(r - reach)
    lower, lower_slope = radius, 0.0
    if inner > radius:
        lower = inner
        lower_slope = 1.0 if r > reach else -1.0
    # 1/L - 1/H + ln(L/H) / (2 r) + (r - reach^2 / r) (1/H^2 - 1/L^2) / 4
    below, above, log = 1 / lower, 1 / upper, math.log(lower / upper)
    value = below - above + log / (2 * r)
    value += (r - reach**2 / r) * (above**2 - below**2) / 4
    # the same, term by term, with dH/dr = 1 and dL/dr = lower_slope
    slope = above**2 - lower_slope * below**2
    slope += (lower_slope * below - above) / (2 * r) - log / (2 * r**2)
    slope += (1 + (reach / r) ** 2) * (above**2 - below**2) / 4
    slope += (r - reach**2 / r) * (lower_slope * below**3 - above**3) / 2
    # the atom lies inside of the sphere: 2 (1/radius - 1/L) more
    if radius < reach - r:
        value += 2 * (1 / radius - below)
        slope += 2 * lower_slope * below**2
    return value / 2, slope / 2


@njit(error_model="numpy")
def _born(x: Array, force: Array, atoms: Array, parameters: Array) -> float:
    n = len(atoms)
    distance, slopes = np.zeros((n, n)), np.zeros((n, n))
    born, born_slope, by_radius = np.zeros(n), np.zeros(n), np.zeros(n)
    for i in range(n):
        small, total = parameters[i, 1] - OFFSET, 0.0
        for j in range(n):
            if i != j:
                d = _between(x, atoms[i, 0], atoms[j, 0])
                r = math.sqrt(dot(d, d))
                reach = parameters[j, 2] * (parameters[j, 1] - OFFSET)
                distance[i, j] = r
                value, slopes[i, j] = _descreening(r, small, reach)
                total += value
        # 1/B = 1/small - tanh(psi - 0.8 psi^2 + 4.85 psi^3) / radius, and dB/dI
        psi = total * small
        bent = math.tanh(psi - 0.8 * psi**2 + 4.85 * psi**3)
        born[i] = 1 / (1 / small - bent / parameters[i, 1])
        inner = (1 - 1.6 * psi + 14.55 * psi**2) * small
        born_slope[i] = born[i] ** 2 * (1 - bent**2) * inner / parameters[i, 1]
    strength, energy = -COULOMB / 2 * (1 - 1 / WATER), 0.0
    explicit = np.zeros((n, n))
    for i in range(n):
        charge, radius = parameters[i, 0], parameters[i, 1]
        # of one atom: q^2 / B, and the cavity
        own = strength * charge**2 / born[i]
        skin = TENSION * (radius + PROBE) ** 2 * (radius / born[i]) ** 6
        energy += own + skin
        by_radius[i] -= (own + 6 * skin) / born[i]
        for j in range(i):
            # of two: q q' / f_GB, with f_GB^2 = r^2 + B B' exp(-r^2 / (4 B B'))
            r, product = distance[i, j], born[i] * born[j]
            fading = math.exp(-(r**2) / (4 * product))
            screened = math.sqrt(r**2 + product * fading)
            shared = 2 * strength * charge * parameters[j, 0] / screened
            energy += shared
            # its slope in f_GB^2, and by that in r at fixed radii, and in B B'
            half = -shared / (2 * screened**2)
            explicit[i, j] = half * (2 * r - r / 2 * fading)
            by_product = half * fading * (1 + r**2 / (4 * product))
            by_radius[i] += by_product * born[j]
            by_radius[j] += by_product * born[i]
    for i in range(n):
        for j in range(i):
            # dU/dr_ij, with dU/dB dB/dI dI/dr of both radii
            slope = explicit[i, j] + by_radius[i] * born_slope[i] * slopes[i, j]
            slope += by_radius[j] * born_slope[j] * slopes[j, i]
            d = _between(x, atoms[i, 0], atoms[j, 0])
            _push(force, atoms[i, 0], slope / distance[i, j], d)
            _push(force, atoms[j, 0], -slope / distance[i, j], d)
    return energy


@compiled()
def energies_and_forces(
    positions: Array,
    bonds: Terms,
    angles: Terms,
    torsions: Terms,
    volumes: Terms,
    pairs: Terms,
    born: Terms,
) -> tuple[Array, Array]:
    """Return U (n_frames,), kJ/mol, and -dU/dR (n_frames, n_beads, 3), kJ/mol/nm, double precision.

    Each kind is its ``atoms`` (n_terms, m), int64, and ``parameters`` (n_terms, p), float64, as
    `deepcg.potentials.priors.force_field.KINDS` has them; a kind that is not there has no terms.
    """
    energy = np.zeros(len(positions))
    force = np.zeros(positions.shape)
    for f in prange(len(positions)):
        x, out = positions[f], force[f]
        energy[f] = (
            _bonds(x, out, bonds[0], bonds[1])
            + _angles(x, out, angles[0], angles[1])
            + _torsions(x, out, torsions[0], torsions[1])
            + _volumes(x, out, volumes[0], volumes[1])
            + _pairs(x, out, pairs[0], pairs[1])
            + _born(x, out, born[0], born[1])
        )
    return energy, force
