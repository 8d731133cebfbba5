"""How all figures look, and the files they become: colors, panels, bands of errors, legends."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import pick

# Okabe and Ito's palette: told apart with every common color blindness, and by their dashes
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")

DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (3, 1.5), (6, 2, 1.5, 2), (1.5, 1.5), (9, 3))

SIZE = (5.6, 5.0)  # inches

NOTE: dict[str, Any] = {"fontsize": 7.5, "color": "0.35"}


FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 150, "metadata": {"Software": None}},
    "svg": {"metadata": {"Date": None}},
    "pdf": {"metadata": {"CreationDate": None}},
}
"""Files of figures, and what of them would tell when they were written."""

SUBSCRIPT = re.compile(r"(\w)_([\w-]+)")
"""In labels such as g_OO."""


def check_formats(names: Iterable[str]) -> None:
    """Refuse what is no format of figures.

    Raises
    ------
    InputError
        Names the choices.
    """
    for name in names:
        pick(FORMATS, name, "format of figures")


def drawn(figure: Figure, name: str = "png") -> bytes:
    """Return a figure in a format, the same bytes for the same data."""
    buffer = BytesIO()
    with rc_context({"svg.hashsalt": "deepcg"}):
        figure.savefig(buffer, format=name, **FORMATS[name])
    return buffer.getvalue()


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    return drawn(figure)


def draw(figures: Mapping[str, Callable[[], Figure]], name: str | None) -> Figure:
    """Return one of several figures, by default the first.

    Raises
    ------
    InputError
        Names the choices.
    """
    return pick(dict(figures), name or next(iter(figures)), "figure")()


def note(figure: Figure, text: str) -> None:
    """Write in the corner what bands and colors are."""
    figure.text(0.01, 0.05 / figure.get_figheight(), text, **NOTE)


def panels() -> tuple[Figure, tuple[Axes, Axes]]:
    """Return a figure with two panels, one above the other: curves, and their differences."""
    figure = Figure(figsize=SIZE)
    FigureCanvasAgg(figure)
    above, below = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 1.1), "hspace": 0.08}
    )
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.subplots_adjust(left=0.15, right=0.97, bottom=0.17)
    return figure, (above, below)


def panel() -> tuple[Figure, Axes]:
    """Return a figure with one panel."""
    figure = Figure(figsize=(SIZE[0], 4.3))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    figure.subplots_adjust(left=0.15, right=0.97, bottom=0.2)
    return figure, axes


def band(
    axes: Axes,
    x: Doubles,
    y: Doubles,
    error: Doubles,
    k: int,
    label: str | None,
    step: bool = False,
) -> None:
    """Draw the k-th curve, y (n,) at x (n,), with its error (n,) to either side."""
    color = COLORS[k % len(COLORS)]
    axes.fill_between(
        x, y - error, y + error, step="mid" if step else None, color=color, alpha=0.25, linewidth=0
    )
    axes.plot(
        x,
        y,
        color=color,
        dashes=DASHES[k % len(DASHES)],
        linewidth=1.3,
        label=label,
        drawstyle="steps-mid" if step else "default",
    )


def legend_above(figure: Figure, axes: Axes) -> None:
    """Put the legend over the axes, where it hides nothing."""
    legend = axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False, fontsize=8.5, labelspacing=0.3
    )
    n_lines = sum(1 + text.get_text().count("\n") for text in legend.get_texts())
    figure.subplots_adjust(top=1 - (0.1 + 0.165 * n_lines) / figure.get_figheight())


def mathtext(label: str) -> str:
    """Return a label such as g_OO as Matplotlib's mathematics."""
    return SUBSCRIPT.sub(r"$\1_\\mathrm{\2}$", label)
