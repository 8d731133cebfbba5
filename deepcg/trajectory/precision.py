"""How finely the positions of a file are written: the step that they are whole multiples of."""

from __future__ import annotations

import numpy as np

from deepcg.runtime.arrays import Floats

STEPS = (0.1, 0.05, 0.04, 0.02, 0.01, 0.005, 0.004, 0.0025, 0.002, 0.001, 0.0005, 0.0001)
"""nm, the coarsest first."""

FEWEST = 12
"""Numbers: fewer may all be multiples of a step by chance."""


def resolution(positions: Floats) -> float:
    """Return the step, nm, that positions (..., 3) are multiples of, 0 where there is none.

    These are positions as a file has them, not shifted by box vectors.
    """
    values = np.asarray(positions, np.float64).ravel()
    values = values[np.isfinite(values) & (values != 0)]
    if len(values) < FEWEST:
        return 0.0
    rounding = 4 * float(np.spacing(np.abs(values).max().astype(np.float32)))
    for step in STEPS:
        if rounding < 0.1 * step and np.abs(values - step * np.rint(values / step)).max() < max(
            rounding, 1e-3 * step
        ):
            return step
    return 0.0


def spread_of_distances(step: float) -> float:
    """Return the standard deviation, nm, that rounding to a step gives to distances."""
    return float(step * np.sqrt(2 / 12))
