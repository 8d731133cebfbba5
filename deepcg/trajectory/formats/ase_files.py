"""Text files with forces, read by ASE: extended XYZ and LAMMPS dumps."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io.extxyz import read_xyz
from ase.io.lammpsrun import read_lammps_dump_text

from deepcg.runtime.arrays import Doubles, Floats, Integers
from deepcg.runtime.errors import InputError
from deepcg.runtime.warnings_of_libraries import quiet
from deepcg.trajectory.element_names import numbers_of
from deepcg.trajectory.formats.dump_text import FORCES, PLACES, first_head, split_dump, units_of
from deepcg.trajectory.formats.recording import Block, spacing, spans
from deepcg.trajectory.formats.text_elements import (
    UnknownLabel,
    plain_dump,
    plain_xyz,
    symbols_of_dump,
    symbols_of_xyz,
)
from deepcg.trajectory.formats.text_lines import TextFrame, lines_of
from deepcg.trajectory.formats.units import FileUnits
from deepcg.trajectory.formats.xyz_text import (
    called_forces,
    columns_of,
    only_forces,
    split_xyz,
    usual_comment,
)

_log = logging.getLogger(__name__)

Parse = Callable[[str], Atoms]
Split = Callable[[Path], Iterator[TextFrame]]


@dataclass(frozen=True, slots=True, eq=False)
class TextFile:
    """Frames as text, one after the other; see `open_extxyz` and `open_dump`.

    ``contents`` are the names of the columns, ``force_column`` is that of the forces, ``times``
    (n_frames,) are in ps where the file says them.
    """

    path: Path
    n_frames: int
    units: FileUnits
    numbers: Integers | None
    n_atoms: int
    has_forces: bool
    kinds: Integers
    parse: Parse
    split: Split
    force_column: str | None
    contents: tuple[str, ...]
    times: Doubles | None
    has_positions: bool = True
    symbols: tuple[str, ...] | None = None

    @property
    def frame_time(self) -> float | None:
        """Time from frame to frame in ps, ``None`` where it is not known or not even."""
        return None if self.times is None else spacing(self.times).step

    @property
    def time_note(self) -> str | None:
        """Why the time from frame to frame is not known."""
        return None if self.times is None else spacing(self.times).note

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[Block]:
        """Yield frames ``start`` to ``stop``, ``chunk`` in each block but the last."""
        frames = islice(self.split(self.path), start, stop)
        for first, last in spans(chunk, start, stop):
            part = [self._atoms(i, f.text) for i, f in zip(range(first, last), frames)]  # noqa: B905
            yield Block(
                np.stack([atoms.positions for atoms in part]) * self.units.length,
                self._boxes(first, part),
                self._forces(first, part) if self.has_forces else None,
            )

    def _atoms(self, index: int, text: str) -> Atoms:
        atoms = _parsed(self.path, self.parse, index, text)
        if not np.array_equal(atoms.numbers, self.kinds):
            raise InputError(
                f"{self.path}: the atoms of frame {index} ({len(atoms)}) are not those of frame 0 "
                f"({self.n_atoms}), or in another order"
            )
        return atoms

    def _boxes(self, first: int, part: list[Atoms]) -> Floats | None:
        periodic = [bool(atoms.pbc.any()) for atoms in part]
        if not any(periodic):
            return None
        if not all(atoms.pbc.all() for atoms in part):
            raise InputError(
                f"{self.path}: frame {first} or one soon after it is periodic in some "
                f"directions only, or the frames differ in it"
            )
        return np.stack([np.asarray(atoms.cell) for atoms in part]) * self.units.length

    def _forces(self, first: int, part: list[Atoms]) -> Floats:
        forces = [_forces_of(atoms, self.force_column) for atoms in part]
        missing = [first + i for i, f in enumerate(forces) if f is None]
        if missing:
            raise InputError(
                f"{self.path}: frame {missing[0]} has no {self.force_column}, but frame 0 has"
            )
        return np.stack([f for f in forces if f is not None]) * self.units.force


def open_extxyz(path: Path, units: FileUnits, force_column: str | None = None) -> TextFile:
    """Open an (extended) XYZ file.

    Forces are in the one group of three columns that is called so (``forces``, ``REF_forces``,
    ...), or in ``force_column``. A plain XYZ names no columns, and has no forces.

    Raises
    ------
    InputError
        It cannot be read, ends within a frame, or has forces of several names.
    """
    head = list(islice(lines_of(path), 3))
    try:
        columns = columns_of(head[1]) if len(head) > 1 else {}
    except ValueError as error:
        raise InputError(f"{path}: the comment of frame 0 cannot be read: {error}") from error
    named = [n for n, (kind, count) in columns.items() if (kind, count) == ("R", 3)]
    forces = only_forces(path, [n for n in named if called_forces(n)], force_column, [*columns])
    if forces not in (None, "forces", "force") and force_column is None:
        _log.warning("%s: forces are read from its columns %s", path, forces)
    names = tuple(columns) or _unnamed(head[2] if len(head) > 2 else "")
    recording = _open(path, units, _parse_xyz, split_xyz, forces, names, elements=True)
    return replace(recording, symbols=symbols_of_xyz(next(split_xyz(path)).text))


def open_text(path: Path, units: FileUnits, split: Split) -> TextFile:
    """Open a text whose frames are split into plain XYZ.

    Raises
    ------
    InputError
        It cannot be read, or has no frames.
    """
    return _open(path, units, _parse_xyz, split, None, ("element", "x", "y", "z"), elements=True)


def open_dump(path: Path, units: FileUnits | None) -> TextFile:
    """Open a LAMMPS text dump; its atoms are sorted by ``id``, forces are ``fx fy fz``.

    ``units`` are what the user says, ``None`` where they are to be in the file.

    Raises
    ------
    InputError
        It cannot be read, has no ids or places, ends within a frame, or its units are not known or
        contradicted.
    """
    head = first_head(path)
    columns = head.columns
    if "id" not in columns:
        raise InputError(
            f"{path} has no column 'id', so that the order of its atoms is not known: "
            f"it has {' '.join(columns)}"
        )
    if not any(set(three) <= set(columns) for three in PLACES):
        raise InputError(
            f"{path} has no positions (x y z, or xs, xu, xsu): it has {' '.join(columns)}"
        )
    known_units, picoseconds = units_of(path, head, units)
    forces = "forces" if set(FORCES) <= set(columns) else None
    known = "element" in columns or "mass" in columns
    split = partial(split_dump, picoseconds=picoseconds)
    recording = _open(path, known_units, _parse_dump, split, forces, columns, elements=known)
    text = next(split_dump(path, picoseconds=picoseconds)).text
    atoms = _parsed(path, _parse_dump, 0, text)
    symbols = symbols_of_dump(path, text, atoms, known_units.length)
    numbers = None if symbols is None else numbers_of(symbols)
    return replace(recording, symbols=symbols, numbers=numbers)


def _open(
    path: Path,
    units: FileUnits,
    parse: Parse,
    split: Split,
    forces: str | None,
    contents: tuple[str, ...],
    *,
    elements: bool,
) -> TextFile:
    first, times = None, []
    for frame in split(path):
        first = first or frame
        times.append(frame.time)
    if first is None:
        raise InputError(f"{path} has no frames")
    atoms = _parsed(path, parse, 0, first.text)
    kinds = atoms.numbers.astype(np.int64)
    known = [time for time in times if time is not None]
    return TextFile(
        path,
        len(times),
        units,
        kinds if elements else None,
        len(atoms),
        forces is not None,
        kinds,
        parse,
        split,
        forces,
        contents,
        np.array(known) if len(known) == len(times) else None,
    )


def _unnamed(row: str) -> tuple[str, ...]:
    """Return what a plain XYZ holds, by the columns of an atom."""
    more = len(row.split()) - 4
    return ("element", "x", "y", "z", *([f"{more} columns without names"] if more > 0 else []))


def _parsed(path: Path, parse: Parse, index: int, text: str) -> Atoms:
    try:
        with quiet():
            return parse(text)
    except Exception as error:  # the parsers of ASE raise whatever they stumble over
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, UnknownLabel):
            raise InputError(f"{path}: frame {index}: {reason}") from error
        raise InputError(
            f"{path}: frame {index} cannot be read, it may be cut ({reason}); "
            + (f"the last good frame is {index - 1}, from 0" if index else "there is no good frame")
        ) from error


def _forces_of(atoms: Atoms, column: str | None) -> Floats | None:
    if column == "forces":
        found = atoms.calc.results.get("forces") if atoms.calc is not None else None
    else:
        found = None if column is None else atoms.arrays.get(column)
    return None if found is None else np.asarray(found)


def _parse_xyz(text: str) -> Atoms:
    head, comment, rest = text.split("\n", 2)
    text = f"{head}\n{usual_comment(comment)}\n{rest}"
    atoms: Atoms = next(read_xyz(io.StringIO(plain_xyz(text)), index=slice(0, 1)))
    return atoms


def _parse_dump(text: str) -> Atoms:
    atoms: Atoms = read_lammps_dump_text(io.StringIO(plain_dump(text)), index=0)
    return atoms
