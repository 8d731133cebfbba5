"""How far two distributions are apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> float:
    """Return the Jensen-Shannon divergence of two histograms, in nats (0 to ln 2).

    Each is normalised to sum 1 first (Lin, IEEE Trans. Inf. Theory 37, 145 (1991)).
    """
    first, second = (_probabilities(h) for h in (p, q))
    if first.shape != second.shape:
        raise ValueError(f"the histograms have shapes {first.shape} and {second.shape}")
    middle = (first + second) / 2
    return float((rel_entr(first, middle) + rel_entr(second, middle)).sum() / 2)


def _probabilities(histogram: ArrayLike) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.asarray(histogram, dtype=float)
    if values.min() < 0 or not values.sum() > 0:
        raise ValueError("a histogram must not be negative anywhere, nor zero everywhere")
    probabilities: NDArray[np.float64] = values / values.sum()
    return probabilities
