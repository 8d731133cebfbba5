"""Elements in text files: labels that ASE does not know, and masses with heavy hydrogens."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.neighborlist import neighbor_list

from deepcg.runtime.arrays import Doubles, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.element_masses import excess_of, fits, from_masses
from deepcg.trajectory.element_names import of_label

_log = logging.getLogger(__name__)

_KNOWN = frozenset(chemical_symbols)
_REACH = 1.7  # A: farther no hydrogen is from its partner


class UnknownLabel(ValueError):
    """A label of an atom that stands for no element."""


def xyz_labels(text: str) -> list[str]:
    """Return the label of every atom in a frame of (extended) XYZ, as it is written."""
    column = _species_column(text.split("\n", 2)[1])
    return [] if column is None else [row.split()[column] for row in _rows(text, 2)]


def with_plain_labels(text: str, head: int, column: int | None) -> str:
    """Return a frame whose labels ASE knows: ``D`` becomes ``H``, ``Na+`` becomes ``Na``.

    ``head`` lines precede the atoms; ``column`` has the labels, ``None``: there are none.

    Raises
    ------
    UnknownLabel
        A label stands for no element.
    """
    if column is None:
        return text
    lines = text.splitlines(keepends=True)
    labels = {words[column] for line in lines[head:] if len(words := line.split()) > column}
    plain = {label: _plain(label) for label in labels if label not in _KNOWN}
    if not plain:
        return text
    pattern = re.compile(rf"^(\s*(?:\S+\s+){{{column}}})(\S+)")
    for k in range(head, len(lines)):
        found = pattern.match(lines[k])
        if found and found[2] in plain:
            lines[k] = found[1] + plain[found[2]] + lines[k][found.end() :]
    return "".join(lines)


def plain_xyz(text: str) -> str:
    """Return a frame of (extended) XYZ whose labels ASE knows; raises as `with_plain_labels`."""
    parts = text.split("\n", 2)
    return with_plain_labels(text, 2, _species_column(parts[1]) if len(parts) > 2 else None)


def plain_dump(text: str) -> str:
    """Return a frame of a LAMMPS dump whose labels ASE knows; raises as `with_plain_labels`."""
    columns = _dump_columns(text)
    known = "element" in columns
    return with_plain_labels(text, _dump_head(text), columns.index("element") if known else None)


def symbols_of_xyz(text: str) -> tuple[str, ...] | None:
    """Return the symbols of a frame of XYZ with isotopes; ``None`` where it has no labels."""
    return _symbols(xyz_labels(text))


def symbols_of_dump(path: Path, text: str, atoms: Atoms, length: float) -> tuple[str, ...] | None:
    """Return the symbols of a frame of a LAMMPS dump, sorted by id, by its labels or its masses.

    Parameters
    ----------
    atoms
        The frame as ASE reads it.
    length
        Of the file, in nm.

    Raises
    ------
    InputError
        Labels and masses contradict each other.
    """
    columns = _dump_columns(text)
    rows = [row.split() for row in _rows(text, _dump_head(text))]
    rows.sort(key=lambda row: int(row[columns.index("id")]))
    masses = None
    if "mass" in columns:
        masses = np.array([float(row[columns.index("mass")]) for row in rows])
    near = None if masses is None else _nearest(atoms, 10 * length, masses)
    if "element" in columns:
        symbols = _symbols([row[columns.index("element")] for row in rows])
        if symbols is not None and masses is not None and near is not None:
            _check_masses(path, symbols, masses, near)
        return symbols
    if masses is None or near is None:
        return None
    symbols_found, unknown = from_masses(masses, near)
    if unknown is not None:
        _log.warning(
            "%s: masses do not tell the elements: atom %d (from 0) has %g Da; write the column "
            "'element', or give a topology",
            path,
            unknown,
            masses[unknown],
        )
        return None
    return tuple(symbols_found)


def _check_masses(path: Path, symbols: tuple[str, ...], masses: Doubles, near: Integers) -> None:
    hydrogens = np.isin(symbols, ["H"]) & (masses < 4.1)
    here = np.flatnonzero(hydrogens)
    excess = excess_of(masses, hydrogens, np.stack([here, near[here]], axis=1))
    for atom, (symbol, mass, more) in enumerate(zip(symbols, masses, excess, strict=True)):
        if not fits(symbol, float(mass), round(float(more), 4)):
            raise InputError(
                f"{path}: atom {atom} (from 0, by id) is {symbol} in the column 'element', but has "
                f"{mass:g} Da in the column 'mass': mend 'dump_modify element' or the masses"
            )


def _nearest(atoms: Atoms, angstroms: float, masses: Doubles) -> Integers:
    """Return the nearest atom to every one (n_atoms,), itself where none is near."""
    nearest = np.arange(len(atoms))
    if not ((masses > 1.1) & (masses < 4.1)).any():
        return nearest
    scaled = Atoms(
        np.ones(len(atoms), int),
        atoms.positions * angstroms,
        cell=np.asarray(atoms.cell) * angstroms,
        pbc=atoms.pbc,
    )
    first, second, apart = neighbor_list("ijd", scaled, _REACH)
    order = np.lexsort((apart, first))
    found, start = np.unique(first[order], return_index=True)
    nearest[found] = second[order][start]
    return nearest


def _symbols(labels: list[str]) -> tuple[str, ...] | None:
    known = {label: of_label(label) for label in set(labels)}
    found = [known[label] for label in labels]
    return tuple(s for s in found if s is not None) if labels and None not in found else None


def _plain(label: str) -> str:
    symbol = of_label(label)
    if symbol is None:
        raise UnknownLabel(f"{label!r} is the label of no element: write symbols of elements")
    return "H" if symbol == "D" else symbol


def _species_column(comment: str) -> int | None:
    found = re.search(r"(?:^|\s)Properties=\"?([^\s\"]+)", comment, re.I)
    if found is None:
        return 0
    parts, column = found[1].split(":"), 0
    for name, kind, count in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        if name.lower() in ("species", "element", "symbols") and kind.upper() == "S":
            return column
        column += int(count)
    return None


def _dump_head(text: str) -> int:
    return next(k for k, line in enumerate(text.split("\n")) if line.startswith("ITEM: ATOMS")) + 1


def _dump_columns(text: str) -> list[str]:
    return text.split("\n")[_dump_head(text) - 1].split()[2:]


def _rows(text: str, head: int) -> list[str]:
    return [line for line in text.split("\n")[head:] if line.strip()]
