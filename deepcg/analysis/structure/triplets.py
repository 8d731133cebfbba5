"""Three beads at once: angles in close triplets, and equilateral triangles against chance."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from deepcg.analysis.structure.curve import Curve, histogram_density
from deepcg.analysis.structure.local_order import ANGLE_EDGES, angles
from deepcg.analysis.structure.pairs import Pairs, bonds_within, pairs_within
from deepcg.analysis.structure.trajectory_set import Sample, chunks
from deepcg.runtime.arrays import Doubles
from deepcg.trajectory.frames import Frames

CLOSE = 0.318
"""nm: neighbors of a water molecule that are certainly of its first shell (the angle density that
Thaler and Zavadlav, Nat. Commun. 12, 6884 (2021), fit to)."""

SIDE_BIN = 0.02  # nm
LONGEST_SIDE = 0.8  # nm


def close_angles(sample: Sample) -> Curve | None:
    """Return the density of angles whose two sides are shorter than 0.318 nm, all types alike.

    ``None`` where there is no such triplet.
    """
    counts = []
    for block in sample.blocks:
        found = [angles(bonds_within(*chunk, CLOSE)) for chunk in chunks(block)]
        counts.append(np.histogram(np.concatenate(found), ANGLE_EDGES)[0])
    if not np.any(counts):
        return None
    return histogram_density(
        "angle, sides < 0.318 nm",
        ANGLE_EDGES,
        np.stack(counts),
        "angle (degrees)",
        "density (1/degree)",
    )


def side_edges(longest: float) -> Doubles:
    """Return bin edges (n,), nm, of the sides of triangles, from 0 in steps of 0.02 nm.

    Up to 0.8 nm or two thirds of ``longest``, half of the shortest box height: three nearest
    images may go round a box whose height is less than three sides, and are no triangle then.
    """
    n = int(min(LONGEST_SIDE, 2 * longest / 3) / SIDE_BIN + 1e-6)
    return np.arange(n + 1, dtype=np.float64) * SIDE_BIN


def equilateral_triplets(sample: Sample, edges: Doubles) -> Curve:
    """Return g3(r, r, r), the density of equilateral triangles against that of an ideal gas.

    All beads count alike. A triangle is counted in a bin when its three sides all are in it; of
    N (N - 1) (N - 2) / 6 triples a fraction 8 pi^2 ((b^2 - a^2) / 2)^3 / V^2 lies in a bin from a
    to b in an ideal gas, for b <= 2 a (bins below two widths, where no beads are, are left out).
    """
    low, high = edges[:-1], edges[1:]
    whole = high <= 2 * low + 1e-12  # any three sides of such a bin make a triangle
    low, high = low[whole], high[whole]
    values = np.stack([_block(block, low, high) for block in sample.blocks])
    weights = np.array([len(block) for block in sample.blocks], dtype=float)
    center = (low + high) / 2
    return Curve("equilateral triplets", center, values, weights, "side (nm)", "g3(r, r, r)")


def _block(frames: Frames, low: Doubles, high: Doubles) -> Doubles:
    """Return V^2 times the number of triangles in each bin, over what an ideal gas has of it."""
    n = frames.n_sites
    total = np.zeros(len(low))
    for positions, box in chunks(frames):
        pairs = pairs_within(positions, box, float(high[-1]))
        volume = np.linalg.det(box)
        for k, (a, b) in enumerate(zip(low, high, strict=True)):
            total[k] += (_triangles(pairs, (a, b), n, len(positions)) * volume**2).sum()
    triples = n * (n - 1) * (n - 2) / 6
    chance = 8 * np.pi**2 * ((high**2 - low**2) / 2) ** 3
    return total / (triples * chance * len(frames))


def _triangles(pairs: Pairs, side: tuple[float, float], n: int, n_frames: int) -> Doubles:
    """Return how many triangles (n_frames,) have all sides between two lengths."""
    chosen = (pairs.distances >= side[0]) & (pairs.distances < side[1])
    first = (pairs.frame * n + pairs.first)[chosen]
    second = (pairs.frame * n + pairs.second)[chosen]
    ends = np.concatenate([first, second]), np.concatenate([second, first])
    graph = csr_array((np.ones(2 * len(first)), ends), shape=(n_frames * n, n_frames * n))
    closed = (graph @ graph).multiply(graph).sum(1)  # walks of three steps back to a site
    corners: Doubles = np.asarray(closed, dtype=np.float64).reshape(n_frames, n).sum(1)
    return corners / 6
