"""The structure of models against that of a reference, with tests and their verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from matplotlib.figure import Figure

from deepcg.analysis.html import estimate_text, fragment
from deepcg.analysis.structure.curve import (
    Curve,
    distance,
    expected_rms,
    noise_floor,
    support,
)
from deepcg.analysis.structure.diffusion import (
    Diffusion,
    NotAvailable,
    diffusion,
    velocity_autocorrelation,
)
from deepcg.analysis.structure.figures import motion_figure, observable_figure, velocity_figure
from deepcg.analysis.structure.liquid_structure import liquid_structure
from deepcg.analysis.structure.local_order import local_structure
from deepcg.analysis.structure.numbers import liquid_scalars_of, scalars_of
from deepcg.analysis.structure.observables import Agreement, Observable, Scalar
from deepcg.analysis.structure.radial import (
    first_minimum,
    first_peak,
    radial_distributions,
    radial_edges,
    shell_series,
)
from deepcg.analysis.structure.trajectory_set import Sample, TrajectorySet, cut
from deepcg.analysis.style import draw
from deepcg.analysis.verdicts import Verdict, chance, difference_text, of_blocks, p_text
from deepcg.runtime.errors import InputError

CORE = 0.22  # nm; g(r) of water is zero below: comparing there would flatter

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
    velocities_tested: tuple[Verdict | None, ...]

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

    @property
    def summaries(self) -> list[str]:
        """How many observables of each model differ, and how many would by chance."""
        return [
            chance((o.agreements[k].category for o in self.observables), m.ensemble.name)
            for k, m in enumerate(self.models)
        ]

    def motion_in_words(self) -> list[str]:
        """Return the verdicts on the motion of the models."""
        speed = next(s for s in self.scalars if s.name == "diffusion coefficient")
        lines = []
        for k, model in enumerate(self.models):
            name = model.ensemble.name
            if (tested := speed.tested[k]) is not None:
                lines.append(f"{name}: {speed.name} {tested.in_words(speed.unit, measure='')}")
            if (tested := self.velocities_tested[k]) is not None:
                lines.append(f"{name}: velocity autocorrelation {tested.in_words()}")
        return lines

    def _repr_html_(self) -> str:
        """Return the verdicts and the numbers, for notebooks."""
        names = [sample.ensemble.name for sample in self.samples]
        verdicts = [
            (
                o.name,
                a.model,
                a.category,
                *_sizes(a),
                o.unit or "-",
            )
            for o in self.observables
            for a in o.agreements
        ]
        head = (
            "observable", "model", "verdict", "p", "rms difference", "would have been seen", "unit"
        )  # fmt: skip
        numbers = [
            (
                s.name,
                *(estimate_text(e) for e in (s.reference, *s.models)),
                ", ".join(p_text(tested) for tested in s.tested) or "-",
                s.unit or "-",
            )
            for s in self.scalars
        ]
        title = f"{', '.join(names[1:]) or 'nothing'} against {names[0]}"
        return fragment(
            title, self.summaries, [head, *verdicts], [("", *names, "p", "unit"), *numbers]
        )


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
    motions = tuple(diffusion(s) for s in samples)
    velocities = tuple(velocity_autocorrelation(s) for s in samples)
    scalars = scalars_of(samples, radial, local, motions)
    whole = CORE, float(edges[-1])
    observables = [
        _observable(samples, list(curves), whole, 1.0, "the bulk value 1", scalars)
        for curves in zip(*radial, strict=True)
    ] + [
        _observable(samples, list(curves), support(curves[0]), None, "the peak", scalars)
        for curves in zip(*local, strict=True)
    ]
    liquid = liquid_structure(samples, longest, first_peak(radial[0][0])[0])
    scalars = (*scalars, *liquid_scalars_of(samples, liquid), *further)
    observables += [
        _observable(samples, m.curves, m.window, m.scale, m.scale_name, scalars)
        for m in liquid.values()
    ]
    for measure in OBSERVABLES.values():
        curves = [measure(s) for s in samples]
        ends = float(curves[0].x[0]), float(curves[0].x[-1])
        observables.append(_observable(samples, curves, ends, None, "the peak"))
    return Comparison(
        samples[0],
        tuple(samples[1:]),
        shell,
        tuple(observables),
        scalars,
        motions,
        velocities,
        _velocities_tested(samples, velocities),
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
    samples: Sequence[Sample],
    curves: list[Curve],
    window: tuple[float, float],
    scale: float | None,
    scale_name: str,
    scalars: Sequence[Scalar] = (),
) -> Observable:
    reference, *models = curves
    scale = float(reference.y.max()) if scale is None else scale
    own = [one for one in scalars if one.observable == reference.name]
    agreements = []
    for k, (sample, model) in enumerate(zip(samples[1:], models, strict=True)):
        tested = _tested(samples[0], reference, sample, model, window)
        terms = [text for one in own if (text := _term(one, k, reference.name))]
        found = _agreement(reference, model, sample.ensemble.name, window, tested)
        share = f"; {100 * _rms(found) / scale:.2g} % of {scale_name}"
        at = f"{found.distance.at:.3g} {reference.x_unit}".rstrip()
        words = tested.in_words(reference.y_unit, place=at, share=share)
        verdict = "; ".join([f"{reference.name}: {words}", *terms])
        agreements.append(replace(found, verdict=verdict))
    return Observable(
        reference.name,
        window,
        scale,
        scale_name,
        reference,
        tuple(models),
        noise_floor(reference, window),
        tuple(agreements),
    )


def _tested(
    reference: Sample, theirs: Curve, sample: Sample, own: Curve, window: tuple[float, float]
) -> Verdict:
    return of_blocks(
        own.inside(window, sample.block_length),
        theirs.inside(window, reference.block_length),
        (sample.ensemble.name, reference.ensemble.name),
        (sample.n_independent, reference.n_independent),
    )


def _velocities_tested(
    samples: Sequence[Sample], curves: Sequence[Curve | NotAvailable]
) -> tuple[Verdict | None, ...]:
    """Return the verdicts on the models' velocity autocorrelations, at the lags of both."""
    first = curves[0]
    found: list[Verdict | None] = []
    for sample, curve in zip(samples[1:], curves[1:], strict=True):
        if isinstance(first, Curve) and isinstance(curve, Curve) and _same_lags(first, curve):
            window = 0.0, float(min(first.x[-1], curve.x[-1]))
            found.append(_tested(samples[0], first, sample, curve, window))
        else:
            found.append(None)
    return tuple(found)


def _same_lags(one: Curve, other: Curve) -> bool:
    return bool(abs(one.x[1] - other.x[1]) < 1e-6 * one.x[1])


def _agreement(
    reference: Curve, model: Curve, name: str, window: tuple[float, float], tested: Verdict
) -> Agreement:
    apart = distance(reference, model, window)
    return Agreement(name, apart, expected_rms(reference, model, window), tested, "")


def _term(scalar: Scalar, k: int, observable: str) -> str:
    """Say how a model differs in a number of an observable."""
    model, tested = scalar.models[k], scalar.tested[k]
    if model is None or scalar.reference is None or tested is None or tested.test is None:
        return ""
    name = scalar.name.replace(f" of {observable}:", "")
    text = difference_text(model, scalar.reference, scalar.unit)
    unit = f" {scalar.unit}" if scalar.unit else ""
    unseen = f"; one of {tested.test.detectable:.2g}{unit} would have been seen"
    return f"{name} {text} ({tested.test.p_in_words}{'' if tested.test.differs else unseen})"


def _rms(agreement: Agreement) -> float:
    """Return the rms difference without what errors add, where a test tells it."""
    test = agreement.tested.test
    return agreement.distance.rms if test is None else test.rms.value


def _sizes(agreement: Agreement) -> tuple[str, str, str]:
    """Return p, the rms difference beyond errors and what would have been seen, as texts."""
    test = agreement.tested.test
    if test is None:
        return "-", f"{agreement.distance.rms:.2g}", "-"
    return test.p_in_words, f"{test.rms.value:.2g} ± {test.rms.error:.1g}", f"{test.detectable:.2g}"
