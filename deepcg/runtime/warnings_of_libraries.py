"""Warnings of libraries, kept off the terminal where they arise."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Drop the warnings of one call of a library's reader, whose result is checked by ours.

    They name options of the library, without the file, and come several times. It is for single
    calls: what our own code warns of must stay visible.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
