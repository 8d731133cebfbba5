"""What is made of tensors once, and again when they change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from torch import Tensor

Made = TypeVar("Made")


class TensorCache(Generic[Made]):
    """What was made of tensors and a number, for as long as these are the same."""

    def __init__(self) -> None:
        self._tensors: list[tuple[Tensor, int]] = []
        self._number: int | None = None
        self._made: Made | None = None

    def get(self, tensors: Sequence[Tensor], number: int, make: Callable[[], Made]) -> Made:
        """Return what ``make`` made of tensors, of any shape, unwritten to since, or makes."""
        found = [(tensor, tensor._version) for tensor in tensors]
        same = len(found) == len(self._tensors) and number == self._number
        pairs = zip(found, self._tensors, strict=False)
        same = same and all(a is b and i == j for (a, i), (b, j) in pairs)
        if self._made is None or not same:
            self._tensors, self._number, self._made = found, number, make()
        return self._made

    def __reduce__(self) -> tuple[type[TensorCache[Made]], tuple[()]]:
        """Let copies begin with nothing: their tensors count versions of their own."""
        return TensorCache, ()
