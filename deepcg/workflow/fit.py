"""``deepcg fit``: from a trajectory to a coarse-grained free energy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import torch

from deepcg.collective import is_collective
from deepcg.configuration import write_toml
from deepcg.errors import InputError
from deepcg.figures import learning_curve_figure, png
from deepcg.files import write_whole
from deepcg.frames import Frames
from deepcg.mean_force_labels import are_labels
from deepcg.model import Architecture, Model, save_model
from deepcg.neighbors import Neighbors, check_cutoff
from deepcg.networks import SIZES
from deepcg.potential import NetworkPotential
from deepcg.priors import Repulsion, onset_of_contacts
from deepcg.progress import Progress, silent
from deepcg.provenance import file_hash
from deepcg.report import versions
from deepcg.training import (
    ForceSamples,
    Record,
    force_error,
    label_weights,
    prepare,
    rows,
)
from deepcg.workflow.beads import (
    Beads,
    map_forces,
    map_positions,
    open_data,
    open_labelled,
)
from deepcg.workflow.device import device_of
from deepcg.workflow.fit_config import DTYPES, FitConfig, absolute, with_preset
from deepcg.workflow.fit_variables import SurfaceFit, fit_variables
from deepcg.workflow.from_labels import beads_of_labels
from deepcg.workflow.quality import Quality, quality_of
from deepcg.workflow.run_folder import check_folder, train_in_folder

START_FRAMES = 64
"""Mapped frames that a run folder keeps for starting the sampler."""

STANDARDISE_FRAMES = 50


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What a fit leaves behind: the run folder holds the same."""

    config: FitConfig
    model: Model
    history: list[Record]
    quality: Quality


def fit(
    config: FitConfig,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> Fit | SurfaceFit:
    """Label, map, train and save; return the model and how good it is.

    Parameters
    ----------
    tell
        Called with lines for the user.

    Raises
    ------
    InputError
        Something in the input is not usable: nothing is written to the run folder then but
        forces that were computed for it. Or training failed: the last checkpoint stays.
    """
    config = with_preset(config)
    check_folder(config)
    if is_collective(config.data.map):
        return fit_variables(config, progress, tell)
    return _fit_beads(config, progress, tell)


def _fit_beads(config: FitConfig, progress: Progress, tell: Callable[[str], None]) -> Fit:
    device = device_of(config.device, config.threads)
    beads, hashes = _beads_of(config, progress)
    tell(_about_beads(beads))
    frames = beads.frames.to(device, DTYPES[config.dtype])
    training, validation = split(frames, config.validation_fraction)
    potential, architecture = build(config, frames)
    samples = prepare(potential, training, progress=progress)
    if beads.errors is not None:
        samples = replace(
            samples, weights=label_weights(beads.errors[: len(samples)]).to(frames.forces)
        )
    held_out = prepare(potential, validation, progress=progress)
    standardise(potential, samples)
    start_run(config, beads)
    history = train_in_folder(config, potential, samples, held_out, progress)
    quality = judge(potential, samples, held_out)
    tell(quality.in_words())
    model = Model(
        architecture,
        potential,
        beads.mapping.type_names,
        beads.mapping.masses,
        config.data.map,
        config.temperature,
    )
    save_model(config.output / "model.pt", model)
    result = Fit(config, model, history, quality)
    _write_results(result, beads, hashes)
    return result


def _beads_of(config: FitConfig, progress: Progress) -> tuple[Beads, Mapping[str, str]]:
    """Return beads with forces, and hashes of their files, which may vanish while we train."""
    path = config.trajectory
    if are_labels(path):
        beads = beads_of_labels(path, config.data, config.temperature)
        return beads, {"labels": file_hash(path)}
    check_before_labelling(config)
    source = open_labelled(path, config.data, config.output, progress)
    return map_forces(source, config.data, config.temperature, progress), source.hash


def check_before_labelling(config: FitConfig) -> None:
    """Find what is wrong with the settings before hours are spent on forces.

    Raises
    ------
    InputError
        The map, the frames, the cutoff or the network's options cannot be used.
    """
    source = open_data(config.trajectory, config.data)
    first = replace(config.data, start=config.data.start, stop=config.data.start + 1, stride=1)
    frames = map_positions(source, first).frames
    check_cutoff(frames.box, config.cutoff)
    build(config, frames)


def split(frames: Frames, validation_fraction: float) -> tuple[Frames, Frames]:
    """Return the first frames, and the last ones: neighbors in time must not be on both sides."""
    n = min(len(frames) - 1, round((1 - validation_fraction) * len(frames)))
    if n < 1:
        raise InputError(f"{len(frames)} frames are too few: one to train on, one to validate")
    return frames[:n], frames[n:]


def build(config: FitConfig, frames: Frames) -> tuple[NetworkPotential, Architecture]:
    """Return the untrained potential that a config describes."""
    n_types = int(frames.types.max()) + 1
    options = {**SIZES[config.network][config.network_size], **config.network_options}
    architecture = Architecture(config.network, options, config.cutoff, n_types, config.repulsion)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        potential = architecture.build(frames.types.cpu(), config.temperature)
    potential.to(frames.positions.device, frames.positions.dtype)
    return potential, architecture


def standardise(potential: NetworkPotential, samples: ForceSamples[Neighbors]) -> None:
    """Scale the network's inputs and place the repulsion, from the training frames."""
    some = torch.linspace(0, len(samples) - 1, min(len(samples), STANDARDISE_FRAMES)).long()
    for term in potential.terms:
        if isinstance(term, Repulsion):
            onset = term.get_buffer("onset")
            onset.copy_(onset_of_contacts(samples.inputs, potential.types, len(onset)))
        else:
            term.standardise(samples.inputs[some], potential.types)  # type: ignore[operator]


def judge(
    potential: NetworkPotential,
    samples: ForceSamples[Neighbors],
    validation: ForceSamples[Neighbors],
) -> Quality:
    """Evaluate a trained potential on training and validation frames."""
    every = max(1, len(samples) // 500)
    on_training = float(force_error(potential, samples[::every]).mean())
    errors = force_error(potential, validation).double().cpu().numpy()
    return quality_of(float(validation.forces.var()), on_training, errors)


def start_run(config: FitConfig, beads: Beads) -> None:
    """Make the run folder: what was asked for, and frames for the sampler to start from."""
    config.output.mkdir(parents=True, exist_ok=True)
    write_toml(config.output / "config.toml", absolute(config))
    frames = beads.frames
    chosen = np.unique(np.linspace(0, len(frames) - 1, START_FRAMES).astype(int))
    positions = frames.positions[chosen].numpy()
    if frames.box is None:
        np.savez(config.output / "start.npz", positions=positions)
    else:
        np.savez(config.output / "start.npz", positions=positions, box=frames.box[chosen].numpy())
    if beads.topology is not None:
        save_topology(config.output / "beads.pdb", frames[:1], beads.topology)


def save_topology(path: Path, frame: Frames, topology: mdtraj.Topology) -> None:
    """Write one frame of beads as PDB."""
    trajectory = mdtraj.Trajectory(frame.positions.numpy(), topology)
    if frame.box is not None:
        trajectory.unitcell_vectors = frame.box.numpy()
    trajectory.save_pdb(str(path))


def _about_beads(beads: Beads) -> str:
    frames, estimate = beads.frames, beads.estimate
    text = f"{len(frames)} frames of {frames.n_sites} beads ({', '.join(beads.mapping.type_names)})"
    return text if estimate is None else f"{text}\n{estimate.describe()}"


def _write_results(result: Fit, beads: Beads, hashes: Mapping[str, str]) -> None:
    quality, folder = result.quality, result.config.output
    parameters = sum(p.numel() for p in result.model.potential.parameters())
    content: Mapping[str, Any] = {
        "kind": "fit",
        "trajectory": str(result.config.trajectory.resolve()),
        "frames": len(beads.frames),
        "beads": beads.frames.n_sites,
        "types": list(beads.mapping.type_names),
        "frame_ps": None if beads.source is None else beads.source.frame_time,
        "estimator": "" if beads.estimate is None else beads.estimate.describe(),
        "parameters": parameters,
        "seconds": result.history[-1].seconds,
        "quality": asdict(quality) | {"explained": quality.explained},
        "hashes": dict(hashes),
        "seed": result.config.training.seed,
        "versions": versions(),
    }
    write_whole(folder / "run.json", json.dumps(content, indent=1) + "\n")
    figure = learning_curve_figure(
        list(rows(result.history)),
        noise_floor=None if quality.overfits else quality.floor.value,
        source=str(result.config.trajectory),
    )
    (folder / "learning-curve.png").write_bytes(png(figure))
