"""NetCDF files of AMBER that have forces (``ntwf``): with positions, or of forces alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.geometry import cellpar_to_cell
from scipy.io import netcdf_file

from deepcg.runtime.arrays import Doubles, Floats, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.formats.recording import Block, spans
from deepcg.units import ANGSTROM, KCAL

FORCE_UNITS = {
    "kilocalorie/mole/angstrom": KCAL / ANGSTROM,
    "kcal/mol/angstrom": KCAL / ANGSTROM,
    "amu*angstrom/picosecond^2": ANGSTROM,
}
"""kJ/mol/nm, by the attribute ``units`` of the forces."""

_CLASSIC = b"CDF"


@dataclass(frozen=True, slots=True, eq=False)
class AmberNetcdf:
    """Forces, and perhaps positions and cells, of a NetCDF file; see `open_amber`."""

    path: Path
    n_frames: int
    n_atoms: int
    force_unit: float
    times: Doubles | None
    has_positions: bool
    contents: tuple[str, ...]
    numbers: Integers | None = None
    has_forces: bool = True

    @property
    def frame_time(self) -> float | None:
        """Time from frame to frame in ps, ``None`` where it is not known or not even."""
        if self.times is None or len(self.times) < 2:
            return None
        steps = np.diff(self.times)
        return float(steps.mean()) if np.allclose(steps, steps.mean(), rtol=1e-3) else None

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[Block]:
        """Yield frames ``start`` to ``stop``, ``chunk`` in each block but the last."""
        with _opened(self.path) as file:
            for first, last in spans(chunk, start, stop):
                forces = _values(file, "forces", first, last) * self.force_unit
                positions, box = None, None
                if self.has_positions:
                    positions = _values(file, "coordinates", first, last) * ANGSTROM
                if "cell_lengths" in file.variables and "cell_angles" in file.variables:
                    lengths = _values(file, "cell_lengths", first, last)
                    angles = _values(file, "cell_angles", first, last)
                    box = _cells(self.path, first, lengths, angles)
                yield Block(_single(positions), box, _single(forces))


def has_forces(path: Path) -> bool:
    """Whether a file is NetCDF (classic or with 64-bit offsets) with a variable ``forces``."""
    with path.open("rb") as file:
        if file.read(3) != _CLASSIC:
            return False
    with _opened(path) as opened:
        return "forces" in opened.variables


def open_amber(path: Path) -> AmberNetcdf:
    """Open a NetCDF file of AMBER's convention with forces.

    Raises
    ------
    InputError
        The units of its forces are not known, or its arrays do not agree.
    """
    with _opened(path) as file:
        forces = file.variables["forces"]
        unit = getattr(forces, "units", b"").decode(errors="replace").strip()
        if unit not in FORCE_UNITS:
            raise InputError(
                f"{path}: its forces are in {unit!r}, which is not known (choices: "
                f"{', '.join(FORCE_UNITS)})"
            )
        shape = tuple(forces.shape)
        if len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise InputError(f"{path}: the forces have shape {shape}, not (frames, atoms, 3)")
        positions = file.variables.get("coordinates")
        if positions is not None and tuple(positions.shape) != shape:
            raise InputError(f"{path}: positions are {tuple(positions.shape)}, forces {shape}")
        times = _values(file, "time", 0, shape[0]) if "time" in file.variables else None
        names = tuple(file.variables)
    return AmberNetcdf(
        path, shape[0], shape[1], FORCE_UNITS[unit], times, positions is not None, names
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Map a file into memory; what is read from it must be copied."""
    with path.open("rb") as stream:
        try:
            file = netcdf_file(stream, "r", mmap=True)
        except Exception as error:  # the parser raises whatever it stumbles over
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise InputError(f"{path} is no NetCDF file that can be read: {reason}") from error
        try:
            yield file
        finally:
            with warnings.catch_warnings():  # variables in use keep the map open a little longer
                warnings.simplefilter("ignore", RuntimeWarning)
                file.close()


def _single(values: Doubles | None) -> Floats | None:
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is told by the reader
        return None if values is None else values.astype(np.float32)


def _values(file: Any, name: str, first: int, last: int) -> Doubles:
    """Return rows in the unit of the file, by the factor that it says."""
    variable = file.variables[name]
    factor = float(getattr(variable, "scale_factor", 1.0))
    return np.array(variable[first:last], np.float64) * factor


def _cells(path: Path, first: int, lengths: Doubles, angles: Doubles) -> Doubles | None:
    """Return box vectors (frames, 3, 3), nm; ``None`` where all lengths are 0."""
    if not lengths.any():
        return None
    cells = np.empty((len(lengths), 3, 3))
    for k, (a, b) in enumerate(zip(lengths, angles, strict=True)):
        try:
            with np.errstate(all="raise", under="ignore"):
                cells[k] = cellpar_to_cell([*a, *b])
        except (AssertionError, FloatingPointError) as error:
            raise InputError(
                f"{path}: lengths {a.tolist()} A and angles {b.tolist()} of frame {first + k} are "
                f"no cell"
            ) from error
    return cells * ANGSTROM
