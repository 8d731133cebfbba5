"""What a fit says about one or two collective variables, bin by bin, beside what the data say.

U of a bin is -kT ln of the mean of exp(-U/kT) in it, as in a histogram. Its error is the spread
of fits to resampled blocks of frames, from other random weights. Networks and histogram are
normalized alike, so that they can be subtracted: the integral of exp(-U/kT) is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from deepcg.analysis.axes import axes_table
from deepcg.analysis.html import fragment
from deepcg.analysis.surfaces.maps import energy_figure, energy_table, profile_figure
from deepcg.potentials.collective_variables import CVPotential
from deepcg.runtime.arrays import Doubles, Integers
from deepcg.runtime.files import write_arrays
from deepcg.trajectory.frames import CVFrames
from free_energy import (
    Estimate,
    Grid,
    bin_means,
    block_count,
    block_labels,
    grid_over,
    histogram_energy,
    normalized,
    statistical_inefficiency,
)

BINS = {1: 72, 2: 36}
"""Most bins per coordinate, by the number of coordinates; of more than two no surface is drawn.

There are fewer where a bin and those around it would not hold ``SOME`` of frames spread evenly.
"""

SOME = 4

NEAR = 3
"""Fewer frames in a bin and those around it, and U is not shown there."""

LOW = 20.0
"""Up to this U, kJ/mol, network and histogram are compared."""

COUNTED = 10
"""Fewer frames in a bin, and the logarithm of their number is too far from a normal variate."""

FEWEST = 10
"""Bins: on fewer in common, a network and a histogram are not compared."""

MOST_BLOCKS = 500
"""Of a trajectory, for the error of a bin's mean force: more gain nothing."""

_POINTS = 3  # per bin and coordinate


@dataclass(frozen=True, slots=True, eq=False)
class FittedSurface:
    """The free-energy surface (potential of mean force) of d = 1 or 2 collective variables.

    Parameters
    ----------
    names, units
        Of the coordinates.
    grid
        The bins.
    frames
        (*grid), number of frames in each bin.
    energy
        (*grid), U from forces, kJ/mol, 0 at its lowest; NaN where no frames are near.
    histogram
        (*grid), U from the (weighted) number of frames, on the same scale; NaN throughout where
        these are labels, whose number was chosen.
    mean_force
        (*grid, d), mean of the instantaneous forces of the frames in the bin, kJ/mol per unit.
    members
        (n, *grid), U from the fits to resampled frames, whose spread is the error: that of the data
        and that of the training together.
    starts
        (m, *grid), U from fits to all frames from other random weights, whose spread is the error
        of the training alone.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    grid: Grid
    frames: Integers
    energy: Estimate[Doubles]
    histogram: Estimate[Doubles]
    mean_force: Estimate[Doubles]
    members: Doubles
    starts: Doubles

    @property
    def axes(self) -> dict[str, Doubles]:
        """The centers of the bins (n_bins,) by the names of the coordinates, in their units."""
        return dict(zip(self.names, self.grid.centers, strict=True))

    def plot(self, title: str = "") -> Figure:
        """Return U as a figure: a map, or along one coordinate with errors and the histogram."""
        if len(self.names) == 2:
            text = "from the mean force; grey: not sampled"
            return energy_figure(self, self.energy.value, symbol="U", title=title, text=text)
        curves = {"from the mean force": self.energy}
        if np.isfinite(self.histogram.value).any():
            curves["from the histogram"] = self.histogram
        return profile_figure(self, curves, symbol="U", title=title)

    def _repr_html_(self) -> str:
        """Return what is known of U and of its coordinates, for notebooks."""
        lines = [f"{int(self.frames.sum())} frames", agreement(self).in_words()]
        title = f"U of {' and '.join(self.names)}"
        return fragment(title, lines, energy_table("U", self.energy), axes_table(self))

    def save(self, path: Path) -> None:
        """Write all as .npz: the axes by the names of the coordinates, the rest by its own."""
        arrays = {
            "names": np.array(self.names),
            "units": np.array(self.units),
            "frames": self.frames,
            "U": self.energy.value,
            "U_error": self.energy.error,
            "members": self.members.astype(np.float32),
            "starts": self.starts.astype(np.float32),
            "periods": np.array([np.nan if p is None else p for p in self.grid.periods]),
            "histogram": self.histogram.value,
            "histogram_error": self.histogram.error,
            "mean_force": self.mean_force.value,
            "mean_force_error": self.mean_force.error,
        }
        write_arrays(path, arrays | self.axes, compressed=True)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two estimates of U are apart where it is low: root mean squares over bins.

    ``difference`` is in kJ/mol, ``standard_errors`` in units of the errors of both together;
    NaN where ``bins`` is 0.
    """

    bins: int
    difference: float
    standard_errors: float

    def in_words(self) -> str:
        """Say how the histogram compares."""
        if not self.bins:
            return "too few frames for a histogram to compare with"
        return (
            f"U from forces and from the histogram of the frames differ by "
            f"{self.difference:.2g} kJ/mol ({self.standard_errors:.2g} standard errors) rms over "
            f"{self.bins} bins below {LOW:g} kJ/mol"
        )


def surface_of(
    potentials: Sequence[CVPotential],
    trajectories: Sequence[CVFrames],
    names: tuple[str, ...],
    units: tuple[str, ...],
    kT: float,
    *,
    starts: Sequence[CVPotential] = (),
) -> FittedSurface:
    """Return the surface of the first of the potentials; the others are fits for its error.

    Parameters
    ----------
    starts
        Fits to the same frames from other random weights.
    trajectories
        All frames, with forces, each trajectory in the order of time.
    kT
        kJ/mol.
    """
    frames = CVFrames.join(_with_weights(trajectories))
    values, periods = _array(frames.values), potentials[0].periods
    filled = int(3 * (len(values) / SOME) ** (1 / len(names)))
    grid = grid_over(values, periods, min(BINS[len(names)], max(1, filled)))
    counts = np.bincount(grid.index(values), minlength=int(np.prod(grid.shape)))
    counts = counts.reshape(grid.shape)
    bare = ~is_near(counts, grid)
    everyone = (*potentials, *starts)
    energies = np.stack([bin_energies(potential, grid, kT) for potential in everyone])
    energies[:, bare] = np.nan
    energies = kT * normalized(energies / kT, grid)
    lowest = np.nanmin(energies[0])
    energies, others = energies[: len(potentials)], energies[len(potentials) :]
    spread = energies[1:].std(0, ddof=1) if len(energies) > 2 else np.full(grid.shape, np.nan)
    histogram = _histogram(grid, frames, trajectories)
    return FittedSurface(
        names,
        units,
        grid,
        counts,
        Estimate(energies[0] - lowest, spread),
        Estimate(kT * histogram.value - lowest, kT * histogram.error),
        _mean_force(grid, trajectories) if frames.errors is None else _label_means(grid, frames),
        energies[1:] - lowest,
        others - lowest,
    )


def agreement(surface: FittedSurface) -> Agreement:
    """Compare U from forces with U from the histogram of the same frames."""
    return compare(surface.energy, surface.histogram, surface.frames)


def compare(one: Estimate[Doubles], other: Estimate[Doubles], frames: Integers) -> Agreement:
    """Compare two U (*grid), kJ/mol, where the first is low and frames (*grid) many.

    The zero of either means nothing: the mean difference is taken out.
    """
    error = np.sqrt(one.error**2 + other.error**2)
    known = np.isfinite(error) & np.isfinite(one.value - other.value)
    with np.errstate(invalid="ignore"):
        used = known & (one.value < LOW) & (frames >= COUNTED) & (error > 0)
    if used.sum() < FEWEST:
        return Agreement(0, float("nan"), float("nan"))
    apart = (one.value - other.value)[used]
    weight = error[used] ** -2
    apart = apart - (weight * apart).sum() / weight.sum()
    z = apart / error[used]
    return Agreement(int(used.sum()), _rms(apart), _rms(z))


def bin_energies(potential: CVPotential, grid: Grid, kT: float) -> Doubles:
    """Return -kT ln of the mean of exp(-U/kT) in each bin, (*grid), in the unit of kT."""
    points = grid.points(_POINTS)
    like = potential.center
    with torch.no_grad():
        flat = torch.as_tensor(points.reshape(-1, points.shape[-1])).to(like)
        energies = potential(flat).double().reshape(points.shape[:-1])
        means = -kT * (torch.logsumexp(-energies / kT, 1) - np.log(points.shape[1]))
    energies_of_bins: Doubles = means.cpu().numpy().reshape(grid.shape)
    return energies_of_bins


def is_near(counts: Integers, grid: Grid) -> NDArray[np.bool_]:
    """Return which bins have enough frames in or around them for U to be shown, (*grid)."""
    modes = ["constant" if period is None else "wrap" for period in grid.periods]
    around = 3 ** len(modes) * uniform_filter(counts.astype(float), 3, mode=modes)
    near: NDArray[np.bool_] = around > NEAR - 0.5
    return near


def _histogram(grid: Grid, frames: CVFrames, trajectories: Sequence[CVFrames]) -> Estimate[Doubles]:
    if frames.errors is not None:
        nothing = np.full(grid.shape, np.nan)
        return Estimate(nothing, nothing)
    weights = None if frames.weights is None else _array(frames.weights)
    blocks = _slow_blocks(trajectories, grid.periods)
    return histogram_energy(grid, _array(frames.values), blocks, weights=weights)


def _label_means(grid: Grid, labels: CVFrames) -> Estimate[Doubles]:
    """Return the mean of the labels in each bin, and its error from theirs."""
    index, n_bins = grid.index(_array(labels.values)), int(np.prod(grid.shape))
    inside = index >= 0

    def sums(columns: Doubles) -> Doubles:
        added = [np.bincount(index[inside], c[inside], n_bins).astype(float) for c in columns.T]
        return np.stack(added, -1).reshape(*grid.shape, -1)

    forces, variances = _array(labels.forces), _array(labels.errors) ** 2
    number = sums(np.ones_like(forces))
    with np.errstate(invalid="ignore"):
        return Estimate(sums(forces) / number, np.sqrt(sums(variances)) / number)


def _mean_force(grid: Grid, trajectories: Sequence[CVFrames]) -> Estimate[Doubles]:
    values = np.concatenate([_array(part.values) for part in trajectories])
    forces = np.concatenate([_array(part.forces) for part in trajectories])
    blocks = _fast_blocks(grid, trajectories)
    columns = [bin_means(grid, values, force, blocks) for force in forces.T]
    return Estimate(
        np.stack([c.value for c in columns], -1), np.stack([c.error for c in columns], -1)
    )


def _slow_blocks(trajectories: Sequence[CVFrames], periods: Sequence[float | None]) -> Integers:
    """Return blocks that are independent in where the frames are."""
    lengths = [len(part) for part in trajectories]
    slowest = 1.0
    for part in trajectories:
        for column, period in zip(_array(part.values).T, periods, strict=True):
            angle = None if period is None else 2 * np.pi * column / period
            series = [column] if angle is None else [np.cos(angle), np.sin(angle)]
            slowest = max(slowest, *(statistical_inefficiency(x) for x in series))
    n_blocks = block_count(sum(lengths), slowest)
    return block_labels(lengths, max(2, round(n_blocks / len(lengths))))


def _fast_blocks(grid: Grid, trajectories: Sequence[CVFrames]) -> Integers:
    """Return blocks that are independent in what the forces are beyond the mean of their bin."""
    longest = 1.0
    for part in trajectories:
        index = grid.index(_array(part.values))
        counts = np.maximum(np.bincount(index), 1)
        for force in _array(part.forces).T:
            rest = force - (np.bincount(index, force) / counts)[index]
            longest = max(longest, statistical_inefficiency(rest))
    lengths = [len(part) for part in trajectories]
    n_blocks = int(min(lengths) / (5 * longest))
    return block_labels(lengths, min(max(2, n_blocks), MOST_BLOCKS))


def _with_weights(trajectories: Sequence[CVFrames]) -> list[CVFrames]:
    """Return the trajectories, those that are not weighted with weights of 1 if others are."""
    if all(part.weights is None for part in trajectories):
        return list(trajectories)
    return [
        CVFrames(
            part.values,
            part.forces,
            part.values.new_ones(len(part)) if part.weights is None else part.weights,
        )
        for part in trajectories
    ]


def _array(values: torch.Tensor | None) -> Doubles:
    assert values is not None
    return values.double().cpu().numpy()


def _rms(values: Doubles) -> float:
    return float(np.sqrt((values**2).mean()))
