"""Force matching: the network learns the mean of instantaneous forces."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from deepcg.compute.allocator import keep_freed_memory
from deepcg.compute.matmul_precision import EXACT, multiplied_in
from deepcg.runtime.files import read_tensors, write_tensors
from deepcg.runtime.progress import Progress, silent
from deepcg.training.config import (
    BATCH,
    MOLECULE_BATCH,
    OPTIMIZERS,
    TrainingConfig,
    TrainingError,
    has_settings,
    learning_rate,
)
from deepcg.training.loss import Trainable, force_error, in_brief
from deepcg.training.noise_weighting import NoiseWeighting
from deepcg.training.samples import ForceSamples, Inputs, batch_of

Row = TypeVar("Row")
"""What a validation tells: a record, or one for each member of a stack."""


DIVERGED = 1e6
"""Mean square error of a batch, in variances of the force, from which training does not return."""


MOST_WEIGHED = 200
"""Beads whose covariances the frames of a hundred batches can tell."""

_MOST_SHOWN = 8  # frames of a batch


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
    return run_training(
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


class TrainingRun(Protocol[Row]):
    """A training between steps: what `run_training` takes to its end."""

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


def run_training(
    course: TrainingRun[Row],
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
    """The state of a training: weights, their average, optimizer, history."""

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
