"""Who is near whom in frames at rest: pairs within a cutoff, each once, and bonds, each twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from deepcg.geometry.box import box_heights
from deepcg.geometry.neighbor_list import find_pairs
from deepcg.runtime.arrays import Doubles, Integers


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Pairs within a cutoff: frame and beads (p,), vectors first to second (3, p), nm."""

    frame: Integers
    first: Integers
    second: Integers
    vectors: Doubles
    distances: Doubles


@dataclass(frozen=True, slots=True, eq=False)
class Bonds:
    """Directed pairs, sorted by center; frames are laid end to end (site = frame * n + bead).

    ``start`` (n_sites + 1,) is where the bonds of each site begin, ``neighbor`` (p,) the
    sites at the far ends, ``units`` (p, 3) the unit vectors that point there.
    """

    start: Integers
    neighbor: Integers
    units: Doubles

    @property
    def coordination(self) -> Integers:
        """Number of neighbors of every site (n_sites,)."""
        return np.diff(self.start)


def pairs_within(positions: Doubles, box: Doubles, cutoff: float) -> Pairs:
    """Return all pairs nearer than ``cutoff``, each once, by the nearest image.

    Parameters
    ----------
    positions
        (f, n, 3), nm.
    box
        (f, 3, 3), nm, in reduced form.
    cutoff
        nm, at most half of the shortest height of the boxes.

    Raises
    ------
    ValueError
        The cutoff is longer.
    """
    points, cells = torch.tensor(positions), torch.tensor(box)
    shortest = float(box_heights(cells).min())
    if cutoff > shortest / 2 * (1 + 1e-6):
        raise ValueError(f"the cutoff {cutoff:.3f} nm is more than half the height {shortest:.3f}")
    listed = find_pairs(points, cells, min(cutoff, shortest / 2))
    n, width = listed.index.shape[1:]
    real = torch.arange(width) < listed.count[..., None]
    once = real & (listed.index > torch.arange(n)[:, None])
    frame, first, slot = once.nonzero(as_tuple=True)
    second = listed.index[frame, first, slot]
    shift = listed.shift[frame, first, slot]
    vectors = points[frame, second] + shift - points[frame, first]
    found = (frame, first, second, vectors.T, vectors.norm(dim=1))
    return Pairs(*(part.numpy() for part in found))


def bonds_within(positions: Doubles, box: Doubles, cutoff: float) -> Bonds:
    """Return every pair of positions (f, n, 3) twice, once from each end; as ``pairs_within``."""
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
