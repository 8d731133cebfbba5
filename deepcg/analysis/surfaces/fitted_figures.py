"""Figures of the free energy of one or two collective variables."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from deepcg.analysis.axes import edges, levels, padded, shown
from deepcg.analysis.style import COLORS, note
from deepcg.analysis.surfaces.fitted import FittedSurface
from deepcg.analysis.surfaces.maps import map_panel, profile_panel


def surface_figures(surface: FittedSurface, title: str) -> dict[str, Figure]:
    """Return the figures of a surface by the name of their file."""
    if len(surface.names) == 1:
        return {"surface": surface.plot(title), "mean-force": mean_force_profile(surface, title)}
    return {
        "surface": surface.plot(title),
        "surface-error": error_figure(surface, title),
        "mean-force": mean_force_figure(surface, title),
    }


def error_figure(surface: FittedSurface, title: str) -> Figure:
    """Return the error of U of two coordinates as a map."""
    figure, axes = map_panel(surface, title)
    error = surface.energy.error
    top = float(np.nanpercentile(error, 98)) if np.isfinite(error).any() else 1.0
    x, y = (edges(surface, k) for k in (0, 1))
    shades = axes.pcolormesh(x, y, np.ma.masked_invalid(error.T), cmap="magma", vmin=0, vmax=top)
    bar = figure.colorbar(shades, ax=axes, shrink=0.85, extend="max")
    bar.set_label("error of U (kJ/mol)")
    note(figure, "spread of fits to resampled blocks of frames; grey: not sampled")
    return figure


def mean_force_figure(surface: FittedSurface, title: str) -> Figure:
    """Return the mean of the instantaneous forces in the bins as arrows over contours of U."""
    figure, axes = map_panel(surface, title)
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
    note(figure, "raw mean force in each bin, longer arrows cut; grey: not sampled")
    return figure


def mean_force_profile(surface: FittedSurface, title: str) -> Figure:
    """Return the mean of the instantaneous forces in the bins of one coordinate."""
    figure, axes = profile_panel(surface, title)
    x = shown(surface, 0, surface.grid.centers[0])
    force, error = surface.mean_force.value[:, 0], surface.mean_force.error[:, 0]
    axes.errorbar(x, force, error, fmt=".", color=COLORS[0], linewidth=1, label="mean in the bin")
    slope = -np.gradient(surface.energy.value, surface.grid.centers[0])
    axes.plot(x, slope, color=COLORS[1], linewidth=1.3, label="slope of the fitted U")
    axes.axhline(0.0, color="0.75", linewidth=0.8, zorder=0)
    axes.set_ylabel(f"mean force (kJ/mol/{surface.units[0]})")
    axes.legend(frameon=False, fontsize=8.5)
    note(figure, "bars: ± 1 standard error")
    return figure


def _round(value: float) -> float:
    """Return the value with one digit."""
    return float(f"{value:.0e}")
