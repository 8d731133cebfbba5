"""Who is near whom in frames at rest: pairs within a cutoff, each once, and bonds, each twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deepcg.geometry.box import heights

BRUTE_FORCE_UP_TO = 1000  # beads; beyond, a tree is faster at the distances used here

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs within a cutoff: frame and beads (p,), vectors first to second (3, p), nm."""

    frame: Integers
    first: Integers
    second: Integers
    vectors: Array
    distances: Array


@dataclass(frozen=True, slots=True, eq=False)
class Bonds:
    """Directed pairs, sorted by center; frames are laid end to end (site = frame * n + bead).

    ``start`` (n_sites + 1,) is where the bonds of each site begin, ``neighbor`` (p,) the
    sites at the far ends, ``units`` (p, 3) the unit vectors that point there.
    """

    start: Integers
    neighbor: Integers
    units: Array

    @property
    def coordination(self) -> Integers:
        """Number of neighbors of every site (n_sites,)."""
        return np.diff(self.start)


def pairs_within(positions: Array, box: Array, cutoff: float) -> Pairs:
    """Return all pairs nearer than ``cutoff``, each once, by the nearest image.

    Parameters
    ----------
    positions
        (f, n, 3), nm.
    box
        (f, 3, 3), nm; ``cutoff`` is at most half of its shortest height.
    """
    shortest = float(heights(box).min())
    if cutoff > shortest / 2 * (1 + 1e-6):
        raise ValueError(f"the cutoff {cutoff:.3f} nm is more than half the height {shortest:.3f}")
    search = _all_pairs if positions.shape[1] <= BRUTE_FORCE_UP_TO else _tree_pairs
    found = [search(x, b, cutoff) for x, b in zip(positions, box, strict=True)]
    first, second, vectors, distances = (
        np.concatenate(part, axis=-1) for part in zip(*found, strict=True)
    )
    frame = np.repeat(np.arange(len(found)), [len(one[0]) for one in found])
    return Pairs(frame, first, second, vectors, distances)


def bonds_within(positions: Array, box: Array, cutoff: float) -> Bonds:
    """Return every pair nearer than ``cutoff`` in both directions."""
    pairs = pairs_within(positions, box, cutoff)
    n_frames, n = positions.shape[:2]
    first, second = pairs.frame * n + pairs.first, pairs.frame * n + pairs.second
    center = np.concatenate([first, second])
    order = np.argsort(center, kind="stable")
    units = pairs.vectors / pairs.distances
    start = np.zeros(n_frames * n + 1, dtype=np.int64)
    np.cumsum(np.bincount(center, minlength=n_frames * n), out=start[1:])
    return Bonds(
        start,
        np.concatenate([second, first])[order],
        np.concatenate([units, -units], axis=1).T[order],
    )


def _all_pairs(
    positions: Array, box: Array, cutoff: float
) -> tuple[Integers, Integers, Array, Array]:
    """Compare bead i with bead i + k (cyclic) for k = 1 ... n/2: all pairs, no index arrays."""
    n = len(positions)
    fractions = (positions @ np.linalg.inv(box)).T  # (3, n)
    shifted = sliding_window_view(np.concatenate([fractions, fractions], axis=1), n, axis=1)
    vectors = shifted[:, 1 : n // 2 + 1] - fractions[:, None]  # (3, k, i)
    vectors -= np.rint(vectors)
    if np.count_nonzero(box) == 3:
        vectors *= np.diagonal(box)[:, None, None]
    else:
        vectors = np.tensordot(box.T, vectors, 1)
    squares = vectors[0] ** 2 + vectors[1] ** 2 + vectors[2] ** 2
    if n % 2 == 0:
        squares[-1:, n // 2 :] = np.inf  # i + n/2 is met from both ends
    near = np.flatnonzero(squares < cutoff**2)
    shift, first = np.divmod(near, n)
    second = (first + shift + 1) % n
    return first, second, vectors.reshape(3, -1)[:, near], np.sqrt(squares.ravel()[near])


def _tree_pairs(
    positions: Array, box: Array, cutoff: float
) -> tuple[Integers, Integers, Array, Array]:
    n = len(positions)
    fractions = positions @ np.linalg.inv(box) % 1.0
    margins = cutoff / heights(box)
    bead = np.arange(n)
    for axis in range(3):  # images within the cutoff of a face; one axis at a time makes corners
        low = np.flatnonzero(fractions[:, axis] < margins[axis])
        high = np.flatnonzero(fractions[:, axis] > 1 - margins[axis])
        step = np.eye(3)[axis]
        fractions = np.concatenate([fractions, fractions[low] + step, fractions[high] - step])
        bead = np.concatenate([bead, bead[low], bead[high]])
    points = fractions @ box
    a, b = cKDTree(points).query_pairs(cutoff, output_type="ndarray").T
    # beads come before images; a pair across a face is met from both of its sides
    keep = (a < n) & ((b < n) | (bead[a] < bead[b]))
    a, b = a[keep], b[keep]
    vectors = (points[b] - points[a]).T
    return a, bead[b], vectors, np.sqrt((vectors**2).sum(0))
