"""The text of LAMMPS dumps: sections by their names, in whatever order they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats.text_lines import TextFrame, check_same_count, lines_of
from deepcg.trajectory.formats.units import FileUnits, parse_units

STYLES = {"real": ("A,kcal/mol", 1e-3), "metal": ("A,eV", 1.0), "electron": ("bohr,hartree", 1e-3)}
"""Styles of units: ours for them, and how many ps there are in one of time."""

PLACES = (("x", "y", "z"), ("xs", "ys", "zs"), ("xu", "yu", "zu"), ("xsu", "ysu", "zsu"))
FORCES = ("fx", "fy", "fz")
_USED = {"id", "type", "element", "mass", *FORCES, *(name for three in PLACES for name in three)}

_NAMES = ("UNITS", "TIMESTEP", "TIME", "NUMBER OF ATOMS", "BOX BOUNDS", "ATOMS")


@dataclass(frozen=True, slots=True)
class DumpHead:
    """What a frame says before its atoms; sections of other names are passed over."""

    sections: dict[str, list[str]]
    box: str
    columns: tuple[str, ...]

    @property
    def n_atoms(self) -> int:
        """Number of rows that follow; -1 where it is not said."""
        rows = self.sections.get("NUMBER OF ATOMS", [])
        return int(rows[0]) if len(rows) == 1 and rows[0].strip().isdigit() else -1

    @property
    def style(self) -> str | None:
        """The style of units, where it is said."""
        rows = self.sections.get("UNITS", [])
        return rows[0].strip() if rows else None

    def time(self, path: Path, picoseconds: float | None) -> float | None:
        """Return the time in ps, where it and its unit (in ps) are known."""
        rows = self.sections.get("TIME", [])
        if not rows or picoseconds is None:
            return None
        try:
            return float(rows[0]) * picoseconds
        except ValueError as error:
            raise InputError(f"{path}: 'ITEM: TIME' is {rows[0]!r}, no number") from error


def first_head(path: Path) -> DumpHead:
    """Return what the first frame says before its atoms.

    Raises
    ------
    InputError
        The file is no LAMMPS text dump of atoms.
    """
    return _head(path, 0, iter(lines_of(path)), [])


def units_of(path: Path, head: DumpHead, given: FileUnits | None) -> tuple[FileUnits, float | None]:
    """Return the units of a dump, and how many ps one of its time is; ``None`` if not known.

    Raises
    ------
    InputError
        Neither the file nor the user says them, or they contradict each other.
    """
    style = head.style
    if style is None and given is None:
        raise InputError(
            f"a LAMMPS dump does not say its units: give --units for {path}, 'A,kcal/mol' for "
            f"units real, 'A,eV' for metal"
        )
    if style is None:
        assert given is not None
        times = (ps for text, ps in STYLES.values() if parse_units(text) == given)
        return given, next(times, None)
    if style not in STYLES:
        raise InputError(
            f"{path} is in LAMMPS units {style!r}, which are not read (choices: "
            f"{', '.join(STYLES)}): convert it first"
        )
    text, picoseconds = STYLES[style]
    if given is not None and given != parse_units(text):
        raise InputError(
            f"{path} says that it is in LAMMPS units {style} ({text}), but --units are "
            f"{given.name}: leave out --units"
        )
    return parse_units(text), picoseconds


def split_dump(path: Path, picoseconds: float | None = None) -> Iterator[TextFrame]:
    """Yield each frame with the sections and columns that are used, in the usual order.

    ``picoseconds`` are in one of the file's units of time.

    Raises
    ------
    InputError
        A frame is cut, has other atoms than the first in number, or something is left between
        frames or after the last one.
    """
    lines = iter(lines_of(path))
    index, of_first, style = 0, 0, None
    begin = _next_line(lines)
    while begin:
        head = _head(path, index, lines, begin)
        rows = list(islice(lines, max(head.n_atoms, 0)))
        _check_whole(path, index, head, rows)
        of_first, style = (of_first, style) if index else (head.n_atoms, head.style)
        check_same_count(path, index, head.n_atoms, of_first)
        if head.style not in (None, style):
            raise InputError(f"{path}: frame {index} is in units {head.style}, frame 0 {style}")
        time = head.time(path, picoseconds)
        yield TextFrame(_usual(head, rows), head.n_atoms, time)
        index += 1
        begin = _next_line(lines)


def _next_line(lines: Iterator[str]) -> list[str]:
    """Return the next line that is not blank, in a list; an empty one at the end."""
    return list(islice((line for line in lines if line.strip()), 1))


def _head(path: Path, index: int, lines: Iterator[str], begin: list[str]) -> DumpHead:
    """Read sections up to the line that names the columns of the atoms."""
    sections: dict[str, list[str]] = {}
    name, box = "", ""
    for line in chain(begin, lines):
        if line.isspace():
            continue
        if not line.startswith("ITEM:"):
            if not sections:
                raise _left_over(path, index, line)
            sections[name].append(line.rstrip("\n"))
            continue
        said = line[len("ITEM:") :].strip()
        if said.split()[:1] == ["ATOMS"]:
            return DumpHead(sections, box, tuple(said.split()[1:]))
        name = next((n for n in _NAMES if said == n or said.startswith(f"{n} ")), said)
        if name in sections:
            raise InputError(f"{path}: frame {index} is cut: {name} comes twice before its atoms")
        sections[name] = []
        box = said if name == "BOX BOUNDS" else box
    told = f", but {', '.join(sections)}" if sections else ""
    if index == 0:
        raise InputError(
            f"{path} is no LAMMPS text dump of atoms: it has no line 'ITEM: ATOMS ...'{told}"
        )
    raise InputError(
        f"{path}: frame {index} is cut or damaged (it ends before its atoms{told}); the last good "
        f"frame is {index - 1}, from 0"
    )


def _left_over(path: Path, index: int, line: str) -> InputError:
    if index == 0:
        return InputError(
            f"{path} is no LAMMPS text dump: it has no line 'ITEM: ATOMS ...' but begins with "
            f"{line.strip()[:40]!r}"
        )
    return InputError(
        f"{path}: after the atoms of frame {index - 1} there is {line.strip()[:40]!r}, no new "
        f"frame: it has more rows than its 'NUMBER OF ATOMS', or the file is damaged"
    )


def _check_whole(path: Path, index: int, head: DumpHead, rows: list[str]) -> None:
    whole = len(rows) == head.n_atoms and bool(rows)
    if not whole or len(rows[-1].split()) != len(head.columns) or not _are_atoms(rows):
        raise InputError(
            f"{path}: frame {index} is cut or damaged ({len(rows)} rows for {head.n_atoms} "
            f"atoms, columns {' '.join(head.columns)}); the last good frame is {index - 1}, from 0"
        )
    if len(head.sections.get("BOX BOUNDS", [])) != 3:
        raise InputError(f"{path}: frame {index} has no 'ITEM: BOX BOUNDS' of three lines")
    if not head.box.split()[2:]:
        raise InputError(
            f"{path}: 'ITEM: BOX BOUNDS' of frame {index} does not say which sides are periodic: "
            f"write 'ITEM: BOX BOUNDS pp pp pp', or ff for open ones"
        )


def _are_atoms(rows: list[str]) -> bool:
    return not any(row.startswith("ITEM:") or row.isspace() for row in rows)


def _usual(head: DumpHead, rows: list[str]) -> str:
    """Return the text of a frame as a reader wants it that knows the usual sections alone."""
    columns = head.columns
    keep = [k for k, name in enumerate(columns) if name in _USED]
    untyped = not {"type", "element", "mass"} & set(columns)  # of which a reader wants one
    if len(keep) < len(columns):
        split = (row.split() for row in rows)
        rows = [
            " ".join(row[k] for k in keep) + "\n" if len(row) > keep[-1] else "\n" for row in split
        ]
    if untyped:
        rows = [row.rstrip("\n") + " 1\n" for row in rows]
    top = [
        "ITEM: TIMESTEP",
        *head.sections.get("TIMESTEP", ["0"])[:1],
        "ITEM: NUMBER OF ATOMS",
        str(head.n_atoms),
        f"ITEM: {head.box}",
        *head.sections["BOX BOUNDS"],
        f"ITEM: ATOMS {' '.join(columns[k] for k in keep)}{' type' if untyped else ''}",
    ]
    return "\n".join(top) + "\n" + "".join(rows)
