"""Topologies from files: structure and bonds as MDTraj reads them, elements by our resolver.

MDTraj guesses elements by rules that differ from format to format, drops the masses of a .psf
and the names that CHARMM and GROMACS have. What the file itself says is read here once more.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import mdtraj
import numpy as np
from mdtraj.formats.mol2 import gaff_elements
from mdtraj.formats.pdb.pdbstructure import PdbStructure

from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import InputError
from deepcg.runtime.warnings_of_libraries import quiet
from deepcg.trajectory.element_names import AMINO_ACIDS, NUCLEOTIDES, SITE, SYMBOLS, named
from deepcg.trajectory.elements import AtomRecords, resolved, symbol_of_element
from deepcg.trajectory.formats import check_readable, other_kind

_log = logging.getLogger(__name__)

LOADED = (
    *(".pdb", ".pdb.gz", ".cif", ".cif.gz", ".mmcif", ".mmcif.gz", ".pdbx", ".pdbx.gz"),
    *(".gro", ".prmtop", ".parm7", ".prm7", ".psf", ".mol2"),
    *(".h5", ".hdf5", ".lh5", ".arc", ".gsd", ".hoomdxml"),
)
"""Endings of what MDTraj loads as a topology."""


@dataclass(frozen=True, slots=True)
class _Lines:
    """What is read of each atom, in the order of the file; lists are empty where it says none."""

    names: list[str] = field(default_factory=list)
    residues: list[str] = field(default_factory=list)
    stated: list[str | None] = field(default_factory=list)
    masses: list[float] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def load_topology(path: Path, system_masses: Doubles | None = None) -> mdtraj.Topology:
    """Return the topology of a file, its elements resolved.

    Parameters
    ----------
    system_masses
        (n_atoms,), Da, of the System that belongs to it: used where the file has none and names
        leave an element open.

    Raises
    ------
    InputError
        It cannot be read; elements contradict each other, or nothing tells them.
    """
    _check_kind(path)
    check_readable(path)
    try:
        with quiet():
            topology = mdtraj.load_topology(str(path))
            lines = _read(path)
    except Exception as error:  # parsers raise whatever they stumble over
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path} cannot be read as a topology: {reason}") from error
    if lines.left_out:
        _log.warning(
            "%s: %d atoms have alternate locations, as %s: the first of each is kept, the others "
            "are left out",
            path,
            len(lines.left_out),
            lines.left_out[0],
        )
    records = _records(path, topology, lines, system_masses)
    for atom, symbol in zip(topology.atoms, resolved(records), strict=True):
        atom.element = mdtraj.element.Element.getBySymbol(symbol or "VS")
    return topology


def _check_kind(path: Path) -> None:
    """Refuse a file that by its name is no topology, with what it is where that is recognised."""
    if path.name.lower().endswith(LOADED):
        return
    other = other_kind(path)
    if other is not None and other.kind == "topology of AMBER":
        raise InputError(f"{path} is a topology of AMBER: give it the ending .prmtop")
    if other is not None:
        raise InputError(f"{path} is no topology that can be read but {other.kind}: {other.use}")
    raise InputError(
        f"{path} cannot be read as a topology: files {_ending(path) or 'without an ending'!r} are "
        f"not known (choices: {' '.join(LOADED)})"
    )


def _records(
    path: Path, topology: mdtraj.Topology, lines: _Lines, system_masses: Doubles | None
) -> AtomRecords:
    atoms = list(topology.atoms)
    if len(lines.names) != len(atoms):
        lines = _of_mdtraj(topology, stated=_ending(path) not in _READERS)
    masses = np.array(lines.masses) if lines.masses else None
    own = masses is not None
    if masses is None and system_masses is not None and len(system_masses) == len(atoms):
        masses = system_masses
    return AtomRecords(
        str(path),
        lines.names,
        lines.residues,
        np.array([atom.residue.index for atom in atoms], np.int64),
        lines.stated or [None] * len(atoms),
        masses,
        np.array([(a.index, b.index) for a, b in topology.bonds], np.int64).reshape(-1, 2),
        own,
    )


def _of_mdtraj(topology: mdtraj.Topology, *, stated: bool) -> _Lines:
    """Return names, and elements of formats that have a place for them."""
    lines = _Lines()
    for atom in topology.atoms:
        lines.names.append(atom.name)
        lines.residues.append(atom.residue.name)
        element = atom.element if stated else None
        lines.stated.append(None if element is None else symbol_of_element(element.symbol))
    return lines


def _ending(path: Path) -> str:
    return ".pdb" if path.name.lower().endswith(".pdb.gz") else path.suffix.lower()


def _read(path: Path) -> _Lines:
    reader = _READERS.get(_ending(path))
    if reader is None:
        return _Lines()
    packed = path.suffix.lower() == ".gz"
    with gzip.open(path, "rt") if packed else path.open(errors="replace") as file:
        return reader(file)


def _read_pdb(file: IO[str]) -> _Lines:
    lines, placed, alone = _Lines(), list[str](), list[bool]()
    for chain in PdbStructure(file, load_all_models=False).iter_chains():
        for residue in chain.iter_residues():
            for atom in residue.atoms:
                lines.names.append(atom.get_name().strip())
                lines.residues.append(residue.get_name().strip())
                lines.stated.append(symbol_of_element(atom.element_symbol))
                placed.append(atom.name_with_spaces)
                alone.append(len(residue) == 1)
                if len(atom.locations) > 1:
                    lines.left_out.append(f"{lines.names[-1]} of {lines.residues[-1]}")
    in_place = not any(map(_is_shifted, placed, lines.residues))
    if in_place:
        _add_places(lines, placed, alone)
    return lines


def _is_shifted(name: str, residue: str) -> bool:
    """Whether a name of a biopolymer's atom begins where symbols of two letters do."""
    text = name.strip()
    polymer = residue in AMINO_ACIDS | NUCLEOTIDES and not text.startswith("SE")
    return polymer and name[0] != " " and len(text) < 4 and text.isalpha()


def _add_places(lines: _Lines, placed: list[str], alone: list[bool]) -> None:
    """Add what the place of a name tells: ``"CA  "`` is calcium, ``" CA "`` is not.

    It counts for atoms that may be a carbon or a metal alone.
    """
    for k, (name, residue) in enumerate(zip(placed, lines.residues, strict=True)):
        if alone[k] and lines.stated[k] is None and named(name, residue).open:
            lines.stated[k] = SYMBOLS.get(name[:2].strip().upper())


def _read_gro(file: IO[str]) -> _Lines:
    lines = _Lines()
    file.readline()
    for _ in range(int(file.readline())):
        line = file.readline()
        lines.residues.append(line[5:10].strip())
        lines.names.append(line[10:15].strip())
    return lines


def _read_psf(file: IO[str]) -> _Lines:
    lines, left = _Lines(), 0
    for line in file:
        if "!NATOM" in line:
            left = int(line.split()[0])
        elif left:
            _, _, _, residue, name, _, _, mass, *_ = line.split()
            lines.residues.append(residue)
            lines.names.append(name)
            lines.masses.append(float(mass))
            left -= 1
            if not left:
                break
    return lines


def _read_prmtop(file: IO[str]) -> _Lines:
    flags = dict(_flags(file))
    names = _fixed(flags["ATOM_NAME"], 4)
    first = np.array(" ".join(flags["RESIDUE_POINTER"]).split(), np.int64) - 1
    labels = _fixed(flags["RESIDUE_LABEL"], 4)
    counts = np.diff(np.append(first, len(names)))
    residues = [label for label, n in zip(labels, counts, strict=True) for _ in range(n)]
    by_number = {e.atomic_number: e.symbol for e in _elements()}
    numbers = [int(word) for word in " ".join(flags.get("ATOMIC_NUMBER", [])).split()]
    masses = [float(word) for word in " ".join(flags["MASS"]).split()]
    return _Lines(names, residues, [by_number.get(n) for n in numbers], masses)


def _elements() -> Iterator[mdtraj.element.Element]:
    for symbol in SYMBOLS.values():
        if symbol != "D":
            yield mdtraj.element.Element.getBySymbol(symbol)


def _flags(file: IO[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each part of a prmtop and its lines."""
    name, body = "", list[str]()
    for line in file:
        if line.startswith("%FLAG"):
            yield name, body
            name, body = line.split()[1], []
        elif not line.startswith("%"):
            body.append(line.rstrip("\n"))
    yield name, body


def _fixed(lines: list[str], width: int) -> list[str]:
    """Return the entries of lines with twenty columns of a width."""
    words = [line[k : k + width].strip() for line in lines for k in range(0, 20 * width, width)]
    return [word for word in words if word]


def _read_mol2(file: IO[str]) -> _Lines:
    lines, inside = _Lines(), False
    for line in file:
        if line.startswith("@"):
            inside = line.startswith("@<TRIPOS>ATOM")
        elif inside and line.strip():
            words = line.split()
            lines.names.append(words[1])
            lines.residues.append(words[7].rstrip("0123456789") if len(words) > 7 else "")
            lines.stated.append(_of_type(words[5]))
    return lines


def _of_type(kind: str) -> str | None:
    """Return the symbol of an atom type of SYBYL (``C.3``) or GAFF (``c3``)."""
    base = kind.split(".")[0]
    if base in ("Du", "LP"):
        return SITE
    if base in SYMBOLS.values():
        return base
    symbol = gaff_elements.get(kind)
    return None if symbol is None else SYMBOLS.get(symbol.upper())


_READERS: dict[str, Callable[[IO[str]], _Lines]] = {
    ".gro": _read_gro,
    ".mol2": _read_mol2,
    ".parm7": _read_prmtop,
    ".pdb": _read_pdb,
    ".prmtop": _read_prmtop,
    ".psf": _read_psf,
}
