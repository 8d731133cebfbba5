"""Boxes of water: the models, a start for any number of molecules, and its OpenMM System."""

from __future__ import annotations

import numpy as np
import openmm
from openmm import app, unit
from scipy.spatial.transform import Rotation

from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import pick

WATER_MODELS = {
    "opc": "opc.xml",
    "spce": "spce.xml",
    "tip3p": "tip3p.xml",
    "tip3pfb": "tip3pfb.xml",
    "tip4pew": "tip4pew.xml",
}
"""The force-field files, all of them OpenMM's own."""

_MOLAR_MASS = 18.01528  # g/mol
_AVOGADRO = 602.214076  # 1/mol, times the cm3 in a nm3

# O-H 0.09572 nm and H-O-H 104.52 degrees; the constraints bring other models to their own
_MOLECULE = np.array([[0, 0, 0], [0.09572, 0, 0], [-0.023999, 0.092663, 0]])


def box_edge(molecules: int, density: float) -> float:
    """Return the edge in nm of the cube that holds the molecules at a density in g/cm3."""
    return float(np.cbrt(molecules * _MOLAR_MASS / (_AVOGADRO * density)))


def density(molecules: int, volume: float) -> float:
    """Return the density in g/cm3 at a volume in nm^3."""
    return molecules * _MOLAR_MASS / (_AVOGADRO * volume)


def water_box(
    model: str, molecules: int, edge: float, rng: np.random.Generator
) -> tuple[app.Topology, Doubles]:
    """Return the topology and positions (n_atoms, 3), nm, of molecules on a simple cubic lattice.

    Orientations are random, and so is which sites stay empty where the count is no cube.
    Virtual sites are atoms of the topology, at their places. It is a start to be minimized.
    """
    topology = _topology(molecules, edge)
    positions = _sites(molecules, edge, rng)[:, None] + _orientations(molecules, rng)
    modeller = app.Modeller(topology, positions.reshape(-1, 3) * unit.nanometer)
    modeller.addExtraParticles(_force_field(model))
    return modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer))


def water_system(
    model: str, topology: app.Topology, *, cutoff: float, flexible: bool
) -> openmm.System:
    """Return the System: PME, ``cutoff`` in nm, rigid molecules unless ``flexible``."""
    system: openmm.System = _force_field(model).createSystem(
        topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=cutoff,
        constraints=None,
        rigidWater=not flexible,
    )
    return system


def _force_field(model: str) -> app.ForceField:
    return app.ForceField(pick(WATER_MODELS, model, "water model"))


def _topology(molecules: int, edge: float) -> app.Topology:
    topology = app.Topology()
    chain = topology.addChain()
    oxygen, hydrogen = app.element.oxygen, app.element.hydrogen
    for _ in range(molecules):
        residue = topology.addResidue("HOH", chain)
        o = topology.addAtom("O", oxygen, residue)
        for name in ("H1", "H2"):
            topology.addBond(o, topology.addAtom(name, hydrogen, residue))
    topology.setUnitCellDimensions((edge, edge, edge) * unit.nanometer)
    return topology


def _sites(molecules: int, edge: float, rng: np.random.Generator) -> Doubles:
    per_edge = int(np.ceil(round(np.cbrt(molecules), 9)))  # the cube root of 216 is 6 + 9e-16
    grid = np.stack(np.meshgrid(*[np.arange(per_edge)] * 3, indexing="ij"), -1).reshape(-1, 3)
    taken = np.sort(rng.choice(len(grid), molecules, replace=False))
    return np.asarray((grid[taken] + 0.5) * (edge / per_edge), np.float64)


def _orientations(molecules: int, rng: np.random.Generator) -> Doubles:
    turns = Rotation.from_quat(rng.normal(size=(molecules, 4))).as_matrix()
    return np.asarray(np.einsum("nij,aj->nai", turns, _MOLECULE), np.float64)
