"""The radial distribution function g(r) and its first shell."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from deepcg.analysis.structure.curve import Curve
from deepcg.analysis.structure.pairs import pairs_within
from deepcg.analysis.structure.trajectory_set import Sample, chunks
from deepcg.runtime.arrays import Doubles, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames

BIN = 0.002  # nm
LONGEST = 0.9  # nm
SMOOTHING = 0.006  # nm, the standard deviation of the filter behind the search for extrema


def radial_edges(longest: float) -> Doubles:
    """Return bin edges (n,), nm, from 0 in steps of 0.002 nm up to ``longest`` or 0.9 nm."""
    return np.arange(int(min(longest, LONGEST) / BIN + 1e-6) + 1, dtype=np.float64) * BIN


def type_pairs(types: Integers) -> list[tuple[int, int]]:
    """Return the pairs (a, b), a <= b, of bead types of which a frame holds at least one pair."""
    present, counts = np.unique(types, return_counts=True)
    several = dict(zip(present.tolist(), (counts > 1).tolist(), strict=True))
    return [(a, b) for a in several for b in several if a < b or (a == b and several[a])]


def radial_name(type_names: tuple[str, ...], kind: tuple[int, int]) -> str:
    """Return the name of the g(r) of a pair of types, such as ``g_OO(r)``."""
    a, b = (type_names[t] for t in kind)
    return f"g_{a}{b}(r)" if len(a) == len(b) == 1 else f"g_{a}-{b}(r)"


def radial_distributions(sample: Sample, edges: Doubles) -> list[Curve]:
    """Return g(r) of every pair of types, in the order of ``type_pairs``; edges (n,) are in nm.

    g(r) = <V n(r)> / (P v(r)): n(r) pairs in a spherical shell of volume v(r), out of
    P = N (N - 1) / 2 pairs of like beads or N_a N_b of unlike ones, in the volume V, so that
    an ideal gas of any number of beads has g = 1.
    """
    ensemble = sample.ensemble
    kinds = type_pairs(ensemble.types)
    values = np.stack([_radial(block, edges, kinds) for block in sample.blocks])
    weights = np.array([len(block) for block in sample.blocks], dtype=float)
    names = [radial_name(ensemble.type_names, kind) for kind in kinds]
    return [
        Curve(name, (edges[1:] + edges[:-1]) / 2, values[:, k], weights, "r (nm)", name)
        for k, name in enumerate(names)
    ]


def shell_series(frames: Frames, longest: float) -> Doubles:
    """Return (n_frames, shells) the density of pairs in shells of about 0.1 nm, frame by frame."""
    edges = np.linspace(0.0, longest, max(2, round(longest / 0.1)) + 1)
    rows = []
    for positions, box in chunks(frames):
        pairs = pairs_within(positions, box, longest)
        shell = _bins(pairs.distances, edges)
        index = pairs.frame * (len(edges) - 1) + shell
        counts = np.bincount(index, minlength=len(positions) * (len(edges) - 1))
        rows.append(counts.reshape(len(positions), -1) * np.linalg.det(box)[:, None])
    return np.concatenate(rows)


def first_minimum(curve: Curve) -> float:
    """Return where g(r) is lowest behind its first peak, nm: the edge of the first shell.

    Found on the smoothed curve between the highest peak and 1.6 times its distance, where a
    liquid's second shell has set in.
    """
    smooth = gaussian_filter1d(curve.y, SMOOTHING / (curve.x[1] - curve.x[0]))
    peak = int(smooth.argmax())
    beyond = np.flatnonzero((curve.x > curve.x[peak]) & (curve.x <= 1.6 * curve.x[peak]))
    lowest = beyond[smooth[beyond].argmin()] if len(beyond) else peak
    if smooth[peak] < 1.2 or lowest in (peak, *beyond[-1:]):
        raise InputError(
            f"{curve.name} has no minimum behind a first peak between 0 and "
            f"{curve.x[-1]:.2f} nm: name the edge of the first shell with --cutoff"
        )
    return float(curve.x[lowest])


def first_peak(curve: Curve) -> tuple[float, float]:
    """Return position (nm) and height of the first peak by a parabola through its top."""
    peak = int(gaussian_filter1d(curve.y, SMOOTHING / (curve.x[1] - curve.x[0])).argmax())
    near = slice(max(0, peak - 4), peak + 5)
    center = curve.x[peak]
    a, b, c = np.polyfit(curve.x[near] - center, curve.y[near], 2)
    return float(center - b / (2 * a)), float(c - b**2 / (4 * a))


def _radial(frames: Frames, edges: Doubles, kinds: list[tuple[int, int]]) -> Doubles:
    types = frames.types.cpu().numpy()
    n_types, n_bins = int(types.max()) + 1, len(edges) - 1
    kind_of = np.full((n_types, n_types), -1)
    for k, (a, b) in enumerate(kinds):
        kind_of[a, b] = kind_of[b, a] = k
    total = np.zeros((len(kinds), n_bins))
    for positions, box in chunks(frames):
        pairs = pairs_within(positions, box, float(edges[-1]))
        kind = kind_of[types[pairs.first], types[pairs.second]]
        volume = np.linalg.det(box)[pairs.frame]
        index = kind * n_bins + _bins(pairs.distances, edges)
        total += np.bincount(index, volume, minlength=total.size).reshape(total.shape)
    counts = np.bincount(types)
    possible = [
        counts[a] * (counts[a] - 1) / 2 if a == b else counts[a] * counts[b] for a, b in kinds
    ]
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    return total / (np.array(possible)[:, None] * shells * len(frames))


def _bins(distances: Doubles, edges: Doubles) -> Integers:
    """Return the bins of distances below the last of evenly spaced edges that start at 0."""
    index = (distances / (edges[1] - edges[0])).astype(np.int64)
    return np.asarray(np.minimum(index, len(edges) - 2), dtype=np.int64)
