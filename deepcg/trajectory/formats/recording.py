"""Recordings: what any file of frames gives, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from deepcg.runtime.arrays import Doubles, Floats, Integers

UNEVEN = 0.01
"""Part of an interval by which others may differ from it."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive frames as the file has them, in nm and kJ/mol/nm.

    ``positions`` and ``forces`` are (frames, atoms, 3), ``box`` is (frames, 3, 3) with the box
    vectors as rows, in any orientation, ``weights`` is (frames,); ``None`` where the file does
    not say.
    """

    positions: Floats | None
    box: Floats | None
    forces: Floats | None
    weights: Floats | None = None

    def __getitem__(self, frames: slice) -> Block:
        """Return some of the frames."""
        tables = (self.positions, self.box, self.forces, self.weights)
        return Block(*(None if table is None else table[frames] for table in tables))


class TrajectoryFile(Protocol):
    """A file (or folder) of frames, opened and counted but not read."""

    @property
    def path(self) -> Path:
        """Where it is."""
        ...

    @property
    def n_frames(self) -> int:
        """Number of whole frames."""
        ...

    @property
    def n_atoms(self) -> int:
        """Number of atoms in every frame."""
        ...

    @property
    def numbers(self) -> Integers | None:
        """Atomic numbers (atoms,), ``None`` where the file does not say."""
        ...

    @property
    def has_positions(self) -> bool:
        """Whether blocks have positions."""
        ...

    @property
    def has_forces(self) -> bool:
        """Whether blocks have forces."""
        ...

    @property
    def frame_time(self) -> float | None:
        """Time from frame to frame in ps, ``None`` where the file does not say."""
        ...

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[Block]:
        """Yield frames ``start`` to ``stop``, ``chunk`` in each block but the last."""
        ...


@runtime_checkable
class Named(Protocol):
    """A file whose columns or arrays have names."""

    @property
    def contents(self) -> tuple[str, ...]:
        """Names of all that it holds, for messages about what is missing."""
        ...


def contents_of(recording: TrajectoryFile) -> str:
    """Return what a file holds, by its own names; empty where it has no names."""
    return ", ".join(recording.contents) if isinstance(recording, Named) else ""


@runtime_checkable
class Timed(Protocol):
    """A file that says the time of each frame."""

    @property
    def times(self) -> Doubles | None:
        """Times (n_frames,), ps, ``None`` where the file does not say."""
        ...


def times_of(recording: TrajectoryFile) -> Doubles | None:
    """Return the times (n_frames,), ps, of the frames of a file that says them."""
    return recording.times if isinstance(recording, Timed) else None


@runtime_checkable
class WithSymbols(Protocol):
    """A recording that tells isotopes, too."""

    @property
    def symbols(self) -> tuple[str, ...] | None:
        """Symbols (atoms,), ``D`` for deuterium; ``None`` where the file does not say."""
        ...


def symbols_of(recording: TrajectoryFile) -> tuple[str, ...] | None:
    """Return the symbols (atoms,) of a recording that tells them."""
    return recording.symbols if isinstance(recording, WithSymbols) else None


@runtime_checkable
class TimedFile(Protocol):
    """A file of frames that can tell why the time from frame to frame is not known."""

    @property
    def time_note(self) -> str | None:
        """The reason, ``None`` where there is nothing to tell."""
        ...


def time_note(file: TrajectoryFile) -> str | None:
    """Return why a file does not tell one time between its frames, if it says."""
    return file.time_note if isinstance(file, TimedFile) else None


@dataclass(frozen=True, slots=True)
class Spacing:
    """The time from frame to frame in ps, or ``None`` and, where there is one, the reason."""

    step: float | None
    note: str | None = None


def spacing(times: Doubles) -> Spacing:
    """Return the time between frames at ``times`` (f,), ps in float32, if it is always the same.

    Times that are all the same, as of a file without any, are unknown without a reason.
    """
    times = np.asarray(times, np.float64)
    steps = np.diff(times)
    if not len(steps) or not steps.any():
        return Spacing(None)
    usual = float(np.median(steps))
    rounding = 2 * float(np.spacing(np.abs(times).max().astype(np.float32)))
    off = ~(np.abs(steps - usual) <= UNEVEN * abs(usual) + rounding)
    back = np.flatnonzero(~(steps > 0))
    if len(back):
        frame, what = int(back[0]) + 1, "the time does not go on"
    elif off.any():
        frame, what = int(np.flatnonzero(off)[0]) + 1, "the frames are not evenly spaced in time"
    else:
        return Spacing(float(times[-1] - times[0]) / len(steps))
    return Spacing(
        None,
        f"{what}: {times[frame - 1]:g} ps in frame {frame - 1}, {times[frame]:g} ps in frame "
        f"{frame}, {usual:g} ps from frame to frame as a rule",
    )


def spans(chunk: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield where each block begins and the frame after its end."""
    for first in range(start, stop, chunk):
        yield first, min(first + chunk, stop)
