"""The report of a comparison: figures, one JSON file of numbers and one page that opens offline."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepcg.analysis.html import Picture, render, save_pictures
from deepcg.analysis.learning_curve import learning_curve_figure
from deepcg.analysis.structure.comparison import Comparison, compare_structures
from deepcg.analysis.structure.curve import Curve
from deepcg.analysis.structure.diffusion import Diffusion, NotAvailable
from deepcg.analysis.structure.figures import implied_radial_figure
from deepcg.analysis.structure.observables import Observable, Scalar
from deepcg.analysis.structure.stein_checks import SteinChecks
from deepcg.analysis.structure.trajectory_set import TrajectorySet
from deepcg.analysis.verdicts import EXPLAINED, FEWEST_INDEPENDENT, Verdict
from deepcg.runtime.files import make_folder, write_json, write_whole
from deepcg.runtime.provenance import versions
from free_energy.two_samples import LEVEL, POWER


@dataclass(frozen=True)
class TrainingSummary:
    """What the fit left behind.

    Parameters
    ----------
    rows
        As ``learning_curve_figure`` takes them.
    noise_floor
        Estimated mean square of the force noise, (kJ/mol/nm)².
    table
        Names and values for a two-column table, in order.
    summary
        A sentence in plain words on how much is explained.
    """

    rows: Sequence[Mapping[str, float]]
    noise_floor: float | None = None
    table: Mapping[str, str] = field(default_factory=dict)
    summary: str = ""


def compare(
    reference: TrajectorySet,
    models: Sequence[TrajectorySet],
    output: Path,
    *,
    cutoff: float | None = None,
    training: TrainingSummary | None = None,
    provenance: Mapping[str, Mapping[str, str]] | None = None,
    title: str = "Coarse-grained against microscopic",
) -> Comparison:
    """Compare models with a reference and write ``report.html``, ``report.json`` and PNGs.

    Parameters
    ----------
    output
        Folder, made if it does not exist.
    cutoff
        Edge of the first shell, nm; ``None`` takes the first minimum of the reference's g(r).
    provenance
        Tables by heading (files and hashes, seeds, ...); versions are added.
    """
    comparison = compare_structures(reference, models, cutoff=cutoff)
    write_report(comparison, output, training=training, provenance=provenance, title=title)
    return comparison


def write_report(
    comparison: Comparison,
    output: Path,
    *,
    checks: Mapping[str, SteinChecks] | None = None,
    training: TrainingSummary | None = None,
    provenance: Mapping[str, Mapping[str, str]] | None = None,
    title: str = "Coarse-grained against microscopic",
    formats: Iterable[str] = ("png",),
) -> Path:
    """Write ``report.html``, ``report.json`` and figures; return the path of the page.

    Parameters
    ----------
    checks
        Noise-free checks by the name of the model.
    formats
        Of the files of figures; the page has its own.
    """
    tables = {**(provenance or {}), "Versions": versions()}
    checks = checks or {}
    pictures = _pictures(comparison)
    implied = _implied_pictures(checks, comparison)
    curve = [] if training is None else [_learning_picture(training)]
    numbers = as_json(comparison, training, tables, checks)
    html = _page(comparison, pictures, checks, implied, curve, training, tables, title)
    make_folder(output)
    save_pictures([*pictures, *implied, *curve], output, formats)
    write_json(output / "report.json", numbers)
    page = output / "report.html"
    write_whole(page, html)
    return page


def as_json(
    comparison: Comparison,
    training: TrainingSummary | None,
    provenance: Mapping[str, Mapping[str, str]],
    checks: Mapping[str, SteinChecks] | None = None,
) -> dict[str, Any]:
    """Return all numbers of a report."""
    return {
        "cutoff_nm": comparison.cutoff,
        "false_alarms": LEVEL,
        "power_of_detectable": POWER,
        "summary": comparison.summaries,
        "systems": [
            {
                "name": s.ensemble.name,
                "source": s.ensemble.source,
                "frames": s.ensemble.n_frames,
                "replicas": len(s.ensemble.replicas),
                "beads": s.ensemble.n_beads,
                "dt_ps": s.ensemble.dt,
                "statistical_inefficiency_frames": s.inefficiency,
                "independent_samples": s.n_independent,
                "blocks": len(s.blocks),
                "speed_ns_per_day": s.ensemble.speed,
            }
            for s in comparison.samples
        ],
        "observables": {o.name: _observable_json(o, comparison) for o in comparison.observables},
        "scalars": {s.name: _scalar_json(s, comparison) for s in comparison.scalars},
        "mean squared displacement": _motion_json(comparison),
        "velocity autocorrelation": {
            s.ensemble.name: _curve_json(v) if isinstance(v, Curve) else {"reason": v.reason}
            for s, v in zip(comparison.samples, comparison.velocities, strict=True)
        },
        "velocity autocorrelation against the reference": _tests_json(
            comparison, comparison.velocities_tested
        ),
        "noise-free checks on the microscopic frames": {
            name: _checks_json(check) for name, check in (checks or {}).items()
        },
        "training": None
        if training is None
        else {"noise_floor": training.noise_floor, "table": dict(training.table)},
        "provenance": {k: dict(v) for k, v in provenance.items()},
    }


def _observable_json(observable: Observable, comparison: Comparison) -> dict[str, Any]:
    floor = observable.floor
    curves = (observable.reference, *observable.models)
    return {
        "window": observable.window,
        "scale": observable.scale,
        "unit": observable.unit,
        "x_label": observable.reference.x_label,
        "y_label": observable.reference.y_label,
        "noise_floor": {"rms": floor.rms, "max": floor.largest, "js_nats": floor.js},
        "models": {
            a.model: {
                "rms": a.distance.rms,
                "max": a.distance.largest,
                "max_at": a.distance.at,
                "js_nats": a.distance.js,
                "rms_expected_from_errors": a.expected_rms,
                **a.tested.as_json(),
                "verdict": a.verdict,
            }
            for a in observable.agreements
        },
        "curves": {
            s.ensemble.name: _curve_json(c) for s, c in zip(comparison.samples, curves, strict=True)
        },
    }


def _curve_json(curve: Curve) -> dict[str, list[float]]:
    return {"x": curve.x.tolist(), "y": curve.y.tolist(), "error": curve.error.tolist()}


def _scalar_json(scalar: Scalar, comparison: Comparison) -> dict[str, Any]:
    estimates = (scalar.reference, *scalar.models)
    return {
        "unit": scalar.unit,
        "values": {
            s.ensemble.name: None if e is None else {"value": e.value, "error": e.error}
            for s, e in zip(comparison.samples, estimates, strict=True)
        },
        "against_the_reference": _tests_json(comparison, scalar.tested),
    }


def _tests_json(
    comparison: Comparison, verdicts: Sequence[Verdict | None]
) -> dict[str, dict[str, Any] | None]:
    """Return verdicts by the name of the model."""
    return {
        s.ensemble.name: None if verdict is None else verdict.as_json()
        for s, verdict in zip(comparison.models, verdicts, strict=True)
    }


def _motion_json(comparison: Comparison) -> dict[str, Any]:
    return {
        s.ensemble.name: {
            **_curve_json(m.displacement),
            "D_nm2_per_ps": m.coefficient.value,
            "D_error": m.coefficient.error,
            "fit_window_ps": m.window,
        }
        if isinstance(m, Diffusion)
        else {"reason": m.reason}
        for s, m in zip(comparison.samples, comparison.motions, strict=True)
    }


def _checks_json(check: SteinChecks) -> dict[str, Any]:
    slopes = check.slopes
    return {
        "frames": check.n_frames,
        "ratios": {
            i.name: {
                "value": i.ratio.value,
                "error": i.ratio.error,
                "standard_errors_apart": i.deviation,
            }
            for i in check.identities
        },
        "kT_dlng_dr_kJ_mol_nm": None
        if slopes is None
        else {
            "r_nm": slopes.r.tolist(),
            "model": slopes.model.value.tolist(),
            "data": slopes.data.value.tolist(),
            "difference": slopes.difference.value.tolist(),
            "difference_error": slopes.difference.error.tolist(),
        },
        "implied_g": {curve.name: _curve_json(curve) for curve in check.radial},
    }


def _pictures(comparison: Comparison) -> list[Picture]:
    captions = {o.name: _caption(o, comparison) for o in comparison.observables} | {
        "diffusion": _motion_caption(comparison),
        "velocities": "Velocity autocorrelation from differences of successive frames.",
    }
    return [
        Picture(_file_name(name), captions[name], figure())
        for name, figure in comparison.figures.items()
    ]


def _implied_pictures(checks: Mapping[str, SteinChecks], comparison: Comparison) -> list[Picture]:
    """Return g(r) as the forces want it, for every pair of types."""
    observed = {o.reference.name: o.reference for o in comparison.observables}
    kinds = dict.fromkeys(c.name for check in checks.values() for c in check.radial)
    pictures = []
    for name in kinds:
        curves = {
            model: curve
            for model, check in checks.items()
            for curve in check.radial
            if curve.name == name
        }
        figure = implied_radial_figure(observed[name], curves, comparison.reference)
        caption = (
            f"{name} as the forces of the models want it on microscopic frames, against the "
            "histogram of all of these."
        )
        pictures.append(Picture(f"forces-{_file_name(name)}", caption, figure))
    return pictures


def _learning_picture(training: TrainingSummary) -> Picture:
    figure = learning_curve_figure(training.rows, noise_floor=training.noise_floor)
    caption = "Mean squared force error during training; the start is cut off."
    return Picture("learning-curve", caption, figure)


def _caption(observable: Observable, comparison: Comparison) -> str:
    shell = f"{comparison.cutoff:.3f} nm"
    name = observable.name
    low, high = observable.window
    if name.startswith("g_"):
        text = (
            f"{name}, bins of 0.002 nm, normalized by the N(N\u00a0-\u00a01)/2 pairs of a frame "
            "(N_a N_b for unlike beads)."
        )
        return f"{text} Differences are taken from {low:.2f} to {high:.2f} nm."
    texts = {
        "angle": f"The {name} between neighbors within {shell}: density per degree of angle, "
        "not divided by sin θ; the grey line is that of uncorrelated directions.",
        "number": f"Number of neighbors within {shell}.",
    }
    default = (
        f"Lechner and Dellago's {name}, over a bead and its neighbors within {shell} "
        "(as many as there are)."
    )
    if not name.startswith("averaged q"):
        default = f"The {name}."
    text = next((t for ending, t in texts.items() if name.endswith(ending)), default)
    range_ = f"from {low:.3g} to {high:.3g}, where the reference exceeds 1 % of its peak"
    return f"{text} Differences are taken {range_}."


def _motion_caption(comparison: Comparison) -> str:
    reasons = [
        f" {s.ensemble.name}: not available, {m.reason}."
        for s, m in zip(comparison.samples, comparison.motions, strict=True)
        if isinstance(m, NotAvailable)
    ]
    return (
        "Mean squared displacement over all time origins; D is a sixth of the slope between the "
        "dotted lines, not corrected for the size of the box. A fitted free energy has no "
        "obligation to the motion: friction is chosen for sampling." + "".join(reasons)
    )


def _file_name(name: str) -> str:
    return re.sub(r"[^\w-]+", "-", name.replace("(r)", "")).strip("-")


def _page(
    comparison: Comparison,
    pictures: list[Picture],
    checks: Mapping[str, SteinChecks],
    implied: list[Picture],
    curve: list[Picture],
    training: TrainingSummary | None,
    provenance: Mapping[str, Mapping[str, str]],
    title: str,
) -> str:
    unavailable = [v for v in comparison.velocities if isinstance(v, NotAvailable)]
    values = {
        "title": title,
        "comparison": comparison,
        "pictures": pictures,
        "checks": checks,
        "implied": implied,
        "learning": curve,
        "training": training,
        "provenance": provenance,
        "explained": EXPLAINED,
        "fewest": FEWEST_INDEPENDENT,
        "motion": comparison.motion_in_words(),
        "velocities_missing": unavailable[0].reason if unavailable else "",
        "speeds": [
            (s.ensemble.name, s.ensemble.speed, len(s.ensemble.replicas))
            for s in comparison.samples
        ],
    }
    return render("structure", values)
