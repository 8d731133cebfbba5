"""DeePMD folders: type.raw, type_map.raw and set.*/ with coord.npy, force.npy, box.npy.

An empty file nopbc says that there is no box. In the format deepmd/npy/mixed the types are those
of set.*/real_atom_types.npy.

Units are A and eV unless others are given. A folder that holds several such systems of the same
atoms (data_0, data_1, ...) is one recording, in the order of the names.
They are read here, so that neither DeePMD-kit nor dpdata has to be there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepcg.runtime.arrays import Floats, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.element_names import numbers_of, of_label
from deepcg.trajectory.formats.numpy_files import mapped
from deepcg.trajectory.formats.recording import Block, spans
from deepcg.trajectory.formats.units import FileUnits


@dataclass(frozen=True, slots=True, eq=False)
class DeepmdFolder:
    """Sets of one system or of several with the same atoms; see `open_deepmd`."""

    path: Path
    sets: tuple[Path, ...]
    lengths: tuple[int, ...]
    n_atoms: int
    units: FileUnits
    numbers: Integers | None
    has_forces: bool
    periodic: bool
    has_positions: bool = True
    frame_time: float | None = None
    symbols: tuple[str, ...] | None = None

    @property
    def n_frames(self) -> int:
        """Number of frames of all sets."""
        return sum(self.lengths)

    def blocks(self, chunk: int, start: int, stop: int) -> Iterator[Block]:
        """Yield frames ``start`` to ``stop``, ``chunk`` in each block but the last."""
        for first, last in spans(chunk, start, stop):
            yield Block(
                self._rows("coord", self.n_atoms, first, last) * np.float32(self.units.length),
                self._rows("box", 3, first, last) * self.units.length if self.periodic else None,
                self._rows("force", self.n_atoms, first, last) * np.float32(self.units.force)
                if self.has_forces
                else None,
            )

    def _rows(self, name: str, rows: int, first: int, last: int) -> Floats:
        """Return (last - first, rows, 3) from all the sets that the frames lie in."""
        parts = []
        begin = 0
        for folder, length in zip(self.sets, self.lengths, strict=True):
            if begin < last and first < begin + length:
                values = _load(folder / f"{name}.npy")
                parts.append(values[max(first - begin, 0) : last - begin].reshape(-1, rows, 3))
            begin += length
        return np.concatenate(parts)


def open_deepmd(path: Path, units: FileUnits) -> DeepmdFolder:
    """Open a DeePMD system, or a folder of systems whose atoms are the same.

    Raises
    ------
    InputError
        The atoms of the systems differ, or a set's arrays are missing or of the wrong size.
    """
    systems = _systems(path)
    if not systems:
        raise InputError(f"{path} is no DeePMD folder: it has no type.raw, nor has a folder in it")
    kinds = [_types(system) for system in systems]
    for system, kind in zip(systems, kinds, strict=True):
        if kind != kinds[0]:
            raise InputError(
                f"{system} and {systems[0]} do not have the same atoms (type.raw, "
                f"type_map.raw): give one of them instead of {path}"
            )
    sets = tuple(s for system in systems for s in sorted(system.glob("set.*")) if s.is_dir())
    if not sets:
        raise InputError(f"{path} has no folders set.* with frames")
    n_atoms = len(kinds[0])
    open_ones = [system for system in systems if (system / "nopbc").exists()]
    if open_ones and len(open_ones) < len(systems):
        raise InputError(
            f"{path}: {open_ones[0]} has no box (nopbc), but other systems have one: give one of "
            f"them instead of {path}"
        )
    periodic = not open_ones and all((s / "box.npy").exists() for s in sets)
    has_forces = all((s / "force.npy").exists() for s in sets)
    if not open_ones:
        _check_none_is_alone(path, sets, "box.npy", periodic)
    _check_none_is_alone(path, sets, "force.npy", has_forces)
    lengths = tuple(_length(s, n_atoms, periodic=periodic, forces=has_forces) for s in sets)
    return DeepmdFolder(
        path,
        sets,
        lengths,
        n_atoms,
        units,
        _numbers(kinds[0]),
        has_forces,
        periodic,
        symbols=_symbols(kinds[0]),
    )


def _systems(path: Path) -> list[Path]:
    if (path / "type.raw").exists():
        return [path]
    return sorted(file.parent for file in path.glob("*/type.raw"))


def _types(system: Path) -> list[str]:
    """Return the name of every atom's type (its index where there is no type_map.raw)."""
    try:
        indices = [int(word) for word in (system / "type.raw").read_text().split()]
    except ValueError as error:
        raise InputError(
            f"{system / 'type.raw'} is not a list of whole numbers: {error}"
        ) from error
    map_file = system / "type_map.raw"
    names = map_file.read_text().split() if map_file.exists() else None
    mixed = sorted(system.glob("set.*/real_atom_types.npy"))
    if mixed:
        indices = _real_types(mixed, system, len(indices), map_file if names is None else None)
    if not indices or min(indices) < 0 or (names is not None and max(indices) >= len(names)):
        raise InputError(f"{system / 'type.raw'} has no atoms or types beyond those of {map_file}")
    return [str(i) if names is None else names[i] for i in indices]


def _real_types(
    files: list[Path], system: Path, n_atoms: int, missing_map: Path | None
) -> list[int]:
    """Return the types of the atoms of the format deepmd/npy/mixed, the same in all frames."""
    if missing_map is not None:
        raise InputError(f"{files[0]} has types, and there is no {missing_map} to name them")
    sets = [folder for folder in sorted(system.glob("set.*")) if folder.is_dir()]
    if len(files) < len(sets):
        alone = next(s for s in sets if not (s / "real_atom_types.npy").exists())
        raise InputError(f"{alone} has no real_atom_types.npy, but other sets have one")
    first: Integers | None = None
    for file in files:
        types = np.asarray(_load(file))
        if types.ndim != 2 or types.shape[1] != n_atoms or not len(types):
            raise InputError(f"{file} has shape {types.shape}, not (frames, {n_atoms})")
        if (types < 0).any():
            raise InputError(
                f"{file}: frames have virtual atoms (type -1), and so differ in their number of "
                "atoms: split them by composition, for example with dpdata"
            )
        first = types[0].astype(np.int64) if first is None else first
        other = np.argwhere(types != first)
        if len(other):
            frame, atom = (int(k) for k in other[0])
            raise InputError(
                f"{file}: atom {atom} is of type {types[frame, atom]} in frame {frame} but "
                f"{first[atom]} in the first: one recording has the same atoms in every frame; "
                "split them by composition, for example with dpdata"
            )
    assert first is not None  # there is a file
    return [int(kind) for kind in first]


def _numbers(kinds: list[str]) -> Integers | None:
    symbols = _symbols(kinds)
    return None if symbols is None else numbers_of(symbols)


def _symbols(kinds: list[str]) -> tuple[str, ...] | None:
    known = {kind: of_label(kind) for kind in set(kinds) if not kind.isdecimal()}
    found = [known.get(kind) for kind in kinds]
    return None if None in found else tuple(symbol for symbol in found if symbol is not None)


def _check_none_is_alone(path: Path, sets: tuple[Path, ...], name: str, everywhere: bool) -> None:
    some = [s for s in sets if (s / name).exists()]
    if some and not everywhere:
        raise InputError(f"{path}: {some[0]} has {name}, but other sets do not")


def _length(folder: Path, n_atoms: int, *, periodic: bool, forces: bool) -> int:
    widths = {"coord": 3 * n_atoms}
    if forces:
        widths["force"] = 3 * n_atoms
    if periodic:
        widths["box"] = 9
    n_frames = None
    for name, width in widths.items():
        file = folder / f"{name}.npy"
        shape = _load(file).shape
        n_frames = shape[0] if n_frames is None else n_frames
        if shape not in ((n_frames, width), (n_frames, width // 3, 3)):
            raise InputError(
                f"{file} has shape {shape}, not ({n_frames}, {width}): type.raw has "
                f"{n_atoms} atoms and coord.npy {n_frames} frames"
            )
    return n_frames or 0


def _load(file: Path) -> Floats:
    if not file.exists():
        raise InputError(f"there is no {file}")
    return np.asarray(mapped(file))
