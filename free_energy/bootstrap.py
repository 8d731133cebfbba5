"""Errors from blocks of frames drawn anew: the block bootstrap.

Of the n blocks of a stratum, n - 1 are drawn with replacement and count n / (n - 1) each: the
variance is right for few blocks too (Rao and Wu, J. Am. Stat. Assoc. 83, 231 (1988)). Blocks
are contiguous in time and longer than the correlations, which within them are kept as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from free_energy.arrays import Floats, Integers
from free_energy.blocks import block_count, statistical_inefficiency
from free_energy.replicates import Replicates, count_blocks, frame_weights

MOST_OF_SURFACE = 100
"""Blocks of a surface, whose errors are then themselves known to 7 %."""


def bootstrap(
    function: Callable[[Floats], ArrayLike],
    blocks: Integers,
    generator: np.random.Generator,
    *,
    weights: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    n_samples: int = 100,
) -> Replicates:
    """Return a function of the weights of frames (n,), with replicates of resampled blocks.

    Parameters
    ----------
    blocks
        (n,), the number of the independent block that each frame is of, from 0.
    weights
        (n,); ``None``: all count the same.
    strata
        (n,), the number of the run of each frame, where runs are not alike (other biases): blocks
        are drawn within each. ``None``: every block may stand for every other.
    """
    whole = frame_weights(weights, len(blocks))
    counts = resampled(blocks, generator, strata=strata, n_samples=n_samples)
    samples = np.stack([np.asarray(function(whole * count), float) for count in counts])
    error = float(np.sqrt(n_samples / (n_samples - 1)))
    return Replicates(np.asarray(function(whole), float), samples, error)


def resampled(
    blocks: Integers,
    generator: np.random.Generator,
    *,
    strata: ArrayLike | None = None,
    n_samples: int = 100,
) -> Iterator[Floats]:
    """Yield how often each of the frames counts (n,), n_samples times; see ``bootstrap``.

    Raises
    ------
    ValueError
        A stratum has one block only, or a block is of two strata.
    """
    n_blocks = count_blocks(blocks)
    kind = _strata_of_blocks(blocks, strata, n_blocks)
    sizes = np.bincount(kind)
    if (sizes[np.unique(kind)] < 2).any():
        raise ValueError("a stratum of one block has no spread: cut each run into at least 2")
    members = [np.flatnonzero(kind == k) for k in np.unique(kind)]
    for _ in range(n_samples):
        counts = np.zeros(n_blocks)
        for own in members:
            n = len(own)
            counts[own] = generator.multinomial(n - 1, np.full(n, 1 / n)) * (n / (n - 1))
        yield counts[blocks]


def time_blocks(
    trajectories: Sequence[ArrayLike], periods: Sequence[float | None], *, fewest: int = 1
) -> Integers:
    """Return the number of the block of each frame of all trajectories, one after the other.

    Blocks are contiguous, each of one trajectory, and as many in all as ``block_count`` says for
    the slowest coordinate; trajectories share them by their independent frames, since their
    intervals may differ. Where trajectories outnumber the blocks, each is one.

    Parameters
    ----------
    trajectories
        Values of the coordinates in order of time, (n_i, d) each.
    fewest
        Blocks per trajectory; 2 or more where each is a stratum of its own.
    """
    series = [np.asarray(values, dtype=float) for values in trajectories]
    lengths = [len(values) for values in series]
    independent = [len(values) / slowest_inefficiency(values, periods) for values in series]
    n_blocks = block_count(sum(lengths), sum(lengths) / sum(independent), most=MOST_OF_SURFACE)
    labels, first = [], 0
    for length, share in zip(lengths, independent, strict=True):
        n = min(length, max(fewest, round(n_blocks * share / sum(independent)), 1))
        labels.append(first + np.arange(length) * n // length)
        first += n
    return np.concatenate(labels)


def slowest_inefficiency(values: ArrayLike, periods: Sequence[float | None]) -> float:
    """Return g of the slowest of the coordinates (n, d); of cosine and sine where periodic."""
    slowest = 1.0
    for column, period in zip(np.asarray(values, dtype=float).T, periods, strict=True):
        angle = None if period is None else 2 * np.pi * column / period
        parts = [column] if angle is None else [np.cos(angle), np.sin(angle)]
        slowest = max(slowest, *(statistical_inefficiency(part) for part in parts))
    return slowest


def _strata_of_blocks(blocks: Integers, strata: ArrayLike | None, n_blocks: int) -> Integers:
    kind = np.zeros(n_blocks, dtype=np.int64)
    if strata is None:
        return kind
    own = np.asarray(strata, dtype=np.int64)
    kind[blocks] = own
    if (kind[blocks] != own).any():
        raise ValueError("a block has frames of two strata: cut blocks within each run")
    return kind
