"""Boxes that a file of frames does not tell: named by the user, or offered from the topology."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import mdtraj
import numpy as np

from deepcg.geometry.box import volumes
from deepcg.runtime.arrays import Doubles, Floats, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats import Block, TrajectoryFile, symbols_of, time_note
from deepcg.trajectory.formats.dcd import DcdFile
from deepcg.trajectory.formats.dcd_cell import LENGTHS_DEGREES, CellReading
from deepcg.trajectory.formats.recording import times_of
from deepcg.trajectory.topology import MoleculeGraph
from deepcg.units import ANGSTROM

_log = logging.getLogger(__name__)

FROM_TOPOLOGY = "topology"
CELL_IN_TOPOLOGY = (".pdb", ".gro", ".cif")
MANY = 20
"""Molecules: fewer are no liquid."""

LIQUID = 0.5
"""g/cm^3, in the middle of the atoms."""

DALTON_PER_NM3 = 1.66053907e-3  # g/cm^3


@dataclass(frozen=True, slots=True, eq=False)
class BoxedFile:
    """A file of frames that all have one box, (3, 3) in nm, whatever it says itself."""

    inner: TrajectoryFile
    box: Doubles

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.inner.path

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.inner.n_frames

    @property
    def n_atoms(self) -> int:
        """Number of atoms in every frame."""
        return self.inner.n_atoms

    @property
    def numbers(self) -> Integers | None:
        """Atomic numbers (atoms,)."""
        return self.inner.numbers

    @property
    def has_positions(self) -> bool:
        """Whether blocks have positions."""
        return self.inner.has_positions

    @property
    def has_forces(self) -> bool:
        """Whether blocks have forces."""
        return self.inner.has_forces

    @property
    def frame_time(self) -> float | None:
        """Time from frame to frame in ps."""
        return self.inner.frame_time

    @property
    def time_note(self) -> str | None:
        """Why that is not known."""
        return time_note(self.inner)

    @property
    def times(self) -> Doubles | None:
        """Times of the frames (n_frames,), ps, ``None`` where the file does not say."""
        return times_of(self.inner)

    @property
    def symbols(self) -> tuple[str, ...] | None:
        """Symbols (atoms,), ``D`` for deuterium; ``None`` where the file does not say."""
        return symbols_of(self.inner)

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[Block]:
        """Yield the blocks of the file, with the box."""
        for block in self.inner.blocks(chunk, start, stop):
            n_frames = 0 if block.positions is None else len(block.positions)
            yield replace(block, box=np.tile(self.box, (n_frames, 1, 1)))


def with_box(file: TrajectoryFile, text: str, topology: Path | None) -> BoxedFile:
    """Return a file with the box that the user gave; one of its own that differs is told.

    Raises
    ------
    InputError
        The text is no box, or the topology has none.
    """
    box = _of_topology(topology) if text.strip() == FROM_TOPOLOGY else parse_box(text)
    if isinstance(file, DcdFile) and file.cells is not None and file.cells.doubt is not None:
        return BoxedFile(replace(file, cells=None), box)
    own = next(file.blocks(1, 0, 1)).box
    if own is not None and own.any() and not np.allclose(own[0], box, rtol=1e-4, atol=1e-4):
        _log.warning("%s: --box %s takes the place of its own box, %s", file.path, text, _said(own))
    return BoxedFile(file, box)


def parse_box(text: str) -> Doubles:
    """Return box vectors (3, 3), nm, of three lengths, also with three angles, or nine numbers.

    Raises
    ------
    InputError
        They are other numbers, or have no volume.
    """
    try:
        numbers = np.array([float(word) for word in text.replace(",", " ").split()])
    except ValueError:
        numbers = np.empty(0)
    if len(numbers) not in (3, 6, 9) or not np.isfinite(numbers).all():
        raise InputError(
            f"--box {text!r} is no box: give X,Y,Z in nm, X,Y,Z,ALPHA,BETA,GAMMA with degrees, "
            f"nine numbers of three vectors, or {FROM_TOPOLOGY}"
        )
    box = np.diag(numbers)
    if len(numbers) == 9:
        box = numbers.reshape(3, 3)
    elif len(numbers) == 6:
        cell = numbers[None, [0, 5, 1, 4, 3, 2]]  # in the order of a DCD, but in nm
        box = CellReading(LENGTHS_DEGREES).vectors(cell)[0] / ANGSTROM
    if not volumes(box[None])[0] > 1e-3 * np.linalg.norm(box, axis=-1).prod():
        raise InputError(f"--box {text!r} has no positive volume")
    return np.asarray(box, np.float64)


def warn_of_a_missing_box(
    path: Path, graph: MoleculeGraph, positions: Floats, topology: Path | None
) -> None:
    """Warn of a frame (n_atoms, 3), nm, without a box that is as dense as a liquid."""
    density = middle_density(graph, positions)
    if density is None or density < LIQUID:
        return
    offered = cell_of(topology)
    if offered is None:
        way_out = "give --box X,Y,Z (nm) if it is periodic"
    else:
        way_out = (
            f"{topology} says {_said(offered[None])}: give --box {FROM_TOPOLOGY} if that is it"
        )
    _log.warning(
        "%s has no box, but its %d molecules are as dense as a liquid (%.2g g/cm^3): %s; without "
        "one it is a droplet",
        path,
        len(graph.molecules),
        density,
        way_out,
    )


def middle_density(graph: MoleculeGraph, positions: Floats) -> float | None:
    """Return g/cm^3 in a sphere in the middle of many molecules, ``None`` of few."""
    if len(graph.molecules) < MANY:
        return None
    masses = np.array([a.element.mass if a.element else 0.0 for a in graph.topology.atoms])
    middle = np.median(positions, axis=0)
    radius = 0.4 * float(np.ptp(np.percentile(positions, [5, 95], axis=0), axis=0).min())
    inside = np.linalg.norm(positions - middle, axis=-1) < radius
    if radius <= 0 or inside.sum() < MANY:
        return None
    return float(masses[inside].sum() * DALTON_PER_NM3 / (4 / 3 * np.pi * radius**3))


def cell_of(topology: Path | None) -> Doubles | None:
    """Return the box vectors (3, 3), nm, that a topology file says, if it does."""
    if topology is None or topology.suffix.lower() not in CELL_IN_TOPOLOGY:
        return None
    try:
        box = mdtraj.load(str(topology)).unitcell_vectors
    except Exception:  # MDTraj's parsers raise whatever; its topology was read already
        return None
    return None if box is None or not box[0].any() else np.asarray(box[0], np.float64)


def _of_topology(topology: Path | None) -> Doubles:
    box = cell_of(topology)
    if box is None:
        raise InputError(
            f"--box {FROM_TOPOLOGY}: {topology or 'there is no topology, so it'} says no box "
            "(CRYST1 of a .pdb, the last line of a .gro): give --box X,Y,Z in nm"
        )
    return box


def _said(box: Floats) -> str:
    lengths = " ".join(f"{length:.4f}" for length in np.linalg.norm(box[0], axis=-1))
    return f"{lengths} nm"
