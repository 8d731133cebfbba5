"""Elements from the names of atoms and residues: what a name says, and how surely.

``CA`` is calcium alone in a residue, and a carbon in an amino acid; ``CLA`` is chloride, or a
chlorophyll where it has many atoms. Names are those of the PDB, GROMACS, CHARMM and AMBER.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

from deepcg.runtime.arrays import Integers

SITE = ""
"""The symbol of a site without an element: a virtual site, or the Drude particle of an atom."""

SYMBOLS = {
    symbol.upper(): symbol
    for symbol, number in atomic_numbers.items()
    if 0 < number <= 92 and number not in (43, 61, *range(84, 90), 91)
} | {"D": "D"}
"""Elements that samples are made of, by their symbols in capitals; ``D`` is deuterium."""

ION_NAMES = {
    "SOD": "Na",
    "CLA": "Cl",
    "POT": "K",
    "CAL": "Ca",
    "LIT": "Li",
    "CES": "Cs",
    "RUB": "Rb",
    "BAR": "Ba",
    "CAD": "Cd",
    "IOD": "I",
}
"""Monatomic ions that are not called by their symbols."""

ANY_ION = {"ION", "IONS"}

_BASES = "A C G U DA DC DG DT RA RC RG RU"
AMINO_ACIDS = frozenset(
    re.findall(
        r"\S+",
        """
        ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL
        ARGN ASH ASPH ASPP ASX CME CSE CYM CYS1 CYS2 CYSH CYX DALA GLH GLUH GLUP GLX HID HIE HIP
        HIS1 HIS2 HISA HISB HISD HISE HISH HSD HSE HSP HYP KCX LSN LYN LYSH M3L MLY MSE NLE NVA ORN
        PCA PTR PYL SEC SEP TPO TYM ACE ACY AME FOR NAC NH2 NHE NMA NME CT2 CT3
        """,
    )
)
NUCLEOTIDES = frozenset(
    re.findall(r"\S+", f"{_BASES} I N T DI DU ADE CYT GUA THY URA AMP CMP GMP UMP")
) | {f"{name}{end}" for name in re.findall(r"\S+", _BASES) for end in "35N"}
SELENIUM = {"MSE", "SEC", "CSE"}
WATER = re.compile(
    r"H2O|HOH|OH2|HHO|OHH|WAT\w?|SOL|D2O|DOD|T[34567]P\w*|TIP\w*|TP[345]\w*|SPC\w*|OPC\w*|SWM\w*"
)

VIRTUAL = re.compile(r"(EP|LP|VS|DU|XP|VIR)[A-Z0-9]*|MW\d?|M|IW|OM")
"""Names of virtual sites, ``OM`` in water only; not the masses of rigid groups in GROMACS."""

TWO_LETTERS = {"CL", "BR", "SI", "SE", "FE"}
"""Symbols that begin names of atoms in molecules: no other name begins so."""

EITHER = {"CU", "NI", "PT", "IR", "SN", "SB", "CR", "CO", "CS", "SR", "HF", "OS", "IN", "SC"}
"""Symbols that names of atoms of carbon, nitrogen and so on begin with as well."""


@dataclass(frozen=True, slots=True)
class Said:
    """What names say of an atom: ``symbols`` that they may stand for, the likeliest first.

    ``sure`` names contradict others that differ; where they are not ``sure`` and nothing else
    tells, the first is taken with a word of warning, or none where it is ``open``.
    """

    symbols: tuple[str, ...]
    sure: bool = True
    open: bool = False


NOTHING = Said((), sure=False)


def named(name: str, residue: str, others: Collection[str] = ()) -> Said:
    """Return what the name of an atom says, in a residue with ``others`` beside it."""
    place, text = residue.strip().upper(), name.strip()
    if WATER.fullmatch(place):
        return _in_water(text.upper(), {other.upper() for other in others})
    polymer = place in AMINO_ACIDS | NUCLEOTIDES
    if not others and (not polymer or (text.upper() == place and len(place) == 1)):
        return _alone(text, place)
    if not re.fullmatch(r"[A-Za-z0-9'*+]+", text) or (others and text.upper() == place):
        return NOTHING  # a bead, named by its residue or its type
    if _is_drude(text.upper(), {other.upper() for other in others}):
        return Said((SITE,))
    text = text.lstrip("0123456789'*")
    if polymer:
        return _in_polymer(text.upper(), place)
    return _in_molecule(text)


def of_label(label: str) -> str | None:
    """Return the symbol that the label of an atom stands for, where files have labels alone.

    ``D`` is deuterium, ``Na+`` and ``O1`` are elements with a charge and a number.
    """
    text = re.sub(r"([0-9]*[+-]+|[+-][0-9]+|[0-9]+)$", "", label.strip())
    if text in SYMBOLS.values():
        return text
    return SYMBOLS.get(text.upper()) if len(text) == 1 or text.isupper() else None


def numbers_of(symbols: Iterable[str]) -> Integers:
    """Return atomic numbers (n_atoms,), 0 for sites and 1 for deuterium."""
    isotopes = {"D": 1, SITE: 0}
    return np.array([isotopes.get(s, atomic_numbers.get(s, 0)) for s in symbols], np.int64)


def _in_water(name: str, others: Collection[str]) -> Said:
    if _is_drude(name, others) or VIRTUAL.fullmatch(name):
        return Said((SITE,))
    if not re.fullmatch(r"[0-9]*[OHD](W|H|T)?[0-9]?[0-9]?", name) or name in ("HOH", "DOD"):
        return NOTHING
    first = name.lstrip("0123456789")[0]
    return Said(("H", "D")) if first == "H" else Said((first,))


def _alone(name: str, residue: str) -> Said:
    """Return what the one atom of a residue is: an ion, a noble gas, an atom of a metal."""
    by_name, by_residue = _monatomic(name), _monatomic(residue)
    if by_residue is not None and (by_name is None or by_name == by_residue):
        return Said((by_residue,))
    if by_residue is not None and by_name is not None:
        return Said((by_residue, by_name), sure=False, open=True)
    if by_name is not None and residue in ANY_ION:
        return Said((by_name,))
    molecule = _in_molecule(name.lstrip("0123456789'*")).symbols
    if by_name is not None:
        carbon = molecule[:1] == ("C",) and by_name in ("Ca", "Cd", "Ce")
        return Said((by_name, "C"), sure=False, open=True) if carbon else Said((by_name,))
    bead = not {"C", "N", "O", "H"} & set(molecule)  # such as PO4 of MARTINI
    return NOTHING if bead else Said(molecule, sure=False)


def _monatomic(name: str) -> str | None:
    text = re.sub(r"([0-9]*[+-]+|[+-][0-9]+)$", "", name.strip().upper())
    if text in ION_NAMES:
        return ION_NAMES[text]
    text = text.rstrip("0123456789")
    if text == "W":  # the water of MARTINI, far more often than tungsten
        return None
    return SYMBOLS.get(text)


def _in_polymer(name: str, residue: str) -> Said:
    if residue in SELENIUM and name.startswith("SE"):
        return Said(("Se",))
    if VIRTUAL.fullmatch(name) and name != "OM":
        return Said((SITE,))
    if re.match(r"M(N|C|TRP)", name):  # masses that carry rigid groups in GROMACS
        return Said((SITE,), sure=False)
    if name.startswith("SC") or not re.match(r"[HCNOSPD]", name):
        return NOTHING
    return Said(("H", "D")) if name[0] == "H" else Said((name[0],))


def _in_molecule(name: str) -> Said:
    text = name.upper()
    if VIRTUAL.fullmatch(text) and text != "OM":
        return Said((SITE,), sure=False)
    one, two = SYMBOLS.get(text[:1]), SYMBOLS.get(text[:2]) if len(text) > 1 else None
    if one is None:
        return NOTHING if two is None else Said((two,), sure=False)
    if two is not None and text[:2] in TWO_LETTERS:
        return Said((two,), sure=name[1].islower())
    if two is not None and (text[:2] in EITHER or name[1].islower()):
        return Said((one, two), sure=False)
    return Said(("H", "D") if one == "H" else (one,), sure=False)


def _is_drude(name: str, others: Collection[str]) -> bool:
    """Whether a name is another atom's with a D before it: CHARMM's Drude particles.

    Hydrogens have none: the DH of a tyrosine is deuterium, whatever is called H beside it.
    """
    return name[0] == "D" and name[1:] in others and not name[1:].startswith("H")
