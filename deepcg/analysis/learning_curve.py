"""The figure of a training: errors by step, beside what no function can explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deepcg.analysis.style import COLORS, legend_above, panel
from deepcg.runtime.arrays import Doubles


def learning_curve_figure(
    rows: Sequence[Mapping[str, float]],
    *,
    noise_floor: float | None = None,
    title: str = "",
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
    figure, axes = panel()
    styles = {"train": (COLORS[1], "training"), "validation": (COLORS[2], "validation")}
    for name, (color, label) in styles.items():
        x, y = _column(rows, name)
        marker = "." if len(x) < 60 else ""
        axes.plot(x, y, color=color, marker=marker, linewidth=1.3, label=label)
    if noise_floor is not None:
        axes.axhline(
            noise_floor, color="0.3", linestyle="--", linewidth=1, label="noise floor (estimate)"
        )
    _focus(axes, rows, noise_floor)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set(xlabel="step", ylabel=f"mean squared force error, {unit}", title=title)
    x, rate = _column(rows, "learning_rate")
    if (rate > 0).any():  # least squares have none
        right = axes.twinx()
        right.plot(x, rate, color="0.6", linewidth=0.9, linestyle=":")
        right.set_yscale("log")
        right.set_ylabel("learning rate (dotted)", color="0.4")
        right.spines["top"].set_visible(False)
        figure.subplots_adjust(right=0.86)
    legend_above(figure, axes)
    return figure


def _column(rows: Sequence[Mapping[str, float]], name: str) -> tuple[Doubles, Doubles]:
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
