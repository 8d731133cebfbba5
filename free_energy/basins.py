"""Regions of a surface, how much of the probability each holds, and their free energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from free_energy.arrays import Booleans, Floats, Integers
from free_energy.histogram import Grid
from free_energy.profiles import probabilities

Periods = Sequence[float | None]


class Region(Protocol):
    """A part of the space of the coordinates."""

    def contains(self, points: Floats, periods: Periods) -> Booleans:
        """Return whether each of the points (n, d) is inside, (n,)."""
        ...


@dataclass(frozen=True, slots=True)
class Rectangle:
    """What lies from low to high in every coordinate; across the end of a period where low > high.

    Parameters
    ----------
    low, high
        (d,) each. The low end belongs to it, the high end does not.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def contains(self, points: Floats, periods: Periods) -> Booleans:
        """Return whether each of the points (n, d) is inside, (n,)."""
        inside = np.ones(len(points), dtype=bool)
        bounds = zip(points.T, self.low, self.high, periods, strict=True)
        for column, low, high, period in bounds:
            if period is None:
                inside &= (column >= low) & (column < high)
            elif high - low < period:
                inside &= (column - low) % period < (high - low) % period
        return inside


@dataclass(frozen=True, slots=True)
class Polygon:
    """What lies inside of a closed line in the plane, and its images where there are periods.

    Parameters
    ----------
    vertices
        (n, 2), in order around it, unwrapped: a side goes the way that its ends say.
    """

    vertices: tuple[tuple[float, float], ...]

    def contains(self, points: Floats, periods: Periods) -> Booleans:
        """Return whether each of the points (n, 2) is inside, (n,)."""
        corners = np.array(self.vertices)
        inside = np.zeros(len(points), dtype=bool)
        spans = zip(points.T, corners.T, periods, strict=True)
        for image in product(*(_images(*span) for span in spans)):
            inside |= _is_within(points + np.array(image), corners)
        return inside


def region_of(
    regions: Mapping[str, Region | Sequence[Region]], points: ArrayLike, periods: Periods
) -> Integers:
    """Return the number of the region, in their order, that each of the points (n, d) is in.

    That of the first where regions overlap, -1 where a point is in none. Several shapes under
    a name are one region.
    """
    places = np.asarray(points, dtype=float)
    numbers = np.full(len(places), -1, dtype=np.int64)
    for number, shapes in enumerate(regions.values()):
        for shape in shapes if isinstance(shapes, Sequence) else [shapes]:
            numbers[(numbers < 0) & shape.contains(places, periods)] = number
    return numbers


def region_of_bins(regions: Mapping[str, Region | Sequence[Region]], grid: Grid) -> Integers:
    """Return the number of the region (*grid) that the center of each bin is in, or -1."""
    return region_of(regions, grid.points()[:, 0], grid.periods).reshape(grid.shape)


def populations(energies: ArrayLike, regions: Integers, n_regions: int) -> Floats:
    """Return the probability of each region (n_regions,), of a surface in kT.

    Parameters
    ----------
    energies
        (*grid); NaN holds nothing.
    regions
        (*grid), the number of the region of each bin, -1 for none: see ``region_of_bins`` and
        ``watershed``. Bins of none count in the whole.
    """
    mass, inside = probabilities(energies), regions >= 0
    return np.bincount(regions[inside], mass[inside], n_regions).astype(float)


def frame_populations(weights: Floats, regions: Integers, n_regions: int) -> Floats:
    """Return the weight of the frames of each region (n_regions,), relative to that of all.

    Parameters
    ----------
    weights
        (n,).
    regions
        (n,), the number of the region of each frame, -1 for none: see ``region_of``.
    """
    inside = regions >= 0
    mass = np.bincount(regions[inside], weights[inside], n_regions)
    shares: Floats = mass / weights.sum()
    return shares


def free_energies(shares: ArrayLike, reference: int = 0) -> Floats:
    """Return -ln of populations (n,) relative to one of them, in kT; NaN where one is empty."""
    held = np.asarray(shares, dtype=float)
    logs = np.log(np.where(held > 0, held, np.nan))
    differences: Floats = logs[reference] - logs
    return differences


def _images(column: Floats, corners: Floats, period: float | None) -> Floats:
    """Return the whole periods to add to points so that some may fall among the corners."""
    if period is None or not len(column):
        return np.zeros(1)
    least = np.floor((corners.min() - column.max()) / period)
    most = np.ceil((corners.max() - column.min()) / period)
    return period * np.arange(least, most + 1)


def _is_within(points: Floats, corners: Floats) -> Booleans:
    """Tell by how often the ray from each point to the right crosses the line: odd is inside."""
    x, y = points.T
    inside = np.zeros(len(points), dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        crosses = (ay > y) != (by > y)
        if ay != by:
            inside ^= crosses & (x < ax + (y - ay) * (bx - ax) / (by - ay))
    return inside
