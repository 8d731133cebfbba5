"""Topologies: elements, bonds, molecules, and molecules made whole across the box."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import mdtraj
import numpy as np
from ase.data import chemical_symbols
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

from deepcg.runtime.arrays import Doubles, Floats, Integers
from deepcg.trajectory.bond_guesses import guess_bonds

Tree = tuple[tuple[Integers, Integers], ...]
"""Atoms and the bonded atoms that they are placed next to, shell by shell from the first atoms."""


@dataclass(frozen=True, eq=False)
class MoleculeGraph:
    """Elements, bonds and molecules of a topology, each worked out once, when it is asked for.

    It is made where a topology is read and handed on; the topology must not change any more.

    Parameters
    ----------
    topology
        Names, elements and bonds of the atoms.
    through_box
        Atoms (n,) of molecules that reach themselves through the box, such as crystals and
        endless polymers: no image of theirs is whole.
    """

    topology: mdtraj.Topology
    through_box: Integers = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return int(self.topology.n_atoms)

    @cached_property
    def numbers(self) -> Integers:
        """Atomic numbers (n_atoms,), 0 for virtual sites."""
        elements = (atom.element for atom in self.topology.atoms)
        return np.array([(e.atomic_number or 0) if e else 0 for e in elements], np.int64)

    @cached_property
    def masses(self) -> Doubles:
        """Masses of the elements (n_atoms,), Da, 0 for virtual sites."""
        elements = (atom.element for atom in self.topology.atoms)
        return np.array([e.mass if e else 0.0 for e in elements], np.float64)

    @cached_property
    def bonds(self) -> Integers:
        """Bonded pairs (n_bonds, 2).

        A virtual site counts as bonded to the first real atom of its residue, so that it stays
        with its molecule.
        """
        pairs = [(a.index, b.index) for a, b in self.topology.bonds]
        for residue in self.topology.residues:
            atoms = [atom.index for atom in residue.atoms]
            real = [i for i in atoms if self.numbers[i] > 0]
            pairs += [(real[0], i) for i in atoms if self.numbers[i] == 0 and real]
        return np.array(pairs, np.int64).reshape(-1, 2)

    @cached_property
    def molecules(self) -> list[Integers]:
        """Atoms (n,) of each molecule, ascending; molecules are ordered by their first atoms.

        Molecules are the connected components of the graph of bonds.
        """
        return _components(self.n_atoms, self.bonds)

    @cached_property
    def molecule_index(self) -> Integers:
        """Number of every atom's molecule (n_atoms,), as in ``molecules``."""
        index = np.empty(self.n_atoms, dtype=np.int64)
        for number, atoms in enumerate(self.molecules):
            index[atoms] = number
        return index

    @cached_property
    def waters(self) -> list[Integers]:
        """Atoms (n,) of each molecule of two hydrogens and one oxygen, virtual sites included."""
        found = []
        for atoms in self.molecules:
            numbers = self.numbers[atoms]
            if 3 <= len(atoms) < 8 and sorted(numbers[numbers > 0].tolist()) == [1, 1, 8]:
                found.append(atoms)
        return found

    @cached_property
    def bonded_atoms(self) -> list[list[int]]:
        """Atoms, ascending, that each atom is bonded to."""
        neighbors: list[list[int]] = [[] for _ in range(self.n_atoms)]
        for i, j in self.bonds.tolist():
            neighbors[i].append(j)
            neighbors[j].append(i)
        return [sorted(others) for others in neighbors]

    @cached_property
    def spanning_tree(self) -> Tree:
        """The order in which `make_whole` places the atoms of all molecules."""
        return _shells(self.bonds, self.molecules, self.n_atoms)


def formula(symbols: Iterable[str]) -> str:
    """Return the formula of some elements, sorted by symbol, such as ``H2O``."""
    counts = sorted(Counter(symbols).items())
    return "".join(f"{symbol}{n if n > 1 else ''}" for symbol, n in counts)


def guessed_topology(
    numbers: Integers, positions: Floats, box: Floats | None, *, bonded: bool = True
) -> mdtraj.Topology:
    """Return a topology of atoms known by atomic number (n_atoms,) and place (n_atoms, 3), nm.

    Bonds are guessed from distances, or left out where they are not ``bonded``.

    Where the atoms of each molecule follow each other, every molecule is a residue (HOH for
    water); otherwise all atoms are one residue, for MDTraj takes the atoms of a residue to be
    consecutive when it writes files.
    """
    none = np.zeros((0, 2), np.int64)
    pairs = guess_bonds(numbers, positions, box) if bonded else none
    groups = _components(len(numbers), pairs)
    if any(group[-1] - group[0] >= len(group) for group in groups):
        groups = [np.arange(len(numbers))]
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for group in groups:
        water = sorted(numbers[group].tolist()) == [1, 1, 8]
        residue = topology.add_residue("HOH" if water else "MOL", chain)
        for name, number in zip(_names(numbers[group]), numbers[group], strict=True):
            element = mdtraj.element.Element.getBySymbol(chemical_symbols[number])
            topology.add_atom(name, element, residue)
    atoms = list(topology.atoms)
    for i, j in pairs:
        topology.add_bond(atoms[i], atoms[j])
    return topology


def with_isotopes(graph: MoleculeGraph, symbols: Sequence[str] | None) -> MoleculeGraph:
    """Return the graph with hydrogens that ``symbols`` (n_atoms,) call ``D`` as deuterium.

    Their chemistry is hydrogen's; mass, symbol and name are their own.
    """
    if symbols is None or "D" not in symbols:
        return graph
    topology = graph.topology.copy()
    for atom, symbol in zip(topology.atoms, symbols, strict=True):
        if symbol == "D" and atom.element.atomic_number == 1:
            atom.element = mdtraj.element.deuterium
            atom.name = "D" + atom.name.removeprefix("H")
    return MoleculeGraph(topology)


def make_whole(positions: Floats, box: Floats | None, tree: Tree) -> Floats:
    """Return positions with no molecule broken across the box.

    The first atom of each molecule stays where it is. An atom moves by whole box vectors only,
    and one that is in place keeps its numbers bit for bit. Bonds must be shorter than half of the
    smallest height of the box. Of a molecule that reaches itself through the box, atoms are next
    to those before them in the tree, and some bonds stay across the box.

    Parameters
    ----------
    positions
        (f, n_atoms, 3), nm.
    box
        (f, 3, 3), nm, or ``None`` for open boundaries (nothing to do).
    tree
        From `MoleculeGraph.spanning_tree`.
    """
    if box is None or not tree:
        return positions
    inverse = np.linalg.inv(np.asarray(box, np.float64))
    shifts = np.zeros(positions.shape)  # in box vectors
    for atoms, parents in tree:
        bond = positions[:, atoms].astype(np.float64) - positions[:, parents]  # (f, m, 3)
        shifts[:, atoms] = shifts[:, parents] + np.round(bond @ inverse)
    if not shifts.any():
        return positions
    return (positions - shifts @ np.asarray(box, np.float64)).astype(positions.dtype)


def _components(n_atoms: int, pairs: Integers) -> list[Integers]:
    _, labels = connected_components(_graph(n_atoms, pairs), directed=False)
    by_label = np.argsort(labels, kind="stable").astype(np.int64)
    groups = np.split(by_label, np.cumsum(np.bincount(labels))[:-1])
    return sorted(groups, key=lambda group: int(group[0]))


def _graph(n_atoms: int, pairs: Integers) -> csr_matrix:
    both = np.concatenate([pairs, pairs[:, ::-1]])
    ones = np.ones(len(both), np.int8)
    return coo_matrix((ones, (both[:, 0], both[:, 1])), (n_atoms, n_atoms)).tocsr()


def _shells(pairs: Integers, molecules: list[Integers], n_atoms: int) -> Tree:
    """Walk all molecules at once, breadth first, from the first atom of each."""
    both = np.concatenate([pairs, pairs[:, ::-1]])
    placed = np.zeros(n_atoms, bool)
    placed[[group[0] for group in molecules]] = True
    shells: list[tuple[Integers, Integers]] = []
    while True:
        edge = both[placed[both[:, 0]] & ~placed[both[:, 1]]]
        if not len(edge):
            return tuple(shells)
        atoms, first = np.unique(edge[:, 1], return_index=True)
        shells.append((atoms, edge[first, 0]))
        placed[atoms] = True


def _names(numbers: Integers) -> Sequence[str]:
    """Return names such as O, H1, H2: numbered where an element occurs more than once."""
    symbols = [chemical_symbols[number] for number in numbers]
    total, seen = Counter(symbols), Counter[str]()
    names = []
    for symbol in symbols:
        seen[symbol] += 1
        names.append(f"{symbol}{seen[symbol]}" if total[symbol] > 1 else symbol)
    return names
