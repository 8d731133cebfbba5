"""Whether samples have the temperature that they were asked to have."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from free_energy import statistical_inefficiency

OFF = 4.0
"""Standard errors from the target that are told: by chance once in 16 000 runs."""

FEWEST = 20
"""Frames of a replica whose correlation times can be seen."""


@dataclass(frozen=True, slots=True)
class SampledTemperature:
    """A mean temperature, its standard error, K, and the number of independent frames behind it."""

    value: float
    error: float
    independent: float

    @property
    def limit(self) -> float:
        """Errors that are exceeded as seldom as `OFF`: more where few frames tell the error."""
        return float(stats.t.isf(stats.norm.sf(OFF), 1 + self.independent / 4))


def mean_temperature(series: NDArray[np.float64]) -> SampledTemperature | None:
    """Return the mean of kinetic temperatures (n_frames, n_replicas), K, and its standard error.

    The error is that of independent samples times the square root of the statistical inefficiency,
    the mean of those of the replicas; it needs no scatter between replicas, which a few of them do
    not show. ``None`` where a replica has fewer than `FEWEST` frames.
    """
    n_frames, n_replicas = series.shape
    if n_frames < FEWEST or n_replicas < 1:
        return None
    inefficiency = np.mean([statistical_inefficiency(column) for column in series.T])
    apart = series - series.mean(0)
    variance = float(np.square(apart).sum()) / (max(1.0, n_frames - inefficiency) * n_replicas)
    error = math.sqrt(variance * float(inefficiency) / series.size)
    return SampledTemperature(float(series.mean()), error, series.size / float(inefficiency))


def about_temperature(
    sampled: SampledTemperature, target: float, *, dt: float, friction: float
) -> str | None:
    """Return what to tell of a mean temperature, K, that is not the target; ``None`` if it is.

    ``dt`` in ps and ``friction`` in 1/ps are those of the run.
    """
    off = sampled.value - target
    if abs(off) <= sampled.limit * sampled.error:
        return None
    way_out = (
        f"give a longer --equilibration-ps or a smaller time step (--dt {float(f'{dt / 2:.3g}'):g})"
        if friction > 0
        else "without --friction nothing holds the temperature"
    )
    return (
        f"the sampled temperature is {sampled.value:.2f} +- {sampled.error:.2f} K, "
        f"{abs(off) / sampled.error:.0f} standard errors {'above' if off > 0 else 'below'} the "
        f"{target:g} K asked for (by chance once in 16 000 runs above {sampled.limit:.1f}): the "
        f"samples are not those of U; {way_out}"
    )
