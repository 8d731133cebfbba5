"""A number and how well it is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value", float, NDArray[np.float64])


@dataclass(frozen=True, slots=True, eq=False)
class Estimate(Generic[Value]):
    """A mean value and its standard error (one sigma), both of the same shape and unit."""

    value: Value
    error: Value
