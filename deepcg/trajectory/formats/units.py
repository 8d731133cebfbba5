"""Units of files: lengths and energies by name, converted once, where a file is read."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    """Factors that bring a file's numbers to nm and kJ/mol/nm, and what the user calls them."""

    length: float
    force: float
    name: str = field(default="", compare=False)

    @property
    def ambiguous(self) -> bool:
        """Whether forces may be in another unit: hartree with a length that is not bohr's.

        Most programs that give lengths in A and energies in hartree give forces in hartree/bohr.
        """
        return self.name.replace(" ", "") in ("A,hartree", "nm,hartree")


def parse_units(text: str) -> FileUnits:
    """Return the factors of ``"LENGTH,ENERGY"``, such as ``"A,kcal/mol"``.

    Where forces are in energy over another length, it is said: ``"A,hartree/bohr"``.

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
    energy, _, per = names[1].rpartition("/")
    if names[1] not in ENERGIES and energy in ENERGIES and per in LENGTHS:
        return FileUnits(length, ENERGIES[energy] / LENGTHS[per], text)
    return FileUnits(length, pick(ENERGIES, names[1], "energy unit") / length, text)
