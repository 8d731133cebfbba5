"""Axes of figures on one or two collective variables: degrees, labels, periodic contours."""

from __future__ import annotations

import math
import re
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from deepcg.runtime.arrays import Doubles
from free_energy import Grid

STEP = 5.0
"""Between levels, kJ/mol."""

TOP = 60.0
"""The highest level, kJ/mol: what is above has one color."""

_GREEK = {"phi": "φ", "psi": "ψ", "omega": "ω", "chi": "χ"}


class Plane(Protocol):
    """Whatever is known on a grid of collective variables."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the coordinates."""
        ...

    @property
    def units(self) -> tuple[str, ...]:
        """Of the coordinates."""
        ...

    @property
    def grid(self) -> Grid:
        """The bins."""
        ...


def set_up_map(axes: Axes, plane: Plane, *, every: int = 60) -> None:
    """Give axes the range, the ticks, the labels and the aspect of two coordinates; grey."""
    axes.set_facecolor("0.8")
    axes.set(xlabel=label(plane, 0), ylabel=label(plane, 1))
    x, y = edges(plane, 0), edges(plane, 1)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    for k, axis in enumerate((axes.xaxis, axes.yaxis)):
        if in_degrees(plane, k):
            axis.set_major_locator(MultipleLocator(every))
    if plane.units[0] == plane.units[1]:
        axes.set_aspect("equal")


def set_up_profile(axes: Axes, plane: Plane, k: int = 0) -> None:
    """Give axes the ticks and the label of the ``k``-th coordinate along x."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(label(plane, k))
    if in_degrees(plane, k):
        axes.xaxis.set_major_locator(MultipleLocator(60))


def levels(energy: Doubles, top: float = TOP) -> Doubles:
    """Return round levels (n,), kJ/mol, from 0 to the highest energy or ``top``."""
    top = min(float(np.nanmax(energy)), top)
    step = next((s for s in (0.5, 1.0, 2.0) if top / s <= 12), STEP)
    return np.arange(0.0, step * (math.ceil(top / step) + 1), step)


def padded(plane: Plane, table: Doubles) -> tuple[Doubles, Doubles, Any]:
    """Return x (n,), y (m,) and z (m, n) of a table (n, m), periods continued by a bin."""
    axes = []
    for k, (centers, period) in enumerate(zip(plane.grid.centers, plane.grid.periods, strict=True)):
        if period is not None:
            width = centers[1] - centers[0]
            centers = np.concatenate([centers[:1] - width, centers, centers[-1:] + width])
            table = np.take(table, np.arange(-1, table.shape[k] + 1), axis=k, mode="wrap")
        axes.append(shown(plane, k, centers))
    return axes[0], axes[1], np.ma.masked_invalid(table.T)


def edges(plane: Plane, k: int) -> Doubles:
    """Return the edges (n_bins + 1,) of the bins of a coordinate as they are shown."""
    return shown(plane, k, plane.grid.edges[k])


def shown(plane: Plane, k: int, values: Doubles) -> Doubles:
    """Return values (...) of a coordinate as they are shown: angles in degrees."""
    return np.degrees(values) if in_degrees(plane, k) else values


def in_degrees(plane: Plane, k: int) -> bool:
    """Return whether a coordinate is an angle."""
    return plane.units[k] == "rad"


def label(plane: Plane, k: int) -> str:
    """Return the name of a coordinate with the unit it is shown in."""
    return axis_title(plane.names[k], plane.units[k])


def axes_table(plane: Plane) -> list[tuple[str, ...]]:
    """Return rows that say what the coordinates are, in the units that they are kept in."""
    rows = zip(plane.names, plane.units, plane.grid.edges, plane.grid.periods, strict=True)
    return [
        ("coordinate", "unit", "from", "to", "bins", "period"),
        *(
            (name, unit, f"{at[0]:.4g}", f"{at[-1]:.4g}", f"{len(at) - 1}", _period(period))
            for name, unit, at, period in rows
        ),
    ]


def axis_title(name: str, unit: str) -> str:
    """Return a name with the unit that values are shown in."""
    greek = re.sub(r"\b(phi|psi|omega|chi)\b", lambda m: _GREEK[m[0]], name)
    return f"{greek} ({'°' if unit == 'rad' else unit})"


def _period(period: float | None) -> str:
    return "none" if period is None else f"{period:.4g}"
