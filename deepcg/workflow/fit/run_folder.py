"""The folder of a fit: what may be written there, and the record of a training in it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from deepcg.analysis.html import save_figures
from deepcg.forces.cv_estimators import estimator_name
from deepcg.geometry.neighbor_list import Neighbors
from deepcg.mapping.beads import AUTO
from deepcg.potentials.beads import NetworkPotential
from deepcg.potentials.ensemble import member_folder
from deepcg.potentials.model_file import CVModel, Model
from deepcg.runtime.config import read_toml, read_values, to_flat, write_toml
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import (
    check_place,
    make_folder,
    read_arrays,
    replacing,
    write_arrays,
    write_json,
    write_whole,
    writing,
)
from deepcg.runtime.progress import Progress, silent
from deepcg.runtime.provenance import check_same_settings, file_hash, versions
from deepcg.training.config import RATE
from deepcg.training.convergence import Reference, Watch
from deepcg.training.least_squares import solve
from deepcg.training.members import member_seed
from deepcg.training.samples import ForceSamples, Inputs, settled
from deepcg.training.trainer import Record, Records, Stack, rows, run_training
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.pdb_writer import save_pdb
from deepcg.workflow.dataset.beads import Beads
from deepcg.workflow.fit.config import FitConfig, absolute

COMPRESSION = "compressed.json"
"""What a run folder has that ``deepcg compress`` made: of which model, and how well."""

START_FRAMES = 64
"""Mapped frames that a run folder keeps for starting the sampler."""


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
    path = config.output / "config.toml"
    begun = read_toml(path, FitConfig)
    if "warmup" not in read_values(path, FitConfig):  # of an older version; see `as_begun`
        begun = replace(begun, training=replace(begun.training, warmup=0.0))
    old = _settings(begun)
    new = _settings(absolute(config))
    added = {"ensemble"} if new["ensemble"] >= old["ensemble"] else set()
    check_same_settings(
        old,
        new,
        found=f"{config.output} is a fit with",
        way_out="resume it with the same settings, or give another --output",
        free={"output", "resume", "figures", "threads", "device"} | added,
    )


def as_begun(config: FitConfig) -> FitConfig:
    """Return how to resume the fit in a run folder: with its map, if no other is said.

    One of an older version keeps its schedule: its rate of learning did not rise first, and did not
    depend on the width of layers.
    """
    path = config.output / "config.toml"
    if not (config.resume and path.is_file()):
        return config
    begun = read_toml(path, FitConfig)
    if config.data.map == AUTO:
        config = replace(config, data=replace(config.data, map=begun.data.map))
    if "warmup" in read_values(path, FitConfig):
        return config
    rate = config.training.learning_rate or begun.training.learning_rate or RATE
    return replace(config, training=replace(config.training, warmup=0.0, learning_rate=rate))


def _settings(config: FitConfig) -> dict[str, Any]:
    return to_flat(config) | {"estimator": estimator_name(config.data.estimator)}


def train_in_folder(
    config: FitConfig,
    members: Sequence[int],
    stack: Stack[Inputs],
    samples: ForceSamples[Inputs],
    validation: ForceSamples[Inputs],
    *,
    drawn: Sequence[Tensor] | None = None,
    reference: Reference | None = None,
    progress: Progress = silent,
) -> list[list[Record]]:
    """Train the members of a stack, in place; return the records of each.

    Records are kept in the folder of each, a checkpoint of all in that of the first.

    Parameters
    ----------
    members
        Their numbers in the ensemble.
    drawn
        Which frames (n,) each member sees; ``None``: all see all.
    reference
        What a simple model leaves: a training that leaves more is told of.

    Raises
    ------
    TrainingError
        As ``deepcg.training.trainer.run_training``.
    """
    folders = [member_folder(config.output, k) for k in members]
    for folder in folders:
        make_folder(folder)
    files = [folder / "metrics.jsonl" for folder in folders]
    if not config.resume:
        for file in files:
            file.unlink(missing_ok=True)

    rate = settled(config.training, samples).learning_rate
    assert rate is not None
    watch = Watch(config.training, rate, reference)

    def report(records: Records) -> None:
        for path, line in zip(files, _lines(records), strict=True):
            with writing(path), path.open("a", encoding="utf-8") as file:
                file.write(line)
        watch(records)

    history = run_training(
        stack,
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
    of_each = [list(column) for column in zip(*history, strict=True)]
    # an interruption may have left lines that no checkpoint knows
    for path, records in zip(files, of_each, strict=True):
        write_whole(path, "".join(_lines(records)))
    return of_each


def solve_in_folder(
    config: FitConfig,
    member: int,
    potential: NetworkPotential,
    samples: ForceSamples[Neighbors],
    validation: ForceSamples[Neighbors],
    progress: Progress = silent,
) -> list[Record]:
    """Find the weights of a member by least squares, in place; return its only record.

    Raises
    ------
    InputError
        As ``deepcg.training.least_squares.solve``.
    """
    began = time.monotonic()
    noise = settled(config.training, samples).weighting == "noise"
    errors = solve(potential, samples, validation, noise=noise, progress=progress)
    record = Record(1, *errors, learning_rate=0.0, seconds=time.monotonic() - began)
    folder = member_folder(config.output, member)
    make_folder(folder)
    write_whole(folder / "metrics.jsonl", "".join(_lines([record])))
    return [record]


def write_results(
    config: FitConfig,
    models: Sequence[Model] | Sequence[CVModel],
    history: Sequence[Record],
    about: Mapping[str, Any],
    figures: Mapping[str, Figure],
) -> None:
    """Write ``run.json``, and figures by their names.

    Parameters
    ----------
    models, history
        The members, and the records of the first.
    about
        What is known of the data and the quality of this kind of fit.
    """
    topology = config.data.topology
    content = {
        **about,
        "hashes": {
            **about.get("hashes", {}),
            **({} if topology is None else {"topology": file_hash(topology)}),
        },
        "parameters": sum(p.numel() for p in models[0].potential.parameters()),
        "seconds": history[-1].seconds,
        "members": len(models),
        "seed": config.training.seed,
        "versions": versions(),
    }
    write_json(config.output / "run.json", content)
    save_figures(figures, config.output, config.figures)


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
    """Write a frame (1, n_beads, 3), nm, as PDB."""
    trajectory = mdtraj.Trajectory(frame.positions.numpy(), topology)
    if frame.box is not None:
        trajectory.unitcell_vectors = frame.box.numpy()
    with replacing(path) as part:
        save_pdb(part, trajectory)


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


def _last_step(folder: Path) -> int:
    """Return how far an interrupted fit was at its last record."""
    try:
        last = (folder / "metrics.jsonl").read_text().splitlines()[-1]
        return int(json.loads(last)["step"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def _lines(records: Sequence[Record]) -> list[str]:
    return [json.dumps(row) + "\n" for row in rows(records)]
