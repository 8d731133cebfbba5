"""Frames to leave out, as the option ``--skip-frames`` names them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepcg.runtime.arrays import Booleans, Integers
from deepcg.runtime.errors import InputError

_ENTRY = re.compile(r"(\d+)(-(\d*))?")


@dataclass(frozen=True, slots=True)
class SkippedFrames:
    """Which frames of a trajectory are left out.

    Parameters
    ----------
    ranges
        The first and last of each range, counted from 0; the last is ``None`` for all that follow.
    """

    ranges: tuple[tuple[int, int | None], ...] = ()

    @classmethod
    def of(cls, text: str | None) -> SkippedFrames:
        """Return what a list such as ``"0,5,100-200,4000-"`` means; empty or ``None`` for none.

        Raises
        ------
        InputError
            The text is something else.
        """
        if text is None or not text.strip():
            return cls()
        return cls(tuple(_range(entry.strip(), text) for entry in text.split(",")))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.ranges)

    def kept(self, first: int, number: int) -> Booleans:
        """Return which of ``number`` frames that begin with ``first`` are not left out."""
        kept = np.ones(number, bool)
        for low, high in self.ranges:
            end = number if high is None else max(0, high + 1 - first)
            kept[max(0, low - first) : end] = False
        return kept

    def runs(self, first: int, number: int) -> list[slice]:
        """Return the unbroken runs of kept frames among those, as slices of them."""
        edges = np.flatnonzero(np.diff(self.kept(first, number), prepend=False, append=False))
        return [slice(int(a), int(b)) for a, b in edges.reshape(-1, 2)]

    def check(self, path: Path, n_frames: int) -> None:
        """Check that a trajectory has the frames that are named, and others.

        Raises
        ------
        InputError
            It has not.
        """
        beyond = [low for low, _ in self.ranges if low >= n_frames]
        if beyond:
            raise InputError(
                f"{path} has {n_frames} frames, 0 to {n_frames - 1}: --skip-frames names "
                f"{beyond[0]}, which is not there"
            )
        if n_frames and not self.kept(0, n_frames).any():
            raise InputError(f"--skip-frames leaves none of the {n_frames} frames of {path}")


def numbers_in_words(numbers: Integers, most: int = 6) -> str:
    """Return frames in the form of ``--skip-frames``, such as ``"0,5,100-200"``.

    With more than ``most`` ranges the rest is cut off by ``...``.
    """
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    parts = [
        f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}"
        for run in np.split(numbers, breaks)
        if len(run)
    ]
    return ",".join(parts[:most]) + (",..." if len(parts) > most else "")


def _range(entry: str, text: str) -> tuple[int, int | None]:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise InputError(
            f"skip_frames is {text!r}: give numbers and ranges of frames, counted from 0, such as "
            "0,5,100-200 or 4000- for all from 4000 on"
        )
    low = int(match[1])
    if match[2] is None:
        return low, low
    high = int(match[3]) if match[3] else None
    if high is not None and high < low:
        raise InputError(f"skip_frames is {text!r}: {entry} ends before it begins")
    return low, high
