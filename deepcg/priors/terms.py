"""Angles, torsions and centers of molecules, by their bonds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray


def neighbors_of(bonds: NDArray[np.int64], n_beads: int) -> list[list[int]]:
    """Return the beads bonded to each bead."""
    neighbors: list[list[int]] = [[] for _ in range(n_beads)]
    for i, j in bonds.tolist():
        neighbors[i].append(j)
        neighbors[j].append(i)
    return [sorted(others) for others in neighbors]


def angles_of(neighbors: Sequence[list[int]]) -> list[list[int]]:
    """Return the angles between two bonds, centers in the middle."""
    return [
        [i, center, k]
        for center, others in enumerate(neighbors)
        for i, k in combinations(others, 2)
    ]


def centers_of(neighbors: Sequence[list[int]]) -> list[list[int]]:
    """Return beads with three neighbors or more, before three of these."""
    return [[center, *others[:3]] for center, others in enumerate(neighbors) if len(others) >= 3]


def torsions_of(bonds: NDArray[np.int64], neighbors: Sequence[list[int]]) -> list[list[int]]:
    """Return all torsions about all bonds."""
    chains = (
        [i, j, k, last]
        for j, k in bonds.tolist()
        for i, last in product(neighbors[j], neighbors[k])
    )
    return [chain for chain in chains if len(set(chain)) == 4]
