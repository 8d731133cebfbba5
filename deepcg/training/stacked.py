"""Force matching of several networks at once, each on frames and in an order of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepcg.compute.allocator import keep_freed_memory
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.stacked import SurfaceStack
from deepcg.runtime.files import read_tensors
from deepcg.runtime.progress import Progress, silent
from deepcg.training.config import (
    BATCH,
    OPTIMIZERS,
    TrainingConfig,
    TrainingError,
    has_settings,
    learning_rate,
)
from deepcg.training.loss import CHUNK
from deepcg.training.samples import ForceSamples, shuffled
from deepcg.training.trainer import (
    Record,
    has_settled,
    run_training,
    set_weights,
    settled,
    update_average,
)

Records = tuple[Record, ...]
"""One for each member."""


def train_stack(
    members: Sequence[CVPotential],
    samples: ForceSamples[Tensor],
    validation: ForceSamples[Tensor],
    config: TrainingConfig,
    *,
    seeds: Sequence[int],
    drawn: Sequence[Tensor] | None = None,
    report: Callable[[Records], None] = lambda records: None,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> tuple[list[CVPotential], list[Records]]:
    """Fit potentials of one shape to the forces at once; return them, trained, and the history.

    Each is trained as ``train`` would train it, to rounding: with its own order of frames,
    norm of the gradient, average and best weights.

    Parameters
    ----------
    members
        The potentials to begin with. Weights that need no gradient are held.
    seeds
        Of the order of frames, one for each member.
    drawn
        Which frames each member sees, with repetitions; ``None``: all see all.

    Raises
    ------
    TrainingError
        If the loss is not finite, or the checkpoint is of another training.
    """
    keep_freed_memory()
    config = settled(config, samples)
    course = _StackCourse(members, samples, validation, config, seeds, drawn)
    history = run_training(
        course, config, report=report, checkpoint=checkpoint, resume=resume, progress=progress
    )
    return course.stack.members(), history


class _StackCourse:
    """The state of a training of a stack: its axis of members is the first of every table."""

    def __init__(
        self,
        members: Sequence[CVPotential],
        samples: ForceSamples[Tensor],
        validation: ForceSamples[Tensor],
        config: TrainingConfig,
        seeds: Sequence[int],
        drawn: Sequence[Tensor] | None,
    ) -> None:
        self.stack = SurfaceStack(members)
        self.samples, self.validation, self.config = samples, validation, config
        self.seeds = list(seeds)
        everything = torch.arange(len(samples))
        self.drawn = [everything] * len(self.seeds) if drawn is None else list(drawn)
        scaled = samples.forces / samples.scale
        self.variances = torch.stack([scaled[rows].var() for rows in self.drawn])
        self.size = min(config.batch_size or BATCH, *(len(rows) for rows in self.drawn))
        self.parameters = [p for p in self.stack.weights if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.best = [a.clone() for a in self.average]  # by validation; followed with patience only
        self.optimizer = OPTIMIZERS[config.optimizer](self.parameters, lr=config.learning_rate)
        self.step, self.last_loss = 0, float("nan")
        self.losses = torch.zeros(len(self.seeds), dtype=torch.float64)
        self.history: list[Records] = []
        self._orders: dict[int, tuple[int, Tensor]] = {}  # of each member, in its present epoch

    def take_step(self, step: int) -> None:
        config = self.config
        batch = self.samples[self._rows(step).to(self.samples.forces.device)]
        _, forces = self.stack.forces(batch.seen, create_graph=True)
        errors = ((forces - batch.forces) / batch.scale).square()
        losses = (errors if batch.weights is None else batch.weights * errors).mean((1, 2))
        self.last_loss = losses.mean().item()
        _check_finite(self.last_loss, step, config)
        self.optimizer.zero_grad()
        (losses / self.variances).sum().backward(inputs=self.parameters)
        self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        self.optimizer.step()
        update_average(self.average, self.parameters, step, config)
        self.step, self.losses = step, self.losses + losses.detach().cpu().double()

    def validate(self, seconds: float) -> Records:
        since = self.step - (self.history[-1][0].step if self.history else 0)
        kept = [p.detach().clone() for p in self.parameters]
        set_weights(self.parameters, self.average)
        errors = self._validation_errors()
        set_weights(self.parameters, kept)
        rate = learning_rate(self.step, self.config)
        records = tuple(
            Record(self.step, loss / since, error, rate, seconds)
            for loss, error in zip(self.losses.tolist(), errors.tolist(), strict=True)
        )
        self.history.append(records)
        self.losses = torch.zeros_like(self.losses)
        self._keep_best()
        return records

    @property
    def seconds(self) -> float:
        return self.history[-1][0].seconds if self.history else 0.0

    @property
    def has_settled(self) -> bool:
        """Whether all members have."""
        columns = zip(*self.history, strict=True)
        settled = [has_settled(list(column), self.config.patience) for column in columns]
        return bool(settled) and all(settled)

    def finish(self) -> None:
        set_weights(self.parameters, self.best if self.config.patience else self.average)

    def state(self) -> dict[str, Any]:
        return {
            "config": asdict(self.config),
            "seeds": self.seeds,
            "step": self.step,
            "losses": self.losses,
            "parameters": [p.detach() for p in self.parameters],
            "average": self.average,
            "best": self.best if self.config.patience else [],
            "optimizer": self.optimizer.state_dict(),
            "history": [[asdict(record) for record in records] for records in self.history],
        }

    def load(self, path: Path) -> None:
        saved = read_tensors(path)
        shapes = [p.shape for p in self.parameters]
        same = has_settings(saved["config"], self.config) and saved.get("seeds") == self.seeds
        if not same or shapes != [p.shape for p in saved["parameters"]]:
            raise TrainingError(
                f"{path} is of a training with other settings: give the same, or another folder"
            )
        set_weights(self.parameters, saved["parameters"])
        self.average = [a.to(p) for a, p in zip(saved["average"], self.parameters, strict=True)]
        if self.config.patience:
            self.best = [b.to(p) for b, p in zip(saved["best"], self.parameters, strict=True)]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = saved["step"]
        self.losses = saved.get("losses", self.losses)  # older files have none
        self.history = [tuple(Record(**r) for r in records) for records in saved["history"]]

    def _rows(self, step: int) -> Tensor:
        """Return the frames of a step, (n_members, batch)."""
        chosen = []
        for k, (seed, rows) in enumerate(zip(self.seeds, self.drawn, strict=True)):
            epoch, place = divmod(step - 1, len(rows) // self.size)
            if k not in self._orders or self._orders[k][0] != epoch:
                self._orders[k] = epoch, rows[shuffled(len(rows), seed, epoch)]
            chosen.append(self._orders[k][1][place * self.size : (place + 1) * self.size])
        return torch.stack(chosen)

    def _clip(self) -> None:
        """Limit the norm of each member's gradient."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        squares = [g.square().flatten(1).sum(1) for g in gradients]
        norms = torch.stack(squares).sum(0).sqrt()
        keep = (self.config.clip / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(keep.view(-1, *[1] * (gradient.ndim - 1)))

    def _validation_errors(self) -> Tensor:
        """Return the mean squared error of each member, (n_members,)."""
        held_out, size = self.validation, max(1, CHUNK // len(self.seeds))
        total = torch.zeros(len(self.seeds), dtype=torch.float64)
        for start in range(0, len(held_out), size):
            part = held_out[start : start + size]
            _, forces = self.stack.forces(part.seen)
            errors = ((forces.detach() - part.forces) / part.scale).square()
            total += errors.double().mean(2).sum(1).cpu()
        return total / len(held_out)

    def _keep_best(self) -> None:
        """Remember the averaged weights of those members that have never validated better."""
        if not self.config.patience:
            return
        for k, column in enumerate(zip(*self.history, strict=True)):
            if column[-1].validation <= min(record.validation for record in column):
                for best, average in zip(self.best, self.average, strict=True):
                    best[k] = average[k]


def _check_finite(loss: float, step: int, config: TrainingConfig) -> None:
    """Stop a training that has gone astray.

    Raises
    ------
    TrainingError
        The loss is not finite.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is not finite at step {step}: reduce --learning-rate "
            f"(now {config.learning_rate:g}) or check the forces"
        )
