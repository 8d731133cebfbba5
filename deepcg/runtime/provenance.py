"""What a result was made from: hashes of files, versions, and settings that must stay the same."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Container, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import scipy
import torch

import deepcg
from deepcg.runtime.config import renamed
from deepcg.runtime.errors import InputError

WHOLE_BELOW = 64 * 2**20  # bytes
PART = 16 * 2**20  # bytes


def file_hash(path: Path) -> str:
    """Return the provenance of a file, or of the files of a folder.

    ``sha256:`` is the plain SHA-256 of the contents, for files of up to 64 MiB. For larger ones
    ``sha256-parts:`` is that of the size (in decimal), the first and the last 16 MiB. For a folder
    ``sha256-folder:`` is that of the names and hashes of its files.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return "sha256-folder:" + _digest(
            f"{file.relative_to(path)} {file_hash(file)}\n".encode() for file in files
        )
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= WHOLE_BELOW:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        parts = [str(size).encode(), file.read(PART)]
        file.seek(-PART, 2)
        return "sha256-parts:" + _digest([*parts, file.read(PART)])


def check_same_settings(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    found: str,
    way_out: str,
    free: Container[str] = (),
) -> None:
    """Refuse to go on with what was begun under other settings, but for those that are ``free``.

    The message is ``found``, the first setting that differs with both of its values, and
    ``way_out``. Settings of before may have the names that they had then.

    Raises
    ------
    InputError
        A setting differs.
    """
    before = renamed(before, now)
    for name, value in now.items():
        old = before.get(name)
        if name not in free and old != value and _as_in_file(old) != _as_in_file(value):
            raise InputError(f"{found} {name} = {old}, not {value}: {way_out}")


def _as_in_file(value: Any) -> str:
    """Return a value as a file has it, which knows lists only, and no order of options."""
    return json.dumps(value, sort_keys=True, default=str)


def _digest(parts: Iterable[bytes]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions that decide the numbers of a report."""
    return {
        "deepcg": deepcg.__version__,
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "NumPy": np.__version__,
        "SciPy": scipy.__version__,
        "Matplotlib": matplotlib.__version__,
        **{name: metadata.version(name.lower()) for name in ("MDTraj", "Numba", "OpenMM")},
    }
