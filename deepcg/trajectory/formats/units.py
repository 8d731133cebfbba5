"""Units of files: lengths and energies by name, converted once, where a file is read."""

from __future__ import annotations

from dataclasses import dataclass

from deepcg.runtime.errors import InputError, pick
from deepcg.units import ANGSTROM, KCAL

LENGTHS = {"nm": 1.0, "A": ANGSTROM, "bohr": 0.0529177210903}  # nm, CODATA 2018
ENERGIES = {  # kJ/mol, CODATA 2018
    "kJ/mol": 1.0,
    "kcal/mol": KCAL,
    "eV": 96.48533212331,
    "hartree": 2625.4996394799,
}


@dataclass(frozen=True, slots=True)
class FileUnits:
    """Factors that bring a file's numbers to nm and kJ/mol/nm."""

    length: float
    force: float


def parse_units(text: str) -> FileUnits:
    """Return the factors of ``"LENGTH,ENERGY"``, such as ``"A,kcal/mol"``.

    Raises
    ------
    InputError
        The text is not two known names; the message gives the choices.
    """
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2:
        raise InputError(
            f"units {text!r} are not LENGTH,ENERGY (lengths: {', '.join(LENGTHS)}; "
            f"energies: {', '.join(ENERGIES)}), for example 'A,kcal/mol'"
        )
    length = pick(LENGTHS, names[0], "length unit")
    return FileUnits(length, pick(ENERGIES, names[1], "energy unit") / length)
