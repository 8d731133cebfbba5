"""The structure of models against that of a reference, with distances, noise and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from deepcg.analysis.html import estimate_text, fragment
from deepcg.analysis.structure.curve import (
    Curve,
    Distance,
    distance,
    expected_rms,
    noise_floor,
    support,
)
from deepcg.analysis.structure.diffusion import (
    CM2_PER_S,
    Diffusion,
    NotAvailable,
    diffusion,
    velocity_autocorrelation,
)
from deepcg.analysis.structure.figures import motion_figure, observable_figure, velocity_figure
from deepcg.analysis.structure.liquid_structure import Measured, liquid_structure
from deepcg.analysis.structure.local_order import local_structure
from deepcg.analysis.structure.observables import Agreement, Observable, Scalar
from deepcg.analysis.structure.radial import (
    first_minimum,
    first_peak,
    radial_distributions,
    radial_edges,
    shell_series,
)
from deepcg.analysis.structure.structure_factor import compressibility_limit
from deepcg.analysis.structure.trajectory_set import Sample, TrajectorySet, cut
from deepcg.analysis.style import draw
from deepcg.runtime.errors import InputError
from free_energy import Estimate, mean_of_blocks

WITHIN_NOISE = 3.0  # times the noise floor
CLOSE = 0.03  # of the scale of the observable
CORE = 0.22  # nm; g(r) of water is zero below: comparing there would flatter

WITHIN, NEAR, APART = "within noise", "close", "differs"

Measure = Callable[[Sample], Curve]
"""From what a model visited, in blocks, to a function of one variable in the same blocks."""

OBSERVABLES: dict[str, Measure] = {}
"""Further observables by name: what is added here is in every comparison and its report."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything that a report says about structure and motion."""

    reference: Sample
    models: tuple[Sample, ...]
    cutoff: float
    observables: tuple[Observable, ...]
    scalars: tuple[Scalar, ...]
    motions: tuple[Diffusion | NotAvailable, ...]
    velocities: tuple[Curve | NotAvailable, ...]

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The reference, then the models."""
        return (self.reference, *self.models)

    @property
    def figures(self) -> dict[str, Callable[[], Figure]]:
        """What can be drawn, by name: each observable, and what is known of the motion."""
        found: dict[str, Callable[[], Figure]] = {
            o.name: partial(observable_figure, o, self.samples) for o in self.observables
        }
        if any(isinstance(motion, Diffusion) for motion in self.motions):
            found["diffusion"] = partial(motion_figure, self.motions, self.samples)
        if any(isinstance(curve, Curve) for curve in self.velocities):
            found["velocities"] = partial(velocity_figure, self.velocities, self.samples)
        return found

    def plot(self, name: str | None = None) -> Figure:
        """Return one of ``figures``, by default g(r) of the first pair of types.

        Raises
        ------
        InputError
            There is no such figure.
        """
        return draw(self.figures, name)

    def _repr_html_(self) -> str:
        """Return the verdicts and the numbers, for notebooks."""
        names = [sample.ensemble.name for sample in self.samples]
        verdicts = [
            (
                o.name,
                a.model,
                a.category,
                f"{a.distance.rms:.2g}",
                f"{o.floor.rms:.2g}",
                o.unit or "-",
            )
            for o in self.observables
            for a in o.agreements
        ]
        head = ("observable", "model", "verdict", "rms difference", "noise floor", "unit")
        numbers = [
            (s.name, *(estimate_text(e) for e in (s.reference, *s.models)), s.unit or "-")
            for s in self.scalars
        ]
        title = f"{', '.join(names[1:]) or 'nothing'} against {names[0]}"
        return fragment(title, [], [head, *verdicts], [("", *names, "unit"), *numbers])


def compare_structures(
    reference: TrajectorySet,
    models: Sequence[TrajectorySet],
    *,
    cutoff: float | None = None,
    further: Sequence[Scalar] = (),
) -> Comparison:
    """Measure the reference and the models in the same way and compare them.

    Parameters
    ----------
    cutoff
        Edge of the first shell, nm; ``None`` takes the first minimum of the reference's g(r)
        between the beads of the first type. The same for all systems.
    further
        Numbers that frames alone do not tell, such as pressures, of all systems.
    """
    ensembles = [reference, *models]
    _check(ensembles)
    longest = min(e.longest_distance for e in ensembles)
    edges = radial_edges(longest)
    samples = [cut(e, [shell_series(r, float(edges[-1])) for r in e.replicas]) for e in ensembles]
    radial = [radial_distributions(s, edges) for s in samples]
    shell = first_minimum(radial[0][0]) if cutoff is None else cutoff
    if not 0 < shell <= longest:
        raise InputError(
            f"the cutoff {shell:g} nm of the first shell is not between 0 and half of the "
            f"shortest box height, {longest:.3f} nm"
        )
    local = [local_structure(s, shell) for s in samples]
    names = [m.name for m in models]
    observables = [
        _observable(
            [r[k] for r in radial], names, (CORE, float(edges[-1])), 1.0, "the bulk value 1"
        )
        for k in range(len(radial[0]))
    ] + [
        _observable([c[k] for c in local], names, support(local[0][k]), None, "the peak")
        for k in range(len(local[0]))
    ]
    peak = first_peak(radial[0][0])[0]
    liquid = liquid_structure(samples, longest, peak)
    observables += [
        _observable(m.curves, names, m.window, m.scale, m.scale_name) for m in liquid.values()
    ]
    for measure in OBSERVABLES.values():
        curves = [measure(s) for s in samples]
        ends = float(curves[0].x[0]), float(curves[0].x[-1])
        observables.append(_observable(curves, names, ends, None, "the peak"))
    motions = tuple(diffusion(s) for s in samples)
    return Comparison(
        samples[0],
        tuple(samples[1:]),
        shell,
        tuple(observables),
        (*_scalars(radial, local, motions), *_liquid_scalars(liquid), *further),
        motions,
        tuple(velocity_autocorrelation(s) for s in samples),
    )


def _check(ensembles: Sequence[TrajectorySet]) -> None:
    reference = ensembles[0]
    for model in ensembles[1:]:
        if model.type_names != reference.type_names:
            raise InputError(
                f"{model.name} has beads {', '.join(model.type_names)} ({model.source}) but "
                f"{reference.name} has {', '.join(reference.type_names)}: map both alike"
            )
        if sorted(set(model.types)) != sorted(set(reference.types)):
            raise InputError(f"{model.name} and {reference.name} hold different types of beads")
    names = [e.name for e in ensembles]
    if len(set(names)) < len(names):
        raise InputError(f"two ensembles have the same name ({', '.join(names)}): rename one")


def _observable(
    curves: list[Curve],
    names: list[str],
    window: tuple[float, float],
    scale: float | None,
    scale_name: str,
) -> Observable:
    reference, *models = curves
    scale = float(reference.y.max()) if scale is None else scale
    floor = noise_floor(reference, window)
    agreements = [
        _agreement(reference, model, name, window, scale, scale_name, floor)
        for model, name in zip(models, names, strict=True)
    ]
    return Observable(
        reference.name,
        window,
        scale,
        scale_name,
        reference,
        tuple(models),
        floor,
        tuple(agreements),
    )


def _agreement(
    reference: Curve,
    model: Curve,
    name: str,
    window: tuple[float, float],
    scale: float,
    scale_name: str,
    floor: Distance,
) -> Agreement:
    apart = distance(reference, model, window)
    category = _category(apart.rms, floor.rms, scale)
    percent = f"{100 * apart.rms / scale:.2g} % of {scale_name}"
    meaning = {
        WITHIN: f"agrees within {WITHIN_NOISE:.0f} times the noise ({percent})",
        NEAR: f"close ({percent}), but beyond the noise",
        APART: f"differs by {percent}",
    }[category]
    unit = f" {reference.y_unit}" if reference.y_unit else ""
    verdict = (
        f"{reference.name}: rms difference {apart.rms:.2g}{unit} "
        f"(noise floor {floor.rms:.2g}{unit}): {meaning}"
    )
    return Agreement(name, apart, expected_rms(reference, model, window), category, verdict)


def _category(rms: float, floor: float, scale: float) -> str:
    if rms <= WITHIN_NOISE * floor:
        return WITHIN
    return NEAR if rms <= CLOSE * scale else APART


def _scalars(
    radial: list[list[Curve]],
    local: list[list[Curve]],
    motions: tuple[Diffusion | NotAvailable, ...],
) -> tuple[Scalar, ...]:
    peaks = [_peak(curves[0]) for curves in radial]
    neighbors = [_mean(curves[1]) for curves in local]
    speeds = [
        Estimate(m.coefficient.value * CM2_PER_S * 1e5, m.coefficient.error * CM2_PER_S * 1e5)
        if isinstance(m, Diffusion)
        else None
        for m in motions
    ]
    name = radial[0][0].name
    return (
        Scalar(
            f"first peak of {name}: position", "nm", peaks[0][0], tuple(p[0] for p in peaks[1:])
        ),
        Scalar(f"first peak of {name}: height", "", peaks[0][1], tuple(p[1] for p in peaks[1:])),
        Scalar("mean coordination number", "", neighbors[0], tuple(neighbors[1:])),
        Scalar("diffusion coefficient", "10⁻⁵ cm²/s", speeds[0], tuple(speeds[1:])),
    )


def _liquid_scalars(liquid: Mapping[str, Measured]) -> tuple[Scalar, ...]:
    found = []
    if "q_tet" in liquid:
        first, *others = (_mean(curve) for curve in liquid["q_tet"].curves)
        found.append(Scalar("mean tetrahedral order", "", first, tuple(others)))
    first, *others = (compressibility_limit(curve) for curve in liquid["S(k)"].curves)
    return (*found, Scalar("S(k → 0)", "", first, tuple(others)))


def _peak(curve: Curve) -> tuple[Estimate[float], Estimate[float]]:
    """Return position and height of the first peak, their errors by leaving out one block each."""
    n = len(curve.blocks)
    full = np.array(first_peak(curve))
    rest = np.array([first_peak(_without(curve, k)) for k in range(n)]) if n > 2 else full[None]
    error = np.sqrt((n - 1) / n * ((rest - rest.mean(0)) ** 2).sum(0))
    return Estimate(float(full[0]), float(error[0])), Estimate(float(full[1]), float(error[1]))


def _without(curve: Curve, k: int) -> Curve:
    return Curve(
        curve.name,
        curve.x,
        np.delete(curve.blocks, k, 0),
        np.delete(curve.weights, k),
        curve.x_label,
        curve.y_label,
    )


def _mean(curve: Curve) -> Estimate[float]:
    """Return the mean of the variable that a density on evenly spaced bins describes."""
    means = curve.blocks @ curve.x * (curve.x[1] - curve.x[0])
    mean = mean_of_blocks(means, curve.weights)
    return Estimate(float(mean.value), float(mean.error))
