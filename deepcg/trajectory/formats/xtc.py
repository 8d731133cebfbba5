"""GROMACS .xtc trajectories: positions as whole numbers of 1 / precision, packed into bits.

MDTraj's reader (as others made from the library xdrfile) writes beyond its memory when a file is
damaged. Here every number is checked before it is used; and as a frame tells the least and the
greatest coordinates and the number of bytes, damage in between is seen, too, as a rule.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepcg.runtime.arrays import Doubles, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats.recording import Block, Spacing, spacing, spans
from deepcg.trajectory.formats.xtc_loops import unpack

MAGIC = 1995
FEW = 9  # atoms, that are not packed
_HEAD = struct.Struct(">iiif9fi")  # magic number, atoms, step, time, box, atoms again
_PACKED = struct.Struct(">f3i3iii")  # precision, least, greatest, index of the size, bytes


@dataclass(frozen=True, slots=True)
class XtcFrame:
    """Where a frame begins and ends in the file."""

    time: float
    begin: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class XtcFile:
    """A .xtc file and an index of its frames; see `open_xtc`."""

    path: Path
    frames: tuple[XtcFrame, ...]
    n_atoms: int
    numbers: Integers | None = None
    has_positions: bool = True
    has_forces: bool = False

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.frames)

    @property
    def frame_time(self) -> float | None:
        """Time from frame to frame in ps."""
        return self._spacing.step

    @property
    def time_note(self) -> str | None:
        """Why the time from frame to frame is not known."""
        return self._spacing.note

    @property
    def times(self) -> Doubles:
        """Times of the frames (n_frames,), ps."""
        return np.array([frame.time for frame in self.frames])

    @property
    def _spacing(self) -> Spacing:
        return spacing(self.times)

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[Block]:
        """Yield frames ``start`` to ``stop``, ``chunk`` in each block but the last."""
        with self.path.open("rb") as file:
            for first, last in spans(chunk, start, stop):
                positions = np.empty((last - first, self.n_atoms, 3), np.float32)
                box = np.empty((last - first, 3, 3))
                for k, frame in enumerate(self.frames[first:last]):
                    file.seek(frame.begin)
                    data = file.read(frame.end - frame.begin)
                    box[k] = np.reshape(_HEAD.unpack_from(data)[4:13], (3, 3))
                    self._fill(positions[k], data, first + k)
                yield Block(positions, box, None)

    def _fill(self, positions: NDArray[np.float32], data: bytes, number: int) -> None:
        """Put the positions of a frame, nm, where they belong."""
        if self.n_atoms <= FEW:
            positions[:] = np.frombuffer(data, ">f4", 3 * self.n_atoms, _HEAD.size).reshape(-1, 3)
            return
        precision, *ends, small, n_bytes = _PACKED.unpack_from(data, _HEAD.size)
        packed = np.frombuffer(data, np.uint8, n_bytes, _HEAD.size + _PACKED.size)
        extent = np.array(ends, np.int64).reshape(2, 3)
        whole = np.empty((self.n_atoms, 3), np.int64)
        good = np.isfinite(precision) and precision > 0 and unpack(packed, extent, small, whole)
        if not good or (whole.min(0) != extent[0]).any() or (whole.max(0) != extent[1]).any():
            raise InputError(
                f"{self.path}: frame {number} is damaged; the last good frame is {number - 1}, "
                "from 0"
            )
        np.multiply(whole.astype(np.float32), np.float32(1 / precision), out=positions)


def open_xtc(path: Path) -> XtcFile:
    """Index a .xtc file (only the headers of its frames are read).

    Raises
    ------
    InputError
        It is no .xtc file, has no frames, ends within a frame, or changes its number of atoms.
    """
    if path.stat().st_size == 0:
        raise InputError(f"{path} has no frames")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = list(_index(path, data))
    return XtcFile(path, tuple(frame for frame, _ in found), found[0][1])


def _index(path: Path, data: mmap.mmap) -> Iterator[tuple[XtcFrame, int]]:
    begin = number = 0
    n_atoms: int | None = None
    while begin < len(data):
        if struct.pack(">i", MAGIC)[: len(data) - begin] != data[begin : begin + 4]:
            raise InputError(
                f"{path} is no .xtc file, or damaged: frame {number} does not begin with the "
                f"number {MAGIC}"
            )
        size = _size(data, begin)
        if size is None or begin + size > len(data):
            way_out = (
                f"the last good frame is {number - 1}, from 0 (keep the whole ones with: "
                f"truncate -s {begin} {path})"
            )
            raise InputError(
                f"{path} is truncated, or damaged, within frame {number}; "
                + (way_out if number else "it has no good frame")
            )
        _, atoms, _, time, *_, again = _HEAD.unpack_from(data, begin)
        if atoms != again or atoms < 1 or (n_atoms or atoms) != atoms:
            raise InputError(
                f"{path}: frame {number} is damaged, or its number of atoms ({atoms}, {again}) is "
                f"not that of the frames before ({n_atoms})"
            )
        n_atoms = atoms
        yield XtcFrame(time, begin, begin + size), atoms
        begin, number = begin + size, number + 1


def _size(data: mmap.mmap, begin: int) -> int | None:
    """Return the bytes of a frame, ``None`` where the file ends in its header or that is bad."""
    if begin + _HEAD.size > len(data):
        return None
    n_atoms = int(_HEAD.unpack_from(data, begin)[-1])
    if n_atoms <= FEW:
        return _HEAD.size + 12 * n_atoms
    if begin + _HEAD.size + _PACKED.size > len(data):
        return None
    n_bytes = int(_PACKED.unpack_from(data, begin + _HEAD.size)[-1])
    return None if n_bytes < 0 else _HEAD.size + _PACKED.size + -(-n_bytes // 4) * 4
