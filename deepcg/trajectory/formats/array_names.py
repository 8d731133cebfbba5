"""Names of arrays in NumPy archives of many makers, and the units that some of them say."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats.units import FileUnits, parse_units
from deepcg.trajectory.formats.xyz_text import called_forces, only_forces

_log = logging.getLogger(__name__)

KEYS = {  # what it is: the names it goes by
    "positions": ("positions", "coords", "coordinates", "R", "xyz"),
    "forces": ("forces", "Fs", "F"),
    "box": ("box", "cell"),
    "numbers": ("numbers", "atomic_numbers", "nuclear_charges", "z", "Z"),
}

UNIT_NAMES = {"Ang": "A", "Angstrom": "A", "angstrom": "A", "au": "bohr", "Ha": "hartree"}
"""Ours for the names that sGDML's archives have in ``r_unit`` and ``e_unit``."""

DEFAULT_UNITS = "nm,kJ/mol"
"""Of NumPy files where nobody says others."""


def names_positions(names: Collection[str]) -> bool:
    """Whether arrays of such names (in an archive, with .npy) are a trajectory."""
    return any(f"{name}.npy" in names for name in KEYS["positions"])


def chosen_names(
    path: Path, shapes: dict[str, tuple[int, ...]], wanted: str | None
) -> dict[str, str]:
    """Return what goes by which name; of positions and forces there must be one.

    Raises
    ------
    InputError
        There are several, or no forces of the ``wanted`` name.
    """
    keys = {}
    for what, names in KEYS.items():
        there = [name for name in names if name in shapes]
        if what == "forces":
            there += [n for n in shapes if n not in there and called_forces(n)]
            there = [n for n in there if len(shapes[n]) == 3] or there
            one = only_forces(path, there, wanted, sorted(shapes)) if there or wanted else None
            if one is not None and one not in names and wanted is None:
                _log.warning("%s: forces are read from its array %s", path, one)
            there = [] if one is None else [one]
        elif what == "positions":
            there = [name for name in there if len(shapes[name]) == 3] or there
            if len(there) > 1:
                raise InputError(
                    f"{path} has positions of several names, {' and '.join(there)}: leave one out"
                )
        if there:
            keys[what] = there[0]
    return keys


def units_said(path: Path, values: dict[str, Any], given: FileUnits | None) -> FileUnits:
    """Return the units that the user says, or the archive does; both must agree.

    Raises
    ------
    InputError
        They do not agree, or the archive says units that are not known.
    """
    said = [str(values[key]) for key in ("r_unit", "e_unit") if key in values]
    if len(said) < 2:
        return given or parse_units(DEFAULT_UNITS)
    text = ",".join(UNIT_NAMES.get(name, name) for name in said)
    try:
        known = parse_units(text)
    except InputError as error:
        if given is not None:
            return given
        raise InputError(f"{path} says that its units are {' and '.join(said)}: {error}") from error
    if given is not None and given != known:
        raise InputError(
            f"{path} says that its units are {text} (r_unit, e_unit), but --units are "
            f"{given.name}: leave out --units"
        )
    return known
