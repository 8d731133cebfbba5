"""Free-energy surfaces of two coordinates from frames: counted, or counted and pushed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from deepcg.analysis.surfaces.mbar_weights import pooled
from deepcg.analysis.surfaces.surface import FreeEnergySurface
from deepcg.runtime.arrays import Doubles, Integers
from deepcg.trajectory.frames import CVFrames
from deepcg.units import thermal_energy
from free_energy import (
    Grid,
    Replicates,
    bootstrap,
    combined_surface,
    histogram_surface,
    slowest_inefficiency,
    time_blocks,
)

N_REPLICATES = 100
"""Resampled surfaces: they tell an error to 7 %."""


@dataclass(frozen=True, slots=True, eq=False)
class CVSamples:
    """Frames of one ensemble in two coordinates.

    Parameters
    ----------
    name
        What to call it in figures.
    names, units, periods
        Of the coordinates.
    trajectories
        In the order of time; with forces where these are known, with weights where a bias is to be
        undone.
    temperature
        K.
    source
        Where the frames come from.
    tables
        The bias of each trajectory, see ``mbar_weights.bias_at``; empty where these are not known.
    on_one_scale
        Whether MBAR gave the weights already.
    """

    name: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    periods: tuple[float | None, ...]
    trajectories: tuple[CVFrames, ...]
    temperature: float
    source: str
    tables: tuple[Doubles, ...] = ()
    on_one_scale: bool = False

    @property
    def pooled(self) -> bool:
        """Whether all trajectories together are one sample, by MBAR."""
        return self.on_one_scale or bool(self.tables)

    @property
    def values(self) -> Doubles:
        """Of all frames (n, d)."""
        return np.concatenate(self.series)

    @property
    def weights(self) -> Doubles:
        """Of all frames (n,), in the ensemble without bias."""
        parts = []
        for frames in self.trajectories:
            weights = frames.weights
            parts.append(
                np.ones(len(frames)) if weights is None else weights.double().cpu().numpy()
            )
        return np.concatenate(parts)

    @property
    def forces(self) -> Doubles | None:
        """Of all frames (n, d), kJ/mol per unit; ``None`` where any has none."""
        parts = [frames.forces for frames in self.trajectories]
        known = [part.double().cpu().numpy() for part in parts if part is not None]
        return np.concatenate(known) if len(known) == len(parts) else None

    @property
    def series(self) -> list[Doubles]:
        """Of each trajectory (n, d)."""
        return [frames.values.double().cpu().numpy() for frames in self.trajectories]

    def weighting(self) -> tuple[Callable[[Doubles], Doubles], Integers]:
        """Return what gives weights (n,) from how often frames count (n,), and strata (n,)."""
        if self.tables:
            files = self.source.split(", ")
            names = files if len(files) == len(self.tables) else None
            return pooled(self.tables, self.series, thermal_energy(self.temperature), names)
        weights = self.weights
        return lambda times: times * weights, np.zeros(len(weights), dtype=np.int64)

    @property
    def independent(self) -> float:
        """Independent unbiased frames that all frames are worth.

        Their number over the statistical inefficiency of the slower coordinate, times what the
        spread of the weights leaves of them (Kish's effective sample size).
        """
        worth = sum(len(part) / slowest_inefficiency(part, self.periods) for part in self.series)
        weights = self.weights
        even = weights.sum() ** 2 / (weights**2).sum() / len(weights)
        return float(worth * even)

    def halves(self) -> tuple[CVSamples, CVSamples]:
        """Return the ensemble's two halves: of the trajectories, or of the time of a single one."""
        if len(self.trajectories) > 1:
            middle = len(self.trajectories) // 2
            parts = self.trajectories[:middle], self.trajectories[middle:]
            tables = self.tables[:middle], self.tables[middle:]
        else:
            (frames,) = self.trajectories
            middle = len(frames) // 2
            parts = (frames[:middle],), (frames[middle:],)
            tables = self.tables, self.tables
        one, other = (
            replace(self, trajectories=part, tables=table)
            for part, table in zip(parts, tables, strict=True)
        )
        return one, other

    def histogram(self, n_bins: int) -> Doubles:
        """Return the weights of the frames in bins of whole periods, (n_bins, n_bins)."""
        edges = tuple(np.linspace(-np.pi, np.pi, n_bins + 1) for _ in self.periods)
        grid = Grid(edges, self.periods)
        index = grid.index(self.values)
        counts = np.bincount(index[index >= 0], self.weights[index >= 0], n_bins**2)
        return counts.astype(float).reshape(grid.shape)


def free_energy_surface_of(sampled: CVSamples, grid: Grid, *, seed: int = 0) -> FreeEnergySurface:
    """Return F on a grid from the density of frames, and from their forces where these are known.

    Errors are those of blocks of frames drawn anew, longer than the correlations.
    """
    kT = thermal_energy(sampled.temperature)
    values, forces = sampled.values, sampled.forces
    weighting, strata = sampled.weighting()
    several = strata.max() > 0
    blocks = time_blocks(sampled.series, sampled.periods, fewest=2 if several else 1)
    if forces is None:
        counted = histogram_surface(grid, values)
        surface: Callable[[Doubles], Doubles] = lambda times: counted(weighting(times))
    else:
        surface = combined_surface(grid, values, forces / kT, blocks, weighting=weighting)
    generator = np.random.default_rng(seed)
    found = bootstrap(surface, blocks, generator, strata=strata, n_samples=N_REPLICATES)
    return FreeEnergySurface(
        sampled.name,
        sampled.names,
        sampled.units,
        grid,
        lowered(Replicates(kT * found.value, kT * found.samples, found.inflation)),
        sampled.temperature,
        sampled.source,
        len(values),
        sampled.independent,
    )


def lowered(energy: Replicates) -> Replicates:
    """Return a surface whose lowest bin is 0, its replicates shifted as much."""
    lowest = np.nanmin(energy.value)
    return Replicates(energy.value - lowest, energy.samples - lowest, energy.inflation)


def periods_span_a_turn(periods: Sequence[float | None]) -> bool:
    """Return whether all coordinates are angles: published distances are of their histograms."""
    return all(period is not None and abs(period - 2 * np.pi) < 1e-9 for period in periods)
