"""Histograms in one and two coordinates against densities that are known exactly."""

import numpy as np
import pytest

from free_energy import Grid, bin_means, block_labels, grid_over, histogram_energy, normalized

PERIOD = 2 * np.pi
TORUS = grid_over(np.zeros((1, 2)), (PERIOD, PERIOD), 8)
LINE = Grid((np.linspace(0, 1, 6),), (None,))


def test_periodic_values_are_folded_and_others_left_out() -> None:
    assert TORUS.index([[-np.pi, -np.pi], [np.pi, 1e-9 - 3 * np.pi]]).tolist() == [0, 0]
    assert TORUS.index([[np.pi - 1e-9, -np.pi + 1e-9]]).tolist() == [7 * 8]
    assert LINE.index([[0.0], [0.99], [1.0], [1.01], [-0.01]]).tolist() == [0, 4, 4, -1, -1]


def test_points_fill_the_bins() -> None:
    points = TORUS.points(3)
    assert points.shape == (64, 9, 2)
    own = TORUS.index(points.reshape(-1, 2)).reshape(64, 9)
    assert (own == np.arange(64)[:, None]).all()
    np.testing.assert_allclose(
        points.mean(1)[3 * 8 + 5], [TORUS.centers[0][3], TORUS.centers[1][5]]
    )


def test_a_grid_of_a_straight_coordinate_spans_its_values() -> None:
    grid = grid_over([[1.0], [3.0], [2.0]], (None,), 4)
    np.testing.assert_allclose(grid.edges[0], [1, 1.5, 2, 2.5, 3])
    with pytest.raises(ValueError, match="is 2 in every frame"):
        grid_over([[2.0], [2.0]], (None,), 4)


def test_blocks_do_not_cross_series() -> None:
    assert block_labels([4, 3], 2).tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert block_labels([2, 1], 3).tolist() == [0, 1, 2]


def exact_energies(grid: Grid) -> np.ndarray:
    """Return -ln of the density of bins where it is 1 + cos(x) / 2 of the first coordinate."""
    edges = grid.edges[0]
    mass = np.diff(edges + np.sin(edges) / 2) / PERIOD
    return -np.log(np.broadcast_to((mass / np.diff(edges) / PERIOD)[:, None], grid.shape))


def repeats(*, biased: bool) -> np.ndarray:
    """Return z = (value - exact) / error of 200 histograms of 20 000 frames, 64 bins each."""
    rng, z = np.random.default_rng(7), []
    for _ in range(200):
        values = rng.uniform(-np.pi, np.pi, (20_000, 2))
        density = 1 + np.cos(values[:, 0]) / 2
        if not biased:
            values = values[rng.uniform(0, 1.5, len(values)) < density]
        weights = 17.0 * density if biased else None
        blocks = block_labels([len(values) // 2, len(values) - len(values) // 2], 10)
        found = histogram_energy(TORUS, values, blocks, weights=weights)
        z.append((found.value - exact_energies(TORUS)) / found.error)
    return np.array(z)


@pytest.mark.parametrize("biased", [False, True])
def test_the_free_energy_is_right_and_so_is_its_error(biased: bool) -> None:
    """z of one bin over 200 repeats: mean 0 within 5 / sqrt(200) in the worst of 64 bins (false
    alarms 4e-5), mean square of t with 19 degrees of freedom 19/17 within a tenth over all bins:
    12 800 values, of which 63 in 64 are independent, spread of the mean square 0.013."""
    z = repeats(biased=biased)
    assert np.abs(z.mean(0)).max() < 5 / np.sqrt(200) * np.sqrt(19 / 17)
    assert abs((z**2).mean() - 19 / 17) < 0.1


def test_forgotten_weights_are_seen() -> None:
    values = np.random.default_rng(1).uniform(-np.pi, np.pi, (20_000, 2))
    found = histogram_energy(TORUS, values, block_labels([len(values)], 20))
    assert np.abs((found.value - exact_energies(TORUS)) / found.error).max() > 10


def test_blocks_tell_the_error_of_correlated_frames() -> None:
    """Each frame is there 20 times: blocks see it, single frames would claim a fifth as much."""
    rng = np.random.default_rng(3)
    values = np.repeat(rng.uniform(-np.pi, np.pi, (2_000, 2)), 20, axis=0)
    honest = histogram_energy(TORUS, values, block_labels([len(values)], 20)).error
    naive = histogram_energy(TORUS, values, block_labels([len(values)], len(values) // 10)).error
    expected = np.sqrt((1 - 1 / 64) / (2_000 / 64))
    assert 0.8 < honest.mean() / expected < 1.2
    assert naive.mean() < 0.8 * expected


def test_bins_without_frames_or_of_one_block_have_no_error() -> None:
    values, blocks = [[0.1], [0.3], [0.31], [0.5], [0.11]], np.array([0, 0, 0, 1, 1])
    found = histogram_energy(LINE, values, blocks)
    assert np.isfinite(found.value).tolist() == [True, True, True, False, False]
    assert np.isfinite(found.error).tolist() == [True, False, False, False, False]
    means = bin_means(LINE, values, [1.0, 2.0, 4.0, 5.0, 3.0], blocks)
    np.testing.assert_allclose(means.value, [2, 3, 5, np.nan, np.nan])
    assert np.isfinite(means.error).tolist() == [True, False, False, False, False]


def test_one_block_is_refused() -> None:
    with pytest.raises(ValueError, match="one block has no spread"):
        histogram_energy(LINE, [[0.1]], np.array([0]))


def test_bin_means_and_their_errors() -> None:
    """Over 200 repeats of 64 bins, as above: mean within 5 standard errors, mean square of z that
    of t with 19 degrees of freedom, 19/17, to a tenth (the ratio's bias is below 1/300)."""
    rng, z = np.random.default_rng(5), []
    for _ in range(200):
        values = rng.uniform(-np.pi, np.pi, (20_000, 2))
        bins = TORUS.index(values)
        samples = 3.0 * bins + rng.normal(0, 10, len(values))
        found = bin_means(TORUS, values, samples, block_labels([len(values)], 20))
        z.append((found.value.ravel() - 3.0 * np.arange(64)) / found.error.ravel())
    assert np.abs(np.mean(z, 0)).max() < 5 / np.sqrt(200) * np.sqrt(19 / 17)
    assert abs(np.square(z).mean() - 19 / 17) < 0.1


def test_normalized_surfaces_have_an_integral_of_one() -> None:
    surfaces = np.random.default_rng(2).normal(500, 3, (3, 8, 8))
    surfaces[:, 2, 3] = np.nan
    shifted = normalized(surfaces, TORUS)
    integral = np.nansum(np.exp(-shifted), (1, 2)) * TORUS.volume
    np.testing.assert_allclose(integral, 1)
    assert np.isnan(shifted[:, 2, 3]).all()
    np.testing.assert_allclose(np.ptp(np.delete((shifted - surfaces)[0].ravel(), 19)), 0, atol=1e-9)
