"""What is written of a frame of alanine dipeptide: of all atoms, or of the solute alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import openmm

from deepcg.atomistic.alanine.molecule import C_ALPHA, N_ATOMS, torsions
from deepcg.atomistic.alanine.solute_frames import SoluteFrames
from deepcg.atomistic.alanine.torsion_bias import UNBIASED, bias_energy
from deepcg.atomistic.equilibration import checked_energy, kinetic_temperature
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.files import to_disk
from deepcg.trajectory.formats.dcd_writer import DcdFormat

_COLUMNS = (
    "potential_kJ_mol",
    "kinetic_kJ_mol",
    "temperature_K",
    "phi_rad",
    "psi_rad",
    "bias_kJ_mol",
)


@dataclass(frozen=True, slots=True)
class WholeRecorder:
    """Writes positions of all atoms, with molecules whole and their centers in the box."""

    path: Path
    dcd: DcdFormat
    columns: tuple[str, ...] = _COLUMNS

    def create(self) -> None:
        """Write a file of no frames."""
        self.dcd.create(self.path)

    def append(self, context: openmm.Context) -> tuple[float, ...]:
        """Write a frame and return what the log says of it, without the bias."""
        periodic = self.dcd.topology.getPeriodicBoxVectors() is not None
        state = context.getState(
            positions=True, energy=True, groups=set(UNBIASED), enforcePeriodicBox=periodic
        )
        row = _row(context, state)
        self.dcd.append(self.path, state.getPositions(asNumpy=True)._value)
        return row

    def truncate(self, n_frames: int) -> None:
        """Forget all but the first frames."""
        self.dcd.truncate(self.path, n_frames)

    def to_disk(self) -> None:
        """Wait until all frames would survive a power cut."""
        to_disk(self.path)


@dataclass(frozen=True, slots=True)
class SoluteRecorder:
    """Writes positions of the peptide relative to its C-alpha, and the unbiased forces on it."""

    frames: SoluteFrames
    columns: tuple[str, ...] = _COLUMNS

    def create(self) -> None:
        """Write a file of no frames."""
        self.frames.create()

    def append(self, context: openmm.Context) -> tuple[float, ...]:
        """Write a frame and return what the log says of it, without the bias."""
        state = context.getState(positions=True, forces=True, energy=True, groups=set(UNBIASED))
        row = _row(context, state)
        x: Doubles = state.getPositions(asNumpy=True)._value[:N_ATOMS]
        forces = state.getForces(asNumpy=True)._value[:N_ATOMS]
        phi, psi, bias = row[-3:]
        self.frames.append(x - x[C_ALPHA], forces, bias, phi, psi)
        return row

    def truncate(self, n_frames: int) -> None:
        """Forget all but the first frames."""
        self.frames.truncate(n_frames)

    def to_disk(self) -> None:
        """Wait until all frames would survive a power cut."""
        self.frames.to_disk()


def _row(context: openmm.Context, state: openmm.State) -> tuple[float, ...]:
    """Return the columns of the log for an unbiased state of a Context."""
    potential = checked_energy(state)
    kinetic = state.getKineticEnergy()._value
    temperature = kinetic_temperature(kinetic, context.getSystem())
    phi, psi = torsions(state.getPositions(asNumpy=True)._value)
    return potential, kinetic, temperature, float(phi), float(psi), bias_energy(context)
