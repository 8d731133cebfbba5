"""Atoms that chemistry cannot tell apart: the types of beads, and what makes a center chiral."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from deepcg.runtime.arrays import Integers
from deepcg.trajectory.topology import MoleculeGraph, formula


def equivalent_atoms(graph: MoleculeGraph) -> Integers:
    """Return the class (n_atoms,) of every atom: those of one class have equal environments.

    Classes start as elements; in each round an atom is told apart by the classes of the atoms
    bonded to it, until nothing is split any more (Weisfeiler and Leman, Nauchno-Tekhn. Inform. 9,
    12 (1968)). For molecules that is equivalence by symmetry of the graph. Numbers do not depend
    on the order of atoms.
    """
    classes, found = _ranked([(int(z),) for z in graph.numbers])
    while True:
        around = [tuple(sorted(classes[others].tolist())) for others in graph.bonded_atoms]
        before = found
        classes, found = _ranked(list(zip(classes.tolist(), around, strict=True)))
        if found == before:
            return classes


def type_names(graph: MoleculeGraph, atoms: Sequence[int] | Integers) -> list[str]:
    """Return the types of some atoms (n,) by element and bonded atoms, such as ``C(CH3)``.

    It is the element alone, such as ``O``, where those that have it are all bonded alike. What is
    farther away a network sees by itself: with one more shell, alanine dipeptide has 13 types in
    place of 8, and a step takes twice the time.
    """
    elements = [str(graph.topology.atom(int(i)).element.symbol) for i in atoms]
    around = []
    for i in atoms:
        real = [j for j in graph.bonded_atoms[i] if graph.numbers[j] > 0]
        around.append(formula(graph.topology.atom(j).element.symbol for j in real))
    kinds = Counter(element for element, _ in set(zip(elements, around, strict=True)))
    return [
        element if kinds[element] == 1 else f"{element}({others})"
        for element, others in zip(elements, around, strict=True)
    ]


def stereocenters(graph: MoleculeGraph) -> list[int]:
    """Return the carbons with four neighbors, no two of which are equivalent, ascending."""
    classes, neighbors = equivalent_atoms(graph), graph.bonded_atoms
    return [
        i
        for i in np.flatnonzero(graph.numbers == 6).tolist()
        if len(neighbors[i]) == 4 and len(set(classes[neighbors[i]].tolist())) == 4
    ]


def _ranked(keys: list[tuple[object, ...]]) -> tuple[Integers, int]:
    """Return the rank of every key among the different ones, and how many these are."""
    rank = {key: number for number, key in enumerate(sorted(set(keys)))}
    return np.array([rank[key] for key in keys], np.int64), len(rank)
