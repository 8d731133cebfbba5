"""Figures of comparisons and of training, as objects that touch no global state."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from deepcg.analysis.structure.comparison import Comparison, Observable
from deepcg.analysis.structure.curve import Curve, support
from deepcg.analysis.structure.diffusion import CM2_PER_S, Diffusion
from deepcg.analysis.structure.trajectory_set import Sample

# Okabe and Ito's palette: told apart with every common colour blindness, and by their dashes
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (3, 1.5), (6, 2, 1.5, 2), (1.5, 1.5), (9, 3))
SIZE = (5.6, 5.0)  # inches
NOTE: dict[str, Any] = {"fontsize": 7.5, "color": "0.35"}

Array = NDArray[np.float64]


def observable_figure(observable: Observable, comparison: Comparison) -> Figure:
    """Return the curves of all systems above their differences from the reference."""
    figure, (above, below) = _panels()
    curves = (observable.reference, *observable.models)
    step = len(observable.reference.x) <= 30  # so few bins are shown as bins
    for k, (curve, sample) in enumerate(zip(curves, comparison.samples, strict=True)):
        _band(above, curve.x, curve.y, curve.error, k, _legend(sample), step)
    if observable.name.startswith("g_"):
        above.axhline(1.0, color="0.75", linewidth=0.8, zorder=0)
    if observable.name.endswith("angle"):
        uniform = np.sin(np.radians(curves[0].x)) * np.pi / 360
        above.plot(
            curves[0].x, uniform, color="0.6", linewidth=0.9, label="no correlation, ½ sin θ"
        )
    reference = observable.reference
    below.axhline(0.0, color="0.75", linewidth=0.8, zorder=0)
    _band(below, reference.x, np.zeros_like(reference.y), reference.error, 0, None, step)
    for k, model in enumerate(observable.models, 1):
        _band(below, model.x, model.y - reference.y, model.error, k, None, step)
    above.set_ylabel(_mathtext(reference.y_label))
    above.set_ylim(bottom=0)
    _legend_above(figure, above)
    below.set_ylabel("difference")
    below.set_xlabel(reference.x_label)
    below.set_xlim(_range(observable))
    if step:
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
    _note(figure, comparison.samples)
    return figure


def motion_figure(comparison: Comparison) -> Figure:
    """Return the mean squared displacements that are available, with lines of slope 6 D."""
    figure, axes = _panel()
    pairs = zip(comparison.motions, comparison.samples, strict=True)
    for k, (motion, sample) in enumerate(pairs):
        if not isinstance(motion, Diffusion):
            continue
        curve, scale = motion.displacement, CM2_PER_S * 1e5
        d, error = motion.coefficient.value * scale, motion.coefficient.error * scale
        label = f"{sample.ensemble.name}: D = {d:.2f} ± {error:.2f} · 10⁻⁵ cm²/s ({_count(sample)})"
        _band(axes, curve.x[1:], curve.y[1:], curve.error[1:], k, label)
        for edge in motion.window:
            axes.axvline(edge, color=COLOURS[k % len(COLOURS)], linewidth=0.6, linestyle=":")
    axes.set(
        xscale="log", yscale="log", xlabel="lag time (ps)", ylabel="mean squared displacement (nm²)"
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    _legend_above(figure, axes)
    _note(figure, comparison.samples)
    return figure


def velocity_figure(comparison: Comparison) -> Figure:
    """Return the velocity autocorrelations that are available."""
    figure, axes = _panel()
    pairs = zip(comparison.velocities, comparison.samples, strict=True)
    for k, (curve, sample) in enumerate(pairs):
        if isinstance(curve, Curve):
            _band(axes, curve.x, curve.y, curve.error, k, _legend(sample))
    axes.axhline(0.0, color="0.75", linewidth=0.8, zorder=0)
    axes.set(xlabel="lag time (ps)", ylabel="velocity autocorrelation, normalised")
    _legend_above(figure, axes)
    _note(figure, comparison.samples)
    return figure


def implied_radial_figure(reference: Curve, implied: Mapping[str, Curve], sample: Sample) -> Figure:
    """Return g(r) as the forces of models want it, above the differences from the histogram."""
    figure, (above, below) = _panels()
    _band(above, reference.x, reference.y, reference.error, 0, f"{_legend(sample)}, histogram")
    above.axhline(1.0, color="0.75", linewidth=0.8, zorder=0)
    below.axhline(0.0, color="0.75", linewidth=0.8, zorder=0)
    _band(below, reference.x, np.zeros_like(reference.y), reference.error, 0, None)
    for k, (model, curve) in enumerate(implied.items(), 1):
        _band(above, curve.x, curve.y, curve.error, k, f"{model}, from its forces")
        gap = curve.y - np.interp(curve.x, reference.x, reference.y)
        _band(below, curve.x, gap, curve.error, k, None)
    above.set_ylabel(_mathtext(reference.y_label))
    above.set_ylim(bottom=min(0.0, *(float(c.y.min()) for c in implied.values())))
    _legend_above(figure, above)
    below.set_ylabel("difference")
    below.set_xlabel(reference.x_label)
    below.set_xlim(0.2, round(float(reference.x[-1]) + 0.001, 3))
    _note(figure, [sample])
    return figure


def learning_curve_figure(
    rows: Sequence[Mapping[str, float]],
    *,
    noise_floor: float | None = None,
    title: str = "",
    source: str = "",
    unit: str = "(kJ/mol/nm)²",
) -> Figure:
    """Return training and validation errors, and the learning rate, against the step.

    Parameters
    ----------
    rows
        Each with ``step`` and any of ``train``, ``validation`` (mean squared force errors, in
        ``unit``) and ``learning_rate``; missing and non-finite entries are left out.
    noise_floor
        Estimated mean square of the noise that no function of the beads can explain.
    """
    figure, axes = _panel()
    styles = {"train": (COLOURS[1], "training"), "validation": (COLOURS[2], "validation")}
    for name, (colour, label) in styles.items():
        x, y = _column(rows, name)
        marker = "." if len(x) < 60 else ""
        axes.plot(x, y, color=colour, marker=marker, linewidth=1.3, label=label)
    if noise_floor is not None:
        axes.axhline(
            noise_floor, color="0.3", linestyle="--", linewidth=1, label="noise floor (estimate)"
        )
    _focus(axes, rows, noise_floor)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set(xlabel="step", ylabel=f"mean squared force error, {unit}", title=title)
    x, rate = _column(rows, "learning_rate")
    if len(x):
        right = axes.twinx()
        right.plot(x, rate, color="0.6", linewidth=0.9, linestyle=":")
        right.set_yscale("log")
        right.set_ylabel("learning rate (dotted)", color="0.4")
        right.spines["top"].set_visible(False)
        figure.subplots_adjust(right=0.86)
    _legend_above(figure, axes)
    figure.text(0.01, 0.008, source, **NOTE)
    return figure


def png(figure: Figure) -> bytes:
    """Return a figure as PNG, the same bytes for the same data."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def _panels() -> tuple[Figure, tuple[Axes, Axes]]:
    figure = Figure(figsize=SIZE)
    FigureCanvasAgg(figure)
    above, below = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1.1), "hspace": 0.08}
    )
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.subplots_adjust(left=0.15, right=0.97, bottom=0.17)
    return figure, (above, below)


def _panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(SIZE[0], 4.3))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    figure.subplots_adjust(left=0.15, right=0.97, bottom=0.2)
    return figure, axes


def _band(
    axes: Axes, x: Array, y: Array, error: Array, k: int, label: str | None, step: bool = False
) -> None:
    colour = COLOURS[k % len(COLOURS)]
    axes.fill_between(
        x,
        y - error,
        y + error,
        step="mid" if step else None,
        color=colour,
        alpha=0.25,
        linewidth=0,
    )
    axes.plot(
        x,
        y,
        color=colour,
        dashes=DASHES[k % len(DASHES)],
        linewidth=1.3,
        label=label,
        drawstyle="steps-mid" if step else "default",
    )


def _legend(sample: Sample) -> str:
    return f"{sample.ensemble.name} ({_count(sample)}, {sample.n_independent:.0f} independent)"


def _count(sample: Sample) -> str:
    return f"{sample.ensemble.n_frames} frames"


def _legend_above(figure: Figure, axes: Axes) -> None:
    """Put the legend over the axes, where it hides nothing."""
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False, fontsize=8.5, labelspacing=0.3
    )
    n_lines = sum(1 + text.get_text().count("\n") for text in legend.get_texts())
    figure.subplots_adjust(top=1 - (0.1 + 0.165 * n_lines) / figure.get_figheight())


def _note(figure: Figure, samples: Sequence[Sample]) -> None:
    """Name the sources in the corner, and what the bands are."""
    sources = "   ".join(f"{s.ensemble.name}: {s.ensemble.source}" for s in samples)
    figure.text(0.01, 0.035, "bands: ± 1 standard error from blocks in time", **NOTE)
    figure.text(0.01, 0.008, sources if len(sources) < 130 else sources[:127] + "...", **NOTE)


def _range(observable: Observable) -> tuple[float, float]:
    """Return the x range that holds every curve."""
    if not observable.reference.density:
        return 0.2, round(float(observable.reference.x[-1]) + 0.001, 3)
    supports = [support(curve) for curve in (observable.reference, *observable.models)]
    width = float(observable.reference.x[1] - observable.reference.x[0])
    low = min(s[0] for s in supports) - 2 * width
    high = max(s[1] for s in supports) + 2 * width
    return low, min(high, float(observable.reference.x[-1]) + width / 2)


def _column(rows: Sequence[Mapping[str, float]], name: str) -> tuple[Array, Array]:
    found = [(r["step"], r[name]) for r in rows if r.get(name) is not None]
    table = np.array(found, dtype=float).reshape(-1, 2)
    table = table[np.isfinite(table).all(1)]
    return table[:, 0], table[:, 1]


def _focus(axes: Axes, rows: Sequence[Mapping[str, float]], noise_floor: float | None) -> None:
    """Limit the ordinate to what came after the first tenth of the run: the start is far above."""
    columns = [_column(rows, name)[1] for name in ("train", "validation")]
    late = np.concatenate([y[len(y) // 10 :] for y in columns])
    if len(late) < 4:
        return
    shown = late if noise_floor is None else np.append(late, noise_floor)
    margin = 0.06 * float(np.ptp(shown)) or 1.0
    axes.set_ylim(float(shown.min()) - margin, float(shown.max()) + margin)


def _mathtext(label: str) -> str:
    return re.sub(r"(\w)_([\w-]+)", r"$\1_\\mathrm{\2}$", label)
