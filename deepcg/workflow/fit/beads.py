"""A fit of beads: mapped, trained member by member, judged and written."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from matplotlib.figure import Figure
from torch import Tensor

from deepcg.analysis.html import fragment
from deepcg.analysis.learning_curve import learning_curve_figure
from deepcg.compute.device import device_of
from deepcg.compute.matmul_precision import EXACT
from deepcg.forces.mean_force_labels import are_labels
from deepcg.geometry.neighbor_list import Neighbors, check_cutoff
from deepcg.mapping.beads import LinearMapping
from deepcg.mapping.chirality import check_handedness
from deepcg.potentials.beads import NetworkPotential
from deepcg.potentials.ensemble import EnsemblePotential, member_folder
from deepcg.potentials.model_file import Model, save_model
from deepcg.runtime.progress import Progress
from deepcg.runtime.provenance import file_hash
from deepcg.training.config import RATE, TrainingError
from deepcg.training.convergence import Reference, falling
from deepcg.training.least_squares import linear_network
from deepcg.training.loss import force_error, in_brief, matmul_change, residuals
from deepcg.training.members import (
    FEWEST_BLOCKS,
    LOOKED_AT,
    begins_from,
    block_counts,
    drawn_frames,
    initialize_from,
    member_seed,
    refit_config,
)
from deepcg.training.quality import Quality, quality_of
from deepcg.training.samples import (
    ForceSamples,
    check_length,
    label_weights,
    prepare,
    split,
    training_length,
)
from deepcg.training.trainer import Record, StackOfOne, rows
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.reader import Trajectory
from deepcg.workflow.dataset.beads import (
    Beads,
    labelled,
    map_forces,
    map_positions,
    open_all,
    used_frames,
)
from deepcg.workflow.dataset.labels import beads_of_labels
from deepcg.workflow.fit.architecture import build, cutoff_of, rate_of, standardize
from deepcg.workflow.fit.config import DTYPES, FitConfig
from deepcg.workflow.fit.prior import PRIORS
from deepcg.workflow.fit.reference import hides_atoms, pair_reference
from deepcg.workflow.fit.run_folder import (
    solve_in_folder,
    start_run,
    train_in_folder,
    write_results,
)

_log = logging.getLogger(__name__)

MOST_CHANGED = 1e-3
"""By how much of itself fast products may change the validation error without a word."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What a fit leaves behind: the run folder holds the same.

    ``model``, ``history`` and ``quality`` are of the first of the ``models``, the members of the
    ensemble.
    """

    config: FitConfig
    model: Model
    history: list[Record]
    quality: Quality
    models: tuple[Model, ...]

    def plot(self) -> Figure:
        """Return the learning curve, beside the noise floor."""
        return learning_curve_figure(list(rows(self.history)), noise_floor=self.quality.noise_floor)

    def _repr_html_(self) -> str:
        """Return how much of the forces the model explains, for notebooks."""
        names = ", ".join(self.model.type_names)
        title = (
            f"Free energy of {len(self.model.masses)} beads ({names}) by {self.model.mapping!r} at "
            f"{self.model.temperature:g} K, {self.model.architecture.network}"
        )
        table = [("forces", "value"), *self.quality.table().items()]
        return fragment(title, [self.quality.in_words()], table)


def fit_beads(config: FitConfig, progress: Progress, tell: Callable[[str], None]) -> Fit:
    """Fit beads and write the run folder; as ``deepcg.fit``, which calls this."""
    device = device_of(config.device, config.threads)
    beads, hashes = beads_of(config, progress)
    tell(_about_beads(beads))
    prior = PRIORS[config.prior](beads, config.temperature)
    frames = beads.frames.to(device, DTYPES[config.dtype])
    training, validation = split(frames, config.validation_fraction, beads.lengths)
    molecular = None if prior is None else prior[0]
    potential, architecture = build(config, frames, molecular)
    samples = prepare(potential, training, progress=progress)
    if prior is not None:
        tell(f"{prior[1]}; {_explained(training, samples)}")
    if beads.errors is not None:
        samples = replace(
            samples, weights=label_weights(beads.errors[: len(samples)]).to(frames.forces)
        )
    held_out = prepare(potential, validation, progress=progress)
    initialize_from(potential, architecture, config.members, 0)  # find what is wrong with it now
    start_run(config, beads)
    config, reference = with_rate(config, frames, tell), None
    if linear_network(potential) is None:
        reference = pair_reference(
            architecture, potential.types, config.temperature, molecular, samples, held_out
        )
    else:
        tell(_about_least_squares(config))
    models: list[Model] = []
    histories: list[list[Record]] = []
    lengths = [
        training_length(n, config.validation_fraction) for n in beads.lengths or (len(frames),)
    ]
    counts: list[int] | None = None
    for k in range(config.members.ensemble):
        source = begins_from(config.members, k)
        if source is None:
            seed = member_seed(config.training.seed, k)
            potential, _ = build(config, frames, molecular, seed=seed)
            standardize(potential, samples)
            initialize_from(potential, architecture, config.members, k)
        else:
            potential = copy.deepcopy(models[source].potential)
        draws = config.members.resample and (source is not None or not config.members.common)
        if draws and counts is None:
            counts = _blocks(None if source is None else potential, samples, lengths)
        drawn = None
        if draws:
            drawn = drawn_frames(lengths, member_seed(config.training.seed, k), counts)
        names, masses = beads.mapping.type_names, beads.mapping.masses
        model = Model(architecture, potential, names, masses, config.data.map, config.temperature)
        own = config if source is None else _of_refit(config)
        told = _of_member(progress, k, config.members.ensemble)
        histories.append(_trained(own, k, model, (samples, held_out), drawn, reference, told))
        models.append(model)
    quality = replace(
        judge(models[0].potential, samples, held_out, validation),
        hidden=hides_atoms(beads),
        reference=None if reference is None else reference.error,
        model="" if reference is None else reference.model,
        falling=falling(histories[0], config.training.steps),
    )
    tell(quality.in_words())
    _tell_of_products(config.training.matmul, models, held_out, tell)
    result = Fit(config, models[0], histories[0], quality, tuple(models))
    if len(models) > 1:
        tell(_about_members(result, held_out))
    _write_results(result, beads, hashes)
    return result


def _trained(
    config: FitConfig,
    member: int,
    model: Model,
    samples: tuple[ForceSamples[Neighbors], ForceSamples[Neighbors]],
    drawn: Tensor | None,
    reference: Reference | None,
    progress: Progress,
) -> list[Record]:
    """Train and save a member; where the training fails, with the best weights there were."""
    folder, stack = member_folder(config.output, member), StackOfOne(model.potential)
    rows = None if drawn is None else [drawn]
    if linear_network(model.potential) is not None:
        training, held_out = samples
        seen = training if drawn is None else training[drawn]
        history = solve_in_folder(config, member, model.potential, seen, held_out, progress)
        save_model(folder / "model.pt", model)
        return history
    try:
        (history,) = train_in_folder(
            config, [member], stack, *samples, drawn=rows, reference=reference, progress=progress
        )
    except TrainingError:
        save_model(folder / "best.pt", model)
        raise
    save_model(folder / "model.pt", model)
    return history


def beads_of(config: FitConfig, progress: Progress) -> tuple[Beads, Mapping[str, str]]:
    """Return beads with forces, and hashes of their files, which may vanish while we train.

    Raises
    ------
    InputError
        As ``fit``.
    """
    path = config.trajectory
    if are_labels(path):
        beads = beads_of_labels(path, config.data, config.temperature)
        return beads, {"labels": file_hash(path)}
    sources = open_all(path, config.data, config.temperature)
    check_before_labelling(config, sources)
    sources = tuple(labelled(s, config.data, config.output, progress) for s in sources)
    beads = map_forces(sources, config.data, config.temperature, progress)
    hashes = dict(sources[0].hash)
    for number, source in enumerate(sources[1:], start=2):
        hashes |= {f"{what} {number}": text for what, text in source.hash.items()}
    return beads, hashes


def check_before_labelling(config: FitConfig, sources: Sequence[Trajectory]) -> None:
    """Find what is wrong with the settings before hours are spent on forces of opened files.

    Raises
    ------
    InputError
        The map, the frames, the cutoff or the network's options cannot be used.
    """
    for source in sources:
        check_length(len(used_frames(source, config.data)))
    start = int(used_frames(sources[0], config.data)[0])
    first = replace(config.data, start=start, stop=start + 1, stride=1)
    beads = map_positions(sources[0], first)
    if isinstance(beads.mapping, LinearMapping) and not config.force_achiral:
        check_handedness(beads.mapping, sources[0].graph, config.data.map)
    check_cutoff(beads.frames.box, cutoff_of(config, beads.frames))
    build(config, beads.frames)


def judge(
    potential: NetworkPotential,
    samples: ForceSamples[Neighbors],
    validation: ForceSamples[Neighbors],
    frames: Frames,
) -> Quality:
    """Return how good a trained potential is, from training and validation samples.

    ``frames`` are those of the validation, with whole forces (n_frames, n_beads, 3), kJ/mol/nm, of
    which a part is explained; all errors are in (kJ/mol/nm)^2.
    """
    assert frames.forces is not None
    every = max(1, len(samples) // 500)
    on_training = float(force_error(potential, samples[::every]).mean())
    errors = force_error(potential, validation).double().cpu().numpy()
    return quality_of(float(frames.forces.var()), on_training, errors)


def _blocks(
    potential: NetworkPotential | None, samples: ForceSamples[Neighbors], lengths: Sequence[int]
) -> list[int]:
    """Return into how many blocks each trajectory is cut, by what a fit leaves of the forces.

    Without a fit, the forces themselves, which are slower, tell it.
    """
    errors, start = [], 0
    for length in lengths:
        part = samples[start : start + min(length, LOOKED_AT)]
        start += length
        errors.append(part.forces if potential is None else residuals(potential, part))
    counts = block_counts(errors, lengths)
    if sum(counts) < FEWEST_BLOCKS:
        _log.warning(
            f"the frames are worth {sum(counts)} independent blocks only: refits to blocks drawn "
            f"anew tell the error that they leave poorly; give more frames, or longer runs"
        )
    return counts


def _of_refit(config: FitConfig) -> FitConfig:
    return replace(config, training=refit_config(config.training, config.members))


def with_rate(config: FitConfig, frames: Frames, tell: Callable[[str], None]) -> FitConfig:
    """Return a config with the rate of learning that the width of the network allows, if unsaid."""
    rate = rate_of(config, frames)
    if config.training.learning_rate is None and rate < RATE:
        tell(f"--learning-rate {rate:.2g}, by the width of the layers ({RATE:g} by default)")
    return replace(config, training=replace(config.training, learning_rate=rate))


def _about_least_squares(config: FitConfig) -> str:
    """Say what settings of a training are for, where nothing is trained step by step."""
    text = (
        f"{config.network} is linear in its weights and solved by least squares: --steps, "
        f"--learning-rate and the like are not used"
    )
    if config.members.ensemble > 1 and not config.members.resample:
        text += "; all members are equal: give --resample for a spread"
    return text


def _of_member(progress: Progress, member: int, n_members: int) -> Progress:
    """Return the progress of a member's training as that of all."""
    if n_members == 1:
        return progress
    return lambda done, total, what: progress(
        member * total + done, n_members * total, f"member {member + 1} of {n_members}, {what}"
    )


def _tell_of_products(
    matmul: str,
    models: Sequence[Model],
    held_out: ForceSamples[Neighbors],
    tell: Callable[[str], None],
) -> None:
    """Tell if the validation error depends on the precision of products in the training."""
    if matmul == EXACT:
        return
    changes = [matmul_change(model.potential, held_out, matmul) for model in models]
    worst = max(changes, key=abs)
    if not abs(worst) <= MOST_CHANGED:
        tell(
            f"products of --matmul {matmul} change the validation error by {100 * worst:+.2g} %: "
            f"compare with a fit in {EXACT}"
        )


def _about_members(result: Fit, held_out: ForceSamples[Neighbors]) -> str:
    """Say how good the mean of the members is."""
    potentials = [model.potential for model in result.models]
    errors = [float(force_error(potential, held_out).mean()) for potential in potentials]
    mean = float(force_error(EnsemblePotential(potentials), held_out).mean())
    return (
        f"{len(errors)} members, validation errors {in_brief(min(errors))} to "
        f"{in_brief(max(errors))}, of the mean of their forces {in_brief(mean)} (kJ/mol/nm)^2"
    )


def _about_beads(beads: Beads) -> str:
    frames, estimate = beads.frames, beads.estimate
    text = f"{len(frames)} frames of {frames.n_sites} beads ({', '.join(beads.mapping.type_names)})"
    return text if estimate is None else f"{text}\n{estimate.describe()}"


def _explained(frames: Frames, samples: ForceSamples[Neighbors]) -> str:
    assert frames.forces is not None
    before, after = float(frames.forces.var()), float(samples.forces.var())
    return (
        f"it explains {100 * (1 - after / before):.1f} % of the force variance "
        f"({in_brief(after)} of {in_brief(before)} (kJ/mol/nm)^2 are left)"
    )


def _write_results(result: Fit, beads: Beads, hashes: Mapping[str, str]) -> None:
    quality, config = result.quality, result.config
    about = {
        "kind": "fit",
        "trajectory": str(config.trajectory.resolve()),
        "frames": len(beads.frames),
        "beads": beads.frames.n_sites,
        "types": list(beads.mapping.type_names),
        "frame_ps": None if beads.source is None else beads.source.frame_time,
        "estimator": "" if beads.estimate is None else beads.estimate.describe(),
        "quality": asdict(quality) | {"explained": quality.explained},
        "hashes": dict(hashes),
        "refitted_from": [begins_from(config.members, k) for k in range(len(result.models))],
    }
    figures = {"learning-curve": result.plot()}
    write_results(config, result.models, result.history, about, figures)
