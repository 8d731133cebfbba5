"""Alanine dipeptide: ACE-ALA-NME from internal coordinates, in water or without, and its System."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import openmm
from openmm import app, unit

from deepcg.runtime.arrays import Doubles, Floats
from deepcg.runtime.errors import pick

PHI = (4, 6, 8, 14)
PSI = (6, 8, 14, 16)
C_ALPHA = 8
N_ATOMS = 22

FORCE_FIELDS = {
    "ff99sb": ("amber99sb.xml", "tip3p.xml"),
    "ff14sb": ("amber14/protein.ff14SB.xml", "amber14/tip3p.xml"),
}
"""OpenMM's own files: that of the peptide, that of the water."""

SOLVENTS = {"explicit": None, "vacuum": None, "obc": "implicit/obc2.xml"}
"""What there is around the peptide, and the file of it that replaces the water's."""

_MOLECULE = 0.0304  # nm^3, of TIP3P at 300 K and 1 bar
_PEPTIDE = 0.15  # nm^3


class _Row(NamedTuple):
    """An atom: bonded to the first of ``to``, at an angle to the second, turned about that bond.

    ``turn`` is the dihedral with the third in degrees, to which phi or psi is added.
    """

    residue: str
    name: str
    to: tuple[int, ...]
    length: float
    angle: float
    turn: float
    plus: str = ""


# Lengths (nm) and angles are near those of AMBER's force fields: a start to be minimized. Seen
# from the nitrogen along N-CA, L-alanine's CB lies 120 degrees before the carbonyl, HA behind it.
_ROWS = (
    _Row("ACE", "CH3", (), 0, 0, 0),
    _Row("ACE", "H1", (0, 4, 6), 0.109, 109.5, 60),
    _Row("ACE", "H2", (0, 4, 6), 0.109, 109.5, 180),
    _Row("ACE", "H3", (0, 4, 6), 0.109, 109.5, 300),
    _Row("ACE", "C", (0,), 0.1522, 0, 0),
    _Row("ACE", "O", (4, 0, 6), 0.1229, 120.4, 180),
    _Row("ALA", "N", (4, 0), 0.1335, 116.6, 0),
    _Row("ALA", "H", (6, 4, 8), 0.1010, 119.8, 180),
    _Row("ALA", "CA", (6, 4, 0), 0.1449, 121.9, 180),
    _Row("ALA", "HA", (8, 6, 4), 0.1090, 109.5, 120, "phi"),
    _Row("ALA", "CB", (8, 6, 4), 0.1526, 109.7, -122, "phi"),
    _Row("ALA", "HB1", (10, 8, 6), 0.1090, 109.5, 60),
    _Row("ALA", "HB2", (10, 8, 6), 0.1090, 109.5, 180),
    _Row("ALA", "HB3", (10, 8, 6), 0.1090, 109.5, 300),
    _Row("ALA", "C", (8, 6, 4), 0.1522, 110.1, 0, "phi"),
    _Row("ALA", "O", (14, 8, 6), 0.1229, 120.4, 180, "psi"),
    _Row("NME", "N", (14, 8, 6), 0.1335, 116.6, 0, "psi"),
    _Row("NME", "H", (16, 14, 18), 0.1010, 119.8, 180),
    _Row("NME", "C", (16, 14, 8), 0.1449, 121.9, 180),
    _Row("NME", "H1", (18, 16, 14), 0.1090, 109.5, 60),
    _Row("NME", "H2", (18, 16, 14), 0.1090, 109.5, 180),
    _Row("NME", "H3", (18, 16, 14), 0.1090, 109.5, 300),
)


def alanine(phi: float, psi: float) -> tuple[app.Topology, Doubles]:
    """Return the topology of ACE-ALA-NME (L) and positions (22, 3), nm, at phi and psi in rad."""
    topology = app.Topology()
    chain = topology.addChain("A")
    atoms: list[app.topology.Atom] = []
    for row in _ROWS:
        residues = list(topology.residues())
        if not residues or residues[-1].name != row.residue:
            residues.append(topology.addResidue(row.residue, chain))
        element = app.Element.getBySymbol(row.name[0])
        atoms.append(topology.addAtom(row.name, element, residues[-1]))
    for atom, row in zip(atoms, _ROWS, strict=True):
        if row.to:
            topology.addBond(atoms[row.to[0]], atom)
    return topology, _positions({"": 0.0, "phi": phi, "psi": psi})


def torsions(positions: Floats) -> Doubles:
    """Return phi and psi (..., 2), rad in IUPAC's sign, of positions (..., 22 or more, 3)."""
    return np.stack([_dihedral(positions, PHI), _dihedral(positions, PSI)], -1)


def solvated(
    force_field: str, topology: app.Topology, positions: Doubles, *, waters: int, edge: float
) -> tuple[app.Topology, Doubles]:
    """Return the peptide with exactly ``waters`` molecules of TIP3P in a cube of ``edge`` nm.

    The peptide's atoms come first in the positions (n_atoms, 3), nm. It is a start to be minimized.
    """
    modeller = app.Modeller(topology, positions * unit.nanometer)
    modeller.addSolvent(_force_field(force_field, "explicit"), numAdded=waters)
    x = np.array(modeller.positions.value_in_unit(unit.nanometer))
    scale = edge / modeller.topology.getUnitCellDimensions()[0].value_in_unit(unit.nanometer)
    starts = [0, *range(N_ATOMS, len(x), 3), len(x)]
    for first, last in pairwise(starts):
        x[first:last] += (scale - 1) * x[first:last].mean(0)
    modeller.topology.setUnitCellDimensions((edge, edge, edge) * unit.nanometer)
    return modeller.topology, x


def usual_edge(waters: int) -> float:
    """Return about the edge in nm of a cube of water around the peptide at 300 K and 1 bar."""
    return math.cbrt(waters * _MOLECULE + _PEPTIDE)


def alanine_system(
    force_field: str,
    solvent: str,
    topology: app.Topology,
    *,
    constraints: str,
    hydrogen_mass: float,
    cutoff: float | None,
) -> openmm.System:
    """Return the System: rigid water and PME, or no cutoff without water.

    Parameters
    ----------
    constraints
        Bonds of the peptide that are rigid: none or hbonds.
    hydrogen_mass
        Mass of the peptide's hydrogens, Da, taken from the atoms that they are bonded to.
    cutoff
        Of the direct interactions in nm; ``None`` without water.
    """
    held = {"none": None, "hbonds": app.HBonds}
    system: openmm.System = _force_field(force_field, solvent).createSystem(
        topology,
        nonbondedMethod=app.NoCutoff if cutoff is None else app.PME,
        nonbondedCutoff=cutoff or 1.0,  # not looked at without one
        constraints=pick(held, constraints, "choice of constraints"),
        rigidWater=True,
        hydrogenMass=hydrogen_mass,
    )
    return system


def _force_field(name: str, solvent: str) -> app.ForceField:
    peptide, water = pick(FORCE_FIELDS, name, "force field")
    return app.ForceField(peptide, pick(SOLVENTS, solvent, "solvent") or water)


def _positions(torsions: dict[str, float]) -> Doubles:
    x = np.full((N_ATOMS, 3), np.nan)
    x[0] = 0
    x[4] = (_ROWS[4].length, 0, 0)
    bend = math.pi - math.radians(_ROWS[6].angle)
    x[6] = x[4] + _ROWS[6].length * np.array([math.cos(bend), math.sin(bend), 0])
    while np.isnan(x).any():
        for atom, row in enumerate(_ROWS):
            # hydrogens of the peptide bonds stand before the atom that they are opposite to
            if np.isnan(x[atom, 0]) and not np.isnan(x[list(row.to)]).any():
                turn = math.radians(row.turn) + torsions[row.plus]
                x[atom] = _placed(x[list(row.to)], row.length, math.radians(row.angle), turn)
    return x


def _placed(to: Doubles, length: float, angle: float, turn: float) -> Doubles:
    """Return the place at a distance, an angle and a dihedral from three others, nearest first."""
    near, middle, far = to
    axis = (near - middle) / np.linalg.norm(near - middle)
    normal = np.cross(middle - far, axis)
    normal /= np.linalg.norm(normal)
    side = np.cross(normal, axis)
    around = math.cos(turn) * side + math.sin(turn) * normal
    place = near + length * (-math.cos(angle) * axis + math.sin(angle) * around)
    return np.asarray(place, np.float64)


def _dihedral(positions: Floats, atoms: tuple[int, int, int, int]) -> Doubles:
    """Return the dihedral angle (...), rad, of atoms of positions (..., n_atoms, 3).

    Not that of `deepcg.geometry.internal_coordinates`: a bias and with it the path of a run hang on
    how it rounds.
    """
    a, b, c, d = (positions[..., i, :].astype(np.float64) for i in atoms)
    axis = (c - b) / np.linalg.norm(c - b, axis=-1, keepdims=True)
    before, after = np.cross(b - a, axis), np.cross(axis, d - c)
    sine = (np.cross(before, after) * axis).sum(-1)
    return np.asarray(np.arctan2(sine, (before * after).sum(-1)), np.float64)
