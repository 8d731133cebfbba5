"""Figures of where an ensemble knows U."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from deepcg.analysis.axes import edges, label, levels, padded, set_up_map, set_up_profile, shown
from deepcg.analysis.style import COLORS, note
from deepcg.analysis.surfaces.surface import FreeEnergySurface
from deepcg.analysis.uncertainty.spread import BeadSpread, SurfaceDeviation
from deepcg.runtime.arrays import Doubles
from free_energy import profile

TOP = 60.0
"""The highest color of surfaces, kJ/mol."""


def map_figure(spread: SurfaceDeviation) -> Figure:
    """Return Sigma and the error that data leave over two coordinates, beside U and the frames."""
    figure = Figure(figsize=(16.2, 4.3))
    FigureCanvasAgg(figure)
    left, second, middle, right = figure.subplots(1, 4, sharey=True)
    low, high = np.percentile(spread.sigma, (1, 99))
    shades = _cells(left, spread, spread.sigma, "magma", LogNorm(max(low, 1e-9), high))
    _bar(figure, shades, left, f"Σ ({spread.unit})", "both", logarithmic=True)
    shown_error = np.where(spread.seen, spread.data_error, np.nan)
    set_up_map(second, spread)
    if np.isfinite(shown_error).any():
        low, high = np.nanpercentile(shown_error, (1, 99))
        norm = LogNorm(max(low, 1e-9), max(high, 2e-9))
        shades = _cells(second, spread, shown_error, "magma", norm)
        _bar(figure, shades, second, "error of U (kJ/mol)", "both", logarithmic=True)
    else:
        second.text(0.5, 0.5, "not known", transform=second.transAxes, ha="center")
    energy = np.minimum(spread.mean, TOP)
    set_up_map(middle, spread)
    filled = middle.contourf(
        *padded(spread, energy), levels=levels(energy, TOP), cmap="viridis", extend="max"
    )
    _bar(figure, filled, middle, "U, mean of the members (kJ/mol)")
    density = np.where(spread.frames > 0, spread.frames, np.nan)
    top = float(np.nanmax(density))
    shades = _cells(right, spread, density, "cividis", LogNorm(1, max(top, 2)))
    _bar(figure, shades, right, "frames in the bin", logarithmic=True)
    titles = (
        f"spread of {len(spread.energies)} members' forces",
        "error from noise and number of frames",
        "free energy",
        "training data",
    )
    for axes, title in zip((left, second, middle, right), titles, strict=True):
        axes.set_title(title, fontsize=9.5, loc="left")
        if axes is not right and not spread.seen.all():
            seen = spread.seen.astype(float)
            axes.contour(*padded(spread, seen), levels=[0.5], colors="white", linewidths=1.2)
    for axes in (second, middle, right):
        axes.set_ylabel("")
    figure.subplots_adjust(left=0.052, right=0.965, bottom=0.17, top=0.92, wspace=0.16)
    outline = "" if spread.seen.all() else "; white line: edge of the training data"
    note(figure, f"grey: no frames{outline}")
    return figure


def band_figure(spread: SurfaceDeviation) -> Figure:
    """Return how far the members' surfaces are apart: over the plane, and along each coordinate."""
    landscape = spread.landscape
    figure = Figure(figsize=(12.2, 4.3))
    FigureCanvasAgg(figure)
    left, *others = figure.subplots(1, 3)
    error = landscape.error
    top = float(np.nanpercentile(error, 98))
    shades = _cells(left, spread, error, "magma", None, top)
    _bar(figure, shades, left, "standard deviation of F (kJ/mol)", "max")
    left.set_title("spread of the surface", fontsize=9.5, loc="left")
    for k, axes in enumerate(others):
        _member_profiles(axes, landscape, k)
    highest = max(axes.get_ylim()[1] for axes in others)
    for axes in others:
        axes.set_ylim(-0.04 * highest, highest)
    others[0].set_ylabel("F (kJ/mol), from its lowest")
    others[1].legend(frameon=False, fontsize=8)
    figure.subplots_adjust(left=0.068, right=0.985, bottom=0.17, top=0.92, wspace=0.26)
    note(figure, "where there are training data; lines: the members")
    return figure


def profile_figure(spread: SurfaceDeviation) -> Figure:
    """Return U of one coordinate by all members, above Sigma and the density of the frames."""
    figure = Figure(figsize=(6.0, 5.6))
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, gridspec_kw={"hspace": 0.1})
    x = shown(spread, 0, spread.grid.centers[0])
    lowest = spread.energies.mean(0).min()
    for k, energy in enumerate(spread.energies):
        name = "members" if k == 0 else None
        above.plot(x, energy - lowest, color="0.6", linewidth=0.8, label=name)
    if np.isfinite(spread.data_error).any():
        band = spread.mean - spread.data_error, spread.mean + spread.data_error
        above.fill_between(x, *band, color=COLORS[1], alpha=0.2, linewidth=0, label="data's error")
    above.plot(x, spread.mean, color=COLORS[1], linewidth=1.5, label="mean")
    above.set_ylabel("U (kJ/mol)")
    above.legend(frameon=False, fontsize=8.5)
    above.spines[["top", "right"]].set_visible(False)
    set_up_profile(below, spread)
    below.plot(x, spread.sigma, color=COLORS[2], linewidth=1.5)
    below.set_yscale("log")
    below.set_ylabel(f"Σ ({spread.unit})", color=COLORS[2])
    right = below.twinx()
    width = x[1] - x[0]
    right.bar(x, spread.frames, width=width, color="0.85", zorder=0)
    right.set_ylabel("frames in the bin (grey)", color="0.4")
    below.set_zorder(2)
    below.patch.set_visible(False)
    figure.subplots_adjust(left=0.13, right=0.87, bottom=0.13, top=0.97)
    return figure


def distribution_figure(spreads: Sequence[BeadSpread]) -> Figure:
    """Return the distribution of Sigma in each source, and its rms by bead type."""
    several = len(spreads[0].type_names) > 1
    figure = Figure(figsize=(9.6 if several else 5.6, 4.3))
    FigureCanvasAgg(figure)
    left, *others = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
    top = max(float(np.percentile(one.sigma, 99.9)) for one in spreads)
    bins = np.linspace(0, 1.05 * top, 80)
    for k, one in enumerate(spreads):
        density, _ = np.histogram(one.sigma, bins, density=True)
        left.stairs(density, bins, color=COLORS[k + 1], linewidth=1.4, label=one.name)
    left.set(xlabel="Σ of a bead (kJ/mol/nm)", ylabel="density", xlim=(0, bins[-1]), ylim=(0, None))
    left.legend(frameon=False, fontsize=8.5)
    left.spines[["top", "right"]].set_visible(False)
    for axes in others:
        _by_type(axes, spreads)
    figure.subplots_adjust(left=0.15 if not several else 0.08, right=0.97, bottom=0.19, top=0.96)
    return figure


def time_figure(spreads: Sequence[BeadSpread]) -> Figure:
    """Return the largest and the rms Sigma of each frame, in the order of the frames."""
    figure = Figure(figsize=(7.6, 4.0))
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(spreads), sharey=True, squeeze=False)[0]
    for k, (axes, one) in enumerate(zip(panels, spreads, strict=True)):
        frame = np.arange(len(one.sigma))
        color = COLORS[k + 1]
        axes.plot(frame, one.sigma.max(1), ".", markersize=2.5, color=color, label="worst bead")
        rms = np.sqrt((one.sigma**2).mean(1))
        axes.plot(frame, rms, color="0.2", linewidth=0.9, label="rms over beads")
        axes.set_title(one.name, fontsize=9.5, loc="left")
        axes.set_xlabel("frame of those evaluated")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yscale("log")
    panels[0].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panels[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panels[0].yaxis.set_minor_formatter("")
    panels[0].set_ylabel("Σ (kJ/mol/nm)")
    panels[0].legend(fontsize=8.5, framealpha=0.9, edgecolor="none")
    figure.subplots_adjust(left=0.1, right=0.98, bottom=0.2, top=0.92, wspace=0.06)
    return figure


def calibration_figure(error: Doubles, spread: Doubles, factor: float, unit: str) -> Figure:
    """Return the size of the error (...) against the spread (...), by point and in groups."""
    figure = Figure(figsize=(5.6, 4.6))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    x, y = spread.ravel(), np.abs(error.ravel())
    known = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    x, y = x[known], y[known]
    axes.plot(x, y, ".", markersize=2.5, color="0.7", label="components")
    groups = np.array_split(np.argsort(x), 12)
    middle = [float(np.sqrt((x[g] ** 2).mean())) for g in groups if len(g)]
    found = [float(np.sqrt((y[g] ** 2).mean())) for g in groups if len(g)]
    axes.plot(middle, found, "o-", color=COLORS[2], markersize=4, label="rms error of a twelfth")
    ends = np.array([x.min(), x.max()])
    axes.set_ylim(float(np.quantile(y, 0.01)), 1.5 * float(y.max()))
    axes.plot(ends, ends, color=COLORS[0], linewidth=0.9, label="error = spread")
    if factor > 0:
        label_text = f"error = {factor:.2f} x spread"
        axes.plot(ends, factor * ends, color=COLORS[1], dashes=(5, 2), label=label_text)
    axes.set(xscale="log", yscale="log", xlabel=f"spread ({unit})", ylabel=f"error ({unit})")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5)
    figure.subplots_adjust(left=0.14, right=0.97, bottom=0.13, top=0.97)
    return figure


def _cells(
    axes: Axes,
    spread: SurfaceDeviation,
    table: Doubles,
    colors: str,
    norm: LogNorm | None,
    top: float | None = None,
) -> object:
    set_up_map(axes, spread)
    limits = {} if top is None else {"vmin": 0.0, "vmax": top}
    x, y = (edges(spread, k) for k in (0, 1))
    return axes.pcolormesh(x, y, np.ma.masked_invalid(table.T), cmap=colors, norm=norm, **limits)  # type: ignore[arg-type]


def _member_profiles(axes: Axes, landscape: FreeEnergySurface, k: int) -> None:
    kT, grid = landscape.kT, landscape.grid
    set_up_profile(axes, landscape, k)
    axes.set_title(f"F along {label(landscape, k).split(' (')[0]}", fontsize=9.5, loc="left")
    x = shown(landscape, k, grid.centers[k])
    lines = [kT * profile(energy / kT, grid, k) for energy in landscape.energy.samples]
    for n, line in enumerate(lines):
        axes.plot(
            x, line - np.nanmin(line), color="0.6", linewidth=0.8, label=None if n else "members"
        )
    mean = kT * profile(landscape.value / kT, grid, k)
    axes.plot(x, mean - np.nanmin(mean), color=COLORS[1], linewidth=1.5, label="mean")


def _by_type(axes: Axes, spreads: Sequence[BeadSpread]) -> None:
    names = spreads[0].type_names
    places = np.arange(len(names))
    for k, one in enumerate(spreads):
        rms = [float(np.sqrt((one.of_type(t) ** 2).mean())) for t in range(len(names))]
        axes.plot(places, rms, "os^D"[k % 4], color=COLORS[k + 1], markersize=6, label=one.name)
    axes.set_xticks(places, names, rotation=60 if len(names) > 8 else 0, fontsize=8)
    axes.set(ylabel="rms Σ (kJ/mol/nm)", ylim=(0, None), xlabel="bead type")
    axes.spines[["top", "right"]].set_visible(False)


def _bar(
    figure: Figure,
    shades: object,
    axes: Axes,
    text: str,
    extend: str | None = None,
    *,
    logarithmic: bool = False,
) -> None:
    more: dict[str, object] = {} if extend is None else {"extend": extend}
    if logarithmic:
        more |= {"ticks": LogLocator(subs=(1.0, 2.0, 5.0)), "format": StrMethodFormatter("{x:g}")}
    bar = figure.colorbar(shades, ax=axes, shrink=0.9, pad=0.03, **more)  # type: ignore[arg-type]
    bar.set_label(text, fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    if logarithmic:
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
