"""DCD trajectories (CHARMM, NAMD, OpenMM, MDTraj): fixed-size records behind a short header.

They are mapped into memory here rather than read by MDTraj because its reader prints to the
standard output, accepts files that end within a frame, and does not tell the header's time step.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from deepcg.runtime.arrays import Floats, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats.dcd_cell import CellReading, cell_reading
from deepcg.trajectory.formats.dcd_time import frame_time
from deepcg.trajectory.formats.recording import Block, spans
from deepcg.units import ANGSTROM

CELLS_LOOKED_AT = 1000
"""Frames, spread over the file, whose cells tell how cells are to be read."""


@dataclass(frozen=True, slots=True)
class DcdFile:
    """A DCD file whose frames are all whole; see `open_dcd`."""

    path: Path
    n_frames: int
    n_atoms: int
    frame_time: float | None
    offset: int
    record: np.dtype[np.void]
    cells: CellReading | None = None
    time_note: str | None = None
    numbers: Integers | None = None
    has_positions: bool = True
    has_forces: bool = False

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[Block]:
        """Yield frames ``start`` to ``stop``, ``chunk`` in each block but the last."""
        frames = np.memmap(self.path, self.record, "r", self.offset, (self.n_frames,))
        for first, last in spans(chunk, start, stop):
            part = np.asarray(frames[first:last])
            self._check_markers(part, first)
            xyz = np.stack([part[axis] for axis in "xyz"], axis=-1)  # (f, n, 3)
            box = None if self.cells is None else self._box(self.cells, part)
            with np.errstate(invalid="ignore", over="ignore"):  # reported by its reader
                nm = xyz.astype(np.float32) * np.float32(ANGSTROM)
            yield Block(nm, box, None)

    def _box(self, reading: CellReading, part: NDArray[np.void]) -> Floats:
        if reading.doubt is not None:
            raise InputError(f"{self.path}: {reading.doubt}")
        return reading.vectors(part["cell"])

    def _check_markers(self, part: NDArray[np.void], first: int) -> None:
        sizes = [part[f"{axis}_{side}"] for axis in "xyz" for side in ("size", "end")]
        bad = np.flatnonzero((np.stack(sizes, axis=-1) != 4 * self.n_atoms).any(-1))
        if len(bad):
            raise InputError(
                f"{self.path}: frame {first + bad[0]} is damaged (its record length is not that of "
                f"{self.n_atoms} atoms); the last good frame is {first + bad[0] - 1}, from 0"
            )


def open_dcd(path: Path) -> DcdFile:
    """Read the header of a DCD file and count its frames by the size of the file.

    The header's own count is not used: a run that was killed leaves it at 0 or too low.

    Raises
    ------
    InputError
        It is no DCD file, has fixed atoms or 64-bit markers, has no frame, or ends within one.
    """
    with path.open("rb") as file:
        order, control = _control(path, file)
        titles = _titles(path, file, order)
        n_atoms = _n_atoms(path, file, order)
        offset = file.tell()
    charmm = control[19] != 0
    if control[8] != 0:
        raise InputError(
            f"{path} has {control[8]} fixed atoms, whose positions it stores only once"
            f": convert it, for example with mdconvert"
        )
    record = _record(
        order, n_atoms, cell=charmm and control[10] == 1, w=charmm and control[11] == 1
    )
    n_frames = _whole_frames(path, offset, record.itemsize)
    time, note = frame_time(_step(order, control), control[2], titles)
    cells = None
    if "cell" in (record.names or ()):
        some = np.memmap(path, record, "r", offset, (n_frames,))["cell"]
        some = np.concatenate([some[:: max(1, n_frames // CELLS_LOOKED_AT)], some[-1:]])
        cells = cell_reading(some, n_atoms, control[19], titles)
    return DcdFile(path, n_frames, n_atoms, time, offset, record, cells, note)


def _control(path: Path, file: BinaryIO) -> tuple[str, tuple[int, ...]]:
    head = file.read(92)
    orders = [o for o in "<>" if head[:4] == struct.pack(f"{o}i", 84)]
    if not orders or head[4:8] != b"CORD":
        raise InputError(
            f"{path} is no DCD file that can be read: it does not begin with a header "
            f"of 84 bytes that says CORD"
        )
    if len(head) < 92:
        raise _cut_header(path)
    return orders[0], struct.unpack(f"{orders[0]}20i", head[8:88])


def _titles(path: Path, file: BinaryIO, order: str) -> tuple[str, ...]:
    """Return the lines of the titles, as the header has them."""
    (size,) = _unpack(path, file, f"{order}i")
    if size < 0:
        raise InputError(f"{path} is damaged: its titles have a length of {size}")
    content = file.read(min(size, path.stat().st_size))[4:]
    file.seek(4, 1)  # the closing marker
    lines = (content[k : k + 80].split(b"\0")[0] for k in range(0, len(content), 80))
    return tuple(line.decode("ascii", "replace").strip() for line in lines)


def _n_atoms(path: Path, file: BinaryIO, order: str) -> int:
    before, n_atoms, after = _unpack(path, file, f"{order}3i")
    if before != 4 or after != 4 or not 0 < 12 * n_atoms <= path.stat().st_size:
        raise InputError(
            f"{path} is damaged or truncated: its header says {n_atoms} atoms, and there is not "
            "one frame of as many"
        )
    return n_atoms


def _unpack(path: Path, file: BinaryIO, layout: str) -> tuple[int, ...]:
    data = file.read(struct.calcsize(layout))
    if len(data) < struct.calcsize(layout):
        raise _cut_header(path)
    return struct.unpack(layout, data)


def _cut_header(path: Path) -> InputError:
    return InputError(
        f"{path} is truncated: it ends within its header and has no good frame "
        f"({path.stat().st_size} bytes)"
    )


def _record(order: str, n_atoms: int, *, cell: bool, w: bool) -> np.dtype[np.void]:
    """Return the layout of one frame; every Fortran record has its length before and after."""
    lattice = [
        ("cell_size", f"{order}i4"),
        ("cell", f"{order}f8", (6,)),
        ("cell_end", f"{order}i4"),
    ]
    fields: list[Any] = lattice if cell else []
    for axis in "xyzw" if w else "xyz":
        fields += [
            (f"{axis}_size", f"{order}i4"),
            (axis, f"{order}f4", (n_atoms,)),
            (f"{axis}_end", f"{order}i4"),
        ]
    return np.dtype(fields)


def _whole_frames(path: Path, offset: int, size: int) -> int:
    n_frames, rest = divmod(path.stat().st_size - offset, size)
    if rest:
        raise InputError(
            f"{path} is truncated: frame {n_frames} is cut after {rest} of {size} bytes; "
            + (
                f"the last good frame is {n_frames - 1}, from 0 (keep the whole ones with: "
                f"truncate -s {offset + n_frames * size} {path})"
                if n_frames
                else "it has no good frame"
            )
        )
    if n_frames == 0:
        raise InputError(f"{path} has no frames")
    return n_frames


def _step(order: str, control: tuple[int, ...]) -> float:
    if control[19] != 0:
        (step,) = struct.unpack(f"{order}f", struct.pack(f"{order}i", control[9]))
    else:  # X-PLOR stores the time step as a double
        (step,) = struct.unpack(f"{order}d", struct.pack(f"{order}2i", *control[9:11]))
    return float(step)
