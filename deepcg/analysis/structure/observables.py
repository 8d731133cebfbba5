"""What is known of one observable in all systems that are compared."""

from __future__ import annotations

from dataclasses import dataclass

from deepcg.analysis.structure.curve import Curve, Distance
from deepcg.analysis.verdicts import Verdict
from free_energy import Estimate


@dataclass(frozen=True)
class Agreement:
    """How one model's curve compares with the reference's.

    Parameters
    ----------
    expected_rms
        What the errors of both alone lead one to expect of ``distance.rms``.
    tested
        The difference in the window of the observable.
    verdict
        The same in words.
    """

    model: str
    distance: Distance
    expected_rms: float
    tested: Verdict
    verdict: str

    @property
    def category(self) -> str:
        """See `Verdict.category`."""
        return self.tested.category


@dataclass(frozen=True, eq=False)
class Observable:
    """One function of all systems on one grid.

    ``window`` is where differences are taken, ``scale`` what they are a per cent of.
    """

    name: str
    window: tuple[float, float]
    scale: float
    scale_name: str
    reference: Curve
    models: tuple[Curve, ...]
    floor: Distance
    agreements: tuple[Agreement, ...]

    @property
    def unit(self) -> str:
        """Of the function and of differences; empty where it has none."""
        return self.reference.y_unit


@dataclass(frozen=True, eq=False)
class Scalar:
    """One number of all systems, ``None`` where it is not available.

    ``tested`` has the verdict on each model; ``observable`` names the function whose difference
    the number tells in its own terms.
    """

    name: str
    unit: str
    reference: Estimate[float] | None
    models: tuple[Estimate[float] | None, ...]
    tested: tuple[Verdict | None, ...]
    observable: str = ""
