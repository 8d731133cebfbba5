"""Figures of active learning: what was asked for, and how much is left unknown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from deepcg.analysis.axes import axis_title
from deepcg.analysis.style import COLORS
from deepcg.runtime.arrays import Doubles


def learning_figure(
    queries: Sequence[Doubles],
    unknown: Sequence[float],
    names: tuple[str, ...],
    units: tuple[str, ...],
) -> Figure:
    """Return the part of where walkers go that is not known, by round, and the places asked for.

    Parameters
    ----------
    queries
        (n, d) of each round; the first two coordinates are shown.
    unknown
        Before each round, and at the end.
    """
    figure = Figure(figsize=(9.6, 4.4))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot(range(len(unknown)), 100 * np.array(unknown), "o-", color=COLORS[1])
    left.set(xlabel="rounds done", ylabel="not known of where walkers go (%)", ylim=(0, None))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.spines[["top", "right"]].set_visible(False)
    degrees = [unit == "rad" for unit in units]
    norm = BoundaryNorm(np.arange(0.5, max(1, len(queries)) + 1.5), 256)
    for k, one in enumerate(queries, 1):
        shown = np.where(degrees, np.degrees(one), one) if len(one) else np.zeros((0, len(names)))
        y = shown[:, 1] if len(names) > 1 else np.full(len(shown), k)
        right.scatter(shown[:, 0], y, c=np.full(len(shown), k), norm=norm, cmap="plasma", s=14)
    labels = [axis_title(name, unit) for name, unit in zip(names, units, strict=True)]
    right.set(xlabel=labels[0], ylabel=labels[1] if len(names) > 1 else "round")
    if len(names) == 1:
        right.yaxis.set_major_locator(MaxNLocator(integer=True))
    for axis, angle in zip((right.xaxis, right.yaxis), degrees, strict=False):
        if angle:
            axis.set_major_locator(MultipleLocator(60))
            axis.axes.set(**{f"{axis.axis_name}lim": (-180, 180)})
    if all(degrees[:2]) and len(names) > 1:
        right.set_aspect("equal")
    if queries:
        bar = figure.colorbar(
            ScalarMappable(norm, "plasma"), ax=right, ticks=MaxNLocator(6, integer=True)
        )
        bar.set_label("round in which it was asked for")
    figure.subplots_adjust(left=0.08, right=0.96, bottom=0.16, top=0.96, wspace=0.28)
    return figure
