"""Numbers that are read off curves: the first peak of g(r), means of densities, diffusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from deepcg.analysis.structure.curve import Curve
from deepcg.analysis.structure.diffusion import CM2_PER_S, Diffusion, NotAvailable
from deepcg.analysis.structure.liquid_structure import Measured
from deepcg.analysis.structure.observables import Scalar
from deepcg.analysis.structure.radial import BIN, SMOOTHING, first_peak
from deepcg.analysis.structure.structure_factor import limits_of_blocks
from deepcg.analysis.structure.trajectory_set import Sample
from deepcg.analysis.verdicts import Verdict, of_blocks
from deepcg.runtime.arrays import Doubles
from free_energy import Blocks, Estimate, mean_of_blocks

LOWEST_PEAK = 1.2
"""A g(r) that nowhere exceeds it has no first peak."""


@dataclass(frozen=True, slots=True, eq=False)
class Number:
    """A number and the blocks (n,) that its error is from, which count by ``weights`` (n,)."""

    estimate: Estimate[float]
    blocks: Doubles
    weights: Doubles


def scalars_of(
    samples: Sequence[Sample],
    radial: Sequence[Sequence[Curve]],
    local: Sequence[Sequence[Curve]],
    motions: Sequence[Diffusion | NotAvailable],
) -> tuple[Scalar, ...]:
    """Return the numbers of all samples, with verdicts on each against the first of them."""
    found = []
    for curves in zip(*radial, strict=True):
        name = curves[0].name
        peaks = [peak(curve) for curve in curves]
        for k, (what, unit) in enumerate((("position", "nm"), ("height", ""))):
            numbers = [None if found_peak is None else found_peak[k] for found_peak in peaks]
            if numbers[0] is not None:
                found.append(_scalar(samples, f"first peak of {name}: {what}", unit, numbers, name))
    neighbors = [mean(curves[1]) for curves in local]
    found.append(_scalar(samples, "mean coordination number", "", neighbors, local[0][1].name))
    speeds = [_coefficient(m) if isinstance(m, Diffusion) else None for m in motions]
    found.append(_scalar(samples, "diffusion coefficient", "10⁻⁵ cm²/s", speeds, ""))
    return tuple(found)


def liquid_scalars_of(
    samples: Sequence[Sample], liquid: Mapping[str, Measured]
) -> tuple[Scalar, ...]:
    """Return mean tetrahedral order and S(k -> 0) of all samples, with verdicts."""
    found = []
    if "q_tet" in liquid:
        orders = [mean(curve) for curve in liquid["q_tet"].curves]
        name = liquid["q_tet"].curves[0].name
        found.append(_scalar(samples, "mean tetrahedral order", "", orders, name))
    limits = [_mean_of(limits_of_blocks(c), c.weights) for c in liquid["S(k)"].curves]
    return (*found, _scalar(samples, "S(k → 0)", "", limits, "S(k)"))


def peak(curve: Curve) -> tuple[Number, Number] | None:
    """Return position (nm) and height of the first peak, by the jackknife; ``None`` of a gas."""
    if gaussian_filter1d(curve.y, SMOOTHING / BIN).max() < LOWEST_PEAK:
        return None
    n = len(curve.blocks)
    full = np.array(first_peak(curve))
    rest = np.array([first_peak(_without(curve, k)) for k in range(n)])
    single = n * full - (n - 1) * rest  # what each block says of it
    error = np.sqrt((n - 1) / n * ((rest - rest.mean(0)) ** 2).sum(0))
    position, height = (
        Number(Estimate(float(full[k]), float(error[k])), single[:, k], np.ones(n)) for k in (0, 1)
    )
    return position, height


def mean(curve: Curve) -> Number:
    """Return the mean of the variable that a density on evenly spaced bins describes."""
    blocks = curve.blocks @ curve.x * (curve.x[1] - curve.x[0])
    return _mean_of(blocks, curve.weights)


def _coefficient(motion: Diffusion) -> Number:
    return _mean_of(motion.blocks * CM2_PER_S * 1e5, motion.displacement.weights)


def _mean_of(blocks: Doubles, weights: Doubles) -> Number:
    found = mean_of_blocks(blocks, weights)
    return Number(Estimate(float(found.value), float(found.error)), blocks, weights)


def _scalar(
    samples: Sequence[Sample],
    name: str,
    unit: str,
    numbers: Sequence[Number | None],
    observable: str,
) -> Scalar:
    first, *others = numbers
    verdicts = tuple(
        None if first is None or other is None else _verdict(samples[0], first, sample, other)
        for sample, other in zip(samples[1:], others, strict=True)
    )
    estimates = [None if number is None else number.estimate for number in numbers]
    return Scalar(name, unit, estimates[0], tuple(estimates[1:]), verdicts, observable)


def _verdict(reference: Sample, first: Number, sample: Sample, other: Number) -> Verdict:
    one, two = (
        Blocks(number.blocks[:, None], number.weights, s.block_length)
        for number, s in ((other, sample), (first, reference))
    )
    names = sample.ensemble.name, reference.ensemble.name
    return of_blocks(one, two, names, (sample.n_independent, reference.n_independent))


def _without(curve: Curve, k: int) -> Curve:
    return Curve(
        curve.name,
        curve.x,
        np.delete(curve.blocks, k, 0),
        np.delete(curve.weights, k),
        curve.x_label,
        curve.y_label,
    )
