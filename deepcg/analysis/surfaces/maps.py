"""Figures of one free energy: a map over two coordinates, or a profile along one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deepcg.analysis.axes import Plane, levels, padded, set_up_map, set_up_profile, shown
from deepcg.analysis.style import band, note, panel
from deepcg.runtime.arrays import Doubles
from free_energy import Estimate


def energy_figure(plane: Plane, energy: Doubles, *, symbol: str, title: str, text: str) -> Figure:
    """Return an energy (*grid), kJ/mol, of two coordinates with contours, grey where it is NaN.

    Parameters
    ----------
    symbol
        Of the energy.
    text
        For the corner.
    """
    figure, axes = map_panel(plane, title)
    steps = levels(energy)
    shades = axes.contourf(*padded(plane, energy), levels=steps, cmap="viridis", extend="max")
    lines = axes.contour(
        *padded(plane, energy), levels=steps, colors="white", linewidths=0.4, alpha=0.7
    )
    bar = figure.colorbar(shades, ax=axes, shrink=0.85)
    bar.set_label(f"{symbol} (kJ/mol), contours every {steps[1] - steps[0]:g}")
    bar.add_lines(lines)
    note(figure, text)
    return figure


def profile_figure(
    plane: Plane, curves: Mapping[str, Estimate[Doubles]], *, symbol: str, title: str
) -> Figure:
    """Return energies (n_bins,), kJ/mol, of one coordinate by name, with bands of their errors."""
    figure, axes = profile_panel(plane, title)
    x = shown(plane, 0, plane.grid.centers[0])
    for k, (name, curve) in enumerate(curves.items()):
        band(axes, x, curve.value, np.nan_to_num(curve.error), k, name)
    axes.set_ylabel(f"{symbol} (kJ/mol)")
    axes.legend(frameon=False, fontsize=8.5)
    note(figure, "bands: ± 1 standard error")
    return figure


def energy_table(symbol: str, energy: Estimate[Doubles]) -> list[tuple[str, ...]]:
    """Return rows that say how high an energy (*grid), kJ/mol, is, and how well known."""
    known = energy.error[np.isfinite(energy.error)]
    error = f"{np.sqrt((known**2).mean()):.2g}" if len(known) else "n/a"
    return [
        ("energy", "kJ/mol"),
        (f"highest {symbol}, from the lowest", f"{np.nanmax(energy.value):.3g}"),
        ("standard error, rms over the bins", error),
    ]


def map_panel(plane: Plane, title: str) -> tuple[Figure, Axes]:
    """Return a figure with one panel over two coordinates."""
    figure = Figure(figsize=(5.9, 5.0))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    set_up_map(axes, plane)
    axes.set_title(title, fontsize=9.5, loc="left")
    figure.subplots_adjust(left=0.13, right=0.97, bottom=0.15, top=0.93)
    return figure, axes


def profile_panel(plane: Plane, title: str) -> tuple[Figure, Axes]:
    """Return a figure with one panel along one coordinate."""
    figure, axes = panel()
    set_up_profile(axes, plane)
    axes.set_title(title, fontsize=9.5, loc="left")
    return figure, axes
