"""What is reported of liquids besides g(r) and the first shell, in all systems alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deepcg.analysis.structure.curve import Curve, support
from deepcg.analysis.structure.structure_factor import structure_factor, wave_number_edges
from deepcg.analysis.structure.tetrahedral import tetrahedral_order
from deepcg.analysis.structure.trajectory_set import Sample
from deepcg.analysis.structure.triplets import (
    CLOSE,
    close_angles,
    equilateral_triplets,
    side_edges,
)


@dataclass(frozen=True, eq=False)
class Measured:
    """One function of all systems, the reference's first, and where and how they are compared.

    ``window`` is where differences are taken; ``scale`` (``None``: the peak of the reference) and
    ``scale_name`` are what they are a part of.
    """

    curves: list[Curve]
    window: tuple[float, float]
    scale: float | None
    scale_name: str


def liquid_structure(
    samples: Sequence[Sample], longest: float, first_peak: float
) -> dict[str, Measured]:
    """Return what can be measured of all samples: "q_tet", "close angles", "triplets", "S(k)".

    Parameters
    ----------
    longest
        Half of the shortest height of all boxes, nm.
    first_peak
        Place of the reference's first peak of g(r), nm: where no neighbors are nearer than
        0.318 nm as a rule, the angles of triplets so close are left out.
    """
    found = {"q_tet": _if_all(samples, lambda s: tetrahedral_order(s, longest))}
    if first_peak < CLOSE <= longest:
        found["close angles"] = _if_all(samples, close_angles)
    measured = {
        name: Measured(curves, support(curves[0]), None, "the peak")
        for name, curves in found.items()
        if curves is not None
    }
    edges = side_edges(longest)
    triplets = [equilateral_triplets(s, edges) for s in samples]
    x = triplets[0].x
    if len(x) and samples[0].ensemble.n_beads >= 3:
        ends = float(x[0]), float(x[-1])
        measured["triplets"] = Measured(triplets, ends, 1.0, "the bulk value 1")
    edges = wave_number_edges([s.ensemble for s in samples])
    factors = [structure_factor(s, edges) for s in samples]
    ends = float(factors[0].x[0]), float(factors[0].x[-1])
    measured["S(k)"] = Measured(factors, ends, 1.0, "the limit 1 at large k")
    return measured


def _if_all(
    samples: Sequence[Sample], measure: Callable[[Sample], Curve | None]
) -> list[Curve] | None:
    """Return the function of all samples, or ``None`` where one of them has none."""
    curves = [curve for curve in map(measure, samples) if curve is not None]
    return curves if len(curves) == len(samples) else None
