"""Errors that are the input's fault: one clear line for the user, exit status 2."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: what is wrong, where, the value, the way out. The command line
    prints it without a traceback and exits with status 2; every other exception is a bug
    and keeps its traceback.
    """


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest of ``choices``, else an empty string."""
    close = get_close_matches(name, list(choices), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def pick(table: dict[str, T], name: str, what: str) -> T:
    """Look ``name`` up in a registry.

    Raises
    ------
    InputError
        Names ``what`` was looked for, the nearest right name and all the choices.
    """
    if name not in table:
        choices = ", ".join(sorted(table))
        raise InputError(f"unknown {what} {name!r}{nearest(name, table)} (choices: {choices})")
    return table[name]
