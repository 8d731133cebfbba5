"""What a comparison says: a difference, none that was seen and what would have been, or nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from free_energy import (
    Blocks,
    Estimate,
    Replicates,
    TwoSampleTest,
    compare_blocks,
    compare_replicates,
)
from free_energy.blocks import INEFFICIENCIES_PER_BLOCK
from free_energy.two_samples import FEWEST, LEVEL, POWER

SAME, APART, LITTLE = "no difference seen", "differs", "too little data"

FEWEST_INDEPENDENT = int(FEWEST * INEFFICIENCIES_PER_BLOCK)
"""Independent frames of either side, for as many blocks as a test needs."""

SEED = 0
"""Of the draws: the same data have the same p value."""

EXPLAINED = (
    f"A difference is called one at p <= {LEVEL:g}: so many verdicts on equal ensembles are false "
    f"alarms. What would have been seen is seen in {100 * POWER:g} % of such comparisons, or more."
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A test of a difference, or why there is none.

    ``test`` is ``None`` where there are too little data, and ``reason`` says so.
    """

    test: TwoSampleTest | None
    reason: str = ""

    @property
    def category(self) -> str:
        """One of ``SAME``, ``APART`` and ``LITTLE``."""
        if self.test is None:
            return LITTLE
        return APART if self.test.differs else SAME

    def in_words(
        self, unit: str = "", *, measure: str = " rms", place: str = "", share: str = ""
    ) -> str:
        """Say it in a line.

        Parameters
        ----------
        unit, measure
            Of the sizes; a single number has no root mean square.
        place
            Where a difference is largest.
        share
            More on a difference, for the brackets.
        """
        if self.test is None:
            return f"{LITTLE}: {self.reason}"
        unit = f" {unit}" if unit else ""
        if self.test.differs:
            rms = self.test.rms
            size = f"{_number(rms.value, rms.error)} ± {rms.error:.1g}{unit}{measure}"
            mostly = f", mostly at {place}" if place else ""
            return f"differs by {size} ({self.test.p_in_words}{share}){mostly}"
        return (
            f"{SAME} ({self.test.p_in_words}); one of {self.test.detectable:.2g}{unit}{measure} "
            f"would have been"
        )

    def as_json(self) -> dict[str, Any]:
        """Return plain values; all ``None`` where there is no test."""
        test = self.test
        return {
            "p": None if test is None else test.p.value,
            "p_error_of_draws": None if test is None else test.p.error,
            "rms_beyond_errors": None
            if test is None
            else {"value": test.rms.value, "error": test.rms.error},
            "detectable_rms": None if test is None else test.detectable,
            "category": self.category,
        }


def of_blocks(
    one: Blocks, other: Blocks, names: tuple[str, str], independent: tuple[float, float]
) -> Verdict:
    """Return the verdict on one - other, averages over blocks of frames.

    Parameters
    ----------
    names
        Of both, for the reason.
    independent
        How many independent frames each has.
    """
    for name, frames, side in zip(names, independent, (one, other), strict=True):
        if frames < FEWEST_INDEPENDENT:
            return Verdict(None, too_few(name, frames))
        if side.count < FEWEST:
            return Verdict(None, f"{name} counts something in {side.count} blocks of {FEWEST}")
    return Verdict(compare_blocks(one, other, np.random.default_rng(SEED)))


def of_replicates(
    one: Replicates, other: Replicates, names: tuple[str, str], independent: tuple[float, float]
) -> Verdict:
    """Return the verdict on one - other, quantities (p,) with replicates.

    For the parameters see `of_blocks`; a number of independent frames that is not known is NaN.
    """
    for name, frames, side in zip(names, independent, (one, other), strict=True):
        if frames < FEWEST_INDEPENDENT:
            return Verdict(None, too_few(name, frames))
        if 0 < len(side.samples) < FEWEST:
            return Verdict(
                None, f"the error of {name} is from {len(side.samples)} replicates, of {FEWEST}"
            )
    if not len(one.samples) + len(other.samples):
        return Verdict(None, f"neither {names[0]} nor {names[1]} has an error")
    if not len(one.value):
        return Verdict(None, f"{names[0]} and {names[1]} share no place with known errors")
    return Verdict(compare_replicates(one, other, np.random.default_rng(SEED)))


def too_few(name: str, frames: float) -> str:
    """Say that there are too few independent frames."""
    return f"{name} has {frames:.0f} independent frames, a verdict needs {FEWEST_INDEPENDENT}"


def chance(categories: Iterable[str], name: str) -> str:
    """Say how many observables differ, and how many would by chance."""
    tested = [c for c in categories if c != LITTLE]
    differ = sum(c == APART for c in tested)
    return (
        f"{name}: {differ} of {len(tested)} observables differ at p <= {LEVEL:g}; "
        f"of equal ensembles {LEVEL * len(tested):.2g} would"
    )


def p_text(verdict: Verdict | None) -> str:
    """Return the p value of a verdict, for tables."""
    return "n/a" if verdict is None or verdict.test is None else verdict.test.p_in_words


def difference_text(one: Estimate[float], other: Estimate[float], unit: str) -> str:
    """Return one - other with its error."""
    apart, error = one.value - other.value, float(np.hypot(one.error, other.error))
    return f"{_number(apart, error, '+')} ± {error:.1g}{f' {unit}' if unit else ''}"


def _number(value: float, error: float, sign: str = "") -> str:
    """Return a value to the digit of its error's first."""
    if not (np.isfinite(error) and error > 0):
        return f"{value:{sign}.2g}"
    first = int(np.floor(np.log10(error)))
    first += round(error / 10.0**first) == 10  # rounds to the next power
    if -first > 4:
        return f"{value:{sign}.2g}"
    return f"{value:{sign}.{max(0, -first)}f}"
