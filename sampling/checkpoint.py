"""All that a run needs to go on bit for bit, and the file that keeps it."""

from __future__ import annotations

import os
import pickle
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

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


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; at any moment ``path`` holds the old one or the new one, whole."""
    state = checkpoint.state
    content = {
        "step": checkpoint.step,
        "positions": state.positions,
        "velocities": state.velocities,
        "forces": state.forces,
        "energy": state.energy,
        "generator_state": checkpoint.generator_state,
        "notes": checkpoint.notes,
        "memory": checkpoint.memory,
    }
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
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
        c = torch.load(path, map_location=device, weights_only=True)
        state = SamplerState(c["positions"], c["velocities"], c["forces"], c["energy"])
        noise, memory = c["generator_state"].cpu(), c.get("memory", {})
        return Checkpoint(c["step"], state, noise, c["notes"], memory)
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a whole checkpoint of a sampler") from error
