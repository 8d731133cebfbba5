"""All that a run needs to go on bit for bit, and the file that keeps it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sampling.state import SamplerState


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A state, the number of steps that led to it and the state of the noise.

    ``notes`` are plain values that the caller wants to find again, ``memory`` is the state of a
    `Method`.
    """

    step: int
    state: SamplerState
    generator_state: Tensor
    notes: dict[str, float | int | str] = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)


def pack(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a checkpoint as tensors and plain values by name, for a file."""
    state = checkpoint.state
    return {
        "step": checkpoint.step,
        "positions": state.positions,
        "velocities": state.velocities,
        "forces": state.forces,
        "energy": state.energy,
        "generator_state": checkpoint.generator_state,
        "notes": checkpoint.notes,
        "memory": checkpoint.memory,
    }


def unpack(content: Mapping[str, Any]) -> Checkpoint:
    """Return the checkpoint that ``pack`` took apart.

    Raises
    ------
    KeyError, TypeError
        It is something else.
    """
    c = content
    state = SamplerState(c["positions"], c["velocities"], c["forces"], c["energy"])
    noise, memory = c["generator_state"].cpu(), c.get("memory", {})
    return Checkpoint(c["step"], state, noise, c["notes"], memory)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; at any moment ``path`` holds the old one or the new one, whole."""
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            torch.save(pack(checkpoint), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # it may fill the disk
        raise


def load(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Return the checkpoint at ``path``, its state on ``device``.

    Raises
    ------
    ValueError
        The file is not a whole checkpoint.
    """
    try:
        return unpack(torch.load(path, map_location=device, weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a whole checkpoint of a sampler") from error
