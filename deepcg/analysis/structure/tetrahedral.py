"""Tetrahedral order: how near the four nearest neighbors are to the corners of a tetrahedron."""

from __future__ import annotations

import numpy as np

from deepcg.analysis.structure.curve import Curve, histogram_density
from deepcg.analysis.structure.pairs import Pairs, pairs_within
from deepcg.analysis.structure.trajectory_set import Sample, chunks
from deepcg.runtime.arrays import Doubles, Integers
from deepcg.trajectory.frames import Frames

ORDER_EDGES = np.linspace(-3.0, 1.0, 201)
"""q_tet is -3 where all four neighbors lie in one direction, 1 in a tetrahedron."""

WIDER = 1.3  # by this factor the search grows until every bead has four neighbors


def tetrahedral_order(sample: Sample, longest: float) -> Curve | None:
    """Return the density of q_tet, beads of all types alike.

    ``None`` where some bead has fewer than four neighbors nearer than ``longest``, nm: half of the
    shortest box height.
    """
    counts = []
    for block in sample.blocks:
        values = _block_values(block, longest)
        if values is None:
            return None
        counts.append(np.histogram(values, ORDER_EDGES)[0])
    return histogram_density(
        "tetrahedral order", ORDER_EDGES, np.stack(counts), "tetrahedral order q", "density"
    )


def tetrahedral_parameters(pairs: Pairs, n_sites: int) -> Doubles | None:
    """Return q_tet (n_sites,) of every site, or ``None`` where one has fewer than four neighbors.

    q = 1 - 3/8 sum_{j<k} (cos psi_jk + 1/3)^2 over the six angles that the four nearest neighbors
    make at a site: equation 3 of Errington and Debenedetti, Nature 409, 318 (2001), which is 1 in
    a tetrahedron and 0 on average for neighbors in random directions.

    Parameters
    ----------
    pairs
        Of frames laid end to end: ``first`` and ``second`` are sites (frame * n + bead).
    n_sites
        Number of frames times number of beads.
    """
    center = np.concatenate([pairs.first, pairs.second])
    if len(center) == 0 or np.bincount(center, minlength=n_sites).min() < 4:
        return None
    nearest = _four_nearest(center, np.tile(pairs.distances, 2), n_sites)
    units = pairs.vectors / pairs.distances
    both = np.concatenate([units, -units], axis=1).T
    four = both[nearest]  # (n_sites, 4, 3)
    j, k = np.triu_indices(4, 1)
    cosines = (four[:, j] * four[:, k]).sum(-1)
    order: Doubles = 1 - 0.375 * np.square(cosines + 1 / 3).sum(1)
    return order


def _four_nearest(center: Integers, distances: Doubles, n_sites: int) -> Integers:
    """Return the four shortest bonds (n_sites, 4) of every center; each has that many."""
    order = np.lexsort((distances, center))
    start = np.zeros(n_sites, dtype=np.int64)
    np.cumsum(np.bincount(center, minlength=n_sites)[:-1], out=start[1:])
    return np.asarray(order[start[:, None] + np.arange(4)], dtype=np.int64)


def _block_values(frames: Frames, longest: float) -> Doubles | None:
    found = []
    for positions, box in chunks(frames):
        values = _chunk_values(positions, box, longest)
        if values is None:
            return None
        found.append(values)
    return np.concatenate(found)


def _chunk_values(positions: Doubles, box: Doubles, longest: float) -> Doubles | None:
    """Return q_tet (f * n,) of positions (f, n, 3), nm, by as short a search as will do."""
    n_frames, n = positions.shape[:2]
    volume = float(np.linalg.det(box).min())
    reach = (3 * 8 * volume / (4 * np.pi * n)) ** (1 / 3)  # eight neighbors on average
    while True:
        reach = min(reach, longest)
        near = pairs_within(positions, box, reach)
        first, second = near.frame * n + near.first, near.frame * n + near.second
        laid = Pairs(near.frame, first, second, near.vectors, near.distances)
        values = tetrahedral_parameters(laid, n_frames * n)
        if values is not None or reach >= longest:
            return values
        reach *= WIDER
