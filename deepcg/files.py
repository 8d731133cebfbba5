"""Files that are either whole or not there."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` so that a power cut leaves the old file or the new one, nothing between."""
    with _replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write plain values, as ``write_whole`` does; what is not finite becomes ``null``."""
    write_whole(path, json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values, as ``write_whole`` does; read with ``weights_only``."""
    with _replacing(path) as file:
        torch.save(content, file)


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays by name as .npz, as ``write_whole`` does; read without pickles."""
    with _replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as .npy, as ``write_whole`` does; read without pickles."""
    with _replacing(path) as file:
        np.save(file, array, allow_pickle=False)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` once it is whole and on the disk."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
