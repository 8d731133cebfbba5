"""File formats: every one gives a `TrajectoryFile`, in nm and kJ/mol/nm.

================  ==============================================================================
`recording`       `TrajectoryFile` and `Block`: what any file of frames gives
`dcd`             .dcd, by memory map
`dcd_writer`      .dcd that can be cut back and continued
`xtc`             .xtc, every number checked; its loops are in ``xtc_loops``
`trr`             .trr of GROMACS, with forces
`numpy_files`     .npy and .npz
`ase_files`       extended XYZ and LAMMPS dumps
`deepmd`          DeePMD folders
`mdtraj_file`     whatever else MDTraj reads, without forces
`units`           the units of formats that leave them open
================  ==============================================================================

May import ``runtime``, ``units`` and nothing else of the package.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mdtraj

from deepcg.runtime.errors import InputError, nearest
from deepcg.trajectory.formats.ase_files import open_dump, open_extxyz
from deepcg.trajectory.formats.dcd import open_dcd
from deepcg.trajectory.formats.deepmd import open_deepmd
from deepcg.trajectory.formats.mdtraj_file import STREAMED, WHOLE, check_readable, open_mdtraj
from deepcg.trajectory.formats.numpy_files import NpyFile, open_npy, open_npz
from deepcg.trajectory.formats.recording import Block, TrajectoryFile
from deepcg.trajectory.formats.trr import open_trr
from deepcg.trajectory.formats.units import FileUnits, parse_units
from deepcg.trajectory.formats.xtc import open_xtc

__all__ = [
    "FIXED_UNITS",
    "IN_UNITS",
    "Block",
    "FileUnits",
    "NpyFile",
    "TrajectoryFile",
    "check_readable",
    "ending_of",
    "in_units",
    "open_trajectory_file",
    "parse_units",
]

FIXED_UNITS: dict[str, Callable[[Path], TrajectoryFile]] = {
    ".dcd": open_dcd,
    ".trr": open_trr,
    ".xtc": open_xtc,
}

# the second entry is what the numbers are in where the user does not say (None: they must)
IN_UNITS: dict[str, tuple[Callable[[Path, FileUnits], TrajectoryFile], str | None]] = {
    ".npy": (open_npy, "nm,kJ/mol"),
    ".npz": (open_npz, "nm,kJ/mol"),
    ".xyz": (open_extxyz, "A,eV"),
    ".extxyz": (open_extxyz, "A,eV"),
    ".dump": (open_dump, None),
    ".lammpstrj": (open_dump, None),
    "folder": (open_deepmd, "A,eV"),
}


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
    path: Path, *, units: str | None = None, topology: mdtraj.Topology | None = None
) -> TrajectoryFile:
    """Open a file of frames by its ending.

    ``units`` (such as ``"A,eV"``) counts for the formats that do not fix theirs. ``topology`` is
    needed where MDTraj reads the file.

    Raises
    ------
    InputError
        The file is missing, of unknown kind, or cannot be read.
    """
    if not path.exists():
        raise InputError(f"there is no file {path}")
    ending = ending_of(path)
    if ending in FIXED_UNITS:
        return FIXED_UNITS[ending](path)
    if ending in IN_UNITS:
        opener, default = IN_UNITS[ending]
        chosen = units or default
        if chosen is None:
            raise InputError(
                f"a LAMMPS dump does not say its units: give --units for {path}, 'A,kcal/mol' for "
                f"units real, 'A,eV' for metal"
            )
        return opener(path, parse_units(chosen))
    known = [*FIXED_UNITS, *(e for e in IN_UNITS if e != "folder"), *STREAMED, *WHOLE]
    if ending not in known:
        raise InputError(
            f"{path}: files {ending or 'without an ending'!r} are not known"
            f"{nearest(ending, known)} (choices: {' '.join(sorted(known))}, or a "
            f"DeePMD folder)"
        )
    if topology is None:
        raise InputError(
            f"{path} has no forces: use a .npy, .npz, .trr, .dump, .xyz or DeePMD folder"
        )
    return open_mdtraj(path, ending, topology)
