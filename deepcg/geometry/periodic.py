"""Differences of coordinates some of which are periodic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Differences = TypeVar("Differences", NDArray[np.float64], Tensor)


def shortest(apart: Differences, periods: Sequence[float | None]) -> Differences:
    """Return differences (..., d) of coordinates, the shortest way around each period.

    ``None`` stands for a coordinate without a period.
    """
    found: Any = 1 * apart  # a copy, of either kind
    for k, period in enumerate(periods):
        if period is not None:
            found[..., k] -= period * (found[..., k] / period).round()
    return found  # type: ignore[no-any-return]
