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
from mdtraj.utils.unitcell import lengths_and_angles_to_box_vectors
from numpy.typing import NDArray

from deepcg.runtime.arrays import Floats, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats.recording import Block, spans
from deepcg.units import ANGSTROM

AKMA_TIME = 0.04888821  # ps, CHARMM's unit of time


@dataclass(frozen=True, slots=True)
class DcdFile:
    """A DCD file whose frames are all whole; see `open_dcd`."""

    path: Path
    n_frames: int
    n_atoms: int
    frame_time: float | None
    offset: int
    record: np.dtype[np.void]
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
            box = _box(part["cell"]) if "cell" in (self.record.names or ()) else None
            with np.errstate(invalid="ignore", over="ignore"):  # reported by its reader
                nm = xyz.astype(np.float32) * np.float32(ANGSTROM)
            yield Block(nm, box, None)

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
    return DcdFile(path, n_frames, n_atoms, _frame_time(order, control), offset, record)


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


def _n_atoms(path: Path, file: BinaryIO, order: str) -> int:
    (size,) = _unpack(path, file, f"{order}i")
    if size < 0:
        raise InputError(f"{path} is damaged: its titles have a length of {size}")
    file.seek(size + 4, 1)  # the titles and their closing marker
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


def _frame_time(order: str, control: tuple[int, ...]) -> float | None:
    every = control[2]
    if control[19] != 0:
        (step,) = struct.unpack(f"{order}f", struct.pack(f"{order}i", control[9]))
    else:  # X-PLOR stores the time step as a double
        (step,) = struct.unpack(f"{order}d", struct.pack(f"{order}2i", *control[9:11]))
    unset = every <= 0 or step <= 0 or (every == 1 and step == 1)  # MDTraj writes 1 and 1
    return None if unset else float(every * step * AKMA_TIME)


def _box(cell: Floats) -> Floats:
    """Return box vectors (f, 3, 3), nm, of DCD cells (f, 6): A, gamma, B, beta, alpha, C.

    Some programs write the cosines of the angles instead of degrees.
    """
    cell = cell.astype(np.float64)
    angles = cell[:, [4, 3, 1]]
    cosines = (np.abs(angles) <= 1).all(-1, keepdims=True)
    degrees = np.where(cosines, np.degrees(np.arccos(np.clip(angles, -1, 1))), angles)
    lengths = cell[:, [0, 2, 5]] * ANGSTROM
    with np.errstate(all="ignore"):  # a bad cell is reported by its reader
        vectors = lengths_and_angles_to_box_vectors(*lengths.T, *degrees.T)
    return np.stack(vectors, axis=1)
