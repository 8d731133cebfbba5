"""Files that are either whole or not there."""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from deepcg.runtime.errors import InputError

LARGE, TIMES = 2**30, 50
"""An archive is refused that unpacks to more bytes than the first, and so many times its own."""

_DIGEST = "sha256"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name ``path`` where the operating system does not let us write it.

    Raises
    ------
    InputError
        In place of any ``OSError``: the disk is full, the folder is closed or has vanished.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}): mend this and go on with the "
            "last checkpoint, if there is one; it is whole"
        ) from error


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` so that a power cut leaves the old file or the new one, nothing between."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` as ``write_whole`` does."""
    with _replacing(path) as file:
        file.write(data)


def write_json(path: Path, content: Any) -> None:
    """Write plain values, as ``write_whole`` does; what is not finite becomes ``null``."""
    write_whole(path, json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values, as ``write_whole`` does; read with ``weights_only``."""
    content = {name: value for name, value in content.items() if name != _DIGEST}
    with _replacing(path) as file:
        torch.save({**content, _DIGEST: _digest(content)}, file)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array (...) as .npy, as ``write_whole`` does; read without pickles."""
    with _replacing(path) as file:
        np.save(file, array, allow_pickle=False)


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], *, compressed: bool = False
) -> None:
    """Write arrays (...) by name as .npz, as ``write_whole`` does; read without pickles."""
    save = np.savez_compressed if compressed else np.savez
    with _replacing(path) as file:
        save(file, allow_pickle=False, **arrays)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Name the file that others are to write: it takes the place of ``path`` once it is whole.

    Raises
    ------
    InputError
        As ``writing``.
    """
    part = path.with_name(path.name + ".part")
    with writing(path):
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)  # it may fill the disk
            raise


def read_json(path: Path) -> Any:
    """Return the plain values in a file.

    Raises
    ------
    InputError
        It cannot be read, or is no JSON.
    """
    with _reading(path, "JSON"):
        return json.loads(path.read_text(encoding="utf-8"))


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays (...) of a .npz by name; nothing in it is ever run.

    Raises
    ------
    InputError
        It cannot be read, is not whole, or unpacks to far more than it is.
    """
    with _reading(path, ".npz"), path.open("rb") as file:
        check_unpacked(file)
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        if not all(isinstance(array, np.ndarray) for array in found.values()):
            raise ValueError("it holds other things than arrays")
        return found


def read_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return what ``write_tensors`` wrote, tensors on ``device``; nothing in it is ever run.

    Raises
    ------
    InputError
        It cannot be read, or is not whole.
    """
    with _reading(path, "PyTorch"), path.open("rb") as file:
        check_unpacked(file)
        content = torch.load(file, map_location=device, weights_only=True)
        if not isinstance(content, dict):
            raise ValueError("it holds no table")
        digest = content.pop(_DIGEST, None)  # older files have none
        if digest is not None and digest != _digest(content):
            raise ValueError("it is damaged")
        return content


def check_unpacked(file: BinaryIO) -> None:
    """Check that an archive holds about as much as it is large: before memory is taken for it.

    Raises
    ------
    ValueError
        It is no archive, or one that would unpack to far more.
    """
    packed = file.seek(0, os.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    file.seek(0)
    if unpacked > max(LARGE, TIMES * packed):
        raise ValueError(f"its {packed} bytes claim to unpack to {unpacked}")


@contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    """Say of what cannot be read that it is not a whole file of a kind, whatever goes wrong."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # those who parse damaged files raise whatever they stumble over
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise InputError(f"{path} is not a whole {kind} file: {reason}") from error


def _digest(content: Mapping[str, Any]) -> str:
    """Return a hash of all values and tensors: PyTorch does not check those of the archive."""
    sha = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            sha.update(f"{value.dtype}{tuple(value.shape)}".encode())
            sha.update(value.detach().cpu().contiguous().numpy().tobytes())
        elif isinstance(value, Mapping):
            for key in value:
                sha.update(f"{key}:".encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            sha.update(f"[{len(value)}".encode())
            for inner in value:
                add(inner)
        else:
            sha.update(f"{type(value).__name__}{value!r};".encode())

    add(content)
    return sha.hexdigest()


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` once it is whole and on the disk."""
    with replacing(path) as part, part.open("wb") as file:
        yield file


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def check_place(folder: Path) -> None:
    """Refuse a folder that cannot be made because a file is in its place.

    Raises
    ------
    InputError
        Names the file.
    """
    for place in (folder, *folder.parents):
        if place.is_dir():
            return
        if place.exists():
            raise InputError(f"{place} is a file, not a folder: give another --output")


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it, where it does not exist.

    Raises
    ------
    InputError
        It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be made ({error.strerror}): give another --output"
        ) from error


def to_disk(path: Path) -> None:
    """Wait until what was written to ``path`` would survive a power cut."""
    with writing(path), path.open("rb") as file:
        os.fsync(file.fileno())
