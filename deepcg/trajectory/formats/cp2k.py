"""Forces that CP2K writes into files of their own: as a trajectory, or as a listing."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deepcg.runtime.arrays import Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats.ase_files import TextFile, open_extxyz, open_text
from deepcg.trajectory.formats.recording import Block
from deepcg.trajectory.formats.text_lines import TextFrame, check_same_count, lines_of
from deepcg.trajectory.formats.units import FileUnits, parse_units
from deepcg.trajectory.formats.xyz_text import CP2K_COMMENT, NUMBER

_log = logging.getLogger(__name__)

ATOMIC = "bohr,hartree"

_TITLE = re.compile(r"(?:ATOMIC FORCES in|FORCES\| Atomic forces) \[([^\]]*)\]", re.I)
_ROW = re.compile(rf"^\s*(\d+)\s+\d+\s+([A-Za-z]+)\w*\s+({NUMBER})\s+({NUMBER})\s+({NUMBER})\s*$")
_NEW_ROW = re.compile(rf"^\s*FORCES\|\s+(\d+)()\s+({NUMBER})\s+({NUMBER})\s+({NUMBER})")
_SUM = re.compile(
    rf"(?:SUM OF ATOMIC FORCES|FORCES\|\s+Sum)\s+({NUMBER})\s+({NUMBER})\s+({NUMBER})", re.I
)


@dataclass(frozen=True, slots=True, eq=False)
class ForceListing:
    """Forces on the atoms of each frame, as text of an element and three numbers a row."""

    inner: TextFile
    frame_time: float | None
    has_positions: bool = False
    has_forces: bool = True

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.inner.path

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.inner.n_frames

    @property
    def n_atoms(self) -> int:
        """Number of atoms in every frame."""
        return self.inner.n_atoms

    @property
    def numbers(self) -> Integers | None:
        """Atomic numbers (atoms,), ``None`` where the file does not say."""
        return self.inner.numbers

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[Block]:
        """Yield frames ``start`` to ``stop``, ``chunk`` in each block but the last."""
        for block in self.inner.blocks(chunk, start, stop):
            yield Block(None, None, block.positions)


def is_listing(path: Path) -> bool:
    """Whether a text has a listing of forces as CP2K prints it."""
    try:
        return any(_TITLE.search(line) for line in lines_of(path))
    except InputError:
        return False


def open_listing(path: Path, units: FileUnits | None) -> ForceListing:
    """Open CP2K's listing of forces, ``ATOMIC FORCES in [a.u.]`` or ``FORCES| Atomic forces``.

    Raises
    ------
    InputError
        It is cut, in units that are not known, or the user says others.
    """
    if units is not None and not _of_hartree(units):
        raise InputError(
            f"{path} says that its forces are in hartree/bohr, but --units are {units.name}: give "
            f"those of the positions with hartree, such as 'A,hartree'"
        )
    force = parse_units(ATOMIC).force
    inner = open_text(path, FileUnits(force, force), _split_listing)
    known = inner.numbers is not None and inner.numbers.all()
    return ForceListing(inner if known else replace(inner, numbers=None), inner.frame_time)


def open_xyz_forces(path: Path, units: FileUnits | None) -> ForceListing:
    """Open an XYZ whose three columns are forces and not positions.

    Those of CP2K's dynamics (``PROJECT-frc-1.xyz``) are in hartree/bohr, its default, also where
    the user says 'A,hartree' for the positions beside them. Others are in the user's units.

    Raises
    ------
    InputError
        It cannot be read, its name says that it has positions or velocities, or the unit is not
        known.
    """
    name = path.name.lower()
    other = next((what for what in ("pos", "vel") if f"-{what}-" in name), None)
    if other is not None:
        what = {"pos": "positions", "vel": "velocities"}[other]
        raise InputError(f"{path} has {what} by its name, no forces: give PROJECT-frc-1.xyz")
    comment = next((line for k, line in enumerate(lines_of(path)) if k == 1), "")
    force, told = _force_unit(path, units, by_cp2k=CP2K_COMMENT.match(comment) is not None)
    _log.warning("%s: its three columns are read as forces in %s", path, told)
    inner = open_extxyz(path, FileUnits(force, force))
    return ForceListing(inner, inner.frame_time)


def _force_unit(path: Path, units: FileUnits | None, *, by_cp2k: bool) -> tuple[float, str]:
    if by_cp2k and (units is None or _of_hartree(units)):
        return parse_units(ATOMIC).force, "hartree/bohr, the unit that CP2K writes by default"
    if units is None:
        raise InputError(
            f"{path} does not say what its three columns are: give --units if they are forces, "
            f"such as 'A,hartree/bohr'"
        )
    return units.force, f"the units of --units {units.name}"


def _of_hartree(units: FileUnits) -> bool:
    return units.name.replace(" ", "").partition(",")[2] in ("hartree", "hartree/bohr")


def _split_listing(path: Path) -> Iterator[TextFrame]:
    """Yield the listings as XYZ; rows must be numbered from 1, and have the sum that is said."""
    rows: list[tuple[str, ...]] = []
    index, of_first, inside = 0, 0, False
    for line in lines_of(path):
        title = _TITLE.search(line)
        if title is not None:
            if inside:
                raise _cut(path, index, len(rows))
            inside, rows = _check_unit(path, title[1]), []
            continue
        row = _ROW.match(line) or _NEW_ROW.match(line) if inside else None
        if row is not None:
            rows.append(row.groups())
        total = _SUM.search(line) if inside else None
        if total is not None:
            inside = False
            _check_rows(path, index, rows, [float(total[k]) for k in (1, 2, 3)])
            of_first = of_first or len(rows)
            check_same_count(path, index, len(rows), of_first)
            text = "".join(f"{r[1] or 'X'} {r[2]} {r[3]} {r[4]}\n" for r in rows)
            yield TextFrame(f"{len(rows)}\n\n{text}", len(rows))
            index += 1
    if inside:
        raise _cut(path, index, len(rows))


def _check_unit(path: Path, unit: str) -> bool:
    if unit.strip().lower() not in ("a.u.", "hartree/bohr"):
        raise InputError(
            f"{path}: forces are listed in [{unit}], which is not read: print them in hartree/bohr"
        )
    return True


def _check_rows(path: Path, index: int, rows: list[tuple[str, ...]], total: list[float]) -> None:
    if not rows or [int(row[0]) for row in rows] != list(range(1, len(rows) + 1)):
        raise _cut(path, index, len(rows))
    places = min(
        len(row[k].lower().partition("e")[0].partition(".")[2]) for row in rows for k in (2, 3, 4)
    )
    added = np.array([[float(value) for value in row[2:5]] for row in rows])
    largest = np.abs(added).max()
    rounding = len(rows) * 10.0**-places * max(1.0, largest)
    if np.abs(added.sum(0) - total).max() > rounding:
        raise InputError(
            f"{path}: the forces of listing {index} (from 0) add up to {added.sum(0).tolist()}, "
            f"but it says {total}: rows are missing or damaged"
        )


def _cut(path: Path, index: int, n_rows: int) -> InputError:
    return InputError(
        f"{path} is truncated within listing {index} of forces, after {n_rows} atoms; the last "
        f"good one is {index - 1}, from 0"
    )
