"""GROMACS .trr trajectories: frames in XDR, each of them with or without positions and forces.

The layout is that of GROMACS' trnio (magic number 1993). Why not MDTraj: its public reader leaves
the forces out. MDAnalysis reads them, at the price of one more dependency. Here sizes are checked
before memory is taken, and the file is mapped, so that only what is asked for is read.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepcg.runtime.arrays import Doubles, Floats, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats.recording import Block, Spacing, spacing, spans

MAGIC = struct.pack(">3i", 1993, 13, 12) + b"GMX_trn_file"
SIZES = ("ir", "energy", "box", "vir", "pres", "top", "sym", "x", "v", "f")


@dataclass(frozen=True, slots=True)
class TrrFrame:
    """Where the parts of one frame are in the file; ``None`` for a part that is not there."""

    n_atoms: int
    time: float
    real: str
    box: int | None
    x: int | None
    f: int | None
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class TrrFile:
    """A .trr file and an index of its frames.

    Where any frame has forces only the frames with both positions and forces count: GROMACS
    may write the two at different intervals. Without positions the frames with forces count.
    """

    path: Path
    frames: tuple[TrrFrame, ...]
    has_positions: bool
    has_forces: bool
    numbers: Integers | None = None

    @property
    def n_frames(self) -> int:
        """Number of frames with all that the file gives."""
        return len(self.frames)

    @property
    def n_atoms(self) -> int:
        """Number of atoms in every frame."""
        return self.frames[0].n_atoms

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
        with self.path.open("rb") as file, _view(file.fileno()) as data:
            for first, last in spans(chunk, start, stop):
                frames = self.frames[first:last]
                yield Block(
                    _stack(data, frames, "x") if self.has_positions else None,
                    _boxes(data, frames),
                    _stack(data, frames, "f") if self.has_forces else None,
                )


def open_trr(path: Path, *, unfinished: bool = False) -> TrrFile:
    """Index a .trr file (only the headers of its frames are read).

    The last frame of an ``unfinished`` one may be still being written; it is left out then.

    Raises
    ------
    InputError
        It is no .trr file, ends within a frame, changes its number of atoms, or no frame has
        what the others have.
    """
    if path.stat().st_size == 0:
        raise InputError(f"{path} has no frames")
    with path.open("rb") as file, _view(file.fileno()) as data:
        frames = tuple(_index(path, data, unfinished))
    if len({frame.n_atoms for frame in frames}) > 1:
        raise InputError(f"{path}: the number of atoms is not the same in all frames")
    has_x = any(frame.x is not None for frame in frames)
    has_f = any(frame.f is not None for frame in frames)
    kept = tuple(
        frame
        for frame in frames
        if (frame.x is not None) == has_x and (frame.f is not None or not has_f)
    )
    if not kept or not (has_x or has_f):
        raise InputError(
            f"{path}: no frame has positions and forces together (of {len(frames)} frames); "
            f"write both at the same steps (nstxout = nstfout)"
        )
    return TrrFile(path, kept, has_x, has_f)


def _view(file: int) -> mmap.mmap:
    return mmap.mmap(file, 0, access=mmap.ACCESS_READ)


def _index(path: Path, data: mmap.mmap, unfinished: bool) -> Iterator[TrrFrame]:
    offset = n_frames = 0
    while offset < len(data):
        if not MAGIC.startswith(data[offset : offset + len(MAGIC)]):
            raise InputError(f"{path} is no .trr file, or damaged in frame {n_frames}")
        frame = _header(data, offset)
        if frame is None or frame.end > len(data):
            if unfinished and n_frames:
                return
            raise InputError(
                f"{path} is truncated, or damaged, within frame {n_frames}; "
                + (
                    f"the last good frame is {n_frames - 1}, from 0 (keep the whole ones with: "
                    f"truncate -s {offset} {path})"
                    if n_frames
                    else "it has no good frame"
                )
            )
        yield frame
        n_frames, offset = n_frames + 1, frame.end


def _header(data: mmap.mmap, offset: int) -> TrrFrame | None:
    """Return the frame that begins at ``offset``, ``None`` where the file ends in its header."""
    numbers = data[offset + len(MAGIC) : offset + len(MAGIC) + 52]
    if len(numbers) < 52:
        return None
    *sizes, n_atoms, _, _ = struct.unpack(">13i", numbers)
    size = dict(zip(SIZES, sizes, strict=True))
    if min(sizes) < 0 or n_atoms < 1:
        return None
    double = size["box"] == 72 or n_atoms * 24 in (size["x"], size["v"], size["f"])
    real = ">f8" if double else ">f4"
    real_size = 8 if double else 4
    right = {"box": 9, "x": 3 * n_atoms, "v": 3 * n_atoms, "f": 3 * n_atoms}
    if any(size[name] not in (0, n * real_size) for name, n in right.items()):
        return None
    begin = offset + len(MAGIC) + 52 + 2 * (8 if double else 4)  # after time and lambda
    if begin > len(data):
        return None
    (time,) = struct.unpack_from(">d" if double else ">f", data, offset + len(MAGIC) + 52)
    at: dict[str, int | None] = {}
    for name in SIZES:
        at[name] = begin if size[name] else None
        begin += size[name]
    return TrrFrame(n_atoms, time, real, at["box"], at["x"], at["f"], begin)


def _stack(data: mmap.mmap, frames: tuple[TrrFrame, ...], part: str) -> Floats:
    out = np.empty((len(frames), frames[0].n_atoms, 3), np.float32)
    for row, frame in zip(out, frames, strict=True):
        row[:] = _read(data, frame, getattr(frame, part), frame.n_atoms)
    return out


def _boxes(data: mmap.mmap, frames: tuple[TrrFrame, ...]) -> Floats | None:
    """Return (f, 3, 3), nm; a box of zeros is how GROMACS writes open boundaries."""
    if all(frame.box is None for frame in frames):
        return None
    return np.stack(
        [np.zeros((3, 3)) if f.box is None else _read(data, f, f.box, 3) for f in frames]
    ).astype(np.float64)


def _read(data: mmap.mmap, frame: TrrFrame, at: int | None, rows: int) -> Floats:
    if at is None:
        raise ValueError("the frame does not have this part")
    # a copy: the view must not outlive the map
    return np.frombuffer(data, frame.real, 3 * rows, at).reshape(rows, 3).copy()
