"""Frames of a solute alone, with the forces of the whole system: small files of long runs.

Frames are added to a file of records of one size, which a run that was cut off goes on with; from
time to time all of them are written as the .npz that others read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcg.runtime.arrays import Doubles
from deepcg.runtime.files import read_arrays, to_disk, write_arrays, writing

_GROWTH = 1.1  # the .npz is written anew when the frames are so many more: ten times in all


def records_of(path: Path) -> Path:
    """Return the file of records that belongs to a .npz."""
    return path.with_suffix(".frames.bin")


@dataclass(frozen=True, slots=True)
class SoluteFrames:
    """Frames as ``.npz`` at ``path``, as records beside it.

    Parameters
    ----------
    n_atoms
        Atoms of the solute.
    constants
        Arrays that go into the ``.npz`` as they are.
    """

    path: Path
    n_atoms: int
    constants: dict[str, NDArray[Any]]

    @property
    def records(self) -> Path:
        """The file of records."""
        return records_of(self.path)

    @property
    def _kind(self) -> np.dtype[np.void]:
        rows = (self.n_atoms, 3)
        return np.dtype(
            [("positions", "<f4", rows), ("forces", "<f4", rows)]
            + [(name, "<f4") for name in ("bias", "phi", "psi")]
        )

    def create(self) -> None:
        """Write a file of no frames."""
        self.path.unlink(missing_ok=True)
        with writing(self.records):
            self.records.write_bytes(b"")

    def append(
        self, positions: Doubles, forces: Doubles, bias: float, phi: float, psi: float
    ) -> None:
        """Add a frame: (n_atoms, 3) in nm and in kJ/mol/nm, kJ/mol, and rad twice."""
        with writing(self.records), self.records.open("ab") as file:
            file.write(np.array((positions, forces, bias, phi, psi), self._kind).tobytes())

    def truncate(self, n_frames: int) -> None:
        """Forget all but the first frames."""
        with self.records.open("r+b") as file:
            file.truncate(n_frames * self._kind.itemsize)

    def to_disk(self) -> None:
        """Wait until all frames would survive a power cut; write the .npz if many are new."""
        to_disk(self.records)
        if self._n_records() > _GROWTH * self._n_published():
            self.publish()

    def publish(self) -> None:
        """Write the .npz unless it has all the frames already."""
        frames = np.fromfile(self.records, self._kind)
        if len(frames) not in (0, self._n_published()):
            columns = {name: frames[name] for name in self._kind.names or ()}
            write_arrays(self.path, {**columns, **self.constants})

    def _n_records(self) -> int:
        return self.records.stat().st_size // self._kind.itemsize

    def _n_published(self) -> int:
        if not self.path.exists():
            return 0
        return len(read_arrays(self.path)["bias"])
