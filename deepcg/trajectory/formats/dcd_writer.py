"""DCD trajectories that can be cut back to a frame and continued, byte for byte.

OpenMM writes the frames; what its writer says of the time of day is taken out here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import mdtraj
import numpy as np
from numpy.typing import NDArray
from openmm import app, unit

from deepcg.runtime.arrays import Doubles
from deepcg.runtime.files import writing

_HEADER = 276  # bytes that OpenMM writes before the first frame
_DATE = slice(180, 260)  # within them: the second title, which holds the time of day


@dataclass(frozen=True, slots=True)
class DcdFormat:
    """What the header of a DCD says; OpenMM writes the frames.

    ``dt`` is in ps, ``first_step`` and ``every`` count steps.
    """

    topology: app.Topology
    dt: float
    first_step: int
    every: int

    @classmethod
    def of(
        cls,
        topology: mdtraj.Topology,
        box: Doubles | None,
        *,
        dt: float,
        first_step: int,
        every: int,
    ) -> DcdFormat:
        """Return the format for sites in a constant ``box``, (3, 3) in nm in reduced form."""
        sites = topology.to_openmm()
        sites.setPeriodicBoxVectors(None if box is None else box.tolist() * unit.nanometer)
        return cls(sites, dt, first_step, every)

    @property
    def frame_size(self) -> int:
        """Bytes of a frame."""
        cell = 0 if self.topology.getPeriodicBoxVectors() is None else 56
        n_sites: int = self.topology.getNumAtoms()
        return cell + 3 * (4 * n_sites + 8)

    def create(self, path: Path) -> None:
        """Write a file of no frames, the same bytes at any time of day."""
        with writing(path), path.open("w+b") as file:
            app.DCDFile(file, self.topology, self.dt, self.first_step, self.every)
            file.seek(_DATE.start)
            file.write(bytes(_DATE.stop - _DATE.start))

    def append(self, path: Path, positions: NDArray[np.float32]) -> None:
        """Add a frame, (n_sites, 3) in nm; it is written as it is, never wrapped."""
        with writing(path), path.open("r+b") as file:
            dcd = app.DCDFile(
                file, self.topology, self.dt, self.first_step, self.every, append=True
            )
            dcd.writeModel(positions)

    def truncate(self, path: Path, n_frames: int) -> None:
        """Forget all but the first ``n_frames`` frames.

        Raises
        ------
        ValueError
            The file has fewer frames.
        """
        size = _HEADER + n_frames * self.frame_size
        if path.stat().st_size < size:
            found = max(0, path.stat().st_size - _HEADER) // self.frame_size
            raise ValueError(f"{path} holds {found} frames, not {n_frames}")
        with path.open("r+b") as file:
            file.truncate(size)
            file.seek(8)
            file.write(struct.pack("<i", n_frames))
