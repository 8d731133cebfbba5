"""``deepcg fit`` on collective variables: U(xi) itself, its error and its figures."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from matplotlib.figure import Figure
from torch import Tensor

from deepcg.analysis.html import fragment
from deepcg.analysis.learning_curve import learning_curve_figure
from deepcg.analysis.surfaces.fitted import BINS, FittedSurface, agreement, surface_of
from deepcg.analysis.surfaces.fitted_figures import surface_figures
from deepcg.compute.device import device_of
from deepcg.forces.mean_force_labels import are_labels
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.ensemble import member_folder
from deepcg.potentials.model_file import CVModel, save_model
from deepcg.runtime.config import write_toml
from deepcg.runtime.errors import InputError, pick
from deepcg.runtime.files import read_tensors
from deepcg.runtime.progress import Progress, silent
from deepcg.training.convergence import Reference, falling
from deepcg.training.loss import squared_errors
from deepcg.training.members import (
    COMMON,
    REFIT,
    drawn_frames,
    initialize_surface_from,
    member_seed,
)
from deepcg.training.noise_floor import MOST_COORDINATES, close_frames
from deepcg.training.quality import Quality, quality_of
from deepcg.training.samples import ForceSamples, label_weights
from deepcg.training.stacked import StackOfSurfaces, train_stack
from deepcg.training.trainer import Record, rows
from deepcg.trajectory.frames import CVFrames
from deepcg.units import thermal_energy
from deepcg.workflow.dataset.collective_variables import MappedVariables, map_variables
from deepcg.workflow.dataset.labels import variables_of_labels
from deepcg.workflow.fit.config import DTYPES, FitConfig, absolute
from deepcg.workflow.fit.reference import linear_reference
from deepcg.workflow.fit.run_folder import train_in_folder, write_results
from free_energy import Estimate

REFITS = 8
"""Fits to resampled blocks of frames, for the error of U that data and training have."""

FIRST_REFIT = 500
"""Their seeds are those of members from this one on."""

STARTS = 4
"""Fits to all frames from other random weights, for the part of the error that training has."""

FEWEST_FRAMES = 1000
"""From which pairs of them are close enough to tell the noise."""

Samples = ForceSamples[Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class CVFit:
    """What a fit on collective variables leaves behind: the run folder holds the same.

    ``quality`` has an entry for each coordinate; ``surface`` is ``None`` where there are more
    than two. These, ``model`` and ``history`` are of the first of the ``models``, the members of
    the ensemble.
    """

    config: FitConfig
    model: CVModel
    history: list[Record]
    quality: tuple[Quality, ...]
    surface: FittedSurface | None
    models: tuple[CVModel, ...]

    def plot(self) -> Figure:
        """Return the learning curve, beside the noise floor; of U, see ``surface.plot``."""
        return learning_curve_figure(
            list(rows(self.history)),
            noise_floor=_relative_floor(self.quality),
            unit="in variances of the force",
        )

    def _repr_html_(self) -> str:
        """Return how much of the force on each coordinate the model explains, for notebooks."""
        model = self.model
        tables = [
            [(f"force on {name}", "value"), *of_one.table().items()]
            for name, of_one in zip(model.names, self.quality, strict=True)
        ]
        title = f"Free energy of {', '.join(model.names)} at {model.temperature:g} K"
        return fragment(title, [], *tables)


def fit_variables(
    config: FitConfig, progress: Progress = silent, tell: Callable[[str], None] = lambda line: None
) -> CVFit:
    """Map, train, draw and save; see ``deepcg.workflow.fit.command.fit``, which calls this.

    Raises
    ------
    InputError
        As there.
    """
    device = device_of(config.device, config.threads)
    _check_options(config)
    mapped = _mapped(config, progress)
    tell(_about(mapped))
    parts = [frames.to(device, DTYPES[config.dtype]) for frames in mapped.trajectories]
    training, validation = split_each(parts, config.validation_fraction)
    samples = samples_of(training)
    held_out = replace(samples_of(validation), scale=samples.scale)
    periods = mapped.variables.periods
    # find what is wrong before there is a folder
    initialize_surface_from(build_surface(config, periods, samples), config.members, 0)
    write_toml(config.output / "config.toml", absolute(config))
    linear = linear_reference(samples, held_out, periods)
    members, history = train_members(
        config, periods, training, held_out, progress, reference=linear[0]
    )
    potential = members[0]
    floors = floors_of(parts, periods)
    found = judge_each(potential, samples, held_out, mapped.variables.units, floors)
    quality = tuple(
        replace(
            of_one,
            reference=float(left),
            model=linear[0].model,
            falling=falling(history[0], config.training.steps),
        )
        for of_one, left in zip(found, linear[1], strict=True)
    )
    for name, of_one in zip(mapped.variables.names, quality, strict=True):
        tell(f"{name}: {of_one.in_words()}")
    names, units = mapped.variables.names, mapped.variables.units
    models = [CVModel(u, names, units, config.data.map, config.temperature) for u in members]
    for k, model in enumerate(models):
        save_model(member_folder(config.output, k) / "model.pt", model)
    surface = None
    if len(names) in BINS:
        refits, starts = fits_for_errors(config, periods, training, held_out, progress)
        kT = thermal_energy(config.temperature)
        surface = surface_of([potential, *refits], parts, names, units, kT, starts=starts)
    result = CVFit(config, models[0], history[0], quality, surface, tuple(models))
    if len(models) > 1:
        tell(_about_members(history))
    _write_results(result, mapped)
    tell(_about_surface(result, mapped))
    return result


def split_each(
    trajectories: list[CVFrames], validation_fraction: float
) -> tuple[list[CVFrames], list[CVFrames]]:
    """Return the first frames of every trajectory, and its last ones.

    Raises
    ------
    InputError
        A trajectory has less than three frames.
    """
    first, last = [], []
    for frames in trajectories:
        # a single one has no spread
        n = min(len(frames) - 2, round((1 - validation_fraction) * len(frames)))
        if n < 1:
            raise InputError(f"{len(frames)} frames are too few: one to train on, two to validate")
        first.append(frames[:n])
        last.append(frames[n:])
    return first, last


def samples_of(trajectories: list[CVFrames]) -> Samples:
    """Return frames ready for training, joined: values and forces (n_frames, d).

    The scale (d,) is the spread of the force along each coordinate, kJ/mol per unit of it.
    """
    frames = CVFrames.join(trajectories)
    assert frames.forces is not None
    spread = frames.forces.std(0) if len(frames) > 1 else frames.forces.abs()[0]
    weights = None if frames.errors is None else label_weights(frames.errors)
    return ForceSamples(frames.values, frames.forces, spread.clamp(min=1e-6), weights)


def build_surface(
    config: FitConfig,
    periods: tuple[float | None, ...],
    samples: Samples,
    *,
    seed: int | None = None,
) -> CVPotential:
    """Return the untrained potential that a config describes, standardized on the samples.

    ``periods`` are in the units of the coordinates; ``seed`` is that of its weights, by default the
    config's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed if seed is None else seed)
        potential = CVPotential(periods, **config.network_options)
    potential.to(samples.forces.device, samples.forces.dtype)
    potential.standardize(samples.seen, samples.forces)
    return potential


def floors_of(
    trajectories: list[CVFrames], periods: tuple[float | None, ...]
) -> tuple[Estimate[float] | None, ...]:
    """Return the variance of the noise on each force, by pairs of close frames.

    Its unit is that of the force squared, (kJ/mol per unit of the coordinate)^2; ``None`` where
    frames are too few, or coordinates too many, to tell it.
    """
    frames = CVFrames.join(trajectories)
    if len(periods) > MOST_COORDINATES or len(frames) < FEWEST_FRAMES:
        return (None,) * len(periods)
    assert frames.forces is not None
    floor = close_frames(frames.values.cpu().numpy(), frames.forces.cpu().numpy(), periods).floor
    return tuple(
        Estimate(float(v), float(e)) for v, e in zip(floor.value, floor.error, strict=True)
    )


def judge_each(
    potential: CVPotential,
    samples: Samples,
    held_out: Samples,
    units: tuple[str, ...],
    floors: tuple[Estimate[float] | None, ...],
) -> tuple[Quality, ...]:
    """Return how good a trained potential is, coordinate by coordinate; see `Quality` for units."""
    scale = samples.scale**2
    on_training = (squared_errors(potential, samples) * scale).double().mean(0).cpu()
    errors = (squared_errors(potential, held_out) * scale).double().cpu().numpy()
    variance = held_out.forces.double().var(0).cpu()
    return tuple(
        quality_of(float(variance[k]), float(on_training[k]), errors[:, k], f"kJ/mol/{unit}", floor)
        for k, (unit, floor) in enumerate(zip(units, floors, strict=True))
    )


def train_members(
    config: FitConfig,
    periods: tuple[float | None, ...],
    training: list[CVFrames],
    held_out: Samples,
    progress: Progress = silent,
    *,
    reference: Reference | None = None,
) -> tuple[list[CVPotential], list[list[Record]]]:
    """Train the members of the ensemble in the run folder; return them and the records of each.

    They are trained at once, but for those that are added to others: these have the checkpoint of
    their own that was written when they began.
    """
    found: list[CVPotential] = []
    histories: list[list[Record]] = []
    while len(found) < config.members.ensemble:
        first = len(found)
        together = _trained_together(config, first)
        potentials, drawn, samples = _beginnings(config, periods, training, together)
        stack = StackOfSurfaces(potentials)
        histories += train_in_folder(
            config,
            together,
            stack,
            samples,
            held_out,
            drawn=drawn,
            reference=reference,
            progress=progress,
        )
        found += stack.members()
    return found, histories


def fits_for_errors(
    config: FitConfig,
    periods: tuple[float | None, ...],
    training: list[CVFrames],
    held_out: Samples,
    progress: Progress = silent,
) -> tuple[list[CVPotential], list[CVPotential]]:
    """Return fits to blocks of frames drawn with replacement, and fits to all, as one stack.

    All are from other random weights. The spread of the first is the error of U that frames and
    training have (Efron's bootstrap, of blocks), that of the others what training has of it.
    """
    samples, lengths = samples_of(training), [len(frames) for frames in training]
    seeds = [member_seed(config.training.seed, FIRST_REFIT + k) for k in range(REFITS + STARTS)]
    drawn = [drawn_frames(lengths, seed) for seed in seeds[:REFITS]]
    drawn += [torch.arange(len(samples))] * STARTS
    potentials = [
        build_surface(config, periods, samples[rows], seed=seed)
        for seed, rows in zip(seeds, drawn, strict=True)
    ]
    plain = replace(config.training, validations=1, patience=0)
    told: Progress = lambda done, total, what: progress(done, total, "fits for errors")
    found, _ = train_stack(
        potentials, samples, held_out, plain, seeds=seeds, drawn=drawn, progress=told
    )
    return found[:REFITS], found[REFITS:]


def _trained_together(config: FitConfig, first: int) -> list[int]:
    """Return the numbers of members that are trained at once, from the first that is left."""
    last = config.members.ensemble
    checkpoint = member_folder(config.output, first) / "checkpoint.pt"
    if config.resume and checkpoint.is_file():
        saved = read_tensors(checkpoint).get("seeds", [])
        last = first + max(1, len(saved))
    return list(range(first, last))


def _beginnings(
    config: FitConfig,
    periods: tuple[float | None, ...],
    training: list[CVFrames],
    members: list[int],
) -> tuple[list[CVPotential], list[Tensor] | None, Samples]:
    """Return what members begin with, the frames that each sees, and all frames."""
    samples, lengths = samples_of(training), [len(frames) for frames in training]
    seeds = [member_seed(config.training.seed, k) for k in members]
    drawn = [drawn_frames(lengths, seed) for seed in seeds] if config.members.resample else None
    potentials = []
    for k, (member, seed) in enumerate(zip(members, seeds, strict=True)):
        seen = samples if drawn is None else samples[drawn[k]]
        potential = build_surface(config, periods, seen, seed=seed)
        initialize_surface_from(potential, config.members, member)
        potentials.append(potential)
    return potentials, drawn, samples


def _about_members(history: list[list[Record]]) -> str:
    losses = [records[-1].validation for records in history]
    return (
        f"{len(history)} members, validation losses {min(losses):.4g} to {max(losses):.4g} in "
        f"variances of the force"
    )


def _mapped(config: FitConfig, progress: Progress) -> MappedVariables:
    path, data = config.trajectory, config.data
    if are_labels(path):
        return variables_of_labels(path, data, config.temperature)
    return map_variables(path, data, config.temperature, config.output, progress)


def _check_options(config: FitConfig) -> None:
    if (config.members.common, config.members.refit) != (COMMON, REFIT):
        raise InputError(
            f"common and refit are settings for beads, and {config.data.map!r} are collective "
            f"variables, whose members are trained at once: leave them out"
        )
    known = list(inspect.signature(CVPotential).parameters)[1:]
    for name in config.network_options:
        pick(dict.fromkeys(known), name, "option of the network of collective variables:")
    try:
        CVPotential((None,), **config.network_options)
    except (TypeError, RuntimeError) as error:
        raise InputError(f"an option of the network of collective variables: {error}") from error


def _about(mapped: MappedVariables) -> str:
    n_files = len(mapped.trajectories)
    files = f" of {n_files} trajectories" if n_files > 1 else ""
    names = ", ".join(mapped.variables.names)
    return f"{mapped.n_frames} frames{files} in {names}\n{mapped.estimate.describe()}"


def _about_surface(result: CVFit, mapped: MappedVariables) -> str:
    folder = result.config.output
    if result.surface is None:
        return f"model in {folder}; no surface is drawn of {len(result.model.names)} coordinates"
    where = f"surface in {folder / 'surface.npz'}"
    if any(frames.errors is not None for frames in mapped.trajectories):
        return where
    weighted = any(frames.weights is not None for frames in mapped.trajectories)
    text = agreement(result.surface).in_words()
    if not weighted:
        text += ", if the frames are not biased"
    return f"{text}\n{where}"


def _write_results(result: CVFit, mapped: MappedVariables) -> None:
    config, model, surface = result.config, result.model, result.surface
    paths = (config.trajectory, *config.data.also)
    about = {
        "kind": "fit of collective variables",
        "trajectories": [str(path.resolve()) for path in paths],
        "frames": mapped.n_frames,
        "coordinates": list(model.names),
        "units": list(model.units),
        "estimator": mapped.estimate.describe(),
        "quality": {
            name: asdict(quality) | {"explained": quality.explained}
            for name, quality in zip(model.names, result.quality, strict=True)
        },
        "histogram": None if surface is None else asdict(agreement(surface)),
        "hashes": mapped.hashes,
    }
    figures = {"learning-curve": result.plot()}
    if surface is not None:
        surface.save(config.output / "surface.npz")
        title = f"U of {' and '.join(model.names)}, {mapped.n_frames} frames"
        figures |= surface_figures(surface, title)
    write_results(config, result.models, result.history, about, figures)


def _relative_floor(quality: tuple[Quality, ...]) -> float | None:
    """Return the noise floor in the unit of the loss, the mean over coordinates."""
    floors = [of_one.noise_floor for of_one in quality]
    parts = [f / q.variance for f, q in zip(floors, quality, strict=True) if f is not None]
    return sum(parts) / len(parts) if len(parts) == len(quality) else None
