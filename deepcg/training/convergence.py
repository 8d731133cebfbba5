"""Whether a training gets anywhere: against what a simple model leaves, while it goes on.

A training that is stuck looks like a good one whose noise is large. A model with few parameters
that least squares find at once tells one from the other: a network that leaves more of the same
frames has learned less than it, whatever the noise.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from deepcg.training.config import TrainingConfig
from deepcg.training.loss import in_brief
from deepcg.training.trainer import Record, Records

_log = logging.getLogger(__name__)

PATIENCE = 1 / 6
"""Part of the steps after which a training must be better than the simple model."""

FEWEST_STEPS = 500
"""Before that many it may be anywhere."""

DIVERGING = 1.5
"""Validation error, in units of the best before, that is going up and not scatter."""

LAST_PART, FALLING = 0.1, 0.01
"""Of a training that has converged the last tenth takes less than so much off its error."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What a simple model leaves on the validation frames: a mean square, as in `Record`."""

    error: float
    model: str


class Watch:
    """Tells, once, that a training is stuck or diverging, as soon as it can be seen.

    Parameters
    ----------
    config
        How is trained.
    rate
        The first rate of learning.
    reference
        What a simple model leaves; ``None``: nothing is known of one.
    """

    def __init__(self, config: TrainingConfig, rate: float, reference: Reference | None) -> None:
        self.config, self.rate, self.reference = config, rate, reference
        self.best: list[float] = []
        self.has_told = False

    def __call__(self, records: Records) -> None:
        """Look at the records of a validation, one of each member."""
        errors = [record.validation for record in records]
        self.best = self.best or errors
        trouble = self._trouble(records[0].step, errors)
        self.best = [min(pair) for pair in zip(self.best, errors, strict=True)]
        if trouble and not self.has_told:
            self.has_told = True
            _log.warning("%s; try --learning-rate %.2g", trouble, self.rate / 3)

    def _trouble(self, step: int, errors: Sequence[float]) -> str | None:
        if step < max(FEWEST_STEPS, PATIENCE * self.config.steps):
            return None
        for error, best in zip(errors, self.best, strict=True):
            loss = f"after {step} steps the validation loss {in_brief(error)} is above the"
            if error > DIVERGING * best:
                return f"{loss} {in_brief(best)} that it was at: the training is diverging"
            if self.reference is not None and error > self.reference.error:
                simple = f"{in_brief(self.reference.error)} of {self.reference.model}"
                return f"{loss} {simple}: the training is stuck"
        return None


def falling(history: Sequence[Record], steps: int) -> float:
    """Return what part of its validation error a training took off in its last tenth.

    0 where the records do not tell, or less than `FALLING`, which is none to speak of.
    """
    if not history:
        return 0.0
    before = [r.validation for r in history if r.step <= (1 - LAST_PART) * steps]
    if not before or not history[-1].validation > 0:
        return 0.0
    part = 1 - history[-1].validation / before[-1]
    return part if part > FALLING else 0.0
