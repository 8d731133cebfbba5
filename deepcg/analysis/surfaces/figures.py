"""Figures of free-energy surfaces side by side, and of their profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from deepcg.analysis.axes import edges, label, levels, padded, set_up_map, set_up_profile, shown
from deepcg.analysis.style import band, note
from deepcg.analysis.surfaces.surface import FreeEnergySurface, difference
from deepcg.runtime.arrays import Doubles
from free_energy import Estimate, profile

_PANEL = 2.75  # inches


def surfaces_figure(
    landscapes: Sequence[FreeEnergySurface],
    level: float,
    *,
    top: float,
    marks: Mapping[str, tuple[float, float]],
) -> Figure:
    """Return the surfaces in one row with one scale; below, differences from the first; errors.

    Parameters
    ----------
    level
        kJ/mol: differences have no common zero but that of the bins below it.
    top
        kJ/mol, the highest color.
    marks
        Labels and where they are written, in the units of the coordinates.
    """
    n = len(landscapes)
    reference = landscapes[0]
    rows = 3 if n > 1 else 2
    figure = Figure(figsize=(_PANEL * n + 1.6, _PANEL * rows + 0.75))
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, n, squeeze=False, sharex=True, sharey=True)
    figure.subplots_adjust(left=0.75 / (_PANEL * n + 1.6), right=1 - 1.1 / (_PANEL * n + 1.6))
    figure.subplots_adjust(
        top=1 - 0.3 / (_PANEL * rows), bottom=0.8 / (_PANEL * rows + 0.75), hspace=0.12, wspace=0.12
    )
    steps = levels(np.stack([one.value for one in landscapes]), top)
    for axes, one in zip(panels[0], landscapes, strict=True):
        set_up_map(axes, one, every=120)
        axes.set_title(_title(one), fontsize=8.5, loc="left")
        shades = axes.contourf(*padded(one, one.value), levels=steps, cmap="viridis", extend="max")
        axes.contour(
            *padded(one, one.value), levels=steps, colors="white", linewidths=0.35, alpha=0.6
        )
        _write_marks(axes, one, marks)
    _bar(figure, shades, panels[0], f"F (kJ/mol), contours every {steps[1] - steps[0]:g}")
    errors = [one.error for one in landscapes]
    if n > 1:
        apart = [difference(one, reference, level) for one in landscapes]
        _difference_row(figure, panels[1], landscapes, apart)
        errors[1:] = [estimate.error for estimate in apart[1:]]
    _error_row(figure, panels[-1], landscapes, errors)
    for row in panels[:-1]:
        for axes in row:
            axes.set_xlabel("")
    for row in panels:
        for axes in row[1:]:
            axes.set_ylabel("")
    note(figure, "grey: not sampled")
    return figure


def profiles_figure(landscapes: Sequence[FreeEnergySurface], *, top: float) -> Figure:
    """Return F of each coordinate, the other integrated out, with bands of a standard error."""
    figure = Figure(figsize=(9.2, 4.3))
    FigureCanvasAgg(figure)
    for k, axes in enumerate(figure.subplots(1, 2, sharey=True)):
        set_up_profile(axes, landscapes[0], k)
        for i, one in enumerate(landscapes):
            _profile(axes, one, k, i)
        axes.set_ylim(-0.04 * top, top)
    figure.axes[0].set_ylabel("F (kJ/mol), from its lowest")
    figure.axes[1].legend(frameon=False, fontsize=8, loc="upper right")
    figure.subplots_adjust(left=0.07, right=0.985, bottom=0.2, top=0.96, wspace=0.08)
    note(figure, "bands: ± 1 standard error")
    return figure


def profile_of(landscape: FreeEnergySurface, axis: int) -> Estimate[Doubles]:
    """Return F of one coordinate (n_bins,), kJ/mol, 0 at its lowest, with its error."""
    kT = landscape.kT

    def lowered(energy: Doubles) -> Doubles:
        line = kT * profile(energy / kT, landscape.grid, axis)
        shifted: Doubles = line - np.nanmin(line)
        return shifted

    return landscape.of_energy(lowered)


def _difference_row(
    figure: Figure,
    row: Sequence[Axes],
    landscapes: Sequence[FreeEnergySurface],
    apart: Sequence[Estimate[Doubles]],
) -> None:
    others = np.abs(np.stack([estimate.value for estimate in apart[1:]]))
    low = np.isfinite(others)
    limit = float(np.percentile(others[low], 95)) if low.any() else 1.0
    limit = max(1.0, min(10.0, np.ceil(limit)))
    row[0].axis("off")
    row[0].text(
        0.98, 0.5, f"difference from\n{landscapes[0].name}", ha="right", va="center",
        transform=row[0].transAxes, fontsize=8.5,
    )  # fmt: skip
    for axes, one, estimate in zip(row[1:], landscapes[1:], apart[1:], strict=True):
        set_up_map(axes, one, every=120)
        shades = axes.pcolormesh(
            edges(one, 0),
            edges(one, 1),
            np.ma.masked_invalid(estimate.value.T),
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
        )
        axes.yaxis.set_tick_params(labelleft=axes is row[1])
    row[1].set_ylabel(label(landscapes[0], 1))
    _bar(figure, shades, row, f"F - F of {landscapes[0].name}\n(kJ/mol)", extend="both")


def _error_row(
    figure: Figure,
    row: Sequence[Axes],
    landscapes: Sequence[FreeEnergySurface],
    errors: Sequence[Doubles],
) -> None:
    known = np.concatenate([error[np.isfinite(error)] for error in errors])
    limit = float(np.percentile(known, 95)) if len(known) else 1.0
    for k, (axes, one, error) in enumerate(zip(row, landscapes, errors, strict=True)):
        set_up_map(axes, one, every=120)
        shades = axes.pcolormesh(
            edges(one, 0),
            edges(one, 1),
            np.ma.masked_invalid(error.T),
            cmap="magma",
            vmin=0,
            vmax=limit,
        )
        what = "error of the difference" if k else "error"
        axes.set_title(what, fontsize=8.5, loc="left")
    _bar(figure, shades, row, "standard error (kJ/mol)", extend="max")


def _bar(
    figure: Figure, shades: object, row: Sequence[Axes], text: str, extend: str | None = None
) -> None:
    place = row[-1].get_position()
    axes = figure.add_axes((place.x1 + 0.015, place.y0, 0.014, place.height))
    arguments = {} if extend is None else {"extend": extend}
    bar = figure.colorbar(shades, cax=axes, **arguments)  # type: ignore[arg-type]
    bar.set_label(text, fontsize=8)
    bar.ax.tick_params(labelsize=7.5)


def _profile(axes: Axes, one: FreeEnergySurface, k: int, number: int) -> None:
    line = profile_of(one, k)
    x = shown(one, k, one.grid.centers[k])
    band(axes, x, line.value, line.error, number, _legend(one))


def _title(one: FreeEnergySurface) -> str:
    return one.name if len(one.name) < 34 else one.name[:31] + "..."


def _legend(one: FreeEnergySurface) -> str:
    return f"{one.name} ({one.frames} frames)" if one.frames else one.name


def _write_marks(
    axes: Axes, one: FreeEnergySurface, marks: Mapping[str, tuple[float, float]]
) -> None:
    for text, point in marks.items():
        x, y = (float(shown(one, k, np.array(v))) for k, v in enumerate(point))
        inside = [
            min(max(value, low + 0.06 * (high - low)), high - 0.06 * (high - low))
            for value, (low, high) in zip((x, y), (axes.get_xlim(), axes.get_ylim()), strict=True)
        ]
        axes.text(
            inside[0],
            inside[1],
            text,
            color="white",
            fontsize=8.5,
            ha="center",
            va="center",
            fontweight="bold",
            path_effects=[withStroke(linewidth=2, foreground="0.15")],
        )
