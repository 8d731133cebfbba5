"""Force matching: the network learns the mean of instantaneous forces."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from deepcg.compute.allocator import keep_freed_memory
from deepcg.compute.matmul_precision import EXACT, MATMUL, multiplied_in
from deepcg.geometry.neighbor_list import Neighbors, PairList, find_pairs
from deepcg.potentials.beads import NetworkPotential
from deepcg.runtime.errors import InputError, pick
from deepcg.runtime.files import read_tensors, write_tensors
from deepcg.runtime.progress import Progress, silent
from deepcg.training.noise_weighting import NoiseWeighting
from deepcg.trajectory.frames import Frames

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "adamw": partial(torch.optim.AdamW, fused=True),
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
}


Inputs = TypeVar("Inputs", Neighbors, Tensor)
"""What a potential is evaluated on: the surroundings of beads, or values of coordinates."""
Seen = TypeVar("Seen", Neighbors, Tensor, contravariant=True)

Row = TypeVar("Row")
"""What a validation tells: a record, or one for each member of a stack."""

CHUNK = 13_000
"""Force components that are evaluated at a time."""

MOST_MEMORY = 10**9
"""Bytes that the surroundings of all frames may take: of more, each batch is searched anew."""

BYTES_OF_A_NUMBER = 12
"""Of each component of a displacement: it, its lattice vector, and a share of the rest."""

DIVERGED = 1e6
"""Mean square error of a batch, in variances of the force, from which training does not return."""

BATCH, MOLECULE_BATCH = 8, 32
"""Frames in a step where the user does not say: of a liquid, and of one molecule."""

WEIGHTINGS = ("auto", "even", "noise")

MOST_WEIGHED = 200
"""Beads whose covariances the frames of a hundred batches can tell."""

_MOST_SHOWN = 8  # frames of a batch


class TrainingError(InputError):
    """Training cannot go on; what was saved before stays valid."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How to train.

    Parameters
    ----------
    steps
        Number of optimiser steps.
    batch_size
        Frames in a step; by default 8, or 32 of one molecule, or 512 of collective variables.
    learning_rate, final_ratio
        The rate of learning falls exponentially, to ``final_ratio`` times the first.
    optimizer
        Kind of optimiser: adam, adamw, nadam or radam.
    clip
        Largest norm of the gradient of (mean square error / variance of the forces).
    ema
        Memory of the exponential moving average of the weights, per step.
    validations
        How many times the validation frames are evaluated, and a checkpoint written.
    patience
        Stop after so many validations without a better one; 0 never stops early.
    seed
        Seed of the order of frames, and of the weights that a fit starts from.
    weighting
        How much errors of single components count: even, noise (by the inverse covariance of the
        noise on the beads of a molecule) or auto: noise for one molecule without a box.
    matmul
        Precision of products of matrices in the steps: highest (float32), high (TF32 on CUDA) or
        medium (bfloat16 where the device multiplies it faster); validation is in highest.
    """

    steps: int = 6000
    batch_size: int | None = None
    learning_rate: float = 5e-3
    final_ratio: float = 1e-3
    optimizer: str = "adam"
    clip: float = 10.0
    ema: float = 0.999
    validations: int = 40
    patience: int = 0
    seed: int = 0
    weighting: str = "auto"
    matmul: str = EXACT

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "final_ratio", "clip", "validations"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}: it must be positive")
        if not 0 <= self.ema < 1:
            raise InputError(f"ema is {self.ema}: choose at least 0 and less than 1")
        if self.patience < 0:
            raise InputError(f"patience is {self.patience}: choose 0 (never stop early) or more")
        pick(OPTIMIZERS, self.optimizer, "optimizer")
        pick(dict.fromkeys(WEIGHTINGS), self.weighting, "weighting")
        pick(dict.fromkeys(MATMUL), self.matmul, "precision of --matmul")


@dataclass(frozen=True, slots=True)
class Record:
    """One line of ``metrics.jsonl``; losses are mean squares per component.

    Their unit is that of the force, over ``ForceSamples.scale``, squared: (kJ/mol/nm)^2 for beads.
    ``train`` is the mean over the batches since the last record, with the weights of the moment,
    and each component as it counts (`ForceSamples.weights`, `NoiseWeighting`); ``validation`` is of
    the averaged weights, and there all components count alike.
    """

    step: int
    train: float
    validation: float
    learning_rate: float
    seconds: float


class Trainable(Protocol[Seen]):
    """A potential with weights: an ``nn.Module`` that knows its forces."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the weights."""
        ...

    def forces(self, inputs: Seen, /, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Return U (n_frames,), kJ/mol, and minus its gradient, shaped as the forces."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class ForceSamples(Generic[Inputs]):
    """Frames ready for training.

    Parameters
    ----------
    inputs
        What the potential is evaluated on: the surroundings of beads, found once or, where they
        would take too much memory, when they are needed; or the values of collective variables.
    forces
        Instantaneous forces, (n_frames, ...); of beads less those of the force field.
    scale
        In what unit an error of each component of the force counts, shaped as one frame's forces
        or a number: components of different units or noise are made comparable by it.
    weights
        How much every component of every frame counts in training, shaped as the forces, with a
        mean of 1 over frames; ``None``: all count the same. See `label_weights`.
    molecule
        Whether the forces are those on the beads of one molecule, without a box.
    """

    inputs: Inputs | Unsearched
    forces: Tensor
    scale: Tensor
    weights: Tensor | None = None
    molecule: bool = False

    def __len__(self) -> int:
        return len(self.forces)

    def __getitem__(self, frames: slice | Tensor) -> ForceSamples[Inputs]:
        """Return some of the frames."""
        weights = None if self.weights is None else self.weights[frames]
        inputs, forces = self.inputs[frames], self.forces[frames]
        return ForceSamples(inputs, forces, self.scale, weights, self.molecule)

    @property
    def seen(self) -> Inputs:
        """What the potential is evaluated on, of all frames at once."""
        if isinstance(self.inputs, Unsearched):
            found: Any = self.inputs.search()  # only beads have surroundings
            seen: Inputs = found
            return seen
        return self.inputs


@dataclass(frozen=True, slots=True, eq=False)
class Unsearched:
    """Surroundings of beads that are found when they are needed: tens of times their positions.

    Parameters
    ----------
    potential
        Whose terms will see them.
    positions, box
        As of ``Frames``.
    """

    potential: NetworkPotential
    positions: Tensor
    box: Tensor | None

    def __getitem__(self, frames: slice | Tensor) -> Unsearched:
        """Return some of the frames."""
        box = None if self.box is None else self.box[frames]
        return Unsearched(self.potential, self.positions[frames], box)

    def search(self) -> Neighbors:
        """Find the surroundings in all frames."""
        pairs = find_pairs(self.positions, self.box, self.potential.cutoff)
        narrow = PairList(pairs.index.to(torch.int32), pairs.shift, pairs.count)
        kinds = narrow.with_kinds(self.potential.types)
        return self.potential.surroundings(self.positions, kinds)


def prepare(
    potential: NetworkPotential, frames: Frames, *, chunk: int = 200, progress: Progress = silent
) -> ForceSamples[Neighbors]:
    """Find the surroundings of the beads in all frames, and what their terms have to explain.

    The forces of the potential's force field, which has no weights, are taken off the forces.

    Raises
    ------
    InputError
        If the frames have no forces, or a box is too small for the cutoff.
    """
    if frames.forces is None:
        raise InputError("the frames have no forces to match")
    left = []
    samples = Unsearched(potential, frames.positions, frames.box)
    parts: list[PairList] = []
    kept = True
    for start in range(0, len(frames), chunk):
        part = frames[start : start + chunk]
        left.append(_unexplained(potential, part))
        if kept:
            pairs = find_pairs(part.positions, part.box, potential.cutoff)
            parts.append(PairList(pairs.index.to(torch.int32), pairs.shift, pairs.count))
            numbers = parts[-1].shift.numel() / len(part) * len(frames)
            kept = numbers * BYTES_OF_A_NUMBER < MOST_MEMORY
        progress(min(start + chunk, len(frames)), len(frames), "neighbors")
    forces, scale = torch.cat(left), frames.forces.new_ones(())
    molecule = frames.box is None
    if not kept:
        return ForceSamples(samples, forces, scale, molecule=molecule)
    pairs = PairList.join(parts).with_kinds(potential.types)
    near = potential.surroundings(frames.positions, pairs)
    return ForceSamples(near, forces, scale, molecule=molecule)


def _unexplained(potential: NetworkPotential, frames: Frames) -> Tensor:
    assert frames.forces is not None
    if potential.molecular is None:
        return frames.forces
    return frames.forces - potential.molecular.forces(frames.positions)[1]


def label_weights(errors: Tensor) -> Tensor:
    """Return 1 / (sigma^2 + s^2), divided by its mean over labels, (n, ...).

    An error of a fit to a mean force is the sum of the label's, of variance sigma^2, and of what
    remains without that, of a variance s^2 that is the same for all: what the network cannot
    represent, the width of the restraints, what moved too slowly to show in sigma. Least squares of
    least variance weights with the inverse of the sum. sigma is itself an estimate, from few
    blocks, and too small by a factor of two now and then: s^2, the median of sigma^2, keeps such a
    label from counting more than twice as much as a typical one.

    Parameters
    ----------
    errors
        (n, ...), standard errors sigma of the components of n labels.
    """
    variance = errors.square()
    # labels without any noise count alike
    weights = 1 / (variance + variance.median(0).values).clamp(min=1e-12)
    return weights / weights.mean(0)


def joint_weights(noise: Tensor, n_frames: int, errors: Tensor) -> Tensor:
    """Return weights, as `label_weights`, of n frames and the labels after them, (n + m, ...).

    Parameters
    ----------
    noise
        Variance of the noise of the components of instantaneous forces, broadcast to (...).
    errors
        (m, ...), standard errors of the mean forces of m labels.
    """
    of_labels = errors.square()
    of_labels = of_labels + of_labels.median(0).values
    of_frames = noise.expand(n_frames, *errors.shape[1:])
    weights = 1 / torch.cat([of_frames, of_labels.to(noise)]).clamp(min=1e-12)
    return weights / weights.mean(0)


def squared_errors(
    potential: Trainable[Inputs],
    samples: ForceSamples[Inputs],
    *,
    chunk: int | None = None,
    as_trained: bool = False,
) -> Tensor:
    """Return the squared error of each component, shaped as the forces, in units of the scale.

    ``chunk`` frames are evaluated at a time; ``None``: as many as have ``CHUNK`` components. Forces
    are worked out in the fastest way, or ``as_trained``, in that of a step of training.
    """
    size = chunk or max(1, CHUNK * len(samples) // samples.forces.numel())
    errors = []
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        _, forces = potential.forces(part.seen, create_graph=as_trained)
        errors.append(((forces.detach() - part.forces) / part.scale).square())
    return torch.cat(errors)


def force_error(
    potential: Trainable[Inputs], samples: ForceSamples[Inputs], *, chunk: int | None = None
) -> Tensor:
    """Return the squared force errors of each frame, (n_frames,), mean over components."""
    return squared_errors(potential, samples, chunk=chunk).flatten(1).mean(1)


def matmul_change(
    potential: Trainable[Inputs], samples: ForceSamples[Inputs], matmul: str
) -> float:
    """Return by how much of itself the mean force error changes with a precision of products."""
    errors = []
    for precision in (EXACT, matmul):
        with multiplied_in(precision):
            errors.append(float(squared_errors(potential, samples, as_trained=True).mean()))
    return errors[1] / errors[0] - 1


def train(
    potential: Trainable[Inputs],
    samples: ForceSamples[Inputs],
    validation: ForceSamples[Inputs],
    config: TrainingConfig,
    *,
    report: Callable[[Record], None] = lambda record: None,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> list[Record]:
    """Fit the potential, in place, to the forces; return the history.

    The potential is left with the averaged weights: the last ones, or with ``patience`` those
    that validated best. With ``checkpoint`` the state is kept in
    that file at every validation, and when ``progress`` raises ``KeyboardInterrupt``; with
    ``resume`` training goes on from it, bit for bit as if it had never stopped.

    Raises
    ------
    TrainingError
        The loss is not finite, or beyond all bounds: the potential is left with the weights that
        validated best. Or the checkpoint is of another training.
    """
    keep_freed_memory()
    config = settled(config, samples)
    trainer = _Trainer(potential, samples, validation, config)
    return follow(
        trainer, config, report=report, checkpoint=checkpoint, resume=resume, progress=progress
    )


def settled(config: TrainingConfig, samples: ForceSamples[Inputs]) -> TrainingConfig:
    """Return a config in which nothing is left to the samples to decide.

    Raises
    ------
    TrainingError
        Noise is to be weighed where there is not one molecule of few beads, or labels have errors
        of their own.
    """
    able = samples.molecule and samples.weights is None and samples.forces.shape[1] <= MOST_WEIGHED
    if config.weighting == "noise" and not able:
        raise TrainingError(
            "--weighting noise is for instantaneous forces on one molecule of up to "
            f"{MOST_WEIGHED} beads, without a box: choose even"
        )
    return replace(
        config,
        batch_size=config.batch_size or (MOLECULE_BATCH if samples.molecule else BATCH),
        weighting="noise" if able and config.weighting != "even" else "even",
    )


class Course(Protocol[Row]):
    """A training between steps: what `follow` takes to its end."""

    step: int
    last_loss: float
    history: list[Row]

    def take_step(self, step: int) -> None:
        """Improve the weights once."""
        ...

    def validate(self, seconds: float) -> Row:
        """Return, and add to the history, what is known after so many seconds."""
        ...

    @property
    def seconds(self) -> float:
        """Time that was spent up to the last validation."""
        ...

    @property
    def has_settled(self) -> bool:
        """Whether nothing has become better for as long as the patience lasts."""
        ...

    def state(self) -> dict[str, Any]:
        """Return all that a bitwise resume needs."""
        ...

    def load(self, path: Path) -> None:
        """Go on from a file with a state."""
        ...

    def finish(self) -> None:
        """Leave the potential with the weights that are the result."""
        ...


def follow(
    course: Course[Row],
    config: TrainingConfig,
    *,
    report: Callable[[Row], None],
    checkpoint: Path | None,
    resume: bool,
    progress: Progress,
) -> list[Row]:
    """Take a training to its end, or go on with it; see `train`."""
    if resume and checkpoint is not None and checkpoint.exists():
        course.load(checkpoint)
    every = max(1, config.steps // config.validations)
    began = time.monotonic() - course.seconds
    for step in range(course.step + 1, config.steps + 1):
        if course.has_settled:
            break
        with multiplied_in(config.matmul):
            course.take_step(step)
        if step % every == 0 or step == config.steps:
            with multiplied_in(EXACT):
                record = course.validate(time.monotonic() - began)
            if checkpoint is not None:
                write_tensors(checkpoint, course.state())
            report(record)
        try:
            progress(step, config.steps, f"training, loss {in_brief(course.last_loss)}")
        except KeyboardInterrupt:
            if checkpoint is not None:
                write_tensors(checkpoint, course.state())
            raise
    course.finish()
    return course.history


class _Trainer(Generic[Inputs]):
    """The state of a training: weights, their average, optimiser, history."""

    def __init__(
        self,
        potential: Trainable[Inputs],
        samples: ForceSamples[Inputs],
        validation: ForceSamples[Inputs],
        config: TrainingConfig,
    ) -> None:
        self.potential: Trainable[Inputs] = potential
        self.config = config
        self.samples: ForceSamples[Inputs] = samples
        self.validation: ForceSamples[Inputs] = validation
        self.force_variance = float((samples.forces / samples.scale).var())
        self.parameters = [p for p in potential.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.best = [a.clone() for a in self.average]  # by validation
        self.optimizer = OPTIMIZERS[config.optimizer](self.parameters, lr=config.learning_rate)
        weighs = config.weighting == "noise"
        self.noise = NoiseWeighting(samples.forces / samples.scale) if weighs else None
        self.step, self.losses, self.last_loss = 0, 0.0, math.nan
        self.history: list[Record] = []

    def take_step(self, step: int) -> None:
        config = self.config
        frames = batch_of(step, len(self.samples), config)
        batch = self.samples[frames]
        _, forces = self.potential.forces(batch.seen, create_graph=True)
        errors = (forces - batch.forces) / batch.scale
        counted = self._weighed(errors).square()
        loss = (counted if batch.weights is None else batch.weights * counted).mean()
        squares = errors.detach().square()
        # one wait for the device
        self.last_loss, unweighed = torch.stack([loss.detach(), squares.mean()]).tolist()
        if not unweighed < DIVERGED * self.force_variance:
            raise self._diverged(step, frames, squares)
        self.optimizer.zero_grad()
        (loss / self.force_variance).backward(inputs=self.parameters)
        nn.utils.clip_grad_norm_(self.parameters, config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        self.optimizer.step()
        update_average(self.average, self.parameters, step, config)
        self.step, self.losses = step, self.losses + self.last_loss

    def _weighed(self, errors: Tensor) -> Tensor:
        """Return the errors of a batch as they count."""
        if self.noise is None:
            return errors
        weighed = self.noise.weigh(errors)
        self.noise.follow(errors)
        return weighed

    def _diverged(self, step: int, frames: Tensor, squares: Tensor) -> TrainingError:
        """Return what to tell; the potential gets the best weights there were."""
        of_frames = squares.flatten(1).mean(1)
        worst = int(frames[int(of_frames.nan_to_num(math.inf, math.inf).argmax())])
        shown = ", ".join(map(str, sorted(frames.tolist())[:_MOST_SHOWN]))
        more = ", ..." if len(frames) > _MOST_SHOWN else ""
        set_weights(self.parameters, self.best)
        best = min(self.history, key=lambda record: record.validation, default=None)
        kept = "" if best is None else f"; the best weights, those of step {best.step}, are kept"
        what = f"the loss is {float(of_frames.mean()):.3g}"
        if not of_frames.isfinite().all():
            what = "the loss is not finite"
        return TrainingError(
            f"{what} at step {step}: reduce --learning-rate (now {self.config.learning_rate:g}) or "
            f"check the forces, above all those of training frame {worst} (of the batch "
            f"{shown}{more}, from 0){kept}"
        )

    def validate(self, seconds: float) -> Record:
        since = self.step - (self.history[-1].step if self.history else 0)
        kept = copy.deepcopy([p.detach() for p in self.parameters])
        set_weights(self.parameters, self.average)
        error = float(force_error(self.potential, self.validation).mean())
        set_weights(self.parameters, kept)
        rate = learning_rate(self.step, self.config)
        self.history.append(Record(self.step, self.losses / since, error, rate, seconds))
        self.losses = 0.0
        if error <= min(r.validation for r in self.history):
            self.best = [a.clone() for a in self.average]
        return self.history[-1]

    @property
    def seconds(self) -> float:
        return self.history[-1].seconds if self.history else 0.0

    @property
    def has_settled(self) -> bool:
        return has_settled(self.history, self.config.patience)

    def finish(self) -> None:
        set_weights(self.parameters, self.best if self.config.patience else self.average)

    def state(self) -> dict[str, Any]:
        return {
            "config": asdict(self.config),
            "step": self.step,
            "losses": self.losses,
            "parameters": [p.detach() for p in self.parameters],
            "average": self.average,
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "history": [asdict(r) for r in self.history],
            "covariance": None if self.noise is None else self.noise.covariance,
        }

    def load(self, path: Path) -> None:
        saved = read_tensors(path)
        shapes = [p.shape for p in self.parameters]
        same = has_settings(saved["config"], self.config)
        if not same or shapes != [p.shape for p in saved["parameters"]]:
            raise TrainingError(
                f"{path} is of a training with other settings: give the same, or another folder"
            )
        set_weights(self.parameters, saved["parameters"])
        self.average = [a.to(p) for a, p in zip(saved["average"], self.parameters, strict=True)]
        best = saved.get("best") or saved["average"]  # older files have it with patience only
        self.best = [b.to(p) for b, p in zip(best, self.parameters, strict=True)]
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.noise is not None:
            self.noise.covariance = saved["covariance"].to(self.noise.covariance)
        self.step, self.losses = saved["step"], saved.get("losses", 0.0)
        self.history = [Record(**r) for r in saved["history"]]


def has_settings(saved: dict[str, Any], config: TrainingConfig) -> bool:
    """Return whether a checkpoint is of these settings.

    Of older ones all errors count alike, and products are exact.
    """
    return {"weighting": "even", "matmul": EXACT, **saved} == asdict(config)


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of a step."""
    rate: float = config.learning_rate * config.final_ratio ** (step / config.steps)
    return rate


def set_weights(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Give the parameters these values, in place."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


def update_average(
    averages: list[Tensor], parameters: list[nn.Parameter], step: int, config: TrainingConfig
) -> None:
    """Let the exponential moving averages of the weights follow these."""
    # a young average must not remember the random start
    memory = min(config.ema, step / (step + 10))
    with torch.no_grad():
        for average, parameter in zip(averages, parameters, strict=True):
            average.lerp_(parameter, 1 - memory)


def batch_of(step: int, n_frames: int, config: TrainingConfig) -> Tensor:
    """Return the frames of a step: a shuffled deck, dealt and shuffled anew.

    It follows from the seed and the step alone, so that a resumed training goes on alike.
    """
    size = min(config.batch_size or BATCH, n_frames)
    epoch, place = divmod(step - 1, n_frames // size)
    return shuffled(n_frames, config.seed, epoch)[place * size : (place + 1) * size]


def shuffled(n_frames: int, seed: int, epoch: int) -> Tensor:
    """Return the order of the frames in a turn through all of them."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(n_frames, generator=generator)


def in_brief(error: float) -> str:
    """Return a mean square error with the digits that matter, whatever its unit."""
    return f"{error:.0f}" if error >= 100 else f"{error:.3g}"


def rows(history: list[Record]) -> Iterator[dict[str, float]]:
    """Yield the records as plain dictionaries, for files and figures."""
    for record in history:
        yield asdict(record)


def has_settled(history: list[Record], patience: int) -> bool:
    """Return whether none of the last ``patience`` records is better than one before."""
    if patience == 0 or len(history) <= patience:
        return False
    best = min(range(len(history)), key=lambda k: history[k].validation)
    return best < len(history) - patience
