"""Which energies of molecules a fit leaves to a prior."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deepcg.atomistic.system import read_system
from deepcg.mapping.beads import LinearMapping
from deepcg.potentials.priors import ForceField, statistical_tables, system_tables, water_table
from deepcg.runtime.arrays import Booleans
from deepcg.runtime.errors import InputError
from deepcg.trajectory.topology import MoleculeGraph
from deepcg.units import thermal_energy
from deepcg.workflow.dataset.beads import Beads

Prior = tuple[ForceField, str] | None
"""A force field, and what it is in words; ``None`` where molecules have no terms."""


def force_field_prior(beads: Beads, temperature: float) -> Prior:
    """Return the terms that the System has among beads that are whole molecules of atoms.

    Raises
    ------
    InputError
        There is no System, beads are not atoms, or one box holds several molecules of them.
    """
    del temperature
    return _of_system(beads, in_water=False)


def implicit_prior(beads: Beads, temperature: float) -> Prior:
    """Return these terms and those of implicit water, for which it is a start at any temperature.

    Raises
    ------
    InputError
        As `force_field_prior`.
    """
    del temperature
    return _of_system(beads, in_water=True)


def statistical_prior(beads: Beads, temperature: float) -> Prior:
    """Return terms as stiff as the data have them, for beads that are bonded; K."""
    if beads.topology is None:
        return None
    pairs = MoleculeGraph(beads.topology).bonds
    if len(pairs) == 0:
        return None
    frames = beads.frames
    kT = thermal_energy(temperature)
    field = ForceField(statistical_tables(frames.positions, pairs, kT, frames.weights))
    return field, f"prior from the data: {_contents(field)}"


def best_prior(beads: Beads, temperature: float) -> Prior:
    """Return the System's terms where they can be had, else those of the data.

    Implicit water is added where the trajectory has water, or had, before it was left out.
    """
    if _no_force_field(beads):
        return statistical_prior(beads, temperature)
    return _of_system(beads, in_water=_is_in_water(beads))


def no_prior(beads: Beads, temperature: float) -> Prior:
    """Return none."""
    del beads, temperature
    return None


PRIORS: dict[str, Callable[[Beads, float], Prior]] = {
    "auto": best_prior,
    "force-field": force_field_prior,
    "implicit": implicit_prior,
    "none": no_prior,
    "statistical": statistical_prior,
}


def _of_system(beads: Beads, *, in_water: bool) -> Prior:
    if reason := _no_force_field(beads):
        raise InputError(f"no prior can be taken from the System: {reason}; use --prior auto")
    source, mapping = beads.source, beads.mapping
    assert source is not None
    assert source.system is not None
    assert isinstance(mapping, LinearMapping)
    system = read_system(source.system, trust=source.trust)
    atoms = mapping.weights.indices
    particles = atoms if source.atoms is None else source.atoms[atoms]
    tables, left = system_tables(system, particles)
    if in_water:
        tables["born"] = water_table(system, particles, source.graph, atoms)
    if not tables:
        return None
    field = ForceField(tables)
    water = " and implicit water" if in_water else ""
    rest = f"; left to the network: {', '.join(left)}" if left else ""
    return field, f"prior from {source.system.name}{water}: {_contents(field)}{rest}"


def _is_in_water(beads: Beads) -> bool:
    """Whether there is water about the beads: in the trajectory, or in the System alone."""
    source = beads.source
    return source is not None and (source.atoms is not None or bool(source.graph.waters))


def _no_force_field(beads: Beads) -> str:
    """Return why the System has no force field of the beads, or nothing."""
    if beads.source is None or beads.source.system is None:
        return "there is none"
    if not isinstance(beads.mapping, LinearMapping) or not _are_atoms(beads.mapping):
        return "its terms are of atoms, and beads are not"
    graph = beads.source.graph
    molecule = graph.molecule_index
    atoms = beads.mapping.weights.indices
    real = graph.numbers > 0
    if np.isin(molecule[real], molecule[atoms]).sum() != len(atoms):
        return "molecules are mapped in part, and the terms of atoms that are not have no mean here"
    if beads.frames.box is not None:
        return "several molecules in a box meet through its faces"
    return ""


def _are_atoms(mapping: LinearMapping) -> bool:
    n_beads = mapping.weights.shape[0]
    alone: Booleans = np.diff(mapping.weights.indptr) == 1
    return bool(alone.all()) and len(set(mapping.weights.indices.tolist())) == n_beads


def _contents(field: ForceField) -> str:
    return ", ".join(f"{len(table.atoms)} {kind}" for kind, table in field.tables.items())
