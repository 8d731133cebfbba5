"""Errors of whatever is computed from frames: it is computed again with blocks of them left out.

Jackknife (Efron, The Jackknife, the Bootstrap and Other Resampling Plans, SIAM 1982, chapter 3).
What is derived from a surface (profiles, basins, barriers, distances) inherits its replicates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from free_energy.arrays import Floats, Integers
from free_energy.estimate import Estimate


@dataclass(frozen=True, slots=True, eq=False)
class Replicates:
    """A quantity, and the same from resampled data.

    Parameters
    ----------
    value
        (...), from all the data.
    samples
        (n, ...), from resampled data.
    inflation
        Standard error per standard deviation of the samples.
    """

    value: Floats
    samples: Floats
    inflation: float

    def estimate(self) -> Estimate[Floats]:
        """Return value and standard error, both (...); NaN where any of the samples is NaN."""
        return Estimate(self.value, self.inflation * self.samples.std(0))

    def map(self, function: Callable[[Floats], ArrayLike]) -> Replicates:
        """Return a function, of any shape, of the quantity (...), with the error that follows."""
        samples = np.stack([np.asarray(function(sample), float) for sample in self.samples])
        return Replicates(np.asarray(function(self.value), float), samples, self.inflation)


def jackknife(
    function: Callable[[Floats], ArrayLike], blocks: Integers, *, weights: ArrayLike | None = None
) -> Replicates:
    """Return a function of the weights of frames (n,), with replicates that lack a block each.

    Parameters
    ----------
    blocks
        (n,), the number of the independent block that each frame is of, from 0; two or more.
    weights
        (n,); ``None``: all count the same.
    """
    n_blocks = count_blocks(blocks)
    whole = frame_weights(weights, len(blocks))
    samples = [np.asarray(function(whole * (blocks != b)), float) for b in range(n_blocks)]
    value = np.asarray(function(whole), float)
    return Replicates(value, np.stack(samples), float(np.sqrt(n_blocks - 1)))


def count_blocks(blocks: Integers) -> int:
    """Return how many blocks there are; ``blocks`` (n_frames,) are numbered from 0.

    Raises
    ------
    ValueError
        There is one only, or none.
    """
    n_blocks = int(blocks.max(initial=-1)) + 1
    if n_blocks < 2:
        raise ValueError("one block has no spread: give at least 2")
    return n_blocks


def frame_weights(weights: ArrayLike | None, n_frames: int) -> Floats:
    """Return weights (n_frames,), ones if there are none.

    Raises
    ------
    ValueError
        They are not one for each frame, or not finite, or negative.
    """
    if weights is None:
        return np.ones(n_frames)
    whole: Floats = np.asarray(weights, dtype=float)
    if whole.shape != (n_frames,):
        raise ValueError(f"the weights have shape {whole.shape}, not ({n_frames},)")
    if not (np.isfinite(whole).all() and (whole >= 0).all()):
        raise ValueError("the weights of the frames must be finite, none of them negative")
    return whole
