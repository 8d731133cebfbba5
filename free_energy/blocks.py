"""Errors of averages over correlated series: the statistical inefficiency and block averages."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from free_energy.estimate import Estimate

FEWEST_BLOCKS, MOST_BLOCKS = 8, 32  # fewer: the error itself is noise; more: no gain
INEFFICIENCIES_PER_BLOCK = 5.0  # the variance of the mean is then short by about a tenth


def statistical_inefficiency(series: ArrayLike) -> float:
    """Return g, the number of successive samples worth one independent sample (at least 1).

    g = 1 + 2 sum_t rho(t), summed as Geyer's initial convex sequence (Statist. Sci. 7, 473
    (1992), section 3.3). Anticorrelated and constant series count as uncorrelated.

    Parameters
    ----------
    series
        (n,) with n >= 4, evenly spaced in time.
    """
    values = np.asarray(series, dtype=float)
    if values.ndim != 1 or len(values) < 4:
        raise ValueError(f"the series has shape {values.shape}, not (n,) with n >= 4")
    covariance = _autocovariance(values)
    if covariance[0] <= 1e-14 * max(1.0, float(np.abs(values).max()) ** 2):
        return 1.0
    n_pairs = len(values) // 2
    pairs = covariance[: 2 * n_pairs].reshape(n_pairs, 2).sum(1)  # positive in theory
    negative = np.flatnonzero(pairs <= 0)
    pairs = pairs[: negative[0]] if len(negative) else pairs
    return max(1.0, float(2 * _convex_minorant(pairs).sum() / covariance[0] - 1))


def block_count(n_samples: int, inefficiency: float, *, most: int = MOST_BLOCKS) -> int:
    """Return how many contiguous blocks, at ``most``, give a series an honest error."""
    wanted = int(n_samples / (INEFFICIENCIES_PER_BLOCK * max(1.0, inefficiency)))
    return min(max(wanted, FEWEST_BLOCKS), most, n_samples)


def block_average(
    values: ArrayLike, *, n_blocks: int | None = None
) -> Estimate[NDArray[np.float64]]:
    """Return the mean over the first axis and its error from contiguous blocks.

    Parameters
    ----------
    values
        (n, ...), one series for every trailing entry.
    n_blocks
        ``None`` chooses by the most strongly correlated entry; see ``block_count``.
    """
    series = np.asarray(values, dtype=float)
    if len(series) < 4:
        raise ValueError(f"{len(series)} samples are too few for an error: give at least 4")
    if n_blocks is None:
        columns = series.reshape(len(series), -1).T
        n_blocks = block_count(len(series), max(statistical_inefficiency(c) for c in columns))
    if not 2 <= n_blocks <= len(series):
        raise ValueError(f"{n_blocks} blocks of {len(series)} samples: choose from 2 to n")
    parts = np.array_split(series, n_blocks)
    means = np.stack([part.mean(0) for part in parts])
    return mean_of_blocks(means, np.array([len(part) for part in parts], dtype=float))


def mean_of_blocks(
    blocks: NDArray[np.float64], weights: NDArray[np.float64]
) -> Estimate[NDArray[np.float64]]:
    """Return the weighted mean of independent blocks and its standard error.

    With the number of counts as weights this is the pooled ratio of sums and its error to
    first order (Cochran, Sampling Techniques, 3rd ed., equation 6.13).

    Parameters
    ----------
    blocks
        (n_blocks, ...), the average in each block; n_blocks >= 2.
    weights
        (n_blocks,), how much each block counts, not all zero.
    """
    n = len(blocks)
    if n < 2:
        raise ValueError("one block has no spread: give at least 2")
    if not weights.sum() > 0:
        raise ValueError("the blocks have no weight: nothing was counted")
    share = (weights / weights.sum()).reshape(n, *[1] * (blocks.ndim - 1))
    mean = (share * blocks).sum(0)
    variance = (share**2 * (blocks - mean) ** 2).sum(0) * n / (n - 1)
    return Estimate(mean, np.sqrt(variance))


def _autocovariance(values: NDArray[np.float64]) -> NDArray[np.float64]:
    n = len(values)
    spectrum = np.fft.rfft(values - values.mean(), 2 * n)  # zero-padded: no wrap-around
    return np.fft.irfft(np.abs(spectrum) ** 2, 2 * n)[:n] / n


def _convex_minorant(sequence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the greatest convex sequence that lies below a positive one."""
    hull: list[int] = []
    for k, y in enumerate(sequence):
        while len(hull) >= 2:
            a, b = hull[-2:]
            if (sequence[b] - sequence[a]) * (k - a) < (y - sequence[a]) * (b - a):
                break
            hull.pop()
        hull.append(k)
    return np.interp(np.arange(len(sequence)), hull, sequence[hull])
