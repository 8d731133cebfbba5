"""How one basin is left for another: lowest passes, barriers and the paths over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, dijkstra, minimum_spanning_tree

from free_energy.arrays import Floats, Integers
from free_energy.histogram import Grid
from free_energy.neighbors import steps

Point = Sequence[float] | Floats


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """A way across a surface, from bin to bin.

    Parameters
    ----------
    points
        (n, d), centers of the bins, continued across the ends of periods.
    energies
        (n,), kT.
    """

    points: Floats
    energies: Floats

    @property
    def saddle(self) -> int:
        """Number of its highest point."""
        return int(self.energies.argmax())

    @property
    def barriers(self) -> tuple[float, float]:
        """Height of its highest point above its start, and above its end, kT."""
        top = self.energies.max()
        return float(top - self.energies[0]), float(top - self.energies[-1])


def lowest_path(energies: ArrayLike, grid: Grid, start: Point, end: Point) -> Path:
    """Return the minimum free-energy path between the bins of two points (d,).

    Its highest bin is as low as can be. Of all such paths it is the one of greatest flux: the
    integral of exp(F) along it, counted in bins, is least (Berkowitz, Morgan, McCammon and
    Northrup, J. Chem. Phys. 79, 5563 (1983)). NaN is a wall.

    Raises
    ------
    ValueError
        A point is outside or on a wall, or no path connects the two.
    """
    flat = _flat(energies, grid)
    ends = _ends(flat, grid, start, end)
    level = _pass(flat, grid, ends)
    if np.isnan(level):
        raise ValueError("no path connects the two points: unsampled bins lie between them")
    first, second, length = steps(grid, (flat <= level).reshape(grid.shape))
    flow = np.exp(flat - level)
    cost = length * (flow[first] + flow[second]) / 2
    graph = csr_array((cost, (first, second)), shape=(flat.size, flat.size))
    _, before = dijkstra(graph, directed=False, indices=ends[0], return_predecessors=True)
    bins = np.array(_way_back(before, ends)[::-1])
    return Path(_unwrapped(bins, grid), flat[bins])


def barriers(energies: ArrayLike, grid: Grid, start: Point, end: Point) -> Floats:
    """Return how high the lowest pass between two points is above each (2,), in kT.

    NaN where no path connects them: fit for ``Replicates.map``. The points are (d,).
    """
    flat = _flat(energies, grid)
    if not np.isfinite(flat[_bins(grid, start, end)]).all():
        return np.full(2, np.nan)
    ends = _ends(flat, grid, start, end)
    heights: Floats = _pass(flat, grid, ends) - flat[list(ends)]
    return heights


def lowest_point(
    energies: ArrayLike, grid: Grid, region: NDArray[np.bool_] | None = None
) -> Floats:
    """Return the center of the lowest bin (d,), of those of a region (*grid) where given."""
    flat = _flat(energies, grid)
    if region is not None:
        flat = np.where(region.ravel(), flat, np.nan)
    if not np.isfinite(flat).any():
        raise ValueError("the region has no sampled bin")
    point: Floats = grid.points()[int(np.nanargmin(flat)), 0]
    return point


def _pass(flat: Floats, grid: Grid, ends: tuple[int, int]) -> float:
    """Return the energy of the highest bin of the path where that is lowest; NaN without a path.

    The path in the minimum spanning tree is one of these, the length of a step being the rank of
    its higher end.
    """
    first, second, _ = steps(grid, np.isfinite(flat).reshape(grid.shape))
    _, rank = np.unique(np.maximum(flat[first], flat[second]), return_inverse=True)
    graph = csr_array((rank + 1.0, (first, second)), shape=(flat.size, flat.size))
    tree = minimum_spanning_tree(graph)
    reached, before = breadth_first_order(tree, ends[0], directed=False)
    if ends[1] not in reached:
        return float("nan")
    return float(flat[_way_back(before, ends)].max())


def _way_back(before: Integers, ends: tuple[int, int]) -> list[int]:
    """Return the bins from the second end to the first, of the bin before each."""
    bins = [ends[1]]
    while bins[-1] != ends[0]:
        bins.append(int(before[bins[-1]]))
    return bins


def _flat(energies: ArrayLike, grid: Grid) -> Floats:
    surface = np.asarray(energies, dtype=float)
    if surface.shape != grid.shape:
        raise ValueError(f"the surface has shape {surface.shape}, not {grid.shape} of the grid")
    return surface.ravel()


def _bins(grid: Grid, start: Point, end: Point) -> Integers:
    bins = grid.index(np.stack([np.asarray(start, float), np.asarray(end, float)]))
    if bins.min() < 0:
        raise ValueError(
            f"the path from {tuple(start)} to {tuple(end)} has an end outside of the grid"
        )
    return bins


def _ends(flat: Floats, grid: Grid, start: Point, end: Point) -> tuple[int, int]:
    first, last = (int(k) for k in _bins(grid, start, end))
    if not np.isfinite(flat[[first, last]]).all():
        raise ValueError(
            f"the path from {tuple(start)} to {tuple(end)} has an end in an unsampled bin"
        )
    return first, last


def _unwrapped(bins: Integers, grid: Grid) -> Floats:
    points: Floats = grid.points()[bins, 0]
    for axis, period in enumerate(grid.periods):
        if period is not None:
            points[:, axis] = np.unwrap(points[:, axis], period=period)
    return points
