"""Force matching: a potential of mean force (PMF) is learned from instantaneous forces.

Of all functions of the coarse coordinates, the mean of the instantaneous forces has the least mean
square error, and that mean is minus the gradient of the PMF. Several members, each with an order of
frames, a norm of the gradient, an average and best weights of its own, are trained in one loop: a
single fit is a stack of one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol

import torch
from torch import Tensor, nn

from deepcg.compute.allocator import keep_freed_memory
from deepcg.compute.matmul_precision import EXACT, multiplied_in
from deepcg.runtime.files import read_tensors, write_tensors
from deepcg.runtime.progress import Progress, silent
from deepcg.training.config import (
    OPTIMIZERS,
    TrainingConfig,
    TrainingError,
    has_settings,
    learning_rate,
)
from deepcg.training.loss import Trainable, force_error, in_brief
from deepcg.training.noise_weighting import NoiseWeighting
from deepcg.training.samples import Deck, ForceSamples, Inputs, settled

DIVERGED = 1e6
"""Mean square error of a batch, in variances of the force, from which training does not return."""

MOST_SHOWN = 8
"""Frames of a batch that a message names."""


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


Records = tuple[Record, ...]
"""One for each member."""


def rows(history: Sequence[Record]) -> Iterator[dict[str, float]]:
    """Yield the records as plain dictionaries, for files and figures."""
    for record in history:
        yield asdict(record)


class Stack(Protocol[Inputs]):
    """The members of a training: where their weights are, and how their forces come about."""

    stacked: bool
    """Whether the first axis of every weight is that of the members."""

    parameters: list[nn.Parameter]
    """The weights that are trained."""

    def forces(self, inputs: Inputs) -> Tensor:
        """Return forces (n_members * n, ...) that can be differentiated in the weights.

        The first n inputs are of the first member, the next n of the second, and so on.
        """
        ...

    def limit_gradients(self, norm: float) -> None:
        """Scale each member's gradient, over all weights, to at most this norm."""
        ...

    def errors(self, samples: ForceSamples[Inputs]) -> Tensor:
        """Return the mean squared errors (n_members,) of the forces, in units of the scale."""
        ...


class StackOfOne(Generic[Inputs]):
    """A single fit, of any module that knows its forces: see `Stack`."""

    stacked = False

    def __init__(self, potential: Trainable[Inputs]) -> None:
        self.potential: Trainable[Inputs] = potential
        self.parameters = [p for p in potential.parameters() if p.requires_grad]

    def forces(self, inputs: Inputs) -> Tensor:
        """Return the forces, shaped as those of the samples."""
        return self.potential.forces(inputs, create_graph=True)[1]

    def limit_gradients(self, norm: float) -> None:
        """Scale the gradient to at most this norm."""
        nn.utils.clip_grad_norm_(self.parameters, norm)

    def errors(self, samples: ForceSamples[Inputs]) -> Tensor:
        """Return the mean squared error of the forces, (1,), in units of the scale."""
        return force_error(self.potential, samples).mean()[None]


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

    It is a stack of one: see `run_training`.

    Raises
    ------
    TrainingError
        As there; where the training diverges, the potential has the weights that validated best.
    """
    history = run_training(
        StackOfOne(potential),
        samples,
        validation,
        config,
        seeds=[config.seed],
        report=lambda records: report(records[0]),
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
    )
    return [record for (record,) in history]


def run_training(
    stack: Stack[Inputs],
    samples: ForceSamples[Inputs],
    validation: ForceSamples[Inputs],
    config: TrainingConfig,
    *,
    seeds: Sequence[int],
    drawn: Sequence[Tensor] | None = None,
    report: Callable[[Records], None] = lambda records: None,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> list[Records]:
    """Fit all members of a stack, in place, to the forces; return the history.

    They are left with the averaged weights: the last ones, or with ``patience`` those that
    validated best. With ``checkpoint`` the state is kept in that file at every validation, and when
    ``progress`` raises ``KeyboardInterrupt``; with ``resume`` training goes on from it, bit for bit
    as if it had never stopped.

    Parameters
    ----------
    seeds
        Of the order of frames, one for each member; that of the config is not used.
    drawn
        Which frames (n,) each member sees, with repetitions; ``None``: all see all.
    report
        Called with the records of every validation.

    Raises
    ------
    TrainingError
        The loss of a member is not finite, or beyond all bounds: the stack is left with the weights
        that validated best. Or the checkpoint is of another training.
    """
    keep_freed_memory()
    run = _TrainingRun(stack, samples, validation, settled(config, samples), seeds, drawn)
    if resume and checkpoint is not None and checkpoint.exists():
        run.load(checkpoint)
    every = max(1, config.steps // config.validations)
    began = time.monotonic() - (run.history[-1][0].seconds if run.history else 0.0)
    for step in range(run.step + 1, config.steps + 1):
        if run.has_settled:
            break
        with multiplied_in(config.matmul):
            run.take_step(step)
        if step % every == 0 or step == config.steps:
            with multiplied_in(EXACT):
                records = run.validate(time.monotonic() - began)
            if checkpoint is not None:
                write_tensors(checkpoint, run.state())
            report(records)
        try:
            progress(step, config.steps, f"training, loss {in_brief(run.last_loss)}")
        except KeyboardInterrupt:
            if checkpoint is not None:
                write_tensors(checkpoint, run.state())
            raise
    run.finish()
    return run.history


class _TrainingRun(Generic[Inputs]):
    """The state of a training: weights, their average, optimizer, history."""

    def __init__(
        self,
        stack: Stack[Inputs],
        samples: ForceSamples[Inputs],
        validation: ForceSamples[Inputs],
        config: TrainingConfig,
        seeds: Sequence[int],
        drawn: Sequence[Tensor] | None,
    ) -> None:
        assert config.batch_size is not None
        self.stack: Stack[Inputs] = stack
        self.samples: ForceSamples[Inputs] = samples
        self.validation: ForceSamples[Inputs] = validation
        self.seeds = list(seeds)
        # in a file of a single fit the seed is that of its settings
        self.config = config if stack.stacked else replace(config, seed=self.seeds[0])
        scaled, n = samples.forces / samples.scale, len(self.seeds)
        parts = [scaled] * n if drawn is None else [scaled[frames] for frames in drawn]
        self.variances = torch.stack([part.var() for part in parts])
        self.bounds = [DIVERGED * variance for variance in self.variances.tolist()]
        seen = [torch.arange(len(samples))] * n if drawn is None else drawn
        size = min(config.batch_size, *map(len, seen))
        self.decks = [Deck(of, size, seed) for of, seed in zip(seen, self.seeds, strict=True)]
        self.noise = NoiseWeighting(scaled) if config.weighting == "noise" else None
        self.parameters = stack.parameters
        self.average = [p.detach().clone() for p in self.parameters]
        self.best = [a.clone() for a in self.average]  # by validation
        self.optimizer = OPTIMIZERS[config.optimizer](self.parameters, lr=config.learning_rate)
        self.step, self.last_loss = 0, math.nan
        self.losses = torch.zeros(n, dtype=torch.float64)
        self.history: list[Records] = []

    def take_step(self, step: int) -> None:
        """Improve the weights once."""
        config = self.config
        frames = torch.stack([deck.batch(step) for deck in self.decks])  # (n_members, size)
        batch = self.samples[frames.flatten().to(self.samples.forces.device)]
        errors = (self.stack.forces(batch.seen) - batch.forces) / batch.scale
        counted, squares = self._weighed(errors).square(), errors.detach().square()
        losses = self._means(counted if batch.weights is None else batch.weights * counted)
        # one wait for the device
        told, even = torch.stack([losses.detach(), self._means(squares)]).tolist()
        self.last_loss = sum(told) / len(told)
        if not all(loss < bound for loss, bound in zip(even, self.bounds, strict=True)):
            raise self._diverged(step, frames, squares)
        self.optimizer.zero_grad()
        (losses / self.variances).sum().backward(inputs=self.parameters)
        self.stack.limit_gradients(config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        self.optimizer.step()
        self._update_average(step)
        self.step, self.losses = step, self.losses + torch.tensor(told, dtype=torch.float64)

    def validate(self, seconds: float) -> Records:
        """Return, and add to the history, what is known after so many seconds."""
        since = self.step - (self.history[-1][0].step if self.history else 0)
        kept = [p.detach().clone() for p in self.parameters]
        _set_weights(self.parameters, self.average)
        errors = self.stack.errors(self.validation)
        _set_weights(self.parameters, kept)
        rate = learning_rate(self.step, self.config)
        records = tuple(
            Record(self.step, loss / since, error, rate, seconds)
            for loss, error in zip(self.losses.tolist(), errors.tolist(), strict=True)
        )
        self.history.append(records)
        self.losses = torch.zeros_like(self.losses)
        for k, column in enumerate(zip(*self.history, strict=True)):
            if column[-1].validation <= min(record.validation for record in column):
                for best, average in zip(self.best, self.average, strict=True):
                    self._by_member(best)[k] = self._by_member(average)[k]
        return records

    @property
    def has_settled(self) -> bool:
        """Whether no member has become better for as long as the patience lasts."""
        columns = zip(*self.history, strict=True)
        return bool(self.history) and all(_has_settled(c, self.config.patience) for c in columns)

    def finish(self) -> None:
        """Leave the stack with the weights that are the result."""
        _set_weights(self.parameters, self.best if self.config.patience else self.average)

    def state(self) -> dict[str, Any]:
        """Return all that a bitwise resume needs; that of a single fit has no axis of members."""
        history = [[asdict(record) for record in records] for records in self.history]
        state: dict[str, Any] = {
            "config": asdict(self.config),
            "step": self.step,
            "parameters": [p.detach() for p in self.parameters],
            "average": self.average,
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
        }
        if self.stack.stacked:
            return state | {"seeds": self.seeds, "losses": self.losses, "history": history}
        covariance = None if self.noise is None else self.noise.covariance
        alone = {"losses": float(self.losses), "history": [record for (record,) in history]}
        return state | alone | {"covariance": covariance}

    def load(self, path: Path) -> None:
        """Go on from a file with a state."""
        saved = read_tensors(path)
        shapes = [p.shape for p in self.parameters]
        same = has_settings(saved["config"], self.config)
        same = same and saved.get("seeds", self.seeds) == self.seeds
        if not same or shapes != [p.shape for p in saved["parameters"]]:
            raise TrainingError(
                f"{path} is of a training with other settings: give the same, or another folder"
            )
        _set_weights(self.parameters, saved["parameters"])
        _set_weights(self.average, saved["average"])
        # older files have the best with patience only
        _set_weights(self.best, saved.get("best") or saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.noise is not None:
            self.noise.covariance = saved["covariance"].to(self.noise.covariance)
        self.step = saved["step"]
        losses = saved.get("losses", 0.0)  # older files have none
        self.losses = torch.as_tensor(losses, dtype=torch.float64).expand_as(self.losses)
        columns = [row if isinstance(row, list) else [row] for row in saved["history"]]
        self.history = [tuple(Record(**record) for record in row) for row in columns]

    def _by_member(self, weight: Tensor) -> Tensor:
        """Return a weight, or what is kept of it, with an axis of members."""
        return weight if self.stack.stacked else weight[None]

    def _means(self, values: Tensor) -> Tensor:
        """Return the means (n_members,) of values (n_members * n, ...)."""
        of_each = values.view(len(self.seeds), -1, *values.shape[1:])
        return of_each.mean(tuple(range(1, of_each.ndim)))

    def _weighed(self, errors: Tensor) -> Tensor:
        """Return the errors of a batch as they count."""
        if self.noise is None:
            return errors
        weighed = self.noise.weigh(errors)
        self.noise.follow(errors)
        return weighed

    def _update_average(self, step: int) -> None:
        """Let the exponential moving averages of the weights follow these."""
        # a young average must not remember the random start
        memory = min(self.config.ema, step / (step + 10))
        with torch.no_grad():
            for average, parameter in zip(self.average, self.parameters, strict=True):
                average.lerp_(parameter, 1 - memory)

    def _diverged(self, step: int, frames: Tensor, squares: Tensor) -> TrainingError:
        """Return what to tell; the stack gets the best weights there were."""
        of_frames = squares.flatten(1).mean(1).view_as(frames)  # (n_members, size)
        member, place = divmod(
            int(of_frames.nan_to_num(math.inf, math.inf).argmax()), frames.shape[1]
        )
        batch, losses = frames[member].tolist(), of_frames[member]
        shown = ", ".join(map(str, sorted(batch)[:MOST_SHOWN]))
        more = ", ..." if len(batch) > MOST_SHOWN else ""
        _set_weights(self.parameters, self.best)
        column = [records[member] for records in self.history]
        best = min(column, key=lambda record: record.validation, default=None)
        kept = ""
        if best is not None and not self.stack.stacked:  # those of others are of other steps
            kept = f"; the best weights, those of step {best.step}, are kept"
        what = f"the loss is {float(losses.mean()):.3g}"
        if not losses.isfinite().all():
            what = "the loss is not finite"
        return TrainingError(
            f"{what} at step {step}: reduce --learning-rate (now {self.config.learning_rate:g}) or "
            f"check the forces, above all those of training frame {batch[place]} (of the batch "
            f"{shown}{more}, from 0){kept}"
        )


def _set_weights(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Give weights these values, in place."""
    with torch.no_grad():
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(value)


def _has_settled(column: Sequence[Record], patience: int) -> bool:
    """Return whether none of the last ``patience`` records is better than one before."""
    if patience == 0 or len(column) <= patience:
        return False
    best = min(range(len(column)), key=lambda k: column[k].validation)
    return best < len(column) - patience
