"""``deepcg sample``: Langevin dynamics on a fitted free energy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import mdtraj
import numpy as np
import torch
from torch import Tensor

from deepcg.configuration import to_flat
from deepcg.dynamics import DynamicsConfig, Summary, run_dynamics
from deepcg.errors import InputError
from deepcg.files import write_whole
from deepcg.memory import keep_freed_memory
from deepcg.model import Model, load_model
from deepcg.potential import VerletForces
from deepcg.progress import Progress, silent
from deepcg.provenance import file_hash
from deepcg.report import versions
from deepcg.workflow.device import device_of


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """Sample a fitted model by Langevin dynamics, several replicas at once.

    Parameters
    ----------
    run
        Folder that 'deepcg fit' made.
    replicas
        Number of independent replicas, started from frames of the data.
    dynamics
        How they move.
    skin
        How far the list of neighbors reaches beyond the cutoff, nm.
    device
        auto, cpu or cuda.
    threads
        CPU threads; by default all cores.
    resume
        Go on with an interrupted run, or lengthen a finished one.
    """

    run: Path
    replicas: int = 8
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    skin: float = 0.08
    device: str = "auto"
    threads: int | None = None
    resume: bool = False


def sample(
    config: SampleConfig,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> Summary:
    """Run the replicas and write RUN/samples; see ``deepcg.dynamics.run_dynamics``.

    Raises
    ------
    InputError
        If there is no model, samples are there already, or a replica blows up.
    """
    if config.replicas < 1:
        raise InputError(f"{config.replicas} replicas: use 1 or more")
    keep_freed_memory()
    device = device_of(config.device, config.threads)
    model = load_model(config.run, device)
    if abs(config.dynamics.temperature - model.temperature) > 0.1:
        raise InputError(
            f"{config.run} is a free energy at {model.temperature:g} K, not at "
            f"{config.dynamics.temperature:g} K: give --temperature {model.temperature:g}"
        )
    model.potential.requires_grad_(False)
    start, box = starts(config.run, config.replicas, model, device)
    forces = VerletForces(model.potential, box, skin=config.skin)
    summary = run_dynamics(
        forces,
        start,
        model.masses.to(start),
        box=box,
        topology=mdtraj.load_topology(str(config.run / "beads.pdb")),
        config=config.dynamics,
        output=config.run / "samples",
        resume=config.resume,
        progress=progress,
        forget=forces.renew,
    )
    record = {
        "model": file_hash(config.run / "model.pt"),
        "settings": to_flat(config),
        "versions": versions(),
    }
    write_whole(
        config.run / "samples" / "sample.json", json.dumps(record, indent=1, default=str) + "\n"
    )
    tell(_in_words(summary, config))
    return summary


def starts(
    run: Path, replicas: int, model: Model, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Return positions (replicas, n_beads, 3), nm, spread over the data, and one box (3, 3).

    Raises
    ------
    InputError
        If the run folder has no start frames.
    """
    path = run / "start.npz"
    if not path.is_file():
        raise InputError(f"there is no {path}: fit the model with 'deepcg fit'")
    saved = np.load(path, allow_pickle=False)
    dtype = next(model.potential.parameters()).dtype
    positions = torch.as_tensor(saved["positions"]).to(device, dtype)
    chosen = torch.linspace(0, len(positions) - 1, replicas).round().long()
    if "box" not in saved:
        return positions[chosen], None
    # all replicas share a box: that of the frame nearest to the mean volume
    boxes = torch.as_tensor(saved["box"]).double()
    volumes = torch.linalg.det(boxes)
    nearest = int((volumes - volumes.mean()).abs().argmin())
    box = boxes[nearest]
    scaled = positions[chosen].double() @ torch.linalg.inv(boxes[chosen.cpu()]).to(device)
    return (scaled @ box.to(device)).to(dtype), box.to(device, dtype)


def _in_words(summary: Summary, config: SampleConfig) -> str:
    text = f"{summary.n_replicas} replicas of {summary.ps:g} ps in {config.run / 'samples'}"
    if summary.temperature is not None:
        error = "" if summary.temperature_error is None else f" +- {summary.temperature_error:.1f}"
        text += f"; temperature {summary.temperature:.1f}{error} K"
    return f"{text}; {summary.ns_per_day:.0f} ns/day in all"
