"""Four atoms in a chain whose torsion has a known U, as files and as a System."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm
from numpy.typing import NDArray

Floats = NDArray[np.float64]

AMPLITUDE = 5.0  # kJ/mol, of cos(3 phi)


def torsion_energy(phi: Any) -> Any:
    return AMPLITUDE * np.cos(3 * phi) + 3 * np.sin(phi)


def torsion_force(phi: Any) -> Any:
    """Return -dU/dphi: bonds and angles do not know of phi, and nor does its volume element."""
    return 3 * AMPLITUDE * np.sin(3 * phi) - 3 * np.cos(phi)


def chain_system() -> openmm.System:
    system = openmm.System()
    for _ in range(4):
        system.addParticle(12.0)
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    for k in range(3):
        bonds.addBond(k, k + 1, 0.15, 1e5)
    for k in range(2):
        angles.addAngle(k, k + 1, k + 2, 1.9, 400.0)
    torsion = openmm.CustomTorsionForce(f"{AMPLITUDE}*cos(3*theta)+3*sin(theta)")
    torsion.addTorsion(0, 1, 2, 3)
    for force in (bonds, angles, torsion):
        system.addForce(force)
    return system


def write_chain(folder: Path, name: str, positions: Floats) -> Path:
    """Write frames (n, 4, 3), topology and System; return the trajectory."""
    topology = mdtraj.Topology()
    residue = topology.add_residue("BUT", topology.add_chain())
    atoms = [topology.add_atom(f"C{k}", mdtraj.element.carbon, residue) for k in range(4)]
    for one, other in pairwise(atoms):
        topology.add_bond(one, other)
    path = folder / f"{name}.dcd"
    trajectory = mdtraj.Trajectory(positions.astype(np.float32), topology)
    trajectory.save_dcd(str(path))
    trajectory[:1].save_pdb(str(path.with_suffix(".pdb")))
    path.with_suffix(".system.xml").write_text(openmm.XmlSerializer.serialize(chain_system()))
    return path
