"""Energies and forces of force fields in one pass, compiled: the sums of ``KINDS``, differentiated.

Frames are independent of one another and shared out among threads. All arithmetic is in double
precision, whatever that of the positions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange

from deepcg.potentials.priors.obc2 import OFFSET, PROBE, TENSION, WATER
from deepcg.units import COULOMB

_NO_DIRECTION = 1e-18  # nm^4: below, an angle is straight


@njit(inline="always", error_model="numpy")
def _between(x: Any, start: Any, end: Any) -> Any:
    return x[end, 0] - x[start, 0], x[end, 1] - x[start, 1], x[end, 2] - x[start, 2]


@njit(inline="always", error_model="numpy")
def _cross(a: Any, b: Any) -> Any:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@njit(inline="always", error_model="numpy")
def _dot(a: Any, b: Any) -> Any:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(inline="always", error_model="numpy")
def _push(force: Any, bead: Any, scale: Any, direction: Any) -> Any:
    for k in range(3):
        force[bead, k] += scale * direction[k]


@njit(error_model="numpy")
def _bonds(x: Any, force: Any, atoms: Any, parameters: Any) -> Any:
    energy = 0.0
    for t in range(len(atoms)):
        i, j = atoms[t]
        center, k = parameters[t]
        d = _between(x, i, j)
        r = math.sqrt(_dot(d, d))
        energy += k / 2 * (r - center) ** 2
        pull = k * (r - center) / r
        _push(force, i, pull, d)
        _push(force, j, -pull, d)
    return energy


@njit(error_model="numpy")
def _angles(x: Any, force: Any, atoms: Any, parameters: Any) -> Any:
    energy = 0.0
    for t in range(len(atoms)):
        i, j, k = atoms[t]
        center, stiffness = parameters[t]
        a, b = _between(x, j, i), _between(x, j, k)
        normal = _cross(a, b)
        square = _dot(normal, normal)
        sine = math.sqrt(max(square, _NO_DIRECTION))
        off = math.atan2(sine, _dot(a, b)) - center
        energy += stiffness / 2 * off**2
        slope = stiffness * off / sine if square > _NO_DIRECTION else 0.0
        at_i = -slope / _dot(a, a)
        at_k = -slope / _dot(b, b)
        to_i, to_k = _cross(a, normal), _cross(normal, b)
        _push(force, i, at_i, to_i)
        _push(force, k, at_k, to_k)
        _push(force, j, -at_i, to_i)
        _push(force, j, -at_k, to_k)
    return energy


@njit(error_model="numpy")
def _torsions(x: Any, force: Any, atoms: Any, parameters: Any) -> Any:
    energy = 0.0
    for t in range(len(atoms)):
        i, j, k, l = atoms[t]
        period, phase, height = parameters[t]
        first, middle, last = _between(x, i, j), _between(x, j, k), _between(x, k, l)
        near, far = _cross(first, middle), _cross(middle, last)
        square = _dot(middle, middle)
        long = math.sqrt(square)
        angle = period * math.atan2(long * _dot(first, far), _dot(near, far)) - phase
        energy += height * (1 + math.cos(angle))
        pull = height * period * math.sin(angle)
        at_i = -pull * long / _dot(near, near)
        at_l = pull * long / _dot(far, far)
        before, after = _dot(first, middle) / square, _dot(last, middle) / square
        _push(force, i, at_i, near)
        _push(force, l, at_l, far)
        _push(force, j, -(1 + before) * at_i, near)
        _push(force, j, after * at_l, far)
        _push(force, k, -(1 + after) * at_l, far)
        _push(force, k, before * at_i, near)
    return energy


@njit(error_model="numpy")
def _volumes(x: Any, force: Any, atoms: Any, parameters: Any) -> Any:
    energy = 0.0
    for t in range(len(atoms)):
        i, j, k, l = atoms[t]
        center, stiffness = parameters[t]
        a, b, c = _between(x, i, j), _between(x, i, k), _between(x, i, l)
        at_a = _cross(b, c)
        off = _dot(a, at_a) - center
        energy += stiffness / 2 * off**2
        for bead, area in ((j, at_a), (k, _cross(c, a)), (l, _cross(a, b))):
            _push(force, bead, -stiffness * off, area)
            _push(force, i, stiffness * off, area)
    return energy


@njit(error_model="numpy")
def _pairs(x: Any, force: Any, atoms: Any, parameters: Any) -> Any:
    energy = 0.0
    for t in range(len(atoms)):
        i, j = atoms[t]
        charges, sigma, epsilon = parameters[t]
        d = _between(x, i, j)
        inverse = 1 / math.sqrt(_dot(d, d))
        six = (sigma * inverse) ** 6
        electric = COULOMB * charges * inverse
        energy += electric + 4 * epsilon * six * (six - 1)
        push = (electric + 24 * epsilon * six * (2 * six - 1)) * inverse**2
        _push(force, i, -push, d)
        _push(force, j, push, d)
    return energy


@njit(inline="always", error_model="numpy")
def _descreening(r: Any, radius: Any, reach: Any) -> Any:
    """Return the pair integral and its slope."""
    upper = r + reach
    if radius >= upper:
        return 0.0, 0.0
    inner = abs(r - reach)
    lower, lower_slope = radius, 0.0
    if inner > radius:
        lower = inner
        lower_slope = 1.0 if r > reach else -1.0
    below, above, log = 1 / lower, 1 / upper, math.log(lower / upper)
    value = below - above + log / (2 * r)
    value += (r - reach**2 / r) * (above**2 - below**2) / 4
    slope = above**2 - lower_slope * below**2
    slope += (lower_slope * below - above) / (2 * r) - log / (2 * r**2)
    slope += (1 + (reach / r) ** 2) * (above**2 - below**2) / 4
    slope += (r - reach**2 / r) * (lower_slope * below**3 - above**3) / 2
    if radius < reach - r:
        value += 2 * (1 / radius - below)
        slope += 2 * lower_slope * below**2
    return value / 2, slope / 2


@njit(error_model="numpy")
def _born(x: Any, force: Any, atoms: Any, parameters: Any) -> Any:
    n = len(atoms)
    distance, slopes = np.zeros((n, n)), np.zeros((n, n))  # slopes[i, j]: of the integral at i
    born, born_slope, pull = np.zeros(n), np.zeros(n), np.zeros(n)  # pull: dE / d(radius)
    for i in range(n):
        small, total = parameters[i, 1] - OFFSET, 0.0
        for j in range(n):
            if i != j:
                d = _between(x, atoms[i, 0], atoms[j, 0])
                r = math.sqrt(_dot(d, d))
                reach = parameters[j, 2] * (parameters[j, 1] - OFFSET)
                distance[i, j] = r
                value, slopes[i, j] = _descreening(r, small, reach)
                total += value
        psi = total * small
        bent = math.tanh(psi - 0.8 * psi**2 + 4.85 * psi**3)
        born[i] = 1 / (1 / small - bent / parameters[i, 1])
        inner = (1 - 1.6 * psi + 14.55 * psi**2) * small
        born_slope[i] = born[i] ** 2 * (1 - bent**2) * inner / parameters[i, 1]
    strength, energy = -COULOMB / 2 * (1 - 1 / WATER), 0.0
    explicit = np.zeros((n, n))
    for i in range(n):
        charge, radius = parameters[i, 0], parameters[i, 1]
        own = strength * charge**2 / born[i]
        skin = TENSION * (radius + PROBE) ** 2 * (radius / born[i]) ** 6
        energy += own + skin
        pull[i] -= (own + 6 * skin) / born[i]
        for j in range(i):
            r, product = distance[i, j], born[i] * born[j]
            fading = math.exp(-(r**2) / (4 * product))
            screened = math.sqrt(r**2 + product * fading)
            shared = 2 * strength * charge * parameters[j, 0] / screened
            energy += shared
            half = -shared / (2 * screened**2)  # dE / d(screened^2)
            explicit[i, j] = half * (2 * r - r / 2 * fading)
            by_product = half * fading * (1 + r**2 / (4 * product))
            pull[i] += by_product * born[j]
            pull[j] += by_product * born[i]
    for i in range(n):
        for j in range(i):
            slope = explicit[i, j] + pull[i] * born_slope[i] * slopes[i, j]
            slope += pull[j] * born_slope[j] * slopes[j, i]
            d = _between(x, atoms[i, 0], atoms[j, 0])
            _push(force, atoms[i, 0], slope / distance[i, j], d)
            _push(force, atoms[j, 0], -slope / distance[i, j], d)
    return energy


@njit(parallel=True, cache=True, error_model="numpy")
def energies_and_forces(
    positions: Any, bonds: Any, angles: Any, torsions: Any, volumes: Any, pairs: Any, born: Any
) -> Any:
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
