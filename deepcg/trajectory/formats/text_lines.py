"""Lines of text files, plain or packed by gzip, with any line ends."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from deepcg.runtime.errors import InputError


@dataclass(frozen=True, slots=True)
class TextFrame:
    """A frame as text, and its time in ps where the file says it."""

    text: str
    n_atoms: int
    time: float | None = None


def lines_of(path: Path) -> Iterator[str]:
    r"""Yield the lines of a file, each ending with ``\n`` but perhaps the last.

    Raises
    ------
    InputError
        It is packed, and damaged.
    """
    try:
        with _opened(path) as file:
            yield from file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def check_same_count(path: Path, index: int, n_atoms: int, of_first: int) -> None:
    """Check that a frame has as many atoms as the first.

    Raises
    ------
    InputError
        It has others.
    """
    if n_atoms != of_first:
        raise InputError(
            f"{path}: the atoms of frame {index} ({n_atoms}) are not those of frame 0 "
            f"({of_first}): put frames of different atoms into files of their own"
        )


def _opened(path: Path) -> TextIO:
    if path.name.lower().endswith(".gz"):
        packed = gzip.open(path, "rt", encoding="utf-8-sig", errors="replace")  # noqa: SIM115
        return cast(TextIO, packed)
    return path.open(encoding="utf-8-sig", errors="replace")
