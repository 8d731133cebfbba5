"""Elements of atoms from all that files say: symbols, masses, names; one resolver for all formats.

A symbol that a file states counts, a mass tells among what a name may mean, and a name alone where
there is nothing else. Sources that contradict one another are refused by name, and so is what
nothing tells. Hydrogens may have taken mass from their partners.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepcg.runtime.arrays import Doubles, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.element_masses import (
    HEAVIEST_HYDROGEN,
    LIGHTEST,
    elements_of,
    excess_of,
    fits,
)
from deepcg.trajectory.element_names import NOTHING, SITE, SYMBOLS, Said, named

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class AtomRecords:
    """What a file says of its atoms.

    Parameters
    ----------
    source
        The file, for messages.
    names, residues
        Names of the atoms and of their residues, as the file has them.
    residue_index
        (n_atoms,), the number of every atom's residue.
    stated
        Symbols of elements, `SITE` for virtual sites, ``None`` where the file states none.
    masses
        (n_atoms,), Da, or ``None``.
    bonds
        (n_bonds, 2), which hydrogens are on which atoms.
    own_masses
        Whether the masses are the file's own. Those of a System decide what names leave open; its
        order of atoms is checked once all bonds are known.
    """

    source: str
    names: Sequence[str]
    residues: Sequence[str]
    residue_index: Integers
    stated: Sequence[str | None]
    masses: Doubles | None
    bonds: Integers
    own_masses: bool = True

    def text(self, atom: int) -> str:
        """Return an atom as messages call it."""
        return f"atom {atom} ({self.names[atom]} of {self.residues[atom]})"


def resolved(atoms: AtomRecords) -> list[str]:
    """Return the symbol of every atom, `SITE` for virtual sites and Drude particles.

    Raises
    ------
    InputError
        Two sources contradict each other, or none tells the element of an atom.
    """
    said = _said_by_names(atoms)
    excess = _excess(atoms, said)
    known: dict[tuple[object, ...], str | None] = {}
    symbols: list[str] = []
    unsure: Counter[tuple[str, str, tuple[str, ...]]] = Counter()
    odd: list[int] = []
    for atom, (words, stated) in enumerate(zip(said, atoms.stated, strict=True)):
        mass = None if atoms.masses is None else round(float(atoms.masses[atom]), 4)
        key = (words, stated, mass, round(float(excess[atom]), 4))
        if key not in known:
            known[key] = _decided(atoms, atom, *key, odd)
        if stated is None and mass is None and not words.sure and len(_elements(words)) > 1:
            unsure[atoms.residues[atom], atoms.names[atom], words.symbols] += 1
        symbol = known[key]
        if symbol is None:
            raise _unknown(atoms, atom, words, mass)
        symbols.append(symbol)
    _warn(atoms.source, unsure)
    if odd and atoms.masses is not None:
        _log.warning(
            "%s: %s is %s, but its mass of %g Da is that of no element (%d kinds of atoms are so)",
            atoms.source,
            atoms.text(odd[0]),
            symbols[odd[0]],
            atoms.masses[odd[0]],
            len(odd),
        )
    return symbols


def _said_by_names(atoms: AtomRecords) -> list[Said]:
    """Return what the names of all atoms say, residue by residue."""
    said: list[Said] = [NOTHING] * len(atoms.names)
    cache: dict[tuple[str, tuple[str, ...]], list[Said]] = {}
    order = np.argsort(atoms.residue_index, kind="stable")
    ends = np.flatnonzero(np.diff(atoms.residue_index[order])) + 1
    for members in np.split(order, ends):
        names = tuple(atoms.names[i] for i in members)
        key = (atoms.residues[members[0]], names)
        if key not in cache:
            alike = len(set(names)) == 1  # atoms of one name are no molecule
            others = [() if alike else names[:k] + names[k + 1 :] for k in range(len(names))]
            cache[key] = [named(n, key[0], o) for n, o in zip(names, others, strict=True)]
        for i, words in zip(members, cache[key], strict=True):
            said[i] = words
    return said


def _excess(atoms: AtomRecords, said: list[Said]) -> Doubles:
    """Return what the hydrogens of every atom have too much, less what its Drude particle has."""
    if atoms.masses is None:
        return np.zeros(len(atoms.names))
    both = zip(atoms.stated, said, strict=True)
    likely = [(words.symbols or ("H",))[0] if stated is None else stated for stated, words in both]
    hydrogens = np.isin(likely, ["H"]) & (atoms.masses > LIGHTEST)
    hydrogens &= atoms.masses < HEAVIEST_HYDROGEN
    excess = excess_of(atoms.masses, hydrogens, atoms.bonds)
    drude = (atoms.masses > 0) & (atoms.masses < LIGHTEST)
    for here, there in (atoms.bonds.T, atoms.bonds.T[::-1]):
        np.add.at(excess, here[drude[there]], atoms.masses[there[drude[there]]])
    return excess


def _decided(
    atoms: AtomRecords,
    atom: int,
    words: Said,
    stated: str | None,
    mass: float | None,
    more: float,
    odd: list[int],
) -> str | None:
    """Return the symbol of an atom from all that is said of it, ``None`` where nothing tells.

    An atom whose mass is no element's is added to ``odd``.
    """
    if stated is not None:
        _check_name(atoms, atom, words, stated)
        if mass is not None:
            _check_mass(atoms, atom, stated, mass, more, "the file states", odd)
        return "D" if stated == "H" and _is_deuterium(mass, words) else stated
    if mass is None:
        return words.symbols[0] if words.symbols and not words.open else None
    likely = [s for s in words.symbols if fits(s, mass, more)]
    if likely:
        return "D" if likely[0] == "H" and _is_deuterium(mass, words) else likely[0]
    by_mass = elements_of(mass + more) or elements_of(mass)
    if words.symbols and (words.sure or (not by_mass and not words.open)):
        _check_mass(atoms, atom, words.symbols[0], mass, more, "its name says", odd)
        return words.symbols[0]
    return by_mass[0] if len(by_mass) == 1 else None


def _is_deuterium(mass: float | None, words: Said) -> bool:
    """Whether a hydrogen is said to be deuterium by its mass; its name must allow that."""
    return mass is not None and abs(mass - 2.014) < 0.0015 and "D" in words.symbols


def _check_name(atoms: AtomRecords, atom: int, words: Said, stated: str) -> None:
    same = {"H", "D"}  # files with one of them are told apart by masses
    if not words.sure or stated in words.symbols or {stated, *words.symbols} <= same:
        return
    raise InputError(
        f"{atoms.source}: {atoms.text(atom)} is {_called(stated)} by the element that the file "
        f"states, but {_called(words.symbols[0])} by its name: mend one of them, or give another "
        "--topology"
    )


def _check_mass(
    atoms: AtomRecords, atom: int, symbol: str, mass: float, more: float, how: str, odd: list[int]
) -> None:
    """Refuse a mass that is another element's; note one of none, as of masses scaled by a user."""
    if not atoms.own_masses or fits(symbol, mass, more):
        return
    other = [s for s in (*elements_of(mass), *elements_of(mass + more)) if s != symbol]
    if not other and symbol not in ("H", "D", SITE):
        odd.append(atom)
        return
    likely = f", that of {_called(other[0])}" if other else ""
    raise InputError(
        f"{atoms.source}: {atoms.text(atom)} is {_called(symbol)} ({how} so), but "
        f"its mass is {mass:g} Da{likely}: mend one of them, or give another --topology"
    )


def _unknown(atoms: AtomRecords, atom: int, words: Said, mass: float | None) -> InputError:
    choices = _elements(words)
    told = (
        f"may be {' or '.join(map(_called, choices))}"
        if choices
        else "has no element that a name tells"
    )
    weight = "" if mass is None else f", and its mass of {mass:g} Da is that of no one element"
    return InputError(
        f"{atoms.source}: {atoms.text(atom)} {told}{weight}: give --topology FILE with elements or "
        "masses (a .pdb with columns 77-78, a .psf, a .prmtop)"
    )


def _elements(words: Said) -> tuple[str, ...]:
    """Return what words say, with hydrogen and deuterium as one."""
    return tuple(s for s in words.symbols if s != "D" or "H" not in words.symbols)


def _called(symbol: str) -> str:
    return "a virtual site" if symbol == SITE else symbol


def _warn(source: str, unsure: Counter[tuple[str, str, tuple[str, ...]]]) -> None:
    if not unsure:
        return
    (residue, name, symbols), n = unsure.most_common(1)[0]
    more = f" ({len(unsure) - 1} more such names)" if len(unsure) > 1 else ""
    _log.warning(
        "%s: %s of %s (%d atoms) is read as %s by its name, it could be %s%s: "
        "a topology with elements or masses would tell",
        source,
        name,
        residue,
        n,
        symbols[0],
        " or ".join(symbols[1:]),
        more,
    )


def symbol_of_element(text: str) -> str | None:
    """Return the symbol in a file's column of elements, ``None`` where it is empty or none.

    ``VS``, ``EP`` and ``X`` are sites without an element.
    """
    upper = text.strip().upper()
    if upper in ("VS", "EP", "LP", "X", "XX"):
        return SITE
    return SYMBOLS.get(upper)
