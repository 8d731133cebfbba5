"""Figures of comparisons, as objects that touch no global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from deepcg.analysis.structure.curve import Curve, support
from deepcg.analysis.structure.diffusion import CM2_PER_S, Diffusion, NotAvailable
from deepcg.analysis.structure.observables import Agreement, Observable
from deepcg.analysis.structure.trajectory_set import Sample
from deepcg.analysis.style import COLORS, band, legend_above, mathtext, note, panel, panels

BANDS = "bands: ± 1 standard error from blocks in time"


def observable_figure(observable: Observable, samples: Sequence[Sample]) -> Figure:
    """Return the curves of all systems above their differences from the reference."""
    figure, (above, below) = panels()
    curves = (observable.reference, *observable.models)
    step = len(observable.reference.x) <= 30  # so few bins are shown as bins
    said = ["", *(f"; {_verdict(agreement)}" for agreement in observable.agreements)]
    for k, (curve, sample) in enumerate(zip(curves, samples, strict=True)):
        band(above, curve.x, curve.y, curve.error, k, f"{_legend(sample)}{said[k]}", step)
    if observable.name.startswith("g_"):
        above.axhline(1.0, color="0.75", linewidth=0.8, zorder=0)
    if observable.name.endswith("angle"):
        uniform = np.sin(np.radians(curves[0].x)) * np.pi / 360
        above.plot(
            curves[0].x, uniform, color="0.6", linewidth=0.9, label="no correlation, ½ sin θ"
        )
    reference = observable.reference
    below.axhline(0.0, color="0.75", linewidth=0.8, zorder=0)
    band(below, reference.x, np.zeros_like(reference.y), reference.error, 0, None, step)
    for k, model in enumerate(observable.models, 1):
        band(below, model.x, model.y - reference.y, model.error, k, None, step)
    above.set_ylabel(mathtext(reference.y_label))
    above.set_ylim(bottom=0)
    legend_above(figure, above)
    unit = f" ({observable.unit})" if observable.unit else ""
    below.set_ylabel(f"difference{unit}", fontsize=8.5)
    below.set_xlabel(reference.x_label)
    below.set_xlim(_range(observable))
    if step:
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
    note(figure, BANDS)
    return figure


def motion_figure(motions: Sequence[Diffusion | NotAvailable], samples: Sequence[Sample]) -> Figure:
    """Return the mean squared displacements that are available, with lines of slope 6 D."""
    figure, axes = panel()
    for k, (motion, sample) in enumerate(zip(motions, samples, strict=True)):
        if not isinstance(motion, Diffusion):
            continue
        curve, scale = motion.displacement, CM2_PER_S * 1e5
        d, error = motion.coefficient.value * scale, motion.coefficient.error * scale
        label = f"{sample.ensemble.name}: D = {d:.2f} ± {error:.2f} · 10⁻⁵ cm²/s ({_count(sample)})"
        band(axes, curve.x[1:], curve.y[1:], curve.error[1:], k, label)
        for edge in motion.window:
            axes.axvline(edge, color=COLORS[k % len(COLORS)], linewidth=0.6, linestyle=":")
    axes.set(
        xscale="log", yscale="log", xlabel="lag time (ps)", ylabel="mean squared displacement (nm²)"
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    legend_above(figure, axes)
    note(figure, BANDS)
    return figure


def velocity_figure(
    velocities: Sequence[Curve | NotAvailable], samples: Sequence[Sample]
) -> Figure:
    """Return the velocity autocorrelations that are available."""
    figure, axes = panel()
    for k, (curve, sample) in enumerate(zip(velocities, samples, strict=True)):
        if isinstance(curve, Curve):
            band(axes, curve.x, curve.y, curve.error, k, _legend(sample))
    axes.axhline(0.0, color="0.75", linewidth=0.8, zorder=0)
    axes.set(xlabel="lag time (ps)", ylabel="velocity autocorrelation, normalized")
    legend_above(figure, axes)
    note(figure, BANDS)
    return figure


def implied_radial_figure(reference: Curve, implied: Mapping[str, Curve], sample: Sample) -> Figure:
    """Return g(r) as the forces of models want it, above the differences from the histogram."""
    figure, (above, below) = panels()
    band(above, reference.x, reference.y, reference.error, 0, f"{_legend(sample)}, histogram")
    above.axhline(1.0, color="0.75", linewidth=0.8, zorder=0)
    below.axhline(0.0, color="0.75", linewidth=0.8, zorder=0)
    band(below, reference.x, np.zeros_like(reference.y), reference.error, 0, None)
    for k, (model, curve) in enumerate(implied.items(), 1):
        band(above, curve.x, curve.y, curve.error, k, f"{model}, from its forces")
        gap = curve.y - np.interp(curve.x, reference.x, reference.y)
        band(below, curve.x, gap, curve.error, k, None)
    above.set_ylabel(mathtext(reference.y_label))
    above.set_ylim(bottom=min(0.0, *(float(c.y.min()) for c in implied.values())))
    legend_above(figure, above)
    below.set_ylabel("difference")
    below.set_xlabel(reference.x_label)
    below.set_xlim(0.2, round(float(reference.x[-1]) + 0.001, 3))
    note(figure, BANDS)
    return figure


def _legend(sample: Sample) -> str:
    return f"{sample.ensemble.name} ({_count(sample)}, {sample.n_independent:.0f} independent)"


def _verdict(agreement: Agreement) -> str:
    test = agreement.tested.test
    return agreement.category + (f", {test.p_in_words}" if test is not None else "")


def _count(sample: Sample) -> str:
    return f"{sample.ensemble.n_frames} frames"


def _range(observable: Observable) -> tuple[float, float]:
    """Return the x range that holds every curve."""
    if not observable.reference.density:
        return 0.2, round(float(observable.reference.x[-1]) + 0.001, 3)
    supports = [support(curve) for curve in (observable.reference, *observable.models)]
    width = float(observable.reference.x[1] - observable.reference.x[0])
    low = min(s[0] for s in supports) - 2 * width
    high = max(s[1] for s in supports) + 2 * width
    return low, min(high, float(observable.reference.x[-1]) + width / 2)
