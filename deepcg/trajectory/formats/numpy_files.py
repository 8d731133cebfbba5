"""NumPy files: positions or forces in a .npy, both in a .npz."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from deepcg.runtime.arrays import Floats, Integers
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import check_unpacked
from deepcg.trajectory.formats.array_names import DEFAULT_UNITS, KEYS, chosen_names, units_said
from deepcg.trajectory.formats.recording import Block, spans
from deepcg.trajectory.formats.units import FileUnits, parse_units
from deepcg.units import thermal_energy


@dataclass(frozen=True, slots=True)
class NpyPositions:
    """Positions (frames, atoms, 3) in a .npy, mapped into memory."""

    path: Path
    n_frames: int
    n_atoms: int
    length_unit: float
    numbers: Integers | None = None
    has_positions: bool = True
    has_forces: bool = False
    frame_time: float | None = None
    contents: tuple[str, ...] = ("one array, of positions",)

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[Block]:
        """Yield frames ``start`` to ``stop``, ``chunk`` in each block but the last."""
        positions = np.load(self.path, mmap_mode="r", allow_pickle=False)
        for first, last in spans(chunk, start, stop):
            yield Block(_scaled(positions[first:last], self.length_unit), None, None)


def open_npy_positions(path: Path, units: FileUnits | None) -> NpyPositions:
    """Open positions in a .npy, without a box.

    Raises
    ------
    InputError
        It is no .npy of shape (frames, atoms, 3).
    """
    positions = mapped(path)
    _check_rows(path, "positions", positions.shape, positions.dtype)
    length = (units or parse_units(DEFAULT_UNITS)).length
    return NpyPositions(path, len(positions), positions.shape[1], length)


@dataclass(frozen=True, slots=True)
class NpyFile:
    """Forces (frames, atoms, 3) in a .npy, mapped into memory.

    ``note`` is what a .json beside it says: its forces were computed for the positions as they
    are read here (in the axes of the reduced box). ``None`` where there is no .json.
    """

    path: Path
    n_frames: int
    n_atoms: int
    force_unit: float
    note: dict[str, object] | None
    numbers: Integers | None = None
    has_positions: bool = False
    has_forces: bool = True
    frame_time: float | None = None

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[Block]:
        """Yield frames ``start`` to ``stop``, ``chunk`` in each block but the last."""
        forces = np.load(self.path, mmap_mode="r", allow_pickle=False)
        for first, last in spans(chunk, start, stop):
            yield Block(None, None, _scaled(forces[first:last], self.force_unit))


def open_npy(path: Path, units: FileUnits | None) -> NpyFile:
    """Open forces; a .json beside them (``X.forces.json``) gives their units.

    Raises
    ------
    InputError
        It is no .npy of shape (frames, atoms, 3), or its units are contradicted.
    """
    forces, units = mapped(path), units or parse_units(DEFAULT_UNITS)
    _check_rows(path, "forces", forces.shape, forces.dtype)
    return NpyFile(path, len(forces), forces.shape[1], units.force, _note(path, units))


def mapped(path: Path) -> NDArray[Any]:
    """Return the array (...) of a .npy, as it is, mapped into memory.

    Raises
    ------
    InputError
        It is no .npy, or is shorter or longer than its header says.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy's parser of headers raises whatever it stumbles over
        raise _unreadable(path, ".npy", error) from error
    if not isinstance(array, np.memmap) or array.offset + array.nbytes != path.stat().st_size:
        raise InputError(f"{path} is no .npy file that can be read: it is not as long as it says")
    return array


def _note(path: Path, units: FileUnits) -> dict[str, object] | None:
    file = path.with_suffix(".json")
    if not file.exists():
        return None
    try:
        note = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"{file} is no JSON: {error}") from error
    said = note.get("units") if isinstance(note, dict) else None
    if said != "kJ/mol/nm" or units.force != 1:
        raise InputError(
            f"{file} says that the forces are in {said!r}; only 'kJ/mol/nm' is known there, and no "
            f"other units can be given with it"
        )
    return dict(note)


@dataclass(frozen=True, slots=True, eq=False)
class NpzFile:
    """Arrays of a .npz, read from the archive as a stream; see `open_npz`."""

    path: Path
    n_frames: int
    n_atoms: int
    units: FileUnits
    keys: dict[str, str]
    box: Floats | None
    weights: Floats | None
    numbers: Integers | None
    contents: tuple[str, ...] = ()
    frame_time: float | None = None

    @property
    def has_positions(self) -> bool:
        """Whether the archive has positions."""
        return "positions" in self.keys

    @property
    def has_forces(self) -> bool:
        """Whether the archive has forces."""
        return "forces" in self.keys

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[Block]:
        """Yield frames ``start`` to ``stop``, ``chunk`` in each block but the last."""
        with zipfile.ZipFile(self.path) as archive:
            streams = {
                what: _rows(archive, self.keys[what], chunk, start, stop)
                for what in ("positions", "forces")
                if what in self.keys
            }
            for first, last in spans(chunk, start, stop):
                part = {what: next(stream) for what, stream in streams.items()}
                yield Block(
                    _scaled(part.get("positions"), self.units.length),
                    self._boxes(first, last),
                    _scaled(part.get("forces"), self.units.force),
                    None if self.weights is None else self.weights[first:last],
                )

    def _boxes(self, first: int, last: int) -> Floats | None:
        if self.box is None:
            return None
        rows = self.box[first:last] if len(self.box) > 1 else self.box
        return np.broadcast_to(rows * self.units.length, (last - first, 3, 3))


def open_npz(path: Path, units: FileUnits | None, forces: str | None = None) -> NpzFile:
    """Open an archive with positions and forces, by the names of `KEYS` and those with "force".

    ``box`` may be (3,), (3, 3), (frames, 3) or (frames, 3, 3). Units are those that the user says,
    else those in ``r_unit`` and ``e_unit``, else nm and kJ/mol. Statistical weights are taken from
    ``weights`` or, for frames of a biased run, from ``bias`` (kJ/mol) and ``temperature`` (K) as
    exp(bias / kT), the largest being 1. ``forces`` is the name of those to take.

    Raises
    ------
    InputError
        It is no .npz, has neither positions nor forces, has them by several names, or its shapes
        do not agree.
    """
    try:
        with path.open("rb") as file:
            check_unpacked(file)
        with zipfile.ZipFile(path) as archive:
            found = {name[:-4]: _array(archive, name) for name in archive.namelist()}
        shapes = {name: shape for name, (shape, _) in found.items()}
        small = {n: s for n, s in shapes.items() if n in _SMALL and math.prod(s) < 10**8}
        with np.load(path, allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in small}
    except Exception as error:  # as of a .npy, and of the archive
        raise _unreadable(path, ".npz", error) from error
    keys = chosen_names(path, shapes, forces)
    large = {what: shapes[keys[what]] for what in ("positions", "forces") if what in keys}
    if not large:
        raise InputError(
            f"{path} has neither positions (or coords, R) nor forces (or Fs, F): "
            f"it has {', '.join(sorted(shapes))}"
        )
    for what, shape in large.items():
        _check_rows(path, what, shape, found[keys[what]][1])
    if len(set(large.values())) > 1:
        raise InputError(f"{path}: positions are {large['positions']}, forces {large['forces']}")
    n_frames, n_atoms, _ = next(iter(large.values()))
    return NpzFile(
        path,
        n_frames,
        n_atoms,
        units_said(path, values, units),
        keys,
        _npz_box(path, values.get(keys.get("box", "")), n_frames),
        _npz_weights(path, values, n_frames),
        _npz_numbers(path, values.get(keys.get("numbers", "")), n_atoms),
        tuple(f"{name} {shape}" for name, shape in shapes.items()),
    )


_SMALL = {*KEYS["box"], *KEYS["numbers"], "weights", "bias", "temperature", "r_unit", "e_unit"}


def _npz_box(path: Path, box: Floats | None, n_frames: int) -> Floats | None:
    """Return (1 or frames, 3, 3)."""
    if box is None:
        return None
    if box.shape in ((3, 3), (n_frames, 3, 3)):
        return box.reshape(-1, 3, 3).astype(np.float64)
    if box.shape in ((3,), (n_frames, 3)):
        return box.reshape(-1, 3, 1).astype(np.float64) * np.eye(3)
    raise InputError(f"{path}: the box has shape {box.shape}, not (3, 3) or ({n_frames}, 3, 3)")


def _npz_weights(path: Path, values: dict[str, Floats], n_frames: int) -> Floats | None:
    if "weights" in values:
        weights = values["weights"]
    elif "bias" in values:
        if "temperature" not in values:
            raise InputError(f"{path} has a bias (kJ/mol) but no temperature (K) to weight it with")
        kT = thermal_energy(float(values["temperature"]))
        bias = values["bias"].astype(np.float64)
        weights = np.exp((bias - bias.max()) / kT)
    else:
        return None
    if weights.shape != (n_frames,) or not np.isfinite(weights).all():
        raise InputError(f"{path}: the weights or the bias are not {n_frames} finite numbers")
    return weights


def _npz_numbers(path: Path, numbers: Floats | None, n_atoms: int) -> Integers | None:
    if numbers is None:
        return None
    if numbers.ndim == 2 and numbers.shape[1] == n_atoms and (numbers == numbers[0]).all():
        numbers = numbers[0]  # said anew for each frame
    if numbers.shape != (n_atoms,):
        raise InputError(f"{path}: {numbers.shape} atomic numbers for {n_atoms} atoms")
    return numbers.astype(np.int64)


def _check_rows(path: Path, what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise InputError(f"{path}: the {what} have shape {shape}, not (frames, atoms, 3)")
    if dtype.kind not in "fiu":
        raise InputError(f"{path}: the {what} are of type {dtype}, not numbers")


def _unreadable(path: Path, kind: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:150] or type(error).__name__
    return InputError(f"{path} is no {kind} file that can be read: {reason}")


def _scaled(values: Floats | None, unit: float) -> Floats | None:
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is told by the reader
        return None if values is None else values * np.float32(unit)


def _array(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and type of an array whose numbers are all there."""
    with archive.open(name) as member:
        shape, dtype = _header(member)
        if member.tell() + math.prod(shape) * dtype.itemsize != archive.getinfo(name).file_size:
            raise ValueError(f"{name} does not have the {shape} numbers that it says")
        return shape, dtype


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError(f"version {version} of the .npy format is not known")
    shape, fortran, dtype = read[version](member)
    if fortran and len(shape) > 1:
        raise ValueError("an array is in Fortran order; save it in C order")
    return shape, dtype


def _rows(
    archive: zipfile.ZipFile, key: str, chunk: int, start: int, stop: int
) -> Iterator[Floats]:
    """Yield rows of an array without unpacking all of it."""
    with archive.open(f"{key}.npy") as member:
        (length, *inner), dtype = _header(member)
        size = math.prod(inner) * dtype.itemsize
        try:
            member.seek(start * size, 1)
            for first, last in spans(chunk, start, stop):
                data = member.read((last - first) * size)
                if last == length:
                    member.read(1)  # at its end the archive's checksum is compared
                yield np.frombuffer(data, dtype).reshape(last - first, *inner)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            name = Path(str(archive.filename))
            raise _unreadable(name, f".npz ({key} is damaged)", error) from error
