"""Energies that a network need not learn.

====================  ==========================================================================
`force_field`         bonds, angles, torsions, pairs: tables of terms and their energy
`force_field_loops`   the same in compiled loops
`from_system`         tables from an OpenMM System
`system_forces`       which forces of a System are biases, restraints, or none at all
`from_data`           tables from means and spreads of the data
`obc2`                implicit water: the generalized Born model OBC2
`repulsion`           excluded volume: beads do not come closer than in the data
`repulsion_loops`     the same in compiled loops
====================  ==========================================================================

May import ``trajectory``, ``geometry``, ``compute``, ``runtime`` and ``units``.
"""

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
