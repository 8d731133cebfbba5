"""Elements from masses, where hydrogens may be heavy: repartitioned masses, deuterium.

Repartitioning moves mass from an atom to the hydrogens bonded to it (Feenstra, Hess, Berendsen,
J. Comput. Chem. 20, 786 (1999)): an atom of m Da with hydrogens of m_H is the element of
m + sum (m_H - 1.008) Da. Deuterium is as heavy as some of these hydrogens, and leaves the mass of
its partner as it is. So the partner decides, and where both readings are possible, nothing does.
"""

from __future__ import annotations

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from deepcg.runtime.arrays import Booleans, Doubles, Integers
from deepcg.trajectory.element_names import SITE, SYMBOLS

HYDROGEN, DEUTERIUM = 1.008, 2.014
LIGHTEST, HEAVIEST_HYDROGEN = 0.9, 4.1
"""Da; what is lighter than the first has no element: Drude particles have 0.4 as a rule."""

STANDARD = {
    symbol: DEUTERIUM if symbol == "D" else float(atomic_masses[atomic_numbers[symbol]])
    for symbol in SYMBOLS.values()
}
UNITED = {f"CH{n}": STANDARD["C"] + n * HYDROGEN for n in (1, 2, 3, 4)}
"""Carbons that stand for their hydrogens, too."""

NAMED = 0.12
"""Da by which the mass of an element that is named may be off: force fields round."""


def rounding(mass: float) -> float:
    """Return by how much, Da, masses are off where they alone tell the element.

    14.007 is nitrogen and 14.027 a carbon with two hydrogens.
    """
    return 0.012 if mass < 5 or 8 < mass < 20 else 0.06 if mass < 60 else 0.15


def elements_of(mass: float) -> tuple[str, ...]:
    """Return the symbols of a mass, Da, the nearest first: united atoms are ``C``.

    What has no mass is a site; Drude particles, of less than 0.9 Da, are told by their names.
    """
    if mass == 0:
        return (SITE,)
    off = {s: abs(m - mass) for s, m in STANDARD.items() if abs(m - mass) < rounding(mass)}
    found = sorted(off, key=off.__getitem__)
    if not found and any(abs(m - mass) < 0.006 for m in UNITED.values()):
        return ("C",)
    return tuple(found)


def fits(symbol: str, mass: float, excess: float) -> bool:
    """Return whether an atom of an element can have a mass, Da.

    ``excess`` is what its hydrogens have more than 1.008 Da each.
    """
    if symbol == SITE:
        return mass < LIGHTEST
    if symbol == "H":
        return LIGHTEST < mass < HEAVIEST_HYDROGEN
    if symbol == "D":
        return DEUTERIUM - NAMED < mass < HEAVIEST_HYDROGEN
    own = (mass, mass + excess) if excess else (mass,)
    if any(abs(m - STANDARD[symbol]) < NAMED for m in own):
        return True
    return symbol == "C" and any(abs(m - mass) < 0.03 for m in UNITED.values())


def excess_of(masses: Doubles, hydrogens: Booleans, bonds: Integers) -> Doubles:
    """Return what the hydrogens of every atom have more than 1.008 Da each, (n_atoms,)."""
    excess = np.zeros(len(masses))
    for here, there in (bonds.T, bonds.T[::-1]):
        moved = hydrogens[there] & ~hydrogens[here]
        np.add.at(excess, here[moved], masses[there[moved]] - HYDROGEN)
    return excess


def from_masses(masses: Doubles, nearest: Integers) -> tuple[list[str], int | None]:
    """Return the symbols of atoms of which masses (n_atoms,), Da, alone are known.

    Parameters
    ----------
    nearest
        (n_atoms,), the atom that each would be bonded to if it was a hydrogen; itself for none.

    Returns
    -------
    symbols, unknown
        ``unknown`` is the first atom that has no element, or could have two; ``None``: there is
        none.
    """
    kinds = np.unique(masses.round(4))
    light = [m for m in kinds if LIGHTEST < m < HEAVIEST_HYDROGEN]
    plain = [m for m in light if abs(m - HYDROGEN) < rounding(m)]
    readings = []
    for heavy in (None, *(m for m in light if m not in plain)):
        chosen = plain if heavy is None else [*plain, heavy]
        readings.append(_reading(masses, np.isin(masses.round(4), chosen), nearest, moved=True))
        if heavy is not None and abs(heavy - DEUTERIUM) < 0.006:
            mixed = _reading(masses, np.isin(masses.round(4), chosen), nearest, moved=False)
            readings.append(mixed)
    best = [reading for reading in readings if reading[1] is None]
    if not best:
        return max(readings, key=lambda reading: reading[1] or 0)
    for other in best[1:]:
        if other[0] != best[0][0]:
            differ = [a != b for a, b in zip(other[0], best[0][0], strict=True)]
            return best[0][0], differ.index(True)
    return best[0]


def _reading(
    masses: Doubles, hydrogens: Booleans, nearest: Integers, *, moved: bool
) -> tuple[list[str], int | None]:
    """Return the symbols where these atoms are hydrogens, their mass ``moved`` from others or not.

    And the first atom that this does not explain.
    """
    here = np.flatnonzero(hydrogens & (nearest != np.arange(len(masses))))
    bonds = np.stack([here, nearest[here]], axis=1)
    excess = excess_of(masses, hydrogens, bonds) if moved else np.zeros(len(masses))
    known: dict[tuple[float, float, bool], tuple[str, ...]] = {}
    symbols, unknown = [], None
    for atom, (mass, more, hydrogen) in enumerate(zip(masses, excess, hydrogens, strict=True)):
        key = (round(float(mass), 4), round(float(more), 4), bool(hydrogen))
        if key not in known:
            known[key] = _kinds(*key, moved=moved)
        found = known[key]
        free = hydrogen and abs(mass - HYDROGEN) > 0.05 and nearest[atom] == atom
        if unknown is None and (len(found) != 1 or free):
            unknown = atom
        symbols.append(found[0] if found else SITE)
    return symbols, unknown


def _kinds(mass: float, excess: float, hydrogen: bool, *, moved: bool) -> tuple[str, ...]:
    if hydrogen:
        return ("H",) if moved or abs(mass - HYDROGEN) < 0.05 else ("D",)
    return elements_of(mass + excess)
