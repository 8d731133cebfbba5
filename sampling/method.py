"""What a method remembers beside the state of the chains."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sampling.state import Step


class Method(Protocol):
    """Does something between steps and remembers, as a ``torch.Generator`` does.

    The tensors of a state that was handed out never change.
    """

    def step(self, step: Step) -> Step:
        """Return a step of dynamics with what the method does."""
        ...

    def get_state(self) -> dict[str, Tensor]:
        """Return all that later steps depend on: tensors of any shape, by name."""
        ...

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a state of ``get_state``: the same names and shapes."""
        ...
