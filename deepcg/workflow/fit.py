"""``deepcg fit``: from a trajectory to a coarse-grained free energy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import torch

from deepcg.configuration import read_toml, to_flat, write_toml
from deepcg.errors import InputError, pick
from deepcg.figures import learning_curve_figure, png
from deepcg.files import write_whole
from deepcg.frames import Frames
from deepcg.model import Architecture, Model, save_model
from deepcg.neighbors import check_cutoff
from deepcg.networks import NETWORKS, SIZES
from deepcg.potential import NetworkPotential
from deepcg.priors import Repulsion, onset_of_contacts
from deepcg.progress import Progress, silent
from deepcg.report import versions
from deepcg.training import (
    ForceSamples,
    Record,
    TrainingConfig,
    force_error,
    prepare,
    rows,
    train,
)
from deepcg.workflow.beads import (
    Beads,
    DataConfig,
    map_forces,
    map_positions,
    open_data,
    open_labelled,
)
from deepcg.workflow.device import device_of
from free_energy import Estimate, block_average

START_FRAMES = 64
"""Mapped frames that a run folder keeps for starting the sampler."""

STANDARDISE_FRAMES = 50

DTYPES = {"float32": torch.float32, "float64": torch.float64}

QUALITY: dict[str, Any] = {
    "steps": 8_000,
    "network_options": {"l_max": 4, "n_splines": 20},
}
"""What ``--quality`` sets: more angular and radial resolution, and a longer training.

On a nanosecond of 216 waters it is no better than the default: see the README.
"""


@dataclass(frozen=True, slots=True)
class FitConfig:
    """Fit a coarse-grained free energy to the forces of an atomistic trajectory.

    Parameters
    ----------
    trajectory
        Anything that MDTraj reads; .npz, .trr, LAMMPS dump, extended XYZ or DeePMD folder.
    output
        Run folder.
    data
        Files and mapping.
    network
        deeppot-se-l, deeppot-se or pair-spline.
    network_size
        Widths of its layers: small (fast) or deepmd (as DeePMD-kit's default).
    network_options
        Single options of the network, which override its size.
    cutoff
        Beads farther apart than this do not interact directly, nm.
    repulsion
        Keep beads from coming closer than they ever do in the data.
    temperature
        Temperature of the data, K.
    training
        How to train.
    validation_fraction
        Part of the frames, the last ones, that is kept for validation.
    quality
        More angular and radial resolution, and a longer training.
    device
        auto, cpu or cuda.
    dtype
        float32 or float64.
    threads
        CPU threads; by default all cores.
    resume
        Go on with an interrupted fit in the same folder.
    """

    trajectory: Path
    output: Path = Path("run")
    data: DataConfig = field(default_factory=DataConfig)
    network: str = "deeppot-se-l"
    network_size: str = "small"
    network_options: dict[str, Any] = field(default_factory=dict)
    cutoff: float = 0.6
    repulsion: bool = True
    temperature: float = 300.0
    training: TrainingConfig = field(default_factory=TrainingConfig)
    validation_fraction: float = 0.1
    quality: bool = False
    device: str = "auto"
    dtype: str = "float32"
    threads: int | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        pick(NETWORKS, self.network, "network")
        pick(SIZES[self.network], self.network_size, "network size")
        pick(DTYPES, self.dtype, "dtype")
        if not 0 < self.validation_fraction < 1:
            raise InputError(
                f"validation_fraction is {self.validation_fraction}: choose between 0 and 1"
            )
        for name in ("cutoff", "temperature"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is {value}: it must be positive")


@dataclass(frozen=True, slots=True)
class Quality:
    """How much of the forces a model explains; mean squares per component, (kJ/mol/nm)^2.

    ``floor`` estimates the variance of the noise: the part of the instantaneous force that no
    function of the beads can explain. A fit with p parameters to N noisy numbers comes out
    too low by about p / N of it on the frames it was trained on, and too high by as much on
    others; to first order the mean of the two is free of both. What the network cannot
    represent, or has not learned yet, adds to it: it is an upper bound.
    """

    variance: float
    training: float
    validation: Estimate[float]
    floor: Estimate[float]

    @property
    def explained(self) -> float:
        """R^2 on the validation frames."""
        return 1 - self.validation.value / self.variance

    def in_words(self) -> str:
        """Say what the numbers mean to a newcomer."""
        explained = (
            f"{100 * self.explained:.1f} % of the force variance is explained "
            f"({self.validation.value:.0f} of {self.variance:.0f} (kJ/mol/nm)^2 are left)"
        )
        if self.overfits:
            return (
                f"{explained}; the model overfits ({self.training:.0f} on the frames that it was "
                f"trained on): give it more frames, or fewer steps or weights"
            )
        return (
            f"{explained}; most of the rest is noise of the hidden atoms, which no model of the "
            f"beads can explain: after a good training its floor is about {self.floor_text}"
        )

    @property
    def overfits(self) -> bool:
        """Whether the two errors are too far apart to tell where the floor is."""
        return self.validation.value > 1.2 * self.training

    @property
    def floor_text(self) -> str:
        """The noise floor and its error, where it has one."""
        error = self.floor.error
        return f"{self.floor.value:.0f}" + (f" ± {error:.0f}" if math.isfinite(error) else "")

    def table(self) -> dict[str, str]:
        """Return names and values for people."""
        unit = "(kJ/mol/nm)²"
        return {
            f"force variance, {unit}": f"{self.variance:.0f}",
            f"mean square error, training frames, {unit}": f"{self.training:.0f}",
            f"mean square error, validation frames, {unit}": (
                f"{self.validation.value:.0f} ± {self.validation.error:.0f}"
            ),
            "explained fraction R²": f"{self.explained:.4f}",
            f"noise floor (estimate), {unit}": "unknown" if self.overfits else self.floor_text,
        }


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
) -> Fit:
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
    device = device_of(config.device, config.threads)
    check_before_labelling(config)
    source = open_labelled(config.trajectory, config.data, config.output, progress)
    beads = map_forces(source, config.data, config.temperature, progress)
    tell(_about_beads(beads))
    hashes = source.hash  # now: a file that vanishes while we train must cost nothing
    frames = beads.frames.to(device, DTYPES[config.dtype])
    training, validation = split(frames, config.validation_fraction)
    potential, architecture = build(config, frames)
    samples = prepare(potential, training, progress=progress)
    held_out = prepare(potential, validation, progress=progress)
    standardise(potential, samples)
    start_run(config, beads)
    history = _train(config, potential, samples, held_out, progress)
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


def with_preset(config: FitConfig) -> FitConfig:
    """Return a config with the settings of ``quality`` filled in where nothing else was said."""
    if not config.quality:
        return config
    if config.network != "deeppot-se-l":
        raise InputError(f"there are no settings of --quality for the network {config.network!r}")
    training, plain = config.training, TrainingConfig()
    if training.steps == plain.steps:
        training = replace(training, steps=QUALITY["steps"])
    options = {**QUALITY["network_options"], **config.network_options}
    return replace(config, training=training, network_options=options)


def absolute(config: FitConfig) -> FitConfig:
    """Return a config whose files are found from any folder."""

    def resolved(path: Path | None) -> Path | None:
        return None if path is None else path.resolve()

    data = replace(
        config.data,
        topology=resolved(config.data.topology),
        system=resolved(config.data.system),
        forces=resolved(config.data.forces),
    )
    return replace(config, trajectory=config.trajectory.resolve(), data=data)


def check_folder(config: FitConfig) -> None:
    """Refuse a folder whose fit would be overwritten, or is another than the one to resume.

    Raises
    ------
    InputError
        Names the setting that differs, or what is in the way.
    """
    if not config.resume:
        for name in ("model.pt", "checkpoint.pt"):
            if (config.output / name).exists():
                what = "holds a model" if name == "model.pt" else "holds an interrupted fit"
                raise InputError(f"{config.output} {what}: give --resume or another --output")
        return
    if not (config.output / "config.toml").exists():
        return
    old = to_flat(read_toml(config.output / "config.toml", FitConfig))
    new = to_flat(absolute(config))
    for name in new:
        if name in ("output", "resume", "threads", "device"):
            continue
        # a file knows lists only, and keeps no order of options
        if json.dumps(old[name], sort_keys=True, default=str) != json.dumps(
            new[name], sort_keys=True, default=str
        ):
            raise InputError(
                f"{config.output} is a fit with {name} = {old[name]}, not {new[name]}: "
                f"resume it with the same settings, or give another --output"
            )


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


def standardise(potential: NetworkPotential, samples: ForceSamples) -> None:
    """Scale the network's inputs and place the repulsion, from the training frames."""
    some = torch.linspace(0, len(samples) - 1, min(len(samples), STANDARDISE_FRAMES)).long()
    for term in potential.terms:
        if isinstance(term, Repulsion):
            onset = term.get_buffer("onset")
            onset.copy_(onset_of_contacts(samples.inputs, potential.types, len(onset)))
        else:
            term.standardise(samples.inputs[some], potential.types)  # type: ignore[operator]


def judge(potential: NetworkPotential, samples: ForceSamples, validation: ForceSamples) -> Quality:
    """Evaluate a trained potential on training and validation frames."""
    every = max(1, len(samples) // 500)
    on_training = float(force_error(potential, samples[::every]).mean())
    errors = force_error(potential, validation).double().cpu().numpy()
    mean = block_average(errors[:, None]) if len(errors) >= 16 else None
    error = float(mean.error[0]) if mean is not None else float("nan")
    held_out = Estimate(float(errors.mean()), error)
    floor = Estimate((on_training + held_out.value) / 2, error)
    return Quality(float(validation.forces.var()), on_training, held_out, floor)


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


def _train(
    config: FitConfig,
    potential: NetworkPotential,
    samples: ForceSamples,
    validation: ForceSamples,
    progress: Progress,
) -> list[Record]:
    history: list[Record] = []

    def report(record: Record) -> None:
        history.append(record)
        with metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")

    metrics = config.output / "metrics.jsonl"
    if not config.resume:
        metrics.unlink(missing_ok=True)
    whole = train(
        potential,
        samples,
        validation,
        config.training,
        report=report,
        checkpoint=config.output / "checkpoint.pt",
        resume=config.resume,
        progress=progress,
    )
    # after an interruption the file may hold lines that the checkpoint does not know
    write_whole(metrics, "".join(json.dumps(row) + "\n" for row in rows(whole)))
    return whole


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
        "frame_ps": beads.source.frame_time,
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
        title="force matching",
        source=str(result.config.trajectory),
    )
    (folder / "learning-curve.png").write_bytes(png(figure))
