"""The shape of the first shell: coordination, angles and averaged Steinhardt parameters."""

from __future__ import annotations

from math import factorial, prod

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from deepcg.analysis.structure.curve import Curve, histogram_density
from deepcg.analysis.structure.pairs import Bonds, bonds_within
from deepcg.analysis.structure.trajectory_set import Sample, chunks
from deepcg.runtime.arrays import Doubles
from deepcg.trajectory.frames import Frames

ANGLE_EDGES = np.linspace(0.0, 180.0, 91)  # degrees
ORDER_EDGES = np.linspace(0.0, 1.0, 101)
COORDINATION_EDGES = np.arange(-0.5, 25.0)
ORDERS = (3, 4, 6)


def local_structure(sample: Sample, cutoff: float) -> list[Curve]:
    """Return the densities of angle, coordination number and averaged q3, q4 and q6.

    Beads of all types count alike; neighbors are those nearer than ``cutoff`` (nm).
    """
    names = sample.ensemble.type_names
    bead = names[0] if len(names) == 1 else "bead"
    specs = [
        (f"{bead}-{bead}-{bead} angle", ANGLE_EDGES, "angle (degrees)", "density (1/degree)"),
        ("coordination number", COORDINATION_EDGES, "neighbors", "probability"),
        *((f"averaged q{l}", ORDER_EDGES, f"averaged q{l}", "density") for l in ORDERS),
    ]
    counts = [_histograms(block, cutoff) for block in sample.blocks]
    return [
        histogram_density(name, edges, np.stack([c[k] for c in counts]), x_label, y_label)
        for k, (name, edges, x_label, y_label) in enumerate(specs)
    ]


def angles(bonds: Bonds) -> Doubles:
    """Return the angles (n,), degrees, of all pairs of bonds that share their center."""
    found = []
    coordination = bonds.coordination
    for n in range(2, int(coordination.max(initial=0)) + 1):
        first = bonds.start[:-1][coordination == n]
        units = bonds.units[first[:, None] + np.arange(n)]  # (sites, n, 3)
        j, k = np.triu_indices(n, 1)
        found.append((units[:, j] * units[:, k]).sum(-1).ravel())
    cosines = np.concatenate(found) if found else np.empty(0)
    degrees: Doubles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return degrees


def averaged_steinhardt(bonds: Bonds, l: int) -> Doubles:
    """Return the averaged bond-orientational order parameter of every site (n_sites,).

    q_lm is the mean of Y_lm over a site's neighbors, averaged again over the site and its
    neighbors: equations 5 and 6 of Lechner and Dellago, J. Chem. Phys. 129, 114707 (2008).
    """
    n_sites = len(bonds.start) - 1
    own = np.maximum(bonds.coordination, 1)[:, None]  # no neighbors: q = 0
    harmonics = spherical_harmonics(bonds.units, l)  # (bonds, m)
    ones = np.ones(len(bonds.neighbor))
    to_bonds = csr_array((ones, np.arange(len(ones)), bonds.start), shape=(n_sites, len(ones)))
    to_sites = csr_array((ones, bonds.neighbor, bonds.start), shape=(n_sites, n_sites))
    q = to_bonds @ harmonics / own
    q = (q + to_sites @ q) / (bonds.coordination[:, None] + 1)
    power = np.abs(q) ** 2 @ np.where(np.arange(l + 1) == 0, 1.0, 2.0)  # |q_l,-m| = |q_lm|
    parameter: Doubles = np.sqrt(4 * np.pi / (2 * l + 1) * power)
    return parameter


def spherical_harmonics(units: Doubles, l: int) -> NDArray[np.complex128]:
    """Return Y_lm (n, l + 1), m = 0 ... l, of unit vectors (n, 3), Condon-Shortley phase.

    Polynomials in z and x + iy by the recurrences of the associated Legendre functions
    (Numerical Recipes, 3rd ed., equations 6.7.8 and 6.7.9): no angles, an order of magnitude
    faster than a library call for each.
    """
    z = units[:, 2]
    rising = units[:, 0] + 1j * units[:, 1]
    harmonics = np.empty((len(units), l + 1), dtype=np.complex128)
    for m in range(l + 1):
        top = (-1) ** m * prod(range(1, 2 * m, 2))  # P_mm / sin^m
        below, legendre = np.zeros_like(z), np.full_like(z, top)
        for k in range(m + 1, l + 1):
            below, legendre = legendre, ((2 * k - 1) * z * legendre - (k + m - 1) * below) / (k - m)
        norm = np.sqrt((2 * l + 1) / (4 * np.pi) * factorial(l - m) / factorial(l + m))
        harmonics[:, m] = norm * legendre * rising**m
    return harmonics


def _histograms(frames: Frames, cutoff: float) -> list[Doubles]:
    edges = [ANGLE_EDGES, COORDINATION_EDGES, *[ORDER_EDGES] * len(ORDERS)]
    totals = [np.zeros(len(e) - 1) for e in edges]
    for positions, box in chunks(frames):
        bonds = bonds_within(positions, box, cutoff)
        values = [angles(bonds), bonds.coordination]
        values += [averaged_steinhardt(bonds, l) for l in ORDERS]
        for total, e, v in zip(totals, edges, values, strict=True):
            total += np.histogram(np.clip(v, e[0], e[-1]), e)[0]
    return totals
