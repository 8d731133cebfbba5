"""Which energies of molecules a fit leaves to a prior."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deepcg.errors import InputError
from deepcg.mapping import LinearMapping, molecule_index
from deepcg.priors import ForceField, statistical_tables, system_tables
from deepcg.systems import read_system
from deepcg.topology import atomic_numbers, bonds
from deepcg.units import thermal_energy
from deepcg.workflow.beads import Beads

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
    if reason := _no_force_field(beads):
        raise InputError(f"no prior can be taken from the System: {reason}; use --prior auto")
    assert beads.source is not None
    assert beads.source.system is not None
    assert isinstance(beads.mapping, LinearMapping)
    atoms = beads.mapping.weights.indices
    particles = atoms if beads.source.atoms is None else beads.source.atoms[atoms]
    tables, left = system_tables(read_system(beads.source.system), particles)
    if not tables:
        return None
    field = ForceField(tables)
    rest = f"; left to the network: {', '.join(left)}" if left else ""
    return field, f"prior from {beads.source.system.name}: {_contents(field)}{rest}"


def statistical_prior(beads: Beads, temperature: float) -> Prior:
    """Return terms as stiff as the data have them, for beads that are bonded; K."""
    if beads.topology is None:
        return None
    pairs = bonds(beads.topology)
    if len(pairs) == 0:
        return None
    frames = beads.frames
    kT = thermal_energy(temperature)
    field = ForceField(statistical_tables(frames.positions, pairs, kT, frames.weights))
    return field, f"prior from the data: {_contents(field)}"


def best_prior(beads: Beads, temperature: float) -> Prior:
    """Return the System's terms where they can be had, else those of the data."""
    build = statistical_prior if _no_force_field(beads) else force_field_prior
    return build(beads, temperature)


def no_prior(beads: Beads, temperature: float) -> Prior:
    """Return none."""
    del beads, temperature
    return None


PRIORS: dict[str, Callable[[Beads, float], Prior]] = {
    "auto": best_prior,
    "force-field": force_field_prior,
    "none": no_prior,
    "statistical": statistical_prior,
}


def _no_force_field(beads: Beads) -> str:
    """Return why the System has no force field of the beads, or nothing."""
    if beads.source is None or beads.source.system is None:
        return "there is none"
    if not isinstance(beads.mapping, LinearMapping) or not _are_atoms(beads.mapping):
        return "its terms are of atoms, and beads are not"
    molecule = molecule_index(beads.source.topology)
    atoms = beads.mapping.weights.indices
    real = atomic_numbers(beads.source.topology) > 0
    if np.isin(molecule[real], molecule[atoms]).sum() != len(atoms):
        return "molecules are mapped in part, and the terms of atoms that are not have no mean here"
    if beads.frames.box is not None:
        return "several molecules in a box meet through its faces"
    return ""


def _are_atoms(mapping: LinearMapping) -> bool:
    n_beads = mapping.weights.shape[0]
    alone: NDArray[np.bool_] = np.diff(mapping.weights.indptr) == 1
    return bool(alone.all()) and len(set(mapping.weights.indices.tolist())) == n_beads


def _contents(field: ForceField) -> str:
    return ", ".join(f"{len(table.atoms)} {kind}" for kind, table in field.tables.items())
