"""The errors of every estimator are as large as the errors that it makes.

Chains of correlated samples of a double well on the torus whose free energy is known, 100 of
them, or the first 50: z = (estimate - exact) / error must have a mean near 0 and an rms between
0.8 and 1.2. Over 100 chains the rms of one z is known to 7 %, over 50 chains that of many bins to
3 %: a right error would be refused less than once in 200 (2.8 standard errors), at fixed seeds.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from free_energy import (
    Estimate,
    Grid,
    Rectangle,
    Replicates,
    barriers,
    bin_mean_field,
    bin_means,
    block_labels,
    bootstrap,
    combined_surface,
    frame_populations,
    free_energies,
    grid_over,
    histogram_energy,
    histogram_surface,
    jackknife,
    kernel_energy,
    kernel_surface,
    mean_force_energy,
    mean_force_integrator,
    normalized,
    populations,
    profile,
    region_of,
    region_of_bins,
    slowest_inefficiency,
    time_blocks,
)
from free_energy.mbar import mbar_weighting

Floats = NDArray[np.float64]

PI = np.pi
PERIODS = (2 * PI, 2 * PI)
GRID = grid_over(np.zeros((1, 2)), PERIODS, 12)
REPEATS, FRAMES = 100, 16_000
WELLS = {"right": Rectangle((0, -PI), (PI, PI)), "left": Rectangle((-PI, -PI), (0, PI))}


def energy(x: Floats, y: Floats) -> Floats:
    """Two wells at x = +-pi/2, the right one lower, tilted against y."""
    return 1.2 * np.cos(2 * x) - 0.4 * np.sin(x) + 0.8 * np.cos(y - x)


def forces(x: Floats, y: Floats) -> Floats:
    bend = 0.8 * np.sin(y - x)
    return np.stack([2.4 * np.sin(2 * x) + 0.4 * np.cos(x) - bend, bend], -1)


def fine_density(parts: int) -> Floats:
    points = GRID.points(parts)
    density = np.exp(-energy(points[..., 0], points[..., 1]))
    return density / density.mean() / (4 * PI**2)


EXACT = -np.log(fine_density(12).mean(1)).reshape(GRID.shape)


def chains(n_frames: int, bias: Floats, seed: int) -> Floats:
    """Return (repeats, n_frames, 2), Metropolis chains with a bias on x of Fourier terms (r, 2)."""
    rng = np.random.default_rng(seed)

    def total(at: Floats) -> Floats:
        x, y = at.T
        return energy(x, y) + bias[:, 0] * np.cos(x) + bias[:, 1] * np.sin(x)

    place = rng.uniform(-PI, PI, (len(bias), 2))
    old, kept = total(place), []
    for _ in range(n_frames + 200):
        trial = place + rng.uniform(-1.6, 1.6, place.shape)
        new = total(trial)
        taken = np.log(rng.uniform(size=len(bias))) < old - new
        place, old = np.where(taken[:, None], trial, place), np.where(taken, new, old)
        kept.append(place)
    walk = np.stack(kept[200:], 1)
    return (walk + PI) % (2 * PI) - PI


@pytest.fixture(scope="module")
def walks() -> Floats:
    return chains(FRAMES, np.zeros((REPEATS, 2)), 11)


@pytest.fixture(scope="module")
def surfaces(walks: Floats) -> list[Replicates]:
    return [jackknife(histogram_surface(GRID, walk), blocks_of(walk)) for walk in walks]


def blocks_of(walk: Floats) -> NDArray[np.int64]:
    return time_blocks([walk], PERIODS)


def is_right(z: Floats, bias: float = 0.3) -> None:
    """z (repeats, n): spread of all, mean of each, which is of standard error 0.1."""
    spread = float(np.sqrt((z**2).mean()))
    assert 0.8 < spread < 1.2, f"the errors are {1 / spread:.2f} of what they should be"
    assert abs(z.mean()) < bias, f"mean z {z.mean():.2f}"


def common(estimate: Estimate[Floats], exact: Floats, reach: float = 2.5) -> Floats:
    """Return z of the bins within reach of the lowest."""
    return ((estimate.value - exact) / estimate.error)[exact < exact.min() + reach]


def test_the_chains_are_correlated(walks: Floats) -> None:
    assert slowest_inefficiency(walks[0], PERIODS) > 10


def test_trajectories_share_blocks_by_time_not_by_frames(walks: Floats) -> None:
    often, seldom = walks[0], walks[1][::5]
    blocks = time_blocks([often, seldom], PERIODS)
    n = len(np.unique(blocks[: len(often)])), len(np.unique(blocks[len(often) :]))
    # as many independent frames in either, but for the error of their inefficiencies
    assert 0.4 < n[0] / n[1] < 2.5


def test_histogram_with_jackknife(surfaces: list[Replicates]) -> None:
    is_right(np.array([common(surface.estimate(), EXACT) for surface in surfaces]))


def test_histogram_with_bootstrap(walks: Floats) -> None:
    rng, z = np.random.default_rng(1), []
    for walk in walks[:50]:
        found = bootstrap(histogram_surface(GRID, walk), blocks_of(walk), rng)
        z.append(common(found.estimate(), EXACT))
    is_right(np.array(z))


def test_errors_of_single_frames_would_be_too_small(walks: Floats) -> None:
    rng, z, frames = np.random.default_rng(8), [], np.arange(FRAMES)
    for walk in walks[:10]:
        found = bootstrap(histogram_surface(GRID, walk), frames, rng, n_samples=40)
        z.append(common(found.estimate(), EXACT))
    assert np.std(z) > 1.5


def smoothed(bandwidth: float) -> Floats:
    """Return the exact surface of the coordinates plus noise: damped Fourier terms."""
    n = 12 * 8
    x = -PI + (np.arange(n) + 0.5) * 2 * PI / n
    density = np.exp(-energy(*np.meshgrid(x, x, indexing="ij")))
    k = np.fft.fftfreq(n, 1 / n)
    damping = np.exp(-(bandwidth**2) * (k[:, None] ** 2 + k**2) / 2)
    blurred = np.fft.ifft2(np.fft.fft2(density) * damping).real
    share = blurred.reshape(12, 8, 12, 8).sum((1, 3)) / blurred.sum()
    return -np.log(share / GRID.volume)


def test_kernel(walks: Floats) -> None:
    exact, z = smoothed(0.25), []
    for walk in walks[:50]:
        found = kernel_energy(GRID, walk, blocks_of(walk), bandwidth=0.25)
        z.append(common(found, exact))
    is_right(np.array(z))


def test_kernel_with_its_own_bandwidth_is_closer_than_the_histogram(walks: Floats) -> None:
    grid = grid_over(np.zeros((1, 2)), PERIODS, 36)
    points = grid.points(4)
    density = np.exp(-energy(points[..., 0], points[..., 1])).mean(1)
    exact = -np.log(density / density.mean() / (4 * PI**2)).reshape(grid.shape)
    low = exact < exact.min() + 2.5
    rms = []
    for walk in walks[:5]:
        blocks = blocks_of(walk)
        found = [kernel_energy(grid, walk, blocks), histogram_energy(grid, walk, blocks)]
        apart = np.array([e.value - exact for e in found])[:, low]
        seen = np.isfinite(apart).all(0)
        rms.append(np.sqrt((apart[:, seen] ** 2).mean(1)))
    smooth, rough = np.mean(rms, 0)
    assert smooth < 0.7 * rough


def force_field(walk: Floats, noisy: Floats, grid: Grid) -> Estimate[Floats]:
    blocks = block_labels([len(walk)], 100)
    parts = [bin_means(grid, walk, column, blocks) for column in noisy.T]
    value, error = ([getattr(part, name) for part in parts] for name in ("value", "error"))
    return Estimate(np.stack(value, -1), np.stack(error, -1))


def test_mean_force(walks: Floats) -> None:
    """24 x 24 bins: what is left of the widths is a tenth of the errors."""
    grid = grid_over(np.zeros((1, 2)), PERIODS, 24)
    rng, z, misfits = np.random.default_rng(2), [], []
    points = grid.points(6)
    density = np.exp(-energy(points[..., 0], points[..., 1])).mean(1)
    exact = -np.log(density / density.mean() / (4 * PI**2)).reshape(grid.shape)
    for walk in walks[:50]:
        noisy = forces(*walk.T) + rng.normal(0, 4, walk.shape)
        force = force_field(walk, noisy, grid)
        found = mean_force_energy(grid, force, rng, n_samples=100)
        z.append(common(found.energy.estimate(), exact))
        misfits.append(found.misfit)
    is_right(np.array(z), bias=0.4)
    assert 0.95 < np.mean(misfits) < 1.1


def test_mean_force_with_bootstrapped_frames(walks: Floats) -> None:
    """The integrator under the bootstrap of frames instead of noise on the bins."""
    rng, z, blocks = np.random.default_rng(3), [], block_labels([FRAMES], 100)
    for walk in walks[:25]:
        noisy = forces(*walk.T) + rng.normal(0, 4, walk.shape)
        integrate = mean_force_integrator(GRID, force_field(walk, noisy, GRID))
        field = bin_mean_field(GRID, walk, noisy)
        found = bootstrap(lambda w, i=integrate, f=field: i(f(w)), blocks, rng, n_samples=40)
        z.append(common(found.estimate(), integrate(mean_of_bins())))
    is_right(np.array(z))


def test_histogram_and_mean_force_combined(walks: Floats) -> None:
    """Better than either, and its error says so; 24 bins, for steps of the force of order h^2."""
    grid = grid_over(np.zeros((1, 2)), PERIODS, 24)
    points = grid.points(6)
    inside = np.exp(-energy(points[..., 0], points[..., 1])).mean(1)
    exact = normalized(-np.log(inside).reshape(grid.shape), grid)
    rng, z, blocks = np.random.default_rng(4), [], block_labels([FRAMES], 100)
    errors = []
    for walk in walks[:25]:
        noisy = forces(*walk.T) + rng.normal(0, 4, walk.shape)
        surface = combined_surface(grid, walk, noisy, blocks)
        found = bootstrap(surface, blocks, rng, n_samples=40).estimate()
        alone = histogram_energy(grid, walk, blocks)
        low = exact - exact.min() < 2.5
        errors.append([np.sqrt(np.nanmean(e.error[low] ** 2)) for e in (found, alone)])
        z.append(common(found, exact))
    is_right(np.array(z), bias=0.4)
    ours, counted = np.mean(errors, axis=0)
    assert ours < 0.8 * counted


def mean_of_bins() -> Floats:
    """Return the exact mean force of the frames of each bin."""
    points = GRID.points(12)
    weight = np.exp(-energy(points[..., 0], points[..., 1]))[..., None]
    force = forces(points[..., 0], points[..., 1])
    return ((force * weight).sum(1) / weight.sum(1)).reshape(12, 12, 2)


def test_profiles(surfaces: list[Replicates]) -> None:
    exact = [-np.log(np.exp(-EXACT).sum(1 - axis) * PI / 6) for axis in (0, 1)]
    z = []
    for surface in surfaces:
        found = [surface.map(lambda s, a=a: profile(s, GRID, a)).estimate() for a in (0, 1)]
        z.append(np.concatenate([common(f, e, 9.0) for f, e in zip(found, exact, strict=True)]))
    is_right(np.array(z))


def test_basins_of_surfaces_and_of_frames(walks: Floats, surfaces: list[Replicates]) -> None:
    bins = region_of_bins(WELLS, GRID)
    exact = free_energies(populations(EXACT, bins, 2))[1]
    assert exact > 0.5
    z = []
    for walk, surface in zip(walks, surfaces, strict=True):
        frames = region_of(WELLS, walk, PERIODS)

        def from_frames(weights: Floats, frames=frames) -> Floats:
            return free_energies(frame_populations(weights, frames, 2))

        ways = [
            surface.map(lambda s: free_energies(populations(s, bins, 2))),
            bootstrap(from_frames, blocks_of(walk), np.random.default_rng(4), n_samples=50),
        ]
        z.append([(w.value[1] - exact) / w.estimate().error[1] for w in ways])
        assert ways[0].value[1] == pytest.approx(ways[1].value[1])
    is_right(np.array(z))


def test_barriers_of_smooth_surfaces(walks: Floats) -> None:
    exact = smoothed(0.4)
    ends = ((PI / 2 - 0.1, -PI / 2 - 0.1), (-PI / 2 + 0.1, PI / 2 + 0.1))
    true, z = barriers(exact, GRID, *ends), []
    for walk in walks[:60]:
        surface = jackknife(kernel_surface(GRID, walk, bandwidth=0.4), blocks_of(walk))
        found = surface.map(lambda s: barriers(s, GRID, *ends)).estimate()
        z.append((found.value - true) / found.error)
    is_right(np.array(z), bias=0.6)  # the lowest of noisy passes is lower than the lowest pass


WINDOWS = 2.0 * np.stack([np.cos(a := np.arange(4) * PI / 2 + 0.3), np.sin(a)], -1)
PER_WINDOW = 2_500


def bias_of(x: Floats) -> Floats:
    return WINDOWS[:, :1] * np.cos(x) + WINDOWS[:, 1:] * np.sin(x)


def test_mbar() -> None:
    """Four windows of 2 500 frames along x; 50 repeats, bins of x and y: 24 numbers each."""
    runs = chains(PER_WINDOW, np.tile(WINDOWS, (50, 1)), 5).reshape(50, 4, PER_WINDOW, 2)
    strata = np.repeat(np.arange(4), PER_WINDOW)
    exact = [-np.log(np.exp(-EXACT).sum(1 - axis) * PI / 6) for axis in (0, 1)]
    rng, z = np.random.default_rng(6), []
    for windows in runs:
        frames = windows.reshape(-1, 2)
        inefficiencies = [slowest_inefficiency(window, PERIODS) for window in windows]
        weighting = mbar_weighting(
            bias_of(frames[:, 0]), [PER_WINDOW] * 4, inefficiencies=inefficiencies
        )
        surface = histogram_surface(GRID, frames)
        blocks = time_blocks(windows, PERIODS, fewest=16)
        found = bootstrap(
            lambda m, w=weighting, s=surface: s(w(m)), blocks, rng, strata=strata, n_samples=30
        )
        profiles = [found.map(lambda s, a=a: profile(s, GRID, a)).estimate() for a in (0, 1)]
        z.append(np.concatenate([common(f, e, 9.0) for f, e in zip(profiles, exact, strict=True)]))
    is_right(np.array(z))
