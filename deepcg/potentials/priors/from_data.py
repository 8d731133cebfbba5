"""The prior of mapped molecules: bonds, angles and planes as stiff as the data have them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, product

import torch
from torch import Tensor

from deepcg.geometry.internal_coordinates import angle, dihedral, length, points_of, signed_volume
from deepcg.potentials.priors.force_field import Table
from deepcg.runtime.arrays import Integers

FREE = 0.5
"""Spread, rad, from which on a dihedral angle is not stiff: the network has to learn it."""

LEAST_SPREAD = {"bonds": 2e-3, "angles": 2e-2, "volumes": 2e-5}
"""nm, rad, nm^3: what constraints hold in the data is held by springs that dynamics can bear."""


def statistical_tables(
    positions: Tensor, bonds: Integers, kT: float, weights: Tensor | None = None
) -> dict[str, Table]:
    """Return terms with the means and spreads of the data, each as if it were alone.

    Boltzmann inversion to second order: k = kT / variance for the bonds, the angles between
    two of them, and the signed volumes of beads with three neighbors or more, which keep planes
    plane and centers from turning inside out. Dihedral angles with a spread below ``FREE`` are
    held likewise, by 1 - cos, which the dihedrals about one bond share; wider ones are free.

    Parameters
    ----------
    positions
        (n_frames, n_beads, 3), nm, molecules whole.
    bonds
        (n_bonds, 2), beads.
    kT
        kJ/mol.
    weights
        (n_frames,), statistical weights of frames.
    """
    neighbors = _neighbors(bonds, positions.shape[1])
    x = positions.double()
    w = torch.ones(len(x)).to(x) if weights is None else weights.to(x)
    w = w / w.sum()
    found = {
        "bonds": (length, bonds.tolist()),
        "angles": (angle, _angles(neighbors)),
        "volumes": (signed_volume, _centers(neighbors)),
    }
    tables = {}
    for kind, (measure, terms) in found.items():
        if terms:
            values = measure(points_of(x, torch.tensor(terms)))  # (n_terms, n_frames)
            mean = values @ w
            variance = (values - mean[:, None]).square() @ w
            k = kT / variance.clamp(min=LEAST_SPREAD[kind] ** 2)
            tables[kind] = Table(torch.tensor(terms), torch.stack([mean, k], 1).cpu())
    stiff = _stiff_torsions(x, w, _torsions(bonds, neighbors), kT)
    return tables | ({} if stiff is None else {"torsions": stiff})


def _stiff_torsions(x: Tensor, w: Tensor, terms: list[list[int]], kT: float) -> Table | None:
    """Return those whose angle has one narrow peak: -kT log of a von Mises distribution."""
    if not terms:
        return None
    phi = dihedral(points_of(x, torch.tensor(terms)))
    vector = torch.polar(torch.ones_like(phi), phi) @ w.to(torch.complex128)
    variance = -2 * vector.abs().clamp(min=1e-12).log()  # of a wrapped normal distribution
    stiff = [term for term, v in zip(terms, variance.tolist(), strict=True) if v < FREE**2]
    if not stiff:
        return None
    kept = variance < FREE**2
    about = Counter(tuple(term[1:3]) for term in stiff)
    share = torch.tensor([about[term[1], term[2]] for term in stiff])
    k = kT / variance[kept].clamp(min=LEAST_SPREAD["angles"] ** 2).cpu() / share
    phase = vector.angle()[kept].cpu() + math.pi
    return Table(torch.tensor(stiff), torch.stack([torch.ones_like(k), phase, k], 1))


def _neighbors(bonds: Integers, n_beads: int) -> list[list[int]]:
    neighbors: list[list[int]] = [[] for _ in range(n_beads)]
    for i, j in bonds.tolist():
        neighbors[i].append(j)
        neighbors[j].append(i)
    return [sorted(others) for others in neighbors]


def _angles(neighbors: Sequence[list[int]]) -> list[list[int]]:
    return [
        [i, center, k]
        for center, others in enumerate(neighbors)
        for i, k in combinations(others, 2)
    ]


def _centers(neighbors: Sequence[list[int]]) -> list[list[int]]:
    return [[center, *others[:3]] for center, others in enumerate(neighbors) if len(others) >= 3]


def _torsions(bonds: Integers, neighbors: Sequence[list[int]]) -> list[list[int]]:
    chains = (
        [i, j, k, last]
        for j, k in bonds.tolist()
        for i, last in product(neighbors[j], neighbors[k])
    )
    return [chain for chain in chains if len(set(chain)) == 4]
