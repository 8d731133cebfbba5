"""Water as a dielectric: the generalized Born model OBC2, a start for the mean force of water.

Onufriev, Bashford and Case, Proteins 55, 383 (2004), model II; pair integrals and scale factors of
Hawkins, Cramer and Truhlar, J. Phys. Chem. 100, 19824 (1996); the radii that AMBER calls mbondi2;
the non-polar part of Schaefer, Bartels and Karplus, J. Mol. Biol. 284, 835 (1998). The numbers
are OpenMM's of ``implicit/obc2.xml``, for water at 300 K. Why not OpenMM's force: here it is a part
of U, differentiable and for many replicas at once. OpenMM is the oracle in tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deepcg.geometry.internal_coordinates import Points, length
from deepcg.runtime.arrays import Integers
from deepcg.trajectory.topology import MoleculeGraph
from deepcg.units import COULOMB

WATER = 78.5
"""Dielectric constant."""

OFFSET = 0.009  # nm, by which the radii of the pair integrals are smaller
PROBE = 0.14  # nm
TENSION = 4 * math.pi * 2.25936  # kJ/mol/nm^2

RADII = {1: 0.12, 6: 0.17, 7: 0.155, 8: 0.15, 9: 0.15, 14: 0.21, 15: 0.185, 16: 0.18, 17: 0.17}
SCALES = {1: 0.85, 6: 0.72, 7: 0.79, 8: 0.85, 9: 0.88, 15: 0.86, 16: 0.96}
RADIUS_OF_OTHERS, SCALE_OF_OTHERS, RADIUS_OF_H_ON_N = 0.15, 0.8, 0.13


def born_parameters(graph: MoleculeGraph, atoms: Sequence[int] | Integers) -> Tensor:
    """Return radii, nm, and scale factors (n_atoms, 2) of some atoms."""
    numbers, neighbors = graph.numbers.tolist(), graph.bonded_atoms
    rows = []
    for atom in atoms:
        radius = RADII.get(numbers[atom], RADIUS_OF_OTHERS)
        if numbers[atom] == 1 and any(numbers[other] == 7 for other in neighbors[atom]):
            radius = RADIUS_OF_H_ON_N
        rows.append((radius, SCALES.get(numbers[atom], SCALE_OF_OTHERS)))
    return torch.tensor(rows, dtype=torch.float64)


def born_energies(points: Points, charge: Tensor, radius: Tensor, scale: Tensor) -> Tensor:
    """Return the energies (n_atoms, n_frames), kJ/mol, that sum up to that of solvation.

    Parameters
    ----------
    points
        Of one point for each of all atoms.
    charge, radius, scale
        (n_atoms, 1); e, nm, 1.
    """
    (x,) = points
    n = x.shape[1]
    i, j = torch.triu_indices(n, n, 1, device=x.device)
    r = length([x[:, i], x[:, j]])
    born = _born_radii(r, i, j, radius, scale)
    strength = -COULOMB / 2 * (1 - 1 / WATER)
    product = born[i] * born[j]
    screened = (r**2 + product * torch.exp(-(r**2) / (4 * product))).sqrt()
    # half of what two atoms share is each one's, hence no 1/2 below
    shared = strength * charge[i] * charge[j] / screened
    own = strength * charge**2 / born + TENSION * (radius + PROBE) ** 2 * (radius / born) ** 6
    return own.index_add(0, i, shared).index_add(0, j, shared)


def _born_radii(r: Tensor, i: Tensor, j: Tensor, radius: Tensor, scale: Tensor) -> Tensor:
    """Return effective radii (n_atoms, n_frames), nm, from distances (n_pairs, n_frames)."""
    small = radius - OFFSET
    reach = scale * small
    integral = torch.zeros((len(radius), r.shape[1]), dtype=r.dtype, device=r.device)
    for one, other in ((i, j), (j, i)):
        integral = integral.index_add(0, one, _descreening(r, small[one], reach[other]))
    psi = integral * small
    return 1 / (1 / small - torch.tanh(psi - 0.8 * psi**2 + 4.85 * psi**3) / radius)


def _descreening(r: Tensor, radius: Tensor, reach: Tensor) -> Tensor:
    """Return the integral of 1 / (4 pi r^4) over a sphere of radius ``reach``, less the atom's."""
    upper = r + reach
    inner = (r - reach).abs()
    lower = torch.maximum(inner, radius)
    ring = 1 / lower - 1 / upper + torch.log(lower / upper) / (2 * r)
    ring = ring + (r - reach**2 / r) * (upper**-2 - lower**-2) / 4
    swallowed = 2 * (1 / radius - 1 / lower) * (radius < reach - r)
    return (ring + swallowed) / 2 * (radius < upper)
