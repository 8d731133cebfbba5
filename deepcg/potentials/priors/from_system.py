"""The prior of a solute without its solvent: its own terms of the System.

Why tables and not OpenMM itself: U is differentiated and evaluated for many replicas at once, in
PyTorch. OpenMM is the oracle in tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import openmm
import torch

from deepcg.potentials.priors.force_field import Table
from deepcg.potentials.priors.obc2 import born_parameters
from deepcg.potentials.priors.system_forces import WITHOUT_ENERGY, suspects
from deepcg.runtime.arrays import Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.topology import MoleculeGraph

Term = tuple[tuple[int, ...], tuple[float, ...]]
"""Atoms, numbered within the System, and parameters in kJ/mol, nm, rad."""


def system_tables(
    system: openmm.System, atoms: Sequence[int] | Integers
) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Return the terms among some atoms, and the names of the forces that are left out.

    Bonds, angles, periodic torsions (impropers are) and non-bonded pairs with their exceptions;
    these as in vacuum: Lennard-Jones and Coulomb energies of all pairs without a cutoff, so that
    their number grows with the square of the number of atoms. What is left out (implicit solvent,
    maps of two torsions, forces of other form), and terms of bonds that are constraints, are for
    the network to learn; biases are left out, too.

    Parameters
    ----------
    atoms
        (n_beads,), indices in the System of the atoms that are beads 0, 1 ...
    """
    bead_of = {int(atom): bead for bead, atom in enumerate(atoms)}
    tables: dict[str, Table] = {}
    left = []
    biases = {suspect.number for suspect in suspects(system)}
    for number, force in enumerate(system.getForces()):
        found = None if number in biases else _terms(force, bead_of)
        if found is None:
            if not isinstance(force, WITHOUT_ENERGY):
                left.append(type(force).__name__)
            continue
        kind, terms = found
        inside = [term for term in terms if bead_of.keys() >= set(term[0])]
        if inside:
            more = _table(inside, bead_of)
            tables[kind] = _joined(tables[kind], more) if kind in tables else more
    return tables, tuple(left)


def water_table(
    system: openmm.System,
    atoms: Sequence[int] | Integers,
    graph: MoleculeGraph,
    places: Sequence[int] | Integers,
) -> Table:
    """Return the terms of implicit water about some atoms, with the charges of the System.

    Parameters
    ----------
    atoms, places
        (n_beads,), indices in the System, and in the graph, of beads 0, 1 ...

    Raises
    ------
    InputError
        The System has no charges: there is no `NonbondedForce`.
    """
    forces = [f for f in system.getForces() if isinstance(f, openmm.NonbondedForce)]
    if len(forces) != 1:
        raise InputError(
            f"the System has {len(forces)} NonbondedForce: implicit water needs the charges of one"
        )
    charges = [[_plain(forces[0].getParticleParameters(int(i))[0])] for i in atoms]
    parameters = torch.cat(
        [torch.tensor(charges, dtype=torch.float64), born_parameters(graph, places)], 1
    )
    return Table(torch.arange(len(charges))[:, None], parameters)


def _terms(force: openmm.Force, bead_of: dict[int, int]) -> tuple[str, Iterator[Term]] | None:
    """Return the kind of a force's terms and these, ``None`` where the kind is not known."""
    if isinstance(force, openmm.HarmonicBondForce):
        return "bonds", _parameters(force.getNumBonds(), force.getBondParameters, 2)
    if isinstance(force, openmm.HarmonicAngleForce):
        return "angles", _parameters(force.getNumAngles(), force.getAngleParameters, 3)
    if isinstance(force, openmm.PeriodicTorsionForce):
        return "torsions", _parameters(force.getNumTorsions(), force.getTorsionParameters, 4)
    if isinstance(force, openmm.NonbondedForce):
        return "pairs", _pairs(force, sorted(bead_of))
    return None


def _parameters(number: int, get: Callable[[int], list[Any]], n_atoms: int) -> Iterator[Term]:
    for k in range(number):
        values = get(k)
        yield tuple(values[:n_atoms]), tuple(_plain(value) for value in values[n_atoms:])


def _pairs(force: openmm.NonbondedForce, atoms: list[int]) -> Iterator[Term]:
    """Yield all pairs that interact, by the rules of Lorentz and Berthelot or as exceptions."""
    q, sigma, epsilon = np.array(
        [[_plain(value) for value in force.getParticleParameters(i)] for i in atoms]
    ).T
    chosen = set(atoms)
    exceptions = {}
    for k in range(force.getNumExceptions()):
        i, j, *values = force.getExceptionParameters(k)
        if i in chosen and j in chosen:
            exceptions[min(i, j), max(i, j)] = tuple(_plain(value) for value in values)
    for a, b in zip(*np.triu_indices(len(atoms), 1), strict=True):
        mixed = (q[a] * q[b], (sigma[a] + sigma[b]) / 2, (epsilon[a] * epsilon[b]) ** 0.5)
        charges, size, depth = exceptions.get((atoms[a], atoms[b]), mixed)
        if charges != 0 or depth != 0:
            yield (atoms[a], atoms[b]), (charges, size, depth)


def _plain(value: Any) -> float:
    """Return the number of a quantity, which is in OpenMM's own units here."""
    return float(getattr(value, "_value", value))


def _table(terms: list[Term], bead_of: dict[int, int]) -> Table:
    beads = [[bead_of[atom] for atom in atoms] for atoms, _ in terms]
    parameters = [list(values) for _, values in terms]
    return Table(torch.tensor(beads), torch.tensor(parameters, dtype=torch.float64))


def _joined(one: Table, other: Table) -> Table:
    return Table(torch.cat([one.atoms, other.atoms]), torch.cat([one.parameters, other.parameters]))
