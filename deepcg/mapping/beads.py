"""Mappings: the positions of CG beads as functions of the positions of the atoms."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mdtraj
import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from deepcg.mapping.bead_types import type_names
from deepcg.runtime.arrays import Booleans, Integers
from deepcg.runtime.errors import InputError, nearest
from deepcg.trajectory.topology import MoleculeGraph, formula

MOST_SHOWN = 5
"""Kinds of molecules in a message."""

AUTO = "auto"
"""The map of data where none is said; see `default_map`."""


class Mapping(Protocol):
    """Bead positions as a differentiable function of atom positions."""

    @property
    def types(self) -> Tensor:
        """(n_beads,), integers: indices into ``type_names``."""
        ...

    @property
    def type_names(self) -> tuple[str, ...]:
        """Names of the types, such as ``("O",)``."""
        ...

    @property
    def masses(self) -> Tensor:
        """(n_beads,), Da: the masses that beads carry in dynamics; statics do not see them."""
        ...

    def __call__(self, positions: Tensor) -> Tensor:
        """Map (..., n_atoms, 3) onto (..., n_beads, 3); nm, molecules whole."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LinearMapping:
    """R = M r with constant weights.

    Parameters
    ----------
    weights
        M, sparse (n_beads, n_atoms); every row sums to one.
    types, masses, type_names
        As in `Mapping`.
    molecules
        (n_atoms,), the number of the molecule of every atom; ``None``: all are one molecule.
    atom_names
        (n_atoms,), kinds of atoms, such as ``"HOH O"``: molecules with the same sequence of
        kinds are equivalent. ``None``: all atoms differ.
    virtual
        (n_atoms,), true for virtual sites, which are placed by other atoms and have no mass;
        ``None``: there are none.
    """

    weights: csr_array
    types: Tensor
    masses: Tensor
    type_names: tuple[str, ...]
    molecules: Integers | None = None
    atom_names: tuple[str, ...] | None = None
    virtual: Booleans | None = None

    def __post_init__(self) -> None:
        n_beads, n_atoms = self.weights.shape
        sums = self.weights.sum(axis=1)
        wrong = np.flatnonzero(~(np.abs(sums - 1) < 1e-6))
        if len(wrong):
            raise InputError(
                f"the weights of bead {wrong[0]} sum to {sums[wrong[0]]:g}: "
                "every row of a linear mapping must sum to 1"
            )
        lengths = {
            "types": (self.types, n_beads),
            "masses": (self.masses, n_beads),
            "molecules": (self.molecules, n_atoms),
            "atom_names": (self.atom_names, n_atoms),
            "virtual": (self.virtual, n_atoms),
        }
        for name, (value, length) in lengths.items():
            if value is not None and len(value) != length:
                raise ValueError(f"LinearMapping.{name} has length {len(value)}, not {length}")

    def __call__(self, positions: Tensor) -> Tensor:
        """Map (..., n_atoms, 3) onto (..., n_beads, 3)."""
        return weighted_sums(self.weights, positions)


def build_mapping(name: str | Mapping, topology: mdtraj.Topology) -> Mapping:
    """Return the mapping called ``name``, or ``name`` itself where it is a mapping already.

    Parameters
    ----------
    name
        A key of `MAPPINGS`, or ``select:QUERY`` with an MDTraj selection, quoted or not.

    Raises
    ------
    InputError
        Unknown name, wrong or empty selection, mapping of another number of atoms.
    """
    if not isinstance(name, str):
        return _checked(name, topology)
    kind, _, query = name.partition(":")
    if kind == "select" and query:
        return selection(topology, _unquoted(query))
    if name not in MAPPINGS:
        choices = [*sorted(MAPPINGS), "select:QUERY"]
        raise InputError(
            f"unknown mapping {name!r}{nearest(name, choices)} (choices: {', '.join(choices)})"
        )
    return MAPPINGS[name](topology)


def check_images(mapping: Mapping, graph: MoleculeGraph, name: str) -> None:
    """Refuse beads on several atoms of a molecule that reaches itself through the box.

    Such a molecule, a crystal or an endless polymer, is whole in no image, and the sums of
    positions depend on which images are taken.

    Raises
    ------
    InputError
        Names the molecule.
    """
    if not isinstance(mapping, LinearMapping) or not len(graph.through_box):
        return
    endless = np.isin(mapping.weights.indices, graph.through_box)
    several = np.diff(mapping.weights.indptr) > 1
    rows = np.repeat(np.arange(len(several)), np.diff(mapping.weights.indptr))
    bad = np.flatnonzero(endless & several[rows])
    if len(bad):
        atom = int(mapping.weights.indices[bad[0]])
        n = int((graph.molecule_index == graph.molecule_index[atom]).sum())
        raise InputError(
            f"{name}: a bead is on several atoms of the molecule of {n} atoms with "
            f"{graph.topology.atom(atom)}, which is bonded to itself through the box and has no "
            "center: take a map of single atoms, such as heavy, solute or select:QUERY"
        )


def default_map(graph: MoleculeGraph, place: object) -> str:
    """Return the map of data where none is said: oxygens, of water and nothing else.

    Raises
    ------
    InputError
        There is something else; it is told, with what each map would make of it.
    """
    if graph.molecules and len(graph.waters) == len(graph.molecules):
        return "oxygens"
    counts = []
    for name in MAPPINGS:
        try:
            mapping = MAPPINGS[name](graph.topology)
            check_images(mapping, graph, name)
        except InputError:
            continue
        counts.append(f"{name} ({len(mapping.types)} beads)")
    raise InputError(
        f"{place} has {_contents(graph)}: say with --map what becomes of it: "
        f"{', '.join(counts)}, select:QUERY, or collective variables"
    )


def _contents(graph: MoleculeGraph) -> str:
    """Return how many molecules there are of the most frequent formulas."""
    atoms = list(graph.topology.atoms)
    kinds = Counter(
        formula(atoms[i].element.symbol for i in molecule if graph.numbers[i] > 0)
        for molecule in graph.molecules
    )
    shown = [f"{n} {kind}" for kind, n in kinds.most_common(MOST_SHOWN)]
    if len(kinds) > MOST_SHOWN:
        shown.append(f"{len(kinds) - MOST_SHOWN} other kinds")
    return " + ".join(shown)


def oxygens(topology: mdtraj.Topology) -> LinearMapping:
    """Return one bead on every oxygen: DeePCG water."""
    graph = MoleculeGraph(topology)
    return _on_atoms(graph, graph.numbers == 8, "no oxygen in the topology")


def heavy(topology: mdtraj.Topology) -> LinearMapping:
    """Return one bead on every atom that is neither hydrogen nor a virtual site."""
    graph = MoleculeGraph(topology)
    return _on_atoms(graph, graph.numbers > 1, "no heavy atom in the topology")


def solute(topology: mdtraj.Topology) -> LinearMapping:
    """Return one bead on every atom that is not of water or of a monatomic ion."""
    graph = MoleculeGraph(topology)
    index, real = graph.molecule_index, graph.numbers > 0
    solvent = np.bincount(index[real], minlength=index.max() + 1) == 1
    solvent[[index[water[0]] for water in graph.waters]] = True
    return _on_atoms(graph, real & ~solvent[index], "all is water and monatomic ions")


def backbone_cb(topology: mdtraj.Topology) -> LinearMapping:
    """Return one bead on every atom of a peptide's backbone and on the C-beta next to it.

    These are N, CA, CB and C of residues, and the C and N that are bonded to them in the
    residues, or caps, before and after. C-beta shows the handedness of its residue.
    """
    graph = MoleculeGraph(topology)
    chosen = np.zeros(topology.n_atoms, dtype=bool)
    for residue in topology.residues:
        own = {atom.name: atom.index for atom in residue.atoms}
        if {"N", "CA", "C"} <= own.keys():
            chosen[[own[name] for name in ("N", "CA", "CB", "C") if name in own]] = True
    links = {("N", "C"), ("C", "N")}
    for i, j in graph.bonds.tolist():
        a, b = topology.atom(i), topology.atom(j)
        if a.residue != b.residue and (a.name, b.name) in links and chosen[[i, j]].any():
            chosen[[i, j]] = True
    return _on_atoms(graph, chosen, "no residue has N, CA and C")


def selection(topology: mdtraj.Topology, query: str) -> LinearMapping:
    """Return one bead on every atom that an MDTraj selection finds."""
    try:
        atoms = topology.select(query).astype(np.int64)  # MDTraj's empty selection is of floats
    except (ValueError, TypeError, SyntaxError) as error:
        raise InputError(
            f"cannot read the selection {query!r}: {_reason(error)}; write it "
            "in MDTraj's language, such as 'resname ALA and element C'"
        ) from error
    chosen = np.zeros(topology.n_atoms, dtype=bool)
    chosen[atoms] = True
    return _on_atoms(MoleculeGraph(topology), chosen, f"nothing matches the selection {query!r}")


def centers_of_mass(topology: mdtraj.Topology) -> LinearMapping:
    """Return one bead per molecule, on its center of mass."""
    graph = MoleculeGraph(topology)
    masses, index = graph.masses, graph.molecule_index
    total = np.bincount(index, masses)
    weights = csr_array((masses / total[index], (index, np.arange(len(index)))))
    weights.eliminate_zeros()
    return _linear(weights, graph, _molecule_names(graph))


def linear(
    weights: ArrayLike | csr_array, topology: mdtraj.Topology, names: Sequence[str]
) -> LinearMapping:
    """Return the mapping R = M r onto beads with the type ``names`` (n_beads,).

    Masses: every atom's goes to the bead that is nearest to it by bonds, so that a molecule
    with one bead puts all its mass there, and hydrogens ride on their heavy atoms.

    Parameters
    ----------
    weights
        M (n_beads, n_atoms), dense or sparse; every row sums to one.

    Raises
    ------
    InputError
        The weights have another shape, or a row another sum.
    """
    weights = csr_array(weights, dtype=np.float64)
    if weights.shape != (len(names), topology.n_atoms):
        raise InputError(
            f"the weights of the mapping have shape {weights.shape}, "
            f"not (beads, atoms) = {(len(names), topology.n_atoms)}"
        )
    return _linear(weights, MoleculeGraph(topology), names)


def _linear(weights: csr_array, graph: MoleculeGraph, names: Sequence[str]) -> LinearMapping:
    type_names, types = np.unique(np.asarray(names), return_inverse=True)
    owner = _owners(weights, graph)
    owned = owner >= 0
    masses = np.bincount(owner[owned], graph.masses[owned], minlength=len(names))
    return LinearMapping(
        weights,
        torch.from_numpy(types.astype(np.int64)),
        torch.from_numpy(masses),
        tuple(str(name) for name in type_names),
        graph.molecule_index,
        tuple(f"{atom.residue.name} {atom.element.symbol}" for atom in graph.topology.atoms),
        graph.numbers == 0,
    )


MAPPINGS: dict[str, Callable[[mdtraj.Topology], Mapping]] = {
    "backbone-cb": backbone_cb,
    "com": centers_of_mass,
    "heavy": heavy,
    "oxygens": oxygens,
    "solute": solute,
}


def bead_topology(mapping: LinearMapping, graph: MoleculeGraph) -> mdtraj.Topology:
    """Return a topology of the beads, fit for a PDB file.

    Beads keep the chains and residues of their atoms, with one residue or more per molecule;
    molecules of several residues are chains of their own, so that identical ones differ. A
    bead on one atom keeps its name and element; any other is named by its type and shown as its
    heaviest atom. Two beads are bonded where atoms that they own (nearest by bonds) are.
    """
    beads = mdtraj.Topology()
    chain = residue = previous = None
    index, place = graph.molecule_index, None
    long = _of_several_residues(graph)
    for bead in range(mapping.weights.shape[0]):
        atom, alone = _representative(mapping.weights, bead, graph.topology)
        # files list atoms residue by residue: a new one on every change keeps the beads' order
        molecule = int(index[atom.index])
        apart = (
            place is not None and molecule != place[1] and (place[1] in long or molecule in long)
        )
        if previous is None or atom.residue.chain != previous.chain or apart:
            chain = beads.add_chain()
        if place != (atom.residue.index, molecule):
            place, previous = (atom.residue.index, molecule), atom.residue
            residue = beads.add_residue(previous.name, chain, previous.resSeq, previous.segment_id)
        name = atom.name if alone else mapping.type_names[int(mapping.types[bead])][:4]
        beads.add_atom(name, atom.element, residue)
    sites = list(beads.atoms)
    for i, j in sorted(_bead_bonds(_owners(mapping.weights, graph), graph)):
        beads.add_bond(sites[i], sites[j])
    return beads


def _of_several_residues(graph: MoleculeGraph) -> set[int]:
    """Return the numbers of molecules of more than one residue."""
    residues = [atom.residue.index for atom in graph.topology.atoms]
    pairs = set(zip(graph.molecule_index.tolist(), residues, strict=True))
    counts = np.bincount([molecule for molecule, _ in pairs])
    return set(np.flatnonzero(counts > 1).tolist())


def weighted_sums(weights: csr_array, values: Tensor) -> Tensor:
    """Return W v (..., n_rows, 3) of sparse W (n_rows, n) and v (..., n, 3).

    Differentiable in ``values``; time and memory grow with the non-zero weights.
    """
    columns = torch.from_numpy(weights.indices).to(values.device)
    if np.array_equal(weights.indptr, np.arange(len(weights.indptr))) and (weights.data == 1).all():
        return values[..., columns, :]
    rows = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    factors = torch.from_numpy(weights.data).to(values)[:, None]
    sums = values.new_zeros(*values.shape[:-2], weights.shape[0], 3)
    return sums.index_add(
        -2, torch.from_numpy(rows).to(values.device), values[..., columns, :] * factors
    )


def _checked(mapping: Mapping, topology: mdtraj.Topology) -> Mapping:
    if isinstance(mapping, LinearMapping) and mapping.weights.shape[1] != topology.n_atoms:
        raise InputError(
            f"the mapping is of {mapping.weights.shape[1]} atoms, "
            f"but the topology has {topology.n_atoms}"
        )
    return mapping


def _unquoted(query: str) -> str:
    query = query.strip()
    quoted = len(query) > 1 and query[0] == query[-1] and query[0] in "\"'"
    return query[1:-1] if quoted else query


def _reason(error: Exception) -> str:
    """Return where the parser stopped: it also lists its grammar, some thousand letters."""
    stop = re.search(r"found (.*?)\s+\(at char (\d+)\)", str(error))
    if stop:
        return f"it stops making sense at {stop[1]} (character {int(stop[2]) + 1})"
    return (str(error).splitlines() or ["it is empty"])[0][-80:]


def _on_atoms(graph: MoleculeGraph, chosen: Booleans, otherwise: str) -> LinearMapping:
    atoms = np.flatnonzero(chosen)
    if len(atoms) == 0:
        raise InputError(
            f"{otherwise} ({graph.n_atoms} atoms): the mapping would have no beads; "
            f"choose from {', '.join(MAPPINGS)}, select:QUERY"
        )
    shape = (len(atoms), graph.n_atoms)
    weights = csr_array((np.ones(len(atoms)), (np.arange(len(atoms)), atoms)), shape=shape)
    return _linear(weights, graph, type_names(graph, atoms))


def _molecule_names(graph: MoleculeGraph) -> list[str]:
    """Return the residues of every molecule, or its formula where it shares a residue."""
    index = graph.molecule_index
    names: list[dict[int, str]] = [{} for _ in graph.molecules]
    sharing = set()
    for residue in graph.topology.residues:
        members = {int(index[atom.index]) for atom in residue.atoms}
        for number in members:
            names[number][residue.index] = residue.name
        if len(members) > 1:
            sharing |= members
    texts = ["-".join(residues.values()) for residues in names]
    for number, atoms in enumerate(graph.molecules):
        if number in sharing:
            texts[number] = formula(graph.topology.atom(i).element.symbol for i in atoms)
    return texts


def _owners(weights: csr_array, graph: MoleculeGraph) -> Integers:
    """Return the bead that every atom is nearest to by bonds (n_atoms,); -1 for none."""
    largest = np.full(graph.n_atoms, 0.0)
    owner = np.full(graph.n_atoms, -1, dtype=np.int64)
    rows = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    for bead, atom, weight in zip(rows, weights.indices, weights.data, strict=True):
        if abs(weight) > largest[atom]:
            owner[atom], largest[atom] = bead, abs(weight)
    mapped = np.flatnonzero(owner >= 0)
    pairs = graph.bonds.astype(np.int32)  # SciPy's dijkstra knew no longer ones once
    links = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(graph.n_atoms,) * 2)
    sources = dijkstra(
        links.tocsr(), directed=False, indices=mapped, min_only=True, return_predecessors=True
    )[2]
    reached = sources >= 0
    owner[reached] = owner[sources[reached]]
    return owner


def _bead_bonds(owner: Integers, graph: MoleculeGraph) -> set[tuple[int, int]]:
    pairs = np.sort(owner[graph.bonds], axis=1).tolist()
    return {(i, j) for i, j in pairs if i != j and i >= 0}


def _representative(weights: csr_array, bead: int, topology: mdtraj.Topology) -> tuple[Any, bool]:
    columns = weights.indices[weights.indptr[bead] : weights.indptr[bead + 1]]
    atoms = [topology.atom(i) for i in columns]
    return max(atoms, key=lambda atom: atom.element.mass), len(atoms) == 1
