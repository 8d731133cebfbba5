"""What the six doubles of a DCD's cell mean: lengths with cosines or degrees, or a shape matrix.

The record has no word for it. CHARMM from version 22 on writes the lower triangle of a symmetric
matrix, xx, xy, yy, xz, yz, zz; NAMD, OpenMM, VMD, MDTraj and LAMMPS write lengths and cosines,
A, gamma, B, beta, alpha, C; others, and NAMD and CHARMM in their first years, degrees. Titles and
the version word of the header tell who wrote the file, and not every reading can be a cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deepcg.runtime.arrays import Booleans, Floats
from deepcg.units import ANGSTROM

DENSEST = 250.0  # atoms per nm^3: water has 100, diamond 176
FLATTEST = 0.02  # least volume of a cell over the product of its lengths
SHARPEST = 20.0  # degrees
SAME = 1e-4  # of the squared lengths: readings that differ by less are one

LENGTHS_COSINES = "lengths with cosines"
LENGTHS_DEGREES = "lengths with degrees"
SHAPE_MATRIX = "CHARMM's shape matrix"

OF_CHARMM = (SHAPE_MATRIX, LENGTHS_DEGREES)
"""What CHARMM writes, and wrote before version 22."""

SHARED_VERSION = 24
"""The version of CHARMM that other programs say they are."""

WRITERS = {
    "OPENMM": (LENGTHS_COSINES,),
    "NAMD": (LENGTHS_COSINES, LENGTHS_DEGREES),
    "DCD PLUGIN": (LENGTHS_COSINES, LENGTHS_DEGREES),  # VMD, CatDCD, MDTraj
    "LAMMPS": (LENGTHS_COSINES, LENGTHS_DEGREES),
    "MDTRAJ": (LENGTHS_COSINES, LENGTHS_DEGREES),
    "MDANALYSIS": (LENGTHS_COSINES, LENGTHS_DEGREES),
    "CPPTRAJ": OF_CHARMM,
}
"""What programs write, by a word of their titles."""


@dataclass(frozen=True, slots=True)
class CellReading:
    """How the cells of a file are read; ``doubt`` says why another reading may be meant."""

    name: str
    doubt: str | None = None

    def vectors(self, cells: Floats) -> Floats:
        """Return box vectors (f, 3, 3), nm, of cells (f, 6); zeros for cells without lengths."""
        cells = np.asarray(cells, np.float64)
        with np.errstate(all="ignore"):  # a bad cell is reported by its reader
            box = READINGS[self.name](cells) * ANGSTROM
        box[~cells[:, [0, 2, 5]].any(-1)] = 0.0
        return box


def _of_cosines(cells: Floats) -> Floats:
    """Return vectors with a along x and b in the xy plane; NaN where there are none."""
    (alpha, beta, gamma), (a, b, c) = cells[:, [4, 3, 1]].T, cells[:, [0, 2, 5]].T
    sine = np.sqrt(1 - gamma**2)
    y = (alpha - beta * gamma) / sine
    box = np.zeros((len(cells), 3, 3))
    box[:, 0, 0] = a
    box[:, 1, 0], box[:, 1, 1] = b * gamma, b * sine
    box[:, 2, 0], box[:, 2, 1] = c * beta, c * y
    box[:, 2, 2] = c * np.sqrt(1 - beta**2 - y**2)
    return box


def _of_degrees(cells: Floats) -> Floats:
    cells = cells.copy()
    cells[:, [4, 3, 1]] = np.sin(np.radians(90 - cells[:, [4, 3, 1]]))  # exactly 0 at 90
    return _of_cosines(cells)


def _of_shape(cells: Floats) -> Floats:
    return cells[:, [[0, 1, 3], [1, 2, 4], [3, 4, 5]]]


READINGS: dict[str, Callable[[Floats], Floats]] = {
    LENGTHS_COSINES: _of_cosines,
    LENGTHS_DEGREES: _of_degrees,
    SHAPE_MATRIX: _of_shape,
}
"""From cells (f, 6) to box vectors (f, 3, 3), A."""


def cell_reading(cells: Floats, n_atoms: int, version: int, titles: tuple[str, ...]) -> CellReading:
    """Return how to read cells (f, 6), A, of frames of ``n_atoms``.

    Of the readings that the writer of the file uses those are left that are cells in most frames:
    not flat, not too dense for matter, and of a symmetric matrix the positive definite ones that
    are reduced (any, where CHARMM wrote the file and nothing else is left). Where two are left that
    differ the first of them has a ``doubt``.
    """
    cells = np.asarray(cells, np.float64)
    cells = cells[np.isfinite(cells).all(-1) & cells[:, [0, 2, 5]].any(-1)]
    found = {name: int(_possible(name, cells, n_atoms).sum()) for name in READINGS}
    used = _written_by(version, titles)
    if not any(found[name] for name in used):
        used = tuple(READINGS)
    most = max(found[name] for name in used)
    left = [name for name in used if found[name] == most]
    if not most and _written_by(version, titles) == OF_CHARMM:
        wide = int(_possible(SHAPE_MATRIX, cells, n_atoms, SHARPEST).sum())
        if 2 * wide > len(cells):
            return CellReading(SHAPE_MATRIX)
    if not most:  # damaged, or no cells at all: the numbers tell angles from cosines
        small = bool((np.abs(cells[:, [4, 3, 1]]) <= 1).all())
        return CellReading(LENGTHS_COSINES if small else LENGTHS_DEGREES)
    first, *others = left
    for other in others:
        apart = _differ(cells, first, other)
        if apart is not None:
            return CellReading(first, _doubt(apart, first, other, version, titles))
    return CellReading(first)


def _written_by(version: int, titles: tuple[str, ...]) -> tuple[str, ...]:
    text = " ".join(titles).upper()
    by_title = next((readings for word, readings in WRITERS.items() if word in text), None)
    if by_title is None and any(title.startswith("*") for title in titles):
        by_title = OF_CHARMM  # as CHARMM's titles begin
    by_version = None
    if version >= 22 and version != SHARED_VERSION:
        by_version = OF_CHARMM
    if by_title and by_version and by_title != by_version:
        return tuple(READINGS)  # the two contradict one another
    return by_title or by_version or tuple(READINGS)


def _possible(name: str, cells: Floats, n_atoms: int, sharpest: float = 50.0) -> Booleans:
    """Return which of the cells (f, 6) can be those of matter in a reading."""
    numbers = cells[:, [4, 3, 1]]
    rows: Booleans = np.ones(len(cells), bool)
    if name == LENGTHS_COSINES:
        rows &= (np.abs(numbers) <= np.cos(np.radians(SHARPEST))).all(-1)
    elif name == LENGTHS_DEGREES:
        rows &= ((numbers >= SHARPEST) & (numbers <= 180 - SHARPEST)).all(-1)
    with np.errstate(all="ignore"):
        box = READINGS[name](cells)
        volume = np.linalg.det(box)
        lengths = np.linalg.norm(box, axis=-1)
        rows &= (cells[:, [0, 2, 5]] > 0).all(-1) & (volume > FLATTEST * lengths.prod(-1))
        rows &= n_atoms < DENSEST * volume * ANGSTROM**3
    if name == SHAPE_MATRIX:
        rows[rows] = _is_shape(cells[rows], sharpest)
    return rows


def _is_shape(cells: Floats, sharpest: float) -> Booleans:
    """Whether cells (f, 6) are positive definite matrices of lattices without sharper angles, deg.

    Three right angles in degrees, as numbers, are no such matrix by chance.
    """
    box = _of_shape(cells)
    lengths = np.linalg.norm(box, axis=-1)
    gram = box @ box
    cosines = gram[:, [0, 0, 1], [1, 2, 2]] / (lengths[:, [0, 0, 1]] * lengths[:, [1, 2, 2]])
    right = (np.abs(cells[:, [1, 3, 4]] - 90) < 1e-6).sum(-1) >= 2
    definite = (np.linalg.eigvalsh(box) > 0).all(-1)
    return np.asarray(definite & (np.abs(cosines) < np.cos(np.radians(sharpest))).all(-1) & ~right)


def _differ(cells: Floats, one: str, other: str) -> Floats | None:
    """Return the first cell (6,) that two readings do not agree on, ``None`` if there is none."""
    a, b = (_gram(READINGS[name](cells)) for name in (one, other))
    apart = np.abs(a - b).max((-2, -1)) > SAME * np.abs(a).max((-2, -1))
    return cells[apart.argmax()] if apart.any() else None


def _gram(box: Floats) -> Floats:
    return np.asarray(box @ box.transpose(0, 2, 1))


def _doubt(cell: Floats, one: str, other: str, version: int, titles: tuple[str, ...]) -> str:
    said = f"version {version}, title {' '.join(titles)[:60]!r}"
    numbers = " ".join(f"{number:.6g}" for number in cell)
    return (
        f"the cell {numbers} may be {one} ({_named(cell, one)}) or {other} ({_named(cell, other)}),"
        f" and the header ({said}) does not tell: convert the file to .xtc with the program that "
        "wrote it, or give a constant box with --box"
    )


def _named(cell: Floats, name: str) -> str:
    box = READINGS[name](cell[None]) * ANGSTROM
    gram, volume = _gram(box)[0], float(np.linalg.det(box[0]))
    lengths = np.sqrt(np.diagonal(gram))
    angles = np.degrees(
        np.arccos([gram[i, j] / lengths[i] / lengths[j] for i, j in ((1, 2), (0, 2), (0, 1))])
    )
    return f"{' '.join(f'{angle:.2f}' for angle in angles)} deg, {volume:.4g} nm^3"
