"""The structure factor S(k) on the wave vectors of the box, and its limit at k = 0."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from deepcg.analysis.structure.curve import Curve
from deepcg.analysis.structure.trajectory_set import Sample, TrajectorySet, chunks
from deepcg.runtime.arrays import Doubles, Integers
from deepcg.trajectory.frames import Frames

LARGEST = 40.0  # 1/nm, behind the second peak of water
VECTORS_PER_BIN = 16  # of the many with nearly one length; always the same ones
FITTED_BINS = 4
LINEAR_TO = 0.3  # of the place of the main peak: k^2 alone describes S(k) up to there


def wave_number_edges(ensembles: Sequence[TrajectorySet]) -> Doubles:
    """Return bin edges (n,), 1/nm, for systems of any boxes: as narrow as the smallest allows.

    The first bin is centered on the shortest wave vector of the smallest box, and bins are half
    as wide as that is long: every one of a cubic box holds some vector.
    """
    shortest = 2 * np.pi / min(2 * e.longest_distance for e in ensembles)
    n = max(4, int(2 * LARGEST / shortest))
    return shortest * (0.75 + 0.5 * np.arange(n, dtype=np.float64))


def structure_factor(sample: Sample, edges: Doubles) -> Curve:
    """Return S(k) = <|sum_j exp(i k r_j)|^2> / N, beads of all types alike.

    The mean over wave vectors k of the box in every bin, at most 16 of them, chosen once for all
    frames: Bragg peaks of a crystal may lie between them. Where a bin holds none, the vector
    whose length is nearest stands for it.

    Parameters
    ----------
    edges
        (n,), 1/nm, from ``wave_number_edges``.
    """
    chosen = _wave_vectors(sample.ensemble, edges)
    values = np.stack([_block(block, chosen) for block in sample.blocks])
    weights = np.array([len(block) for block in sample.blocks], dtype=float)
    center = (edges[1:] + edges[:-1]) / 2
    return Curve("S(k)", center, values, weights, "k (1/nm)", "S(k)")


def limits_of_blocks(curve: Curve) -> Doubles:
    """Return S(k -> 0) of each block (n_blocks,): for one kind of bead, rho kT kappa_T.

    By a line in k^2 through at most four bins, none beyond 0.3 of the main peak's place; where
    fewer than two are that short, the first bin stands for the limit.
    """
    top = curve.x[int(curve.y.argmax())]
    few = min(FITTED_BINS, int((curve.x <= LINEAR_TO * top).sum()))
    if few < 2:
        return np.asarray(curve.blocks[:, 0])
    intercepts: Doubles = np.polyfit(curve.x[:few] ** 2, curve.blocks[:, :few].T, 1)[1]
    return intercepts


def _wave_vectors(ensemble: TrajectorySet, edges: Doubles) -> list[Integers]:
    """Return integer wave vectors (m, 3) for every bin, by the first frame's box."""
    box = ensemble.replicas[0].box
    assert box is not None  # a TrajectorySet has checked it
    cell = box[0].detach().cpu().double()
    reciprocal = 2 * np.pi * np.linalg.inv(cell.numpy()).T
    most = np.ceil(edges[-1] / (2 * np.pi) * np.linalg.norm(cell.numpy(), axis=1)).astype(int)
    ranges = [np.arange(-m, m + 1) for m in most]
    grid = np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 3)
    grid = grid[len(grid) // 2 + 1 :]  # k and -k are the same
    length = np.linalg.norm(grid @ reciprocal, axis=1)
    rng = np.random.default_rng(0)
    chosen = []
    for low, high in itertools.pairwise(edges):
        inside = np.flatnonzero((length >= low) & (length < high))
        if len(inside) == 0:
            inside = np.array([np.abs(length - (low + high) / 2).argmin()])
        if len(inside) > VECTORS_PER_BIN:
            inside = np.sort(rng.choice(inside, VECTORS_PER_BIN, replace=False))
        chosen.append(grid[inside])
    return chosen


def _block(frames: Frames, chosen: list[Integers]) -> Doubles:
    """Return S(k) (n_bins,) of some frames."""
    vectors = np.concatenate(chosen)
    total = np.zeros(len(vectors))
    for positions, box in chunks(frames):
        fractional = positions @ np.linalg.inv(box)
        for frame in fractional:
            total += np.abs(_amplitudes(frame, vectors)) ** 2
    per_vector = total / (len(frames) * frames.n_sites)
    ends = np.cumsum([len(v) for v in chosen])[:-1]
    return np.array([part.mean() for part in np.split(per_vector, ends)])


def _amplitudes(fractional: Doubles, vectors: Integers) -> Doubles:
    """Return sum_j exp(2 pi i h s_j) (m,) of fractional positions (n, 3) and integers h (m, 3).

    By products of powers of exp(2 pi i s), which are few, in place of one exponential for each
    bead and vector.
    """
    product = np.ones((len(vectors), len(fractional)), dtype=np.complex128)
    for axis in range(3):
        h = vectors[:, axis]
        span = np.arange(h.min(), h.max() + 1)
        powers = np.exp(2j * np.pi * span[:, None] * fractional[:, axis])
        product *= powers[h - h.min()]
    amplitudes: Doubles = product.sum(1)
    return amplitudes
