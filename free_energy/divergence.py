"""How far two distributions are apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr

Floats = NDArray[np.float64]


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> float:
    """Return the Jensen-Shannon divergence of two histograms, in nats (0 to ln 2).

    Each is normalised to sum 1 first (Lin, IEEE Trans. Inf. Theory 37, 145 (1991)).
    """
    first, second = shares(p, q)
    middle = (first + second) / 2
    return float((rel_entr(first, middle) + rel_entr(second, middle)).sum() / 2)


def shares(p: ArrayLike, q: ArrayLike) -> tuple[Floats, Floats]:
    """Return two histograms of the same bins, each normalised to sum 1.

    Raises
    ------
    ValueError
        Their shapes differ, or one is negative somewhere or zero everywhere.
    """
    first, second = (np.asarray(histogram, dtype=float) for histogram in (p, q))
    if first.shape != second.shape:
        raise ValueError(f"the histograms have shapes {first.shape} and {second.shape}")
    for histogram in (first, second):
        if not (histogram.min() >= 0 and histogram.sum() > 0):
            raise ValueError("a histogram must not be negative anywhere, nor zero everywhere")
    return first / first.sum(), second / second.sum()
