"""How far two surfaces are apart, as the literature measures it, and what sampling alone gives.

Histograms are counts, weights or probabilities of the same bins; each is normalized first.
Published numbers hold for the bins they were found with: see each function.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import rel_entr

from free_energy.arrays import Floats
from free_energy.estimate import Estimate

Metric = Callable[[ArrayLike, ArrayLike], float]

EMPTY = 1e-10
"""What ``pmf_error`` takes for the probability of an empty bin."""


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> float:
    """Return the Jensen-Shannon divergence of two histograms (...), in nats (0 to ln 2).

    Each is normalized to sum 1 first (Lin, IEEE Trans. Inf. Theory 37, 145 (1991)).
    """
    first, second = shares(p, q)
    middle = (first + second) / 2
    return float((rel_entr(first, middle) + rel_entr(second, middle)).sum() / 2)


def shares(p: ArrayLike, q: ArrayLike) -> tuple[Floats, Floats]:
    """Return two histograms of the same bins (...), each normalized to sum 1.

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


def surface_mse(p: ArrayLike, q: ArrayLike) -> float:
    """Return the mean of (ln p - ln q)^2 over the bins that both occupy, in kT^2; NaN if none.

    Of histograms (...) of the same bins. The FES-MSE of Köhler, Chen, Krämer, Clementi and Noé,
    J. Chem. Theory Comput. 19, 942 (2023), there in (kcal/mol)^2 on 60 x 60 bins of
    [-pi, pi]^2. Nothing is aligned.
    """
    first, second = shares(p, q)
    both = (first > 0) & (second > 0)
    if not both.any():
        return float("nan")
    return float((np.log(first[both] / second[both]) ** 2).mean())


def pmf_error(p: ArrayLike, q: ArrayLike) -> float:
    """Return the mean of (ln p - ln q)^2 with weights (p + q) / 2, in kT^2.

    Of histograms (...) of the same bins. Empty ones are given a probability of 1e-10. The PMF error
    of Chen and Zavadlav (arXiv 2602.10637), there on 100 x 100 bins of [-pi, pi]^2.
    """
    first, second = (np.where(share > 0, share, EMPTY) for share in shares(p, q))
    return float(np.average(np.log(first / second) ** 2, weights=first + second))


def rms_difference(
    one: ArrayLike, other: ArrayLike, *, below: float, weights: ArrayLike | None = None
) -> float:
    """Return the rms difference of two surfaces where the first is low, in their unit.

    Parameters
    ----------
    one, other
        (*grid), in kT or any other unit of energy; the mean difference, with the same weights as
        the mean of squares, is taken out.
    below
        Above the lowest of the first: bins beyond, and those where either is NaN, are left out.
    weights
        (*grid); ``None``: every bin counts the same.
    """
    first, second = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"the surfaces have shapes {first.shape} and {second.shape}")
    used = np.isfinite(first) & np.isfinite(second)
    if used.any():
        used &= np.where(used, first, np.inf) - np.nanmin(first) < below
    if not used.any():
        return float("nan")
    share = np.ones(first.shape) if weights is None else np.asarray(weights, dtype=float)
    apart = (second - first)[used]
    apart = apart - np.average(apart, weights=share[used])
    return float(np.sqrt(np.average(apart**2, weights=share[used])))


def sampling_floor(
    metric: Metric,
    probabilities: ArrayLike,
    generator: np.random.Generator,
    *,
    n_samples: float,
    n_reference: float | None = None,
    n_repeats: int = 50,
) -> Estimate[float]:
    """Return the mean of a metric between samples of one distribution, and its spread.

    The distance that two perfectly equal systems would show: what is above it is a difference.

    Parameters
    ----------
    metric
        Of two histograms, the reference first: ``jensen_shannon``, ``surface_mse``, ``pmf_error``.
    probabilities
        Of the bins, (*grid): the best estimate of the reference.
    n_samples, n_reference
        Numbers of independent frames: divide those of frames by their statistical inefficiency.
        ``None``: the reference is ``probabilities`` without noise.

    Returns
    -------
    Estimate
        The error is one standard deviation of a single distance, not that of the mean.
    """
    share = np.asarray(probabilities, dtype=float)
    share = share / share.sum()

    def draw(number: float) -> Floats:
        counts = generator.multinomial(max(1, round(number)), share.ravel())
        return counts.reshape(share.shape).astype(float)

    distances = [
        metric(share if n_reference is None else draw(n_reference), draw(n_samples))
        for _ in range(n_repeats)
    ]
    return Estimate(float(np.nanmean(distances)), float(np.nanstd(distances, ddof=1)))
