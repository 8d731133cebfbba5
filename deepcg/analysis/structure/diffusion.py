"""How beads move: mean squared displacement, diffusion and velocity autocorrelation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepcg.analysis.structure.curve import Curve, within
from deepcg.analysis.structure.trajectory_set import Sample
from deepcg.geometry.box import box_heights, minimum_image
from deepcg.runtime.arrays import Doubles
from deepcg.trajectory.frames import Frames
from free_energy import Estimate, mean_of_blocks

LONGEST_LAG = 10.0  # ps
FIT_FROM = 0.2  # of the longest lag: ballistic motion and caging are over by then
SLOWEST_VELOCITY_FRAMES = 0.02  # ps; finite differences over longer times are no velocities
LONGEST_VELOCITY_LAG = 1.0  # ps
TIME_UNKNOWN = "the time between frames is not known: give --frame-ps"
CM2_PER_S = 0.01  # nm^2/ps in cm^2/s


@dataclass(frozen=True, slots=True)
class NotAvailable:
    """An observable that these frames cannot give, and why."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Diffusion:
    """Mean squared displacement (nm^2) and the diffusion coefficient (nm^2/ps) from its slope.

    ``blocks`` (n_blocks,) are the coefficients of the blocks of the displacement.
    """

    displacement: Curve
    coefficient: Estimate[float]
    window: tuple[float, float]
    blocks: Doubles


def diffusion(sample: Sample) -> Diffusion | NotAvailable:
    """Return the mean squared displacement over all time origins and D by Einstein's relation.

    D is a sixth of the slope of a straight line through lags from 2 ps to 10 ps (or from a fifth
    to the whole of half a block, where that is shorter). Not corrected for the size of the box.
    """
    name = "mean squared displacement"
    dt = sample.ensemble.dt
    if dt is None:
        return NotAvailable(name, TIME_UNKNOWN)
    n_lags = min(int(LONGEST_LAG / dt + 1e-6), min(len(b) for b in sample.blocks) // 2)
    window = FIT_FROM * n_lags * dt, n_lags * dt
    lags = _lags(n_lags, dt)
    if within(lags, window).sum() < 3:
        blocks = len(sample.blocks)
        return NotAvailable(name, f"frames {dt:g} ps apart in {blocks} blocks give too few lags")
    paths = [_unwrapped(block) for block in sample.blocks]
    if not all(_can_unwrap(path, b) for path, b in zip(paths, sample.blocks, strict=True)):
        return NotAvailable(name, f"beads cross a sixth of the box between frames, {dt:g} ps apart")
    values = np.stack([_mean_squared_displacement(path, n_lags) for path in paths])
    weights = np.array([len(block) for block in sample.blocks], dtype=float)
    curve = Curve(name, lags, values, weights, "lag time (ps)", "mean squared displacement (nm²)")
    inside = within(lags, window)
    slopes = np.polyfit(lags[inside], values[:, inside].T, 1)[0]
    mean = mean_of_blocks(slopes / 6, weights)
    found = Estimate(float(mean.value), float(mean.error))
    return Diffusion(curve, found, window, slopes / 6)


def velocity_autocorrelation(sample: Sample) -> Curve | NotAvailable:
    """Return <v(0) v(t)> / <v(0) v(0)> of velocities from differences of successive frames.

    The difference over dt averages the velocity over that time: only frames at most 20 fs apart
    are used.
    """
    name = "velocity autocorrelation"
    dt = sample.ensemble.dt
    if dt is None:
        return NotAvailable(name, TIME_UNKNOWN)
    if dt > SLOWEST_VELOCITY_FRAMES:
        return NotAvailable(
            name,
            f"frames are {1000 * dt:g} fs apart, velocities need at most "
            f"{1000 * SLOWEST_VELOCITY_FRAMES:g} fs",
        )
    shortest = min(len(block) for block in sample.blocks)
    n_lags = min(int(LONGEST_VELOCITY_LAG / dt + 1e-6), shortest // 2)
    if n_lags < 3:
        return NotAvailable(name, f"blocks of {shortest} frames are too short")
    lags = _lags(n_lags, dt)
    values = np.stack([_correlation(np.diff(_unwrapped(b), axis=0), n_lags) for b in sample.blocks])
    weights = np.array([len(block) for block in sample.blocks], dtype=float)
    return Curve(name, lags, values / values[:, :1], weights, "lag time (ps)", name)


def _lags(n_lags: int, dt: float) -> Doubles:
    return np.arange(n_lags + 1, dtype=np.float64) * dt


def _unwrapped(frames: Frames) -> Doubles:
    """Return positions (f, n, 3) that move by the nearest image from frame to frame."""
    assert frames.box is not None  # an Ensemble has checked it
    positions = np.asarray(frames.positions.detach().cpu(), dtype=np.float64)
    box = np.asarray(frames.box.detach().cpu(), dtype=np.float64)
    steps = minimum_image(np.diff(positions, axis=0), box[1:])
    return np.concatenate([positions[:1], positions[0] + np.cumsum(steps, 0)])


def _can_unwrap(path: Doubles, frames: Frames) -> bool:
    """Return whether jumps of half a box are more than five standard deviations away."""
    assert frames.box is not None
    step = np.sqrt((np.diff(path, axis=0) ** 2).sum(-1).mean())
    return bool(6 * step <= box_heights(frames.box[:1]).min())


def _mean_squared_displacement(path: Doubles, n_lags: int) -> Doubles:
    """Return the mean over beads and time origins for lags 0 to ``n_lags``.

    By the Fourier transform: section 4.2 of Calandrini et al., Collection SFN 12, 201 (2011).
    """
    n = len(path)
    squares = (path**2).sum(-1).mean(1)
    origins = n - np.arange(n_lags + 1)
    sums = np.concatenate([[0.0], np.cumsum(squares)])
    lag = np.arange(n_lags + 1)
    ends = (sums[n - lag] + sums[n] - sums[lag]) / origins  # <r(t)^2> + <r(t + lag)^2>
    displacement: Doubles = ends - 2 * _correlation(path, n_lags)
    return displacement


def _correlation(series: Doubles, n_lags: int) -> Doubles:
    """Return the mean over beads and time origins of s(t) . s(t + lag), s (f, n, 3)."""
    n = len(series)
    spectrum = np.fft.rfft(series, 2 * n, axis=0)
    power = (np.abs(spectrum) ** 2).sum(-1).mean(-1)
    correlation: Doubles = np.fft.irfft(power, 2 * n)[: n_lags + 1]
    return correlation / (n - np.arange(n_lags + 1))
