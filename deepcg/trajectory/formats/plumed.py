"""Tables of PLUMED: COLVAR, HILLS and grids, whose first line names their columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats.text_lines import lines_of

FIELDS = "#! FIELDS"


@dataclass(frozen=True, slots=True, eq=False)
class PlumedTable:
    """Columns by name; ``rows`` are (rows, columns), ``settings`` what ``#! SET`` says."""

    path: Path
    fields: tuple[str, ...]
    settings: dict[str, str]
    rows: Doubles

    @property
    def what(self) -> str:
        """``HILLS``, ``grid`` or ``COLVAR``, by the columns."""
        if "height" in self.fields and any(name.startswith("sigma") for name in self.fields):
            return "HILLS"
        if any(name.startswith("nbins_") for name in self.settings):
            return "grid"
        return "COLVAR"

    def column(self, name: str) -> Doubles:
        """Return a column (rows,)."""
        return self.rows[:, self.fields.index(name)]


def read_plumed(path: Path) -> PlumedTable:
    """Read a table that PLUMED wrote; what a restart appended must have the same columns.

    Raises
    ------
    InputError
        It is none, has no rows, or a row is cut or no numbers.
    """
    fields: tuple[str, ...] = ()
    settings: dict[str, str] = {}
    rows: list[list[float]] = []
    for number, line in enumerate(lines_of(path), 1):
        words = line.split()
        if line.startswith(FIELDS):
            if fields and tuple(words[2:]) != fields:
                raise InputError(f"{path}: line {number} names other columns than the first line")
            fields = tuple(words[2:])
        elif words[:2] == ["#!", "SET"] and len(words) > 3:
            settings[words[2]] = words[3]
        elif words and not words[0].startswith("#"):
            rows.append(_numbers(path, number, words, fields))
    if not fields or not rows:
        raise InputError(f"{path} is no table of PLUMED, or has no rows: {FIELDS} ... comes first")
    return PlumedTable(path, fields, settings, np.array(rows))


def _numbers(path: Path, number: int, words: list[str], fields: tuple[str, ...]) -> list[float]:
    if len(words) != len(fields):
        raise InputError(
            f"{path}: line {number} has {len(words)} numbers for {len(fields)} columns "
            f"({' '.join(fields)}): it is cut, or not of PLUMED"
        )
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise InputError(f"{path}: line {number} is not of numbers: {error}") from error
