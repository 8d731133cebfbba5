"""The pressure of a microscopic System, frame by frame, by scaling the places of its molecules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openmm

from deepcg.atomistic.system import open_context, open_platform
from deepcg.runtime.arrays import Doubles, Integers
from deepcg.units import BAR, thermal_energy

STRETCH = 1e-3
"""How much lengths are scaled. In TIP3P the CPU platform and the Reference platform then differ by
0.7 bar; shorter steps see fewer pairs cross a cutoff, and their frames scatter more."""


def molecular_pressures(
    system: openmm.System,
    positions: Doubles,
    boxes: Doubles,
    molecules: Sequence[Integers],
    temperature: float,
    *,
    platform: str = "auto",
) -> Doubles:
    """Return the pressure (n_frames,), bar, N kT / V - dU/dV of N rigidly moved molecules.

    dU/dV is the central difference of two energies, with the centers of mass and the box scaled by
    1 +- 0.001 and the molecules as they are. On average this equals the atomic pressure, and
    it needs neither the forces of constraints nor velocities.

    Parameters
    ----------
    system
        As in the simulation, of periodic boundaries.
    positions
        (n_frames, n_atoms, 3), nm, molecules whole.
    boxes
        (n_frames, 3, 3), nm.
    molecules
        Atoms of each.
    temperature
        K.
    """
    masses = np.array([system.getParticleMass(i)._value for i in range(system.getNumParticles())])
    index = np.empty(len(masses), dtype=np.int64)
    for number, atoms in enumerate(molecules):
        index[atoms] = number
    total = np.bincount(index, masses)
    context = open_context(system, openmm.VerletIntegrator(0.001), open_platform(platform))

    def energy(frame: Doubles, box: Doubles, scale: float) -> float:
        centers = np.stack([np.bincount(index, masses * x) / total for x in frame.T], 1)
        context.setPeriodicBoxVectors(*(box * scale))
        context.setPositions(frame + (scale - 1) * centers[index])
        state = context.getState(energy=True)
        return float(state.getPotentialEnergy()._value)

    found = []
    for frame, box in zip(positions, boxes, strict=True):
        volume = float(np.linalg.det(box))
        slope = energy(frame, box, 1 + STRETCH) - energy(frame, box, 1 - STRETCH)
        slope /= volume * ((1 + STRETCH) ** 3 - (1 - STRETCH) ** 3)
        found.append((len(molecules) * thermal_energy(temperature) / volume - slope) / BAR)
    return np.array(found)
