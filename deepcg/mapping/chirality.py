"""Which maps lose the handedness of a molecule, that a network of distances cannot learn.

A network that sees distances and angles alone gives a configuration and its mirror image the same
energy: U(R) = U(-R). That does no harm while the beads themselves tell left from right, at a center
with three mapped neighbors or more: the mirror image of such a molecule is another one, behind a
barrier that bonds, angles and the signed volumes of the priors (``deepcg.potentials.priors``) make
too high to cross, so that sampling stays with the hand that it started from. Without, the surface
of, say, (phi, psi) becomes that of the mirror images mixed with equal weights.
"""

from __future__ import annotations

import numpy as np

from deepcg.mapping.bead_types import stereocenters
from deepcg.mapping.beads import LinearMapping
from deepcg.runtime.arrays import Booleans, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.topology import MoleculeGraph


def check_handedness(mapping: LinearMapping, graph: MoleculeGraph, name: str) -> None:
    """Refuse a map, called ``name``, whose beads do not show the hand of a stereocenter.

    A center is shown if it has a bead of its own, and three of its neighbors have; one that is
    bonded to such a center is taken to be, too. Molecules of three beads or fewer have no hand.

    Raises
    ------
    InputError
        Names the first center that is not shown, and the options.
    """
    mapped = _own_bead(mapping)
    neighbors, topology = graph.bonded_atoms, graph.topology
    beads_of = np.bincount(_molecules_of_beads(mapping), minlength=topology.n_atoms)
    centers = [i for i in stereocenters(graph) if mapped[i]]
    shown = {i for i in centers if mapped[neighbors[i]].sum() >= 3}
    for i in centers:
        molecule = 0 if mapping.molecules is None else mapping.molecules[i]
        if i in shown or shown.intersection(neighbors[i]) or beads_of[molecule] < 4:
            continue
        missing = ", ".join(topology.atom(j).name for j in neighbors[i] if not mapped[j])
        raise InputError(
            f"the map {name!r} hides the handedness of {topology.atom(i)}: a network of distances "
            f"would mix the molecule with its mirror image; map one of {missing} too (as "
            f"--map backbone-cb does), or give --force-achiral"
        )


def _own_bead(mapping: LinearMapping) -> Booleans:
    """Return which atoms (n_atoms,) have a bead of their own."""
    weights = mapping.weights
    alone = np.diff(weights.indptr) == 1
    own = np.zeros(weights.shape[1], dtype=bool)
    own[weights.indices[weights.indptr[:-1][alone]]] = True
    return own


def _molecules_of_beads(mapping: LinearMapping) -> Integers:
    first = mapping.weights.indices[mapping.weights.indptr[:-1]]
    return np.zeros(len(first), np.int64) if mapping.molecules is None else mapping.molecules[first]
