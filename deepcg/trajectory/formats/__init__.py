"""File formats: every one gives a `TrajectoryFile`, in nm and kJ/mol/nm.

================  ==============================================================================
`recording`       `TrajectoryFile` and `Block`: what any file of frames gives
`dcd`             .dcd, by memory map
`dcd_cell`        what the cell of a .dcd means: cosines, degrees or a shape matrix
`dcd_time`        the unit of the time step of a .dcd
`dcd_writer`      .dcd that can be cut back and continued
`xtc`             .xtc, every number checked; its loops are in ``xtc_loops``
`trr`             .trr of GROMACS, with forces
`numpy_files`     .npy and .npz
`array_names`     what the arrays in a .npz are called by many makers
`ase_files`       extended XYZ and LAMMPS dumps
`xyz_text`        where frames of XYZ begin, and what their columns are
`dump_text`       sections of LAMMPS dumps by their names
`text_lines`      lines of text files, packed or not
`cp2k`            CP2K's files of forces
`amber_netcdf`    NetCDF of AMBER that has forces
`text_elements`   labels and masses of atoms in text files
`deepmd`          DeePMD folders
`mdtraj_file`     whatever else MDTraj reads, without forces
`plumed`          tables of PLUMED: COLVAR, HILLS, grids
`recognised`      files of other programs that are no trajectories
`units`           the units of formats that leave them open
================  ==============================================================================

May import ``runtime``, ``units`` and, of ``trajectory``, what names and masses say of elements.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import mdtraj

from deepcg.runtime.errors import InputError, nearest
from deepcg.trajectory.formats.amber_netcdf import has_forces, open_amber
from deepcg.trajectory.formats.array_names import DEFAULT_UNITS, names_positions
from deepcg.trajectory.formats.ase_files import open_dump, open_extxyz
from deepcg.trajectory.formats.cp2k import is_listing, open_listing, open_xyz_forces
from deepcg.trajectory.formats.dcd import open_dcd
from deepcg.trajectory.formats.deepmd import open_deepmd
from deepcg.trajectory.formats.mdtraj_file import STREAMED, WHOLE, check_readable, open_mdtraj
from deepcg.trajectory.formats.numpy_files import (
    NpyFile,
    open_npy,
    open_npy_positions,
    open_npz,
)
from deepcg.trajectory.formats.recognised import other_kind
from deepcg.trajectory.formats.recording import (
    Block,
    TrajectoryFile,
    contents_of,
    symbols_of,
    time_note,
)
from deepcg.trajectory.formats.trr import open_trr
from deepcg.trajectory.formats.units import FileUnits, parse_units
from deepcg.trajectory.formats.xtc import open_xtc

_log = logging.getLogger(__name__)

__all__ = [
    "FIXED_UNITS",
    "FRAMES",
    "IN_UNITS",
    "Block",
    "FileUnits",
    "NpyFile",
    "TrajectoryFile",
    "check_readable",
    "contents_of",
    "ending_of",
    "in_units",
    "names_positions",
    "open_forces",
    "open_positions",
    "open_trajectory_file",
    "other_kind",
    "parse_units",
    "symbols_of",
    "time_note",
]

FIXED_UNITS: dict[str, Callable[[Path], TrajectoryFile]] = {
    ".dcd": open_dcd,
    ".trr": open_trr,
    ".xtc": open_xtc,
}

# the second entry is what the numbers are in where the user does not say (None: the file may)
IN_UNITS: dict[str, tuple[Callable[..., TrajectoryFile], str | None]] = {
    ".npy": (open_npy, DEFAULT_UNITS),
    ".npz": (open_npz, None),
    ".xyz": (open_extxyz, "A,eV"),
    ".xyz.gz": (open_extxyz, "A,eV"),
    ".extxyz": (open_extxyz, "A,eV"),
    ".extxyz.gz": (open_extxyz, "A,eV"),
    ".dump": (open_dump, None),
    ".dump.gz": (open_dump, None),
    ".lammpstrj": (open_dump, None),
    ".lammpstrj.gz": (open_dump, None),
    "folder": (open_deepmd, "A,eV"),
}

WITH_NAMES = (".npz", ".xyz", ".xyz.gz", ".extxyz", ".extxyz.gz")
"""Formats whose forces have a name, of which there may be several."""

NETCDF = (".nc", ".ncdf", ".netcdf")


FRAMES = (*FIXED_UNITS, *(e for e in IN_UNITS if e != "folder"), *STREAMED, *WHOLE)
"""Endings of all files of frames."""


def ending_of(path: Path) -> str:
    """Return the kind of a file by its name: its lower-case ending, or ``folder``."""
    if path.is_dir() and path.suffix != ".dtr":
        return "folder"
    name = path.name.lower()
    return "".join(Path(name).suffixes[-2:]) if name.endswith(".gz") else Path(name).suffix


def in_units(path: Path) -> bool:
    """Whether the format leaves its units to the user."""
    return ending_of(path) in IN_UNITS


def open_trajectory_file(
    path: Path,
    *,
    units: str | None = None,
    topology: mdtraj.Topology | None = None,
    force_name: str | None = None,
) -> TrajectoryFile:
    """Open a file of frames by its ending.

    ``units`` (such as ``"A,eV"``) counts for the formats that do not fix theirs. ``topology`` is
    needed where MDTraj reads the file. ``force_name`` is that of the columns or the array of forces
    in a file of `WITH_NAMES`.

    Raises
    ------
    InputError
        The file is missing, empty, of unknown kind, or cannot be read.
    """
    if not path.exists():
        raise InputError(f"there is no file {path}")
    ending = ending_of(path)
    if ending in (*FIXED_UNITS, *IN_UNITS):
        if path.is_file() and path.stat().st_size == 0:
            raise InputError(f"{path} is empty: it has 0 bytes")
        if force_name is not None and ending not in WITH_NAMES:
            raise InputError(f"{path} has forces without a name: leave out ':{force_name}'")
        if ending in FIXED_UNITS:
            return FIXED_UNITS[ending](path)
        return _open_in_units(path, ending, units, force_name)
    if ending in NETCDF and has_forces(path):
        return open_amber(path)
    if ending not in FRAMES:
        other = other_kind(path)
        if other is not None:
            raise InputError(f"{path} is no trajectory but {other.kind}: {other.use}")
        raise InputError(
            f"{path}: files {ending or 'without an ending'!r} are not known"
            f"{nearest(ending, FRAMES)} (choices: {' '.join(sorted(FRAMES))}, or a "
            f"DeePMD folder)"
        )
    if topology is None:
        raise InputError(
            f"{path} has no forces: use a .npy, .npz, .trr, .dump, .xyz or DeePMD folder"
        )
    return open_mdtraj(path, ending, topology)


def open_positions(
    path: Path,
    *,
    units: str | None = None,
    topology: mdtraj.Topology | None = None,
    force_name: str | None = None,
) -> TrajectoryFile:
    """Open a file as ``open_trajectory_file`` does, a .npy not called forces as positions.

    Raises
    ------
    InputError
        As there.
    """
    if ending_of(path) in (".xyz", ".xyz.gz") and "-frc-" in path.name:
        raise InputError(
            f"{path} has forces by its name, as CP2K gives it: give it as --forces, beside "
            f"{path.name.replace('-frc-', '-pos-')}"
        )
    if ending_of(path) == ".npy" and "force" not in path.name.lower() and path.is_file():
        return open_npy_positions(path, None if units is None else parse_units(units))
    return open_trajectory_file(path, units=units, topology=topology, force_name=force_name)


def open_forces(
    path: Path, *, units: str | None = None, force_name: str | None = None
) -> TrajectoryFile:
    """Open a file as ``open_trajectory_file`` does, those of CP2K as forces.

    Raises
    ------
    InputError
        As there.
    """
    ending = ending_of(path)
    known = None if units is None else parse_units(units)
    text = ending in (".xyz", ".xyz.gz") or ending not in (*FIXED_UNITS, *IN_UNITS, *STREAMED)
    if text and path.is_file() and is_listing(path):
        return open_listing(path, known)
    recording = open_trajectory_file(path, units=units, force_name=force_name)
    if ending in (".xyz", ".xyz.gz") and contents_of(recording) == "element, x, y, z":
        return open_xyz_forces(path, known)
    return recording


def _open_in_units(
    path: Path, ending: str, units: str | None, force_name: str | None
) -> TrajectoryFile:
    opener, default = IN_UNITS[ending]
    chosen = units or default
    known = None if chosen is None else parse_units(chosen)
    recording = opener(path, known) if force_name is None else opener(path, known, force_name)
    if known is not None and known.ambiguous and recording.has_forces:
        _log.warning(
            "%s: forces are read as hartree/%s; if they are in hartree/bohr give --units '%s/bohr'",
            path,
            known.name.partition(",")[0],
            known.name,
        )
    return recording
