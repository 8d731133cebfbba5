"""How much of the forces a model explains, and what is left."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from deepcg.training.loss import in_brief
from free_energy import Estimate, block_average


@dataclass(frozen=True, slots=True)
class Quality:
    """How much of the forces a model explains; mean squares per component of it.

    ``floor`` estimates the variance of the noise: the part of the instantaneous force that no
    function of the beads can explain. A fit with p parameters to N noisy numbers comes out
    too low by about p / N of it on the frames it was trained on, and too high by as much on
    others; to first order the mean of the two is free of both. What the network cannot
    represent, or has not learned yet, adds to it: it is an upper bound. ``close_frames`` is the
    floor by ``deepcg.training.noise_floor.close_frames``, which needs no model, where there are few
    coordinates. ``unit`` is that of the force; the numbers have its square.

    There is no floor where atoms are not ``hidden``, and none is known while the training has not
    converged: it leaves more than ``reference``, the mean square error of a simple ``model`` by
    least squares on the same validation frames, or its error was still ``falling``, by that part
    in the last tenth of its steps.
    """

    variance: float
    training: float
    validation: Estimate[float]
    floor: Estimate[float]
    unit: str = "kJ/mol/nm"
    close_frames: Estimate[float] | None = None
    hidden: bool = True
    reference: float | None = None
    model: str = ""
    falling: float = 0.0

    @property
    def explained(self) -> float:
        """R^2 on the validation frames."""
        return 1 - self.validation.value / self.variance

    def in_words(self) -> str:
        """Say what the numbers mean to a newcomer."""
        if self.explains_nothing:
            return self._nothing_in_words()
        explained = (
            f"{100 * self.explained:.1f} % of the force variance is explained "
            f"({in_brief(self.validation.value)} of {in_brief(self.variance)} "
            f"({self.unit})^2 are left)"
        )
        if self.overfits:
            return (
                f"{explained}; the model overfits ({in_brief(self.training)} ({self.unit})^2 on "
                f"the frames that it was trained on): give it more frames, or fewer steps or "
                f"weights"
            )
        if self.is_stuck:
            assert self.reference is not None
            return (
                f"{explained}; that is more than the {in_brief(self.reference)} that {self.model} "
                f"leaves: the training is far from converged, and tells nothing of the noise; "
                f"give more steps or another --learning-rate"
            )
        if not self.hidden:
            return f"{explained}; no atoms are hidden: all of the rest is the model's error"
        if self.falling:
            return (
                f"{explained}; the error still fell by {100 * self.falling:.0f} % in the last "
                f"tenth of the steps: the noise of the hidden atoms is less than that, give more "
                f"steps to see how much{self._without_model}"
            )
        return (
            f"{explained}; most of the rest is noise of the hidden atoms, which no function of the "
            f"coarse coordinates can explain: its floor is about {self._text(self.floor)}, or "
            f"lower where the training was too short{self._without_model}"
        )

    def _nothing_in_words(self) -> str:
        left, variance = in_brief(self.validation.value), in_brief(self.variance)
        told = (
            f"nothing of the forces is explained on the validation frames: {left} "
            f"({self.unit})^2 are left of a variance of {variance}, R^2 is {self.explained:.3f}"
        )
        if self.overfits:
            return (
                f"{told}; the model overfits ({in_brief(self.training)} ({self.unit})^2 on the "
                f"frames that it was trained on): give it more frames, or fewer steps or weights"
            )
        if self.reference is not None and self.reference < min(
            self.validation.value, self.variance
        ):
            return (
                f"{told}, but {self.model} leaves {in_brief(self.reference)}: the training is "
                f"stuck or far from converged; give more steps or another --learning-rate"
            )
        return (
            f"{told}; either the training is too short, stuck or diverging (give more steps or "
            f"another --learning-rate), or the forces are no function of these positions (of "
            f"other frames, in another order, or random), or too few frames were given to see it "
            f"in their noise"
        )

    def _text(self, estimate: Estimate[float]) -> str:
        text = _text(estimate)
        return f"{f'({text})' if '±' in text else text} ({self.unit})^2"

    @property
    def _without_model(self) -> str:
        if self.close_frames is None:
            return ""
        return f" (by pairs of close frames, without a model: {self._text(self.close_frames)})"

    @property
    def explains_nothing(self) -> bool:
        """Whether forces of zero would do as well on the validation frames."""
        return not self.explained > 0

    @property
    def overfits(self) -> bool:
        """Whether the two errors are too far apart to tell where the floor is."""
        return self.validation.value > 1.2 * self.training

    @property
    def is_stuck(self) -> bool:
        """Whether more is left than by the simple model."""
        return self.reference is not None and self.validation.value > self.reference

    @property
    def noise_floor(self) -> float | None:
        """The floor where there is one and the fit can tell it."""
        unknown = self.explains_nothing or self.overfits or self.is_stuck or self.falling
        return self.floor.value if self.hidden and not unknown else None

    def table(self) -> dict[str, str]:
        """Return names and values for people."""
        unit = f"({self.unit})²"
        table = {
            f"force variance, {unit}": in_brief(self.variance),
            f"mean square error, training frames, {unit}": in_brief(self.training),
            f"mean square error, validation frames, {unit}": _text(self.validation),
            "explained fraction R²": f"{self.explained:.4f}",
        }
        if self.hidden:
            known = self.noise_floor is not None
            table[f"noise floor (estimate), {unit}"] = _text(self.floor) if known else "unknown"
        if self.reference is not None:
            table[f"mean square error of {self.model}, {unit}"] = in_brief(self.reference)
        if self.close_frames is not None:
            table[f"noise floor (pairs of close frames), {unit}"] = _text(self.close_frames)
        return table


def quality_of(
    variance: float,
    on_training: float,
    held_out: ArrayLike,
    unit: str = "kJ/mol/nm",
    close_frames: Estimate[float] | None = None,
) -> Quality:
    """Return what errors on training frames and on those held out say about a fit.

    Parameters
    ----------
    variance
        Of a component of the force, in ``unit`` squared, as all errors.
    on_training
        Mean square error of a component on frames that were trained on.
    held_out
        (n,), that of each of the other frames, in the order of time.
    unit
        Of the force.
    close_frames
        The noise floor without a model, where it is known.
    """
    errors = np.asarray(held_out, dtype=float)
    mean = block_average(errors[:, None]) if len(errors) >= 16 else None
    error = float(mean.error[0]) if mean is not None else float("nan")
    validation = Estimate(float(errors.mean()), error)
    floor = Estimate((on_training + validation.value) / 2, error)
    return Quality(variance, on_training, validation, floor, unit, close_frames)


def quality_from_json(saved: Mapping[str, Any]) -> Quality:
    """Return what run.json holds of a fit to beads, where an unknown error is ``null``."""
    return Quality(
        saved["variance"],
        saved["training"],
        _estimate(saved["validation"]),
        _estimate(saved["floor"]),
        # older fits do not say
        hidden=saved.get("hidden", True),
        reference=saved.get("reference"),
        model=saved.get("model", ""),
        falling=saved.get("falling", 0.0),
    )


def _estimate(saved: Mapping[str, float | None]) -> Estimate[float]:
    value, error = saved["value"], saved["error"]
    return Estimate(math.nan if value is None else value, math.nan if error is None else error)


def _text(estimate: Estimate[float]) -> str:
    error = f" ± {in_brief(estimate.error)}" if math.isfinite(estimate.error) else ""
    return in_brief(estimate.value) + error
