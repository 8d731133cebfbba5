"""Constraints: which atoms are held together, and so must share one weight in a bead's force.

Let a bead's force be F = sum_a w_a f_a with constant w: it is the force of moving every atom a
along w_a (Ciccotti, Kapral, Vanden-Eijnden, ChemPhysChem 6, 1809 (2005)). A constraint
|r_a - r_b| = d lets no motion change r_a - r_b along the bond, whatever the bond's direction:
w_a = w_b. Its force, which no file holds, is lambda (r_a - r_b) on a and the opposite on b, and
drops out of F for the same reason. So atoms that are joined by constraints, directly or by way of
others, share one weight. The group then moves as a whole without turning, which also leaves the
metric of the constraint manifold as it is, and no correction is due. For a rigid molecule these
are all legal constant weights; for a group that is not rigid (the hydrogens of a methyl group,
held to their carbon alone) they are too.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import openmm
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from deepcg.atomistic.system import read_system
from deepcg.runtime.arrays import Booleans, Floats, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.precision import spread_of_distances
from deepcg.trajectory.topology import MoleculeGraph

Constraints = frozenset[frozenset[int]]
"""Disjoint groups of atoms that are joined by constraints."""

_STIFF = 8e-4  # nm: between the rounding of XTC files (4e-4) and O-H at 300 K (2.3e-3)
_HYDROGEN = 2.3e-3  # nm, standard deviation of O-H at 300 K


def from_system(system: openmm.System | Path) -> Constraints:
    """Return the groups of an OpenMM System, or of the XML file of one.

    A virtual site joins its parents where these are one group: it moves with them.

    Raises
    ------
    InputError
        The file is no System; an atom is fixed in space (no mass, yet no virtual site).
    """
    if isinstance(system, Path):
        system = read_system(system)
    bonds = [
        tuple(system.getConstraintParameters(i)[:2]) for i in range(system.getNumConstraints())
    ]
    group_of = {atom: group for group in connected(bonds) for atom in group}
    for site, parents in _sites(system).items():
        groups = {group_of.get(parent) for parent in parents}
        if len(groups) == 1 and None not in groups:
            bonds.append((site, parents[0]))
    return connected(bonds)


def from_water(graph: MoleculeGraph) -> Constraints:
    """Return every water molecule, with its virtual sites, as a group: rigid water models."""
    return frozenset(frozenset(atoms.tolist()) for atoms in graph.waters)


def from_frames(graph: MoleculeGraph, sample: Frames) -> Constraints:
    """Return the groups joined by bonds whose length does not change over the sample.

    Finds the constraints of a trajectory that comes without a System: a bond is held where
    its length has a standard deviation below 8e-4 nm. Needs two frames or more.
    """
    if len(sample) < 2:
        raise InputError("one frame cannot tell held bonds from free ones: give two or more")
    held = graph.bonds[_is_held(graph.bonds, sample)]
    return connected((int(a), int(b)) for a, b in held)


def maybe_held(graph: MoleculeGraph, sample: Frames, step: float) -> Constraints:
    """Return the groups joined by bonds that may be held, of positions rounded to ``step``, nm.

    Rounding that moves distances as much as the softest held bond would hides whether they are:
    all bonds are in doubt then that vary no more, within two standard errors, than bonds to
    hydrogen at 300 K and rounding do. With finer positions these are those of `from_frames`.
    """
    rounding = spread_of_distances(step)
    if rounding <= _STIFF or len(sample) < 2:
        return from_frames(graph, sample)
    most = np.hypot(rounding, _HYDROGEN) * (1 + 2 / np.sqrt(2 * (len(sample) - 1)))
    doubtful = graph.bonds[_spread(graph.bonds, sample) < most]
    return connected((int(a), int(b)) for a, b in doubtful)


def held_pairs(constraints: Constraints, graph: MoleculeGraph, sample: Frames) -> Integers:
    """Return the pairs (n_pairs, 2) of atoms in groups whose distance is held.

    Groups do not tell which of their pairs are: those are, of atoms that one or two bonds join,
    whose distance does not change over the sample. Virtual sites have no part in this.

    Raises
    ------
    InputError
        The pairs found do not join a group: it is held by something else.
    """
    group_of = np.full(graph.n_atoms, -1)
    for number, group in enumerate(constraints):
        group_of[list(group)] = number
    group_of[graph.numbers == 0] = -1
    if (group_of < 0).all():
        return np.empty((0, 2), np.int64)
    if len(sample) < 2:
        raise InputError("one frame cannot tell held pairs from free ones: give two or more")
    pairs = _near_pairs(graph)
    pairs = pairs[(group_of[pairs[:, 0]] == group_of[pairs[:, 1]]) & (group_of[pairs[:, 0]] >= 0)]
    held: Integers = pairs[_is_held(pairs, sample)]
    joined = connected((int(a), int(b)) for a, b in held)
    for group in constraints:
        real = {atom for atom in group if group_of[atom] >= 0}
        if len(real) > 1 and real not in joined:
            atoms = ", ".join(str(graph.topology.atom(i)) for i in sorted(real)[:4])
            raise InputError(
                f"the constraints join the atoms {atoms}, but distances over one or two bonds "
                "between them change in the frames: give the System that made the frames"
            )
    return held


def connected(bonds: Iterable[tuple[int, ...]]) -> Constraints:
    """Return the connected components of pairs of atoms."""
    pairs = np.array(list(bonds), dtype=np.int64).reshape(-1, 2)
    atoms, ends = np.unique(pairs, return_inverse=True)
    first, second = ends.reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(atoms), len(atoms)))
    labels = connected_components(graph, directed=False)[1]
    members = np.split(atoms[np.argsort(labels, kind="stable")], np.cumsum(np.bincount(labels)))
    return frozenset(frozenset(group.tolist()) for group in members if len(group))


def _is_held(pairs: Integers, sample: Frames) -> Booleans:
    return np.asarray(_spread(pairs, sample) < _STIFF)


def _spread(pairs: Integers, sample: Frames) -> Floats:
    """Return the standard deviations (n_pairs,), nm, of distances."""
    vectors = sample.positions[:, pairs[:, 0]] - sample.positions[:, pairs[:, 1]]
    # PyTorch warns of the spread of no pairs
    spread: Floats = vectors.norm(dim=-1).double().numpy().std(0, ddof=1)
    return spread


def _near_pairs(graph: MoleculeGraph) -> Integers:
    """Return the pairs (n_pairs, 2), ascending, of atoms that one or two bonds join."""
    first, second = graph.bonds.T
    ends = (np.concatenate([first, second]), np.concatenate([second, first]))
    links = coo_array((np.ones(len(ends[0])), ends), shape=(graph.n_atoms,) * 2).tocsr()
    near = (links + links @ links).tocoo()
    upper = near.row < near.col
    return np.stack([near.row[upper], near.col[upper]], axis=1).astype(np.int64)


def _sites(system: openmm.System) -> dict[int, list[int]]:
    """Return the parents of every virtual site."""
    sites = {}
    for atom in range(system.getNumParticles()):
        if system.isVirtualSite(atom):
            site = system.getVirtualSite(atom)
            sites[atom] = [site.getParticle(i) for i in range(site.getNumParticles())]
        elif not system.getParticleMass(atom)._value:
            raise InputError(
                f"atom {atom} of the System has no mass: fixed atoms feel no mean force; "
                "give it a mass, or restrain it instead"
            )
    return sites
