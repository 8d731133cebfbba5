"""Energies that a network need not learn."""

from deepcg.potentials.priors.force_field import KINDS, ForceField, Table
from deepcg.potentials.priors.from_data import statistical_tables
from deepcg.potentials.priors.from_system import system_tables, water_table
from deepcg.potentials.priors.repulsion import Repulsion, onset_of_contacts

__all__ = [
    "KINDS",
    "ForceField",
    "Repulsion",
    "Table",
    "onset_of_contacts",
    "statistical_tables",
    "system_tables",
    "water_table",
]
