"""Text files with forces, read by ASE: extended XYZ and LAMMPS dumps."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io.extxyz import read_xyz
from ase.io.lammpsrun import read_lammps_dump_text

from deepcg.runtime.arrays import Floats, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats.recording import Block, spans
from deepcg.trajectory.formats.units import FileUnits

Parse = Callable[[str], Atoms]


@dataclass(frozen=True, slots=True, eq=False)
class TextFile:
    """Frames as text, one after the other; see `open_extxyz` and `open_dump`."""

    path: Path
    n_frames: int
    units: FileUnits
    numbers: Integers | None
    n_atoms: int
    has_forces: bool
    kinds: Integers
    parse: Parse
    split: Callable[[Path], Iterator[str]]
    has_positions: bool = True
    frame_time: float | None = None

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[Block]:
        """Yield frames ``start`` to ``stop``, ``chunk`` in each block but the last."""
        frames = islice(self.split(self.path), start, stop)
        for first, last in spans(chunk, start, stop):
            part = [self._atoms(i, text) for i, text in zip(range(first, last), frames)]  # noqa: B905
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
        forces = [_forces_of(atoms) for atoms in part]
        missing = [first + i for i, f in enumerate(forces) if f is None]
        if missing:
            raise InputError(f"{self.path}: frame {missing[0]} has no forces, but frame 0 has")
        return np.stack([f for f in forces if f is not None]) * self.units.force


def open_extxyz(path: Path, units: FileUnits) -> TextFile:
    """Open an (extended) XYZ file; forces are in its columns ``forces`` or ``force``.

    Raises
    ------
    InputError
        It cannot be read, or ends within a frame.
    """
    return _open(path, units, _parse_xyz, _split_xyz, elements=True)


def open_dump(path: Path, units: FileUnits) -> TextFile:
    """Open a LAMMPS text dump; its atoms are sorted by ``id``, forces are ``fx fy fz``.

    Raises
    ------
    InputError
        It cannot be read, has no ids, or ends within a frame.
    """
    first = next(_split_dump(path), "")
    columns = next(
        (line.split()[2:] for line in first.splitlines() if line.startswith("ITEM: ATOMS")), None
    )
    if columns is None:
        raise InputError(f"{path} is no LAMMPS text dump: it has no line 'ITEM: ATOMS ...'")
    if "id" not in columns:
        raise InputError(
            f"{path} has no column 'id', so that the order of its atoms is not known: "
            f"it has {' '.join(columns)}"
        )
    known = "element" in columns or "mass" in columns
    return _open(path, units, _parse_dump, _split_dump, elements=known)


def _open(
    path: Path,
    units: FileUnits,
    parse: Parse,
    split: Callable[[Path], Iterator[str]],
    *,
    elements: bool,
) -> TextFile:
    first = next(split(path), None)
    if first is None:
        raise InputError(f"{path} has no frames")
    atoms = _parsed(path, parse, 0, first)
    kinds = atoms.numbers.astype(np.int64)
    return TextFile(
        path,
        sum(1 for _ in split(path)),
        units,
        kinds if elements else None,
        len(atoms),
        _forces_of(atoms) is not None,
        kinds,
        parse,
        split,
    )


def _parsed(path: Path, parse: Parse, index: int, text: str) -> Atoms:
    try:
        return parse(text)
    except Exception as error:  # the parsers of ASE raise whatever they stumble over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: frame {index} cannot be read, it may be cut ({reason}); "
            f"the last good frame is {index - 1}, from 0"
        ) from error


def _forces_of(atoms: Atoms) -> Floats | None:
    if atoms.calc is not None and "forces" in atoms.calc.results:
        return np.asarray(atoms.calc.results["forces"])
    return np.asarray(atoms.arrays["force"]) if "force" in atoms.arrays else None


def _parse_xyz(text: str) -> Atoms:
    atoms: Atoms = next(read_xyz(io.StringIO(text), index=slice(0, 1)))
    return atoms


def _parse_dump(text: str) -> Atoms:
    atoms: Atoms = read_lammps_dump_text(io.StringIO(text), index=0)
    return atoms


def _split_xyz(path: Path) -> Iterator[str]:
    """Yield the text of each frame, as long as its first line says."""
    with path.open(errors="replace") as file:
        index = 0
        while (head := file.readline()).strip():
            if not head.strip().isdecimal() or len(head.strip()) > 12:
                raise InputError(
                    f"{path}: frame {index} does not begin with a number of atoms but "
                    f"{head.strip()[:40]!r}"
                )
            lines = list(islice(file, int(head) + 1))
            if len(lines) < int(head) + 1 or not lines[-1].strip():
                raise InputError(
                    f"{path} is truncated within frame {index}; the last good frame "
                    f"is {index - 1}, from 0"
                )
            yield head + "".join(lines)
            index += 1


def _split_dump(path: Path) -> Iterator[str]:
    """Yield the text of each frame; the last one must have all its atoms."""
    with path.open(errors="replace") as file:
        lines: list[str] = []
        index = 0
        for line in file:
            if line.startswith("ITEM: TIMESTEP") and lines:
                yield _whole_dump(path, index, lines)
                lines, index = [], index + 1
            lines.append(line)
        if lines:
            yield _whole_dump(path, index, lines)


def _whole_dump(path: Path, index: int, lines: list[str]) -> str:
    """Return the text of a frame: nine lines of head, then as many atoms as the fourth says."""
    count = lines[3].strip() if len(lines) > 3 else ""
    columns = len(lines[8].split()) - 2 if len(lines) > 8 else 0
    whole = count.isdigit() and len(lines) == 9 + int(count)
    if not whole or len(lines[-1].split()) != columns:
        raise InputError(
            f"{path}: frame {index} is cut or damaged ({len(lines)} lines for {count} "
            f"atoms); the last good frame is {index - 1}, from 0"
        )
    return "".join(lines)
