"""Differences of coordinates some of which are periodic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from torch import Tensor

from deepcg.runtime.arrays import Doubles

Differences = TypeVar("Differences", Doubles, Tensor)


def shortest(apart: Differences, periods: Sequence[float | None]) -> Differences:
    """Return differences (..., d) of coordinates, the shortest way around each period.

    ``None`` stands for a coordinate without a period.
    """
    found: Any = 1 * apart  # a copy, of either kind
    for k, period in enumerate(periods):
        if period is not None:
            found[..., k] -= period * (found[..., k] / period).round()
    return found  # type: ignore[no-any-return]
