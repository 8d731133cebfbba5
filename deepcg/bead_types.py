"""Atoms that chemistry cannot tell apart: the types of beads, and what makes a center chiral."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import mdtraj
import numpy as np

from deepcg.topology import Integers, atomic_numbers, bonds

SHELLS = 2
"""Bonds within which the surroundings of two atoms of one type are alike."""


def equivalent_atoms(topology: mdtraj.Topology, shells: int | None = None) -> Integers:
    """Return the class (n_atoms,) of every atom: those of one class have equal surroundings.

    Classes start as elements; in each round an atom is told apart by the classes of the atoms
    bonded to it (Weisfeiler and Leman, Nauchno-Tekhn. Inform. 9, 12 (1968)). ``shells`` rounds
    see as many bonds far; ``None`` goes on until nothing is split any more, which for molecules
    is equivalence by symmetry of the graph. Numbers do not depend on the order of atoms.
    """
    neighbors = bonded_atoms(topology)
    classes, found = _ranked([(int(z),) for z in atomic_numbers(topology)])
    rounds = topology.n_atoms if shells is None else shells
    for _ in range(rounds):
        around = [tuple(sorted(classes[others].tolist())) for others in neighbors]
        before = found
        classes, found = _ranked(list(zip(classes.tolist(), around, strict=True)))
        if found == before:
            break
    return classes


def type_names(topology: mdtraj.Topology, atoms: Sequence[int] | Integers) -> list[str]:
    """Return the types of some atoms: names of equal ones are equal.

    A name is the element, such as ``O``, where all of those atoms are alike that have it. Else
    the atoms bonded to it are named, too, as in ``C(CH3)``, and those that differ beyond are
    numbered, as in ``C1(CH3)``. Atoms of one type have the same surroundings within ``SHELLS``
    bonds: the hydrogens of a methyl group share one.
    """
    classes, numbers = equivalent_atoms(topology, SHELLS), atomic_numbers(topology)
    symbols = [str(atom.element.symbol) for atom in topology.atoms]
    neighbors = bonded_atoms(topology)
    of_element, of_formula = defaultdict(set), defaultdict(set)
    formulas = {}
    for i in atoms:
        around = Counter(symbols[j] for j in neighbors[i] if numbers[j] > 0)
        formula = "".join(f"{s}{n if n > 1 else ''}" for s, n in sorted(around.items()))
        formulas[i] = symbols[i], formula
        of_element[symbols[i]].add(classes[i])
        of_formula[formulas[i]].add(classes[i])

    def name(i: int) -> str:
        symbol, formula = formulas[i]
        if len(of_element[symbol]) == 1:
            return symbol
        alike = sorted(of_formula[formulas[i]])
        number = "" if len(alike) == 1 else str(alike.index(classes[i]) + 1)
        return f"{symbol}{number}({formula})"

    return [name(int(i)) for i in atoms]


def stereocenters(topology: mdtraj.Topology) -> list[int]:
    """Return the carbons with four neighbors, no two of which are equivalent, ascending."""
    numbers, classes = atomic_numbers(topology), equivalent_atoms(topology)
    neighbors = bonded_atoms(topology)
    return [
        i
        for i in np.flatnonzero(numbers == 6).tolist()
        if len(neighbors[i]) == 4 and len(set(classes[neighbors[i]].tolist())) == 4
    ]


def bonded_atoms(topology: mdtraj.Topology) -> list[list[int]]:
    """Return the atoms, ascending, that each atom is bonded to."""
    neighbors: list[list[int]] = [[] for _ in range(topology.n_atoms)]
    for i, j in bonds(topology).tolist():
        neighbors[i].append(j)
        neighbors[j].append(i)
    return [sorted(others) for others in neighbors]


def _ranked(keys: list[tuple[object, ...]]) -> tuple[Integers, int]:
    """Return the rank of every key among the different ones, and how many these are."""
    rank = {key: number for number, key in enumerate(sorted(set(keys)))}
    return np.array([rank[key] for key in keys], np.int64), len(rank)
