"""The folder of a fit: what may be written there, and the record of a training in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import mdtraj
import numpy as np
import torch
from torch import Tensor

from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.ensemble import member_folder
from deepcg.potentials.model_file import Model
from deepcg.runtime.config import read_toml, to_flat, write_toml
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import (
    check_place,
    make_folder,
    read_arrays,
    replacing,
    write_arrays,
    write_whole,
    writing,
)
from deepcg.runtime.progress import Progress, silent
from deepcg.training.loss import Trainable
from deepcg.training.members import member_seed
from deepcg.training.samples import ForceSamples, Inputs
from deepcg.training.stacked import Records, train_stack
from deepcg.training.trainer import Record, rows, train
from deepcg.trajectory.frames import Frames
from deepcg.workflow.dataset.beads import Beads
from deepcg.workflow.fit.config import FitConfig, absolute

COMPRESSION = "compressed.json"
"""What a run folder has that ``deepcg compress`` made: of which model, and how well."""


def check_folder(config: FitConfig) -> None:
    """Refuse a folder whose fit would be overwritten, or is another than the one to resume.

    Raises
    ------
    InputError
        Names the setting that differs, or what is in the way.
    """
    check_place(config.output)
    if (config.output / COMPRESSION).exists():
        raise InputError(
            f"{config.output} is compressed, for inference only: resume the fit it was made of"
        )
    if not config.resume:
        if (config.output / "model.pt").exists():
            raise InputError(f"{config.output} holds a model: give --resume or another --output")
        if (config.output / "checkpoint.pt").exists():
            raise InputError(
                f"{config.output} holds an interrupted fit: give --resume to go on at step "
                f"{_last_step(config.output)}, or another --output"
            )
        return
    if not (config.output / "config.toml").exists():
        return
    old = to_flat(read_toml(config.output / "config.toml", FitConfig))
    new = to_flat(absolute(config))
    for name in new:
        if name in ("output", "resume", "figures", "threads", "device"):
            continue
        if name == "ensemble" and new[name] >= old[name]:
            continue  # members are added
        # a file knows lists only, and keeps no order of options
        if json.dumps(old[name], sort_keys=True, default=str) != json.dumps(
            new[name], sort_keys=True, default=str
        ):
            raise InputError(
                f"{config.output} is a fit with {name} = {old[name]}, not {new[name]}: "
                f"resume it with the same settings, or give another --output"
            )


def _last_step(folder: Path) -> int:
    """Return how far an interrupted fit was at its last record."""
    try:
        last = (folder / "metrics.jsonl").read_text().splitlines()[-1]
        return int(json.loads(last)["step"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def train_in_folder(
    config: FitConfig,
    member: int,
    potential: Trainable[Inputs],
    samples: ForceSamples[Inputs],
    validation: ForceSamples[Inputs],
    progress: Progress = silent,
) -> list[Record]:
    """Train a member, and keep the records and a checkpoint in its folder; return the records.

    Raises
    ------
    TrainingError
        As ``deepcg.training.trainer.train``.
    """
    folder, seed = member_folder(config.output, member), config.training.seed
    make_folder(folder)
    metrics = Metrics(folder, config.resume)
    whole = train(
        potential,
        samples,
        validation,
        replace(config.training, seed=member_seed(seed, member)),
        report=metrics.add,
        checkpoint=folder / "checkpoint.pt",
        resume=config.resume,
        progress=progress,
    )
    metrics.write(whole)
    return whole


def train_stack_in_folder(
    config: FitConfig,
    members: Sequence[int],
    potentials: Sequence[CVPotential],
    samples: ForceSamples[Tensor],
    validation: ForceSamples[Tensor],
    *,
    drawn: Sequence[Tensor] | None,
    progress: Progress = silent,
) -> tuple[list[CVPotential], list[list[Record]]]:
    """Train several members at once; return them, and the records of each.

    Records are kept in the folder of each, a checkpoint of all in that of the first.

    Raises
    ------
    TrainingError
        As ``deepcg.training.trainer.train``.
    """
    folders = [member_folder(config.output, k) for k in members]
    for folder in folders:
        make_folder(folder)
    metrics = [Metrics(folder, config.resume) for folder in folders]

    def report(records: Records) -> None:
        for of_member, record in zip(metrics, records, strict=True):
            of_member.add(record)

    trained, history = train_stack(
        potentials,
        samples,
        validation,
        config.training,
        seeds=[member_seed(config.training.seed, k) for k in members],
        drawn=drawn,
        report=report,
        checkpoint=folders[0] / "checkpoint.pt",
        resume=config.resume,
        progress=progress,
    )
    whole = [list(column) for column in zip(*history, strict=True)]
    for of_member, records in zip(metrics, whole, strict=True):
        of_member.write(records)
    return trained, whole


class Metrics:
    """The records of a training as lines of a file, one by one as they come."""

    def __init__(self, folder: Path, resume: bool) -> None:
        self.path = folder / "metrics.jsonl"
        if not resume:
            self.path.unlink(missing_ok=True)

    def add(self, record: Record) -> None:
        """Add a line."""
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")

    def write(self, records: list[Record]) -> None:
        """Write all lines: an interruption may have left some that no checkpoint knows."""
        write_whole(self.path, "".join(json.dumps(row) + "\n" for row in rows(records)))


START_FRAMES = 64
"""Mapped frames that a run folder keeps for starting the sampler."""


def start_run(config: FitConfig, beads: Beads) -> None:
    """Begin the run folder: what was asked for, and frames for the sampler to start from."""
    write_toml(config.output / "config.toml", absolute(config))
    frames = beads.frames
    chosen = np.unique(np.linspace(0, len(frames) - 1, START_FRAMES).astype(int))
    arrays = {"positions": frames.positions[chosen].numpy()}
    if frames.box is not None:
        arrays["box"] = frames.box[chosen].numpy()
    write_arrays(config.output / "start.npz", arrays)
    if beads.topology is not None:
        save_topology(config.output / "beads.pdb", frames[:1], beads.topology)


def save_topology(path: Path, frame: Frames, topology: mdtraj.Topology) -> None:
    """Write one frame of beads as PDB."""
    trajectory = mdtraj.Trajectory(frame.positions.numpy(), topology)
    if frame.box is not None:
        trajectory.unitcell_vectors = frame.box.numpy()
    with replacing(path) as part:
        trajectory.save_pdb(str(part))


def fit_config_of(run: Path) -> FitConfig:
    """Return the settings of the fit in a run folder, which is their output.

    Raises
    ------
    InputError
        It is none, or its settings name files by ways out of it: ours are named from the root.
    """
    path = run / "config.toml"
    if not path.is_file():
        raise InputError(f"{run} is not a run folder of 'deepcg fit': it has no config.toml")
    config = read_toml(path, FitConfig)
    data = config.data
    named = (config.trajectory, data.topology, data.system, data.forces, *data.also)
    for file in (*named, config.members.start_from):
        if file is not None and ".." in file.parts:
            raise InputError(f"{path} names {file}, a way out of its folder: name it from the root")
    return replace(config, output=run)


def starts(run: Path, model: Model, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return positions (n, n_beads, 3), nm, spread over the data, and one box (3, 3).

    Raises
    ------
    InputError
        If the run folder has no start frames.
    """
    path = run / "start.npz"
    if not path.is_file():
        raise InputError(f"there is no {path}: fit the model with 'deepcg fit'")
    saved = read_arrays(path)
    if "positions" not in saved or saved["positions"].shape[1:] != (len(model.masses), 3):
        raise InputError(
            f"{path} does not hold positions of the {len(model.masses)} beads of {run}"
        )
    dtype = next(model.potential.parameters()).dtype
    positions = torch.as_tensor(saved["positions"]).to(device, dtype)
    if "box" not in saved:
        return positions, None
    # all replicas share a box: that of the frame nearest to the mean volume
    boxes = torch.as_tensor(saved["box"]).double()
    volumes = torch.linalg.det(boxes)
    nearest = int((volumes - volumes.mean()).abs().argmin())
    box = boxes[nearest]
    scaled = positions.double() @ torch.linalg.inv(boxes).to(device)
    return (scaled @ box.to(device)).to(dtype), box.to(device, dtype)
