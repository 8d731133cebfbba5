"""All other trajectories, as MDTraj reads them: positions and boxes, no forces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import mdtraj
import numpy as np

from deepcg.runtime.arrays import Doubles, Integers
from deepcg.runtime.errors import InputError
from deepcg.runtime.warnings_of_libraries import quiet
from deepcg.trajectory.formats.recording import Block, spacing, spans

STREAMED = (".nc", ".ncdf", ".netcdf", ".h5", ".hdf5")
WHOLE = (
    ".pdb",
    ".pdb.gz",
    ".cif",
    ".cif.gz",
    ".mmcif",
    ".mmcif.gz",
    ".pdbx",
    ".pdbx.gz",
    ".gro",
    ".lh5",
    ".mdcrd",
    ".crd",
    ".rst7",
    ".ncrst",
    ".inpcrd",
    ".restrt",
    ".arc",
    ".dtr",
    ".gsd",
)


NEEDS_TABLES = (".h5", ".hdf5", ".lh5")


@dataclass(frozen=True, slots=True, eq=False)
class MdtrajFile:
    """A trajectory that MDTraj reads; see `open_mdtraj`."""

    path: Path
    topology: mdtraj.Topology
    n_frames: int
    n_atoms: int
    frame_time: float | None
    streamed: bool
    time_note: str | None = None
    numbers: Integers | None = None
    has_positions: bool = True
    has_forces: bool = False

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[Block]:
        """Yield frames ``start`` to ``stop``, ``chunk`` in each block but the last."""
        parts = self._stream(chunk, start) if self.streamed else self._slices(chunk, start, stop)
        for first, last in spans(chunk, start, stop):
            try:
                with quiet():
                    part = next(parts)[: last - first]
                    box = _box(part)
            except Exception as error:  # as in `open_mdtraj`
                raise _unreadable(self.path, error) from error
            if len(part) < last - first:
                raise InputError(f"{self.path} ends within frame {first + len(part)}")
            yield Block(part.xyz, box, None)

    def _stream(self, chunk: int, start: int) -> Iterator[mdtraj.Trajectory]:
        top = None if self.path.suffix in (".h5", ".hdf5") else self.topology
        yield from mdtraj.iterload(str(self.path), top=top, chunk=chunk, skip=start)

    def _slices(self, chunk: int, start: int, stop: int) -> Iterator[mdtraj.Trajectory]:
        whole = _load(self.path, self.topology)
        for first, last in spans(chunk, start, stop):
            yield whole[first:last]


def check_readable(path: Path) -> None:
    """Refuse an HDF5 file where the package that MDTraj needs for it is not installed."""
    if path.suffix in NEEDS_TABLES and find_spec("tables") is None:
        raise InputError(f"reading {path} needs the package tables: pip install tables")


def open_mdtraj(path: Path, ending: str, topology: mdtraj.Topology) -> MdtrajFile:
    """Open a trajectory and count its frames.

    Formats of ``WHOLE`` are small as a rule and read at once; the others stream.

    Raises
    ------
    InputError
        MDTraj cannot read it, or it does not have the atoms of the topology.
    """
    check_readable(path)
    streamed = ending in STREAMED
    try:
        if streamed:
            with quiet(), mdtraj.open(str(path)) as file:
                n_frames = len(file)
                n_atoms = file.read(n_frames=1)[0].shape[1]
        else:
            whole = _load(path, topology)
            n_frames, n_atoms = len(whole), whole.n_atoms
        same = n_atoms == topology.n_atoms
        times = _times(path, topology, n_frames) if streamed and same else np.zeros(1)
    except Exception as error:  # MDTraj's parsers raise whatever they stumble over
        raise _unreadable(path, error) from error
    if n_frames == 0:
        raise InputError(f"{path} has no frames")
    even = spacing(times)
    return MdtrajFile(path, topology, n_frames, n_atoms, even.step, streamed, even.note)


def _times(path: Path, topology: mdtraj.Topology, n_frames: int) -> Doubles:
    """Return the times (f,), ps, of all frames; of many the first atom alone is read."""
    top = None if path.suffix in (".h5", ".hdf5") else topology
    with quiet():
        parts = mdtraj.iterload(str(path), top=top, chunk=max(1, n_frames // 10), atom_indices=[0])
        return np.concatenate([part.time for part in parts]).astype(np.float64)


def _box(part: mdtraj.Trajectory) -> Doubles | None:
    """Return box vectors (f, 3, 3), nm, zeros where the lengths of the cell are zero."""
    vectors = part.unitcell_vectors
    if vectors is None:
        return None
    box = np.array(vectors, np.float64)
    box[~part.unitcell_lengths.any(-1)] = 0.0
    return box


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(f"{path} cannot be read with its topology: {reason}")


def _load(path: Path, topology: mdtraj.Topology) -> mdtraj.Trajectory:
    own = path.name.endswith((".pdb", ".pdb.gz", ".gro", ".lh5", ".arc", ".gsd")) or any(
        path.name.endswith(e) for e in (".cif", ".mmcif", ".pdbx", ".cif.gz", ".mmcif.gz")
    )
    with quiet():
        return mdtraj.load(str(path)) if own else mdtraj.load(str(path), top=topology)
