"""Files that are either whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` so that a power cut leaves the old file or the new one, nothing between."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def write_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values, as ``write_whole`` does; read with ``weights_only``."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
