"""Figures of the free energy of one or two collective variables."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deepcg.analysis.arrays import Floats
from deepcg.analysis.axes import edges, levels, padded, set_up_map, set_up_profile, shown
from deepcg.analysis.style import COLORS, NOTE
from deepcg.analysis.surfaces.fitted import FittedSurface


def surface_figures(surface: FittedSurface, *, title: str, source: str) -> dict[str, Figure]:
    """Return the figures of a surface by the name of their file."""
    if len(surface.names) == 1:
        return {
            "surface": profile_figure(surface, title=title, source=source),
            "mean-force": mean_force_profile(surface, title=title, source=source),
        }
    return {
        "surface": energy_figure(surface, title=title, source=source),
        "surface-error": error_figure(surface, title=title, source=source),
        "mean-force": mean_force_figure(surface, title=title, source=source),
    }


def energy_figure(surface: FittedSurface, *, title: str, source: str) -> Figure:
    """Return U of two coordinates as a map with contours, grey where it is not sampled."""
    figure, axes = _map(surface, title)
    energy = surface.energy.value
    steps = levels(energy)
    shades = axes.contourf(*padded(surface, energy), levels=steps, cmap="viridis", extend="max")
    lines = axes.contour(
        *padded(surface, energy), levels=steps, colors="white", linewidths=0.4, alpha=0.7
    )
    bar = figure.colorbar(shades, ax=axes, shrink=0.85)
    bar.set_label(f"U (kJ/mol), contours every {steps[1] - steps[0]:g}")
    bar.add_lines(lines)
    _notes(figure, "from the mean force; grey: not sampled", source)
    return figure


def error_figure(surface: FittedSurface, *, title: str, source: str) -> Figure:
    """Return the error of U of two coordinates as a map."""
    figure, axes = _map(surface, title)
    error = surface.energy.error
    top = float(np.nanpercentile(error, 98)) if np.isfinite(error).any() else 1.0
    x, y = (edges(surface, k) for k in (0, 1))
    shades = axes.pcolormesh(x, y, np.ma.masked_invalid(error.T), cmap="magma", vmin=0, vmax=top)
    bar = figure.colorbar(shades, ax=axes, shrink=0.85, extend="max")
    bar.set_label("error of U (kJ/mol)")
    _notes(figure, "spread of fits to resampled blocks of frames; grey: not sampled", source)
    return figure


def mean_force_figure(surface: FittedSurface, *, title: str, source: str) -> Figure:
    """Return the mean of the instantaneous forces in the bins as arrows over contours of U."""
    figure, axes = _map(surface, title)
    energy, force = surface.energy.value, surface.mean_force.value
    steps = levels(energy)
    shades = axes.contourf(
        *padded(surface, energy), levels=steps, cmap="viridis", extend="max", alpha=0.45
    )
    bar = figure.colorbar(shades, ax=axes, shrink=0.85)
    bar.set_label("U (kJ/mol)")
    size = np.linalg.norm(force, axis=-1)
    longest = float(np.nanpercentile(size, 90))
    short = np.minimum(1.0, longest / np.maximum(size, 1e-12))[..., None] * force
    x, y = (shown(surface, k, centers) for k, centers in enumerate(surface.grid.centers))
    arrows = axes.quiver(
        *np.meshgrid(x, y, indexing="ij"),
        short[..., 0],
        short[..., 1],
        angles="uv",
        scale_units="width",
        scale=longest * len(x) * 0.7,
        width=0.0022,
        headwidth=4,
    )
    units = "/".join(dict.fromkeys(surface.units))
    label = f"{_round(longest):g} kJ/mol/{units}"
    axes.quiverkey(
        arrows, 0.78, -0.12, _round(longest), label, labelpos="E", fontproperties={"size": 8}
    )
    _notes(figure, "raw mean force in each bin, longer arrows cut; grey: not sampled", source)
    return figure


def profile_figure(surface: FittedSurface, *, title: str, source: str) -> Figure:
    """Return U of one coordinate, from forces and from the histogram, with error bands."""
    figure, axes = _panel(surface, title)
    x = shown(surface, 0, surface.grid.centers[0])
    _band(axes, x, surface.energy.value, surface.energy.error, 1, "from the mean force")
    if np.isfinite(surface.histogram.value).any():
        _band(axes, x, surface.histogram.value, surface.histogram.error, 2, "from the histogram")
    axes.set_ylabel("U (kJ/mol)")
    axes.legend(frameon=False, fontsize=8.5)
    _notes(figure, "bands: ± 1 standard error", source)
    return figure


def mean_force_profile(surface: FittedSurface, *, title: str, source: str) -> Figure:
    """Return the mean of the instantaneous forces in the bins of one coordinate."""
    figure, axes = _panel(surface, title)
    x = shown(surface, 0, surface.grid.centers[0])
    force, error = surface.mean_force.value[:, 0], surface.mean_force.error[:, 0]
    axes.errorbar(x, force, error, fmt=".", color=COLORS[0], linewidth=1, label="mean in the bin")
    slope = -np.gradient(surface.energy.value, surface.grid.centers[0])
    axes.plot(x, slope, color=COLORS[1], linewidth=1.3, label="slope of the fitted U")
    axes.axhline(0.0, color="0.75", linewidth=0.8, zorder=0)
    axes.set_ylabel(f"mean force (kJ/mol/{surface.units[0]})")
    axes.legend(frameon=False, fontsize=8.5)
    _notes(figure, "bars: ± 1 standard error", source)
    return figure


def _map(surface: FittedSurface, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.9, 5.0))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    set_up_map(axes, surface)
    axes.set_title(title, fontsize=9.5, loc="left")
    figure.subplots_adjust(left=0.13, right=0.97, bottom=0.15, top=0.93)
    return figure, axes


def _panel(surface: FittedSurface, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 4.3))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    set_up_profile(axes, surface)
    axes.set_title(title, fontsize=9.5, loc="left")
    figure.subplots_adjust(left=0.15, right=0.97, bottom=0.2)
    return figure, axes


def _band(axes: Axes, x: Floats, y: Floats, error: Floats, k: int, label: str) -> None:
    axes.fill_between(x, y - error, y + error, color=COLORS[k], alpha=0.25, linewidth=0)
    axes.plot(x, y, color=COLORS[k], linewidth=1.3, label=label)


def _round(value: float) -> float:
    """Return the value with one digit."""
    return float(f"{value:.0e}")


def _notes(figure: Figure, what: str, source: str) -> None:
    figure.text(0.01, 0.035, what, **NOTE)
    figure.text(0.01, 0.008, source if len(source) < 130 else source[:127] + "...", **NOTE)
