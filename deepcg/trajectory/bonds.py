"""Whether a topology tells all bonds: completed where it lacks some, refused where that is unsure.

Completeness is judged residue by residue: an atom without a bond is completed from its distances,
and what the distances leave open is told, with the residue that it is in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import mdtraj
import numpy as np

from deepcg.geometry.box import minimum_image
from deepcg.runtime.arrays import Booleans, Floats, Integers
from deepcg.trajectory.bond_guesses import (
    DOUBTFUL,
    HALOGENS,
    NOBLE_GASES,
    Contacts,
    contacts,
    is_metal,
)
from deepcg.trajectory.topology import MoleculeGraph, make_whole

CHOICES = ("auto", "guess", "none")
"""Take what the topology tells and complete it where it evidently lacks bonds; add every pair at
bonding distance; add nothing."""

PROTEIN = ("CA", "C", "N", 0.28, 0.42)
NUCLEIC = ("P", "O3'", "P", 0.5, 0.75)
"""Of chains that are known by one atom a residue: its name, the two atoms that a link is between
when they are there, and from where to where the lone ones are apart, nm. C-alpha are 0.38 nm apart,
0.29 cis."""

NEAR_METAL = 0.35
"""nm; a lone atom of a residue that is nearer to a metal than this is held by it."""


@dataclass(frozen=True, slots=True, eq=False)
class Bonding:
    """A graph with its bonds, and what is unsure about them, a clause each."""

    graph: MoleculeGraph
    doubts: tuple[str, ...]


def with_bonds(
    graph: MoleculeGraph, positions: Floats, box: Floats | None, choice: str = "auto"
) -> MoleculeGraph:
    """Return the graph of `completed`, whatever is unsure about it."""
    return completed(graph, positions, box, choice).graph


def completed(
    graph: MoleculeGraph,
    positions: Floats,
    box: Floats | None,
    choice: str = "auto",
    *,
    named: bool = True,
) -> Bonding:
    """Return the graph with the bonds that it lacks, and what is unsure about them.

    Parameters
    ----------
    graph
        With the bonds that a topology tells; these are kept.
    positions
        (n_atoms, 3), nm, of one frame.
    box
        (3, 3), nm, or ``None``.
    choice
        One of ``CHOICES``; only ``auto`` finds anything unsure.
    named
        Whether residues have a meaning, as those of a topology file.
    """
    if choice == "none" or graph.n_atoms < 2:
        return Bonding(_through_box(graph, positions, box, None), ())
    open_atoms = _outside_whole_waters(graph)
    near = contacts(np.where(open_atoms, graph.numbers, 0), positions, box)
    alone = _alone(graph)
    extra = _not_told(near.bonds, graph)
    if choice == "auto":
        extra = extra[alone[extra].any(1)]
    else:
        extra = np.concatenate([extra, _chain_links(graph, positions, box)])
    whole = _through_box(_added(graph, extra), positions, box, near)
    if choice == "guess":
        return Bonding(whole, ())
    doubts = [*_contradictions(whole, near, alone), *_doubtful(whole, near, alone, positions, box)]
    if named:
        doubts += [*_left_alone(whole, positions, box), *_unlinked(whole, positions, box)]
    return Bonding(whole, tuple(doubts))


def _added(graph: MoleculeGraph, pairs: Integers) -> MoleculeGraph:
    if not len(pairs):
        return graph
    complete = graph.topology.copy()
    atoms = list(complete.atoms)
    for i, j in pairs.tolist():
        complete.add_bond(atoms[i], atoms[j])
    return MoleculeGraph(complete)


def _alone(graph: MoleculeGraph) -> Booleans:
    """Return which real atoms (n_atoms,) the topology tells no bond of."""
    alone: Booleans = graph.numbers > 0
    real = graph.bonds[(graph.numbers[graph.bonds] > 0).all(1)]
    alone[real.ravel()] = False
    return alone


def _outside_whole_waters(graph: MoleculeGraph) -> Booleans:
    """Return which atoms (n_atoms,) are not of waters, whose bonds are told already."""
    outside = np.ones(graph.n_atoms, bool)
    for atoms in graph.waters:
        outside[atoms] = False
    return outside


def _not_told(pairs: Integers, graph: MoleculeGraph) -> Integers:
    told = np.sort(graph.bonds, axis=1)
    size = graph.n_atoms
    new = ~np.isin(pairs[:, 0] * size + pairs[:, 1], told[:, 0] * size + told[:, 1])
    return pairs[new]


def _contradictions(graph: MoleculeGraph, near: Contacts, alone: Booleans) -> Iterator[str]:
    """Yield heavy atoms of two molecules at the distance of a bond that the topology lacks."""
    index = graph.molecule_index[near.bonds]
    heavy = (graph.numbers[near.bonds] > 1).all(1) & ~alone[near.bonds].any(1)
    apart = heavy & (near.ratios < DOUBTFUL[0]) & (index[:, 0] != index[:, 1])
    for (i, j), ratio in zip(near.bonds[apart].tolist(), near.ratios[apart], strict=True):
        yield (
            f"the topology has no bond between {_name(graph, i)} and {_name(graph, j)}, which are "
            f"as near as bonded atoms ({ratio:.2f} times the sum of their covalent radii)"
        )


def _doubtful(
    graph: MoleculeGraph, near: Contacts, alone: Booleans, positions: Floats, box: Floats | None
) -> Iterator[str]:
    """Yield pairs that may be bonded, where the topology tells nothing of one of the two."""
    pairs = near.doubtful[alone[near.doubtful].any(1)]
    for i, j in pairs.tolist():
        apart = float(np.linalg.norm(_step(positions, i, j, box)))
        yield (
            f"{_name(graph, i)} and {_name(graph, j)} are {apart:.3f} nm apart, more than a bond "
            "and less than a contact"
        )


def _left_alone(graph: MoleculeGraph, positions: Floats, box: Floats | None) -> Iterator[str]:
    """Yield atoms without a bond in residues of several, which no metal holds."""
    numbers = graph.numbers
    single = _alone(graph) & ~is_metal(numbers) & ~np.isin(numbers, (1, *NOBLE_GASES, *HALOGENS))
    metals = np.flatnonzero(is_metal(numbers))
    for residue in graph.topology.residues:
        atoms = [a.index for a in residue.atoms if numbers[a.index] > 0]
        lone = [i for i in atoms if single[i] and len(atoms) > 1]
        lone = [i for i in lone if not _is_near(positions, i, metals, box)]
        if lone:
            yield (
                f"{len(lone)} of the {len(atoms)} atoms of {residue} have no bond, as "
                f"{_name(graph, lone[0])}"
            )


def _unlinked(graph: MoleculeGraph, positions: Floats, box: Floats | None) -> Iterator[str]:
    """Yield a chain of residues that are known by one atom each and joined by nothing."""
    pairs = _chain_links(graph, positions, box)
    if len(pairs):
        i, j = pairs[0].tolist()
        apart = float(np.linalg.norm(_step(positions, i, j, box)))
        yield (
            f"{len(pairs)} pairs of neighbors in a chain, as {_name(graph, i)} and "
            f"{_name(graph, j)} {apart:.3f} nm apart, have no bond and none of the atoms between: "
            "a chain of such atoms alone"
        )


def _chain_links(graph: MoleculeGraph, positions: Floats, box: Floats | None) -> Integers:
    """Return the pairs (n, 2) of lone backbone atoms that follow each other in a chain."""
    found: list[tuple[int, int]] = []
    index = graph.molecule_index
    for chain in graph.topology.chains:
        for one, other in pairwise(chain.residues):
            link = _link(one, other)
            if link is None or index[link[0]] == index[link[1]]:
                continue
            i, j, low, high = link
            if low < np.linalg.norm(_step(positions, i, j, box)) < high:
                found.append((i, j))
    return np.array(found, np.int64).reshape(-1, 2)


def _link(
    one: mdtraj.core.topology.Residue, other: mdtraj.core.topology.Residue
) -> tuple[int, int, float, float] | None:
    """Return the lone backbone atoms of two residues of a polymer, and their range, nm."""
    if one.is_protein and other.is_protein:
        name, end, begin, low, high = PROTEIN
    elif one.is_nucleic and other.is_nucleic:
        name, end, begin, low, high = NUCLEIC
    else:
        return None
    first, second = ({a.name: a.index for a in residue.atoms} for residue in (one, other))
    if (end in first and begin in second) or name not in first or name not in second:
        return None
    return first[name], second[name], low, high


def _through_box(
    graph: MoleculeGraph, positions: Floats, box: Floats | None, near: Contacts | None
) -> MoleculeGraph:
    """Return the graph, with the atoms of molecules that reach themselves through the box."""
    if box is None or not len(graph.bonds):
        return graph
    whole = make_whole(positions[None], box[None], graph.spanning_tree)[0]
    step = whole[graph.bonds[:, 1]].astype(np.float64) - whole[graph.bonds[:, 0]]
    across = np.abs(step - minimum_image(step[None], box[None])[0]).max(1) > 1e-3
    ends = graph.bonds[across].ravel()
    if near is not None:
        ends = np.concatenate([ends, near.through_box])
    if not len(ends):
        return graph
    reach = np.isin(graph.molecule_index, graph.molecule_index[ends])
    return replace(graph, through_box=np.flatnonzero(reach))


def _is_near(positions: Floats, atom: int, others: Integers, box: Floats | None) -> bool:
    if not len(others):
        return False
    steps = positions[others].astype(np.float64) - positions[atom]
    if box is not None:
        steps = minimum_image(steps[None], box[None])[0]
    return bool((np.linalg.norm(steps, axis=-1) < NEAR_METAL).any())


def _step(positions: Floats, i: int, j: int, box: Floats | None) -> Floats:
    step = (positions[j].astype(np.float64) - positions[i])[None, None]
    nearest: Floats = (step if box is None else minimum_image(step, box[None]))[0, 0]
    return nearest


def _name(graph: MoleculeGraph, atom: int) -> str:
    return f"{graph.topology.atom(atom)} (atom {atom})"
