"""How far a long task is, told to whoever shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with what is done, the total, and what is being done in a few words."""


def silent(done: int, total: int, what: str) -> None:
    """Show nothing."""
