"""Basins, paths, profiles, distances and integrals on surfaces with known answers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from free_energy import (
    Estimate,
    Grid,
    Polygon,
    Rectangle,
    barriers,
    bin_mean_field,
    bootstrap,
    choose_bandwidth,
    frame_populations,
    free_energies,
    grid_over,
    histogram_surface,
    jackknife,
    jensen_shannon,
    kernel_energy,
    kernel_surface,
    lowest_path,
    lowest_point,
    mean_force_energy,
    mean_force_integrator,
    normalized,
    pmf_error,
    populations,
    profile,
    region_of,
    region_of_bins,
    resampled,
    rms_difference,
    sampling_floor,
    surface_mse,
    time_blocks,
    watershed,
)

Floats = NDArray[np.float64]

PI = np.pi
PERIODS = (2 * PI, 2 * PI)
TORUS = Grid((np.linspace(-PI, PI, 31), np.linspace(-PI, PI, 25)), PERIODS)
PLANE = Grid((np.linspace(0, 3, 31), np.linspace(-1, 1, 21)), (None, None))
LINE = Grid((np.linspace(-2, 2, 41),), (None,))


def mesh(grid: Grid) -> list[Floats]:
    return list(np.meshgrid(*grid.centers, indexing="ij"))


def wells(grid: Grid) -> Floats:
    """Wells at x = -pi/2 (lower) and pi/2, y = 0; passes at x = 0 and, higher, at x = pi."""
    x, y = mesh(grid)
    return 2 * np.cos(2 * x) + 0.5 * np.sin(x) - 0.7 * np.cos(x) - 3 * np.cos(y)


def test_axes_are_in_the_order_of_the_coordinates() -> None:
    """x is about 1 and y about -2, in every way to a surface."""
    rng = np.random.default_rng(1)
    values = rng.normal((1.0, -2.0), (0.2, 0.4), (4_000, 2))
    blocks = np.arange(4_000) % 10
    surfaces = [
        histogram_surface(TORUS, values)(np.ones(4_000)),
        kernel_energy(TORUS, values, blocks, bandwidth=0.1).value,
    ]
    stiff = -(values - (1.0, -2.0)) / (0.04, 0.16)
    field = bin_mean_field(TORUS, values, stiff)(np.ones(4_000))
    surfaces.append(mean_force_integrator(TORUS, Estimate(field, 0 * field))(field))
    for surface in surfaces:
        assert surface.shape == (30, 24)
        assert lowest_point(surface, TORUS) == pytest.approx((1.0, -2.0), abs=0.25)
        assert TORUS.centers[0][np.nanargmin(profile(surface, TORUS, 0))] == pytest.approx(
            1, abs=0.25
        )
        assert TORUS.centers[1][np.nanargmin(profile(surface, TORUS, 1))] == pytest.approx(
            -2, abs=0.25
        )


def test_nothing_breaks_on_empty_bins() -> None:
    surface = wells(TORUS)
    surface[:, 3:6] = np.nan
    surface[4] = np.nan
    surface[20, 20] = np.nan
    assert np.isnan(profile(surface, TORUS, 0)[4])
    assert np.isfinite(np.delete(profile(surface, TORUS, 0), 4)).all()
    basins = watershed(surface, TORUS, depth=1.0)
    assert ((basins < 0) == np.isnan(surface)).all()
    assert populations(surface, basins, 2).sum() == pytest.approx(1)
    nothing = np.full(TORUS.shape, np.nan)
    assert np.isnan(profile(nothing, TORUS, 1)).all()
    assert (populations(nothing, basins, 2) == 0).all()
    assert np.isnan(free_energies(populations(nothing, basins, 2))).all()
    assert np.isnan(barriers(nothing, TORUS, (0, 0), (1, 1))).all()
    assert np.isnan(rms_difference(nothing, surface, below=3))
    assert (watershed(nothing, TORUS, depth=1.0) == -1).all()
    with pytest.raises(ValueError, match="no sampled bin"):
        lowest_point(nothing, TORUS)
    assert np.isnan(histogram_surface(TORUS, np.zeros((3, 2)))(np.zeros(3))).all()


# replicates


def test_the_error_of_a_mean_by_jackknife_and_by_bootstrap() -> None:
    """Of 40 blocks of known sums: the jackknife is exact, 4 000 draws come within 5 standard
    errors of 1 / sqrt(8 000) (false alarms 6e-7)."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=40).repeat(5)
    blocks, exact = np.arange(40).repeat(5), x[::5].std(ddof=1) / np.sqrt(40)
    mean = lambda w: w @ x / w.sum()
    found = jackknife(mean, blocks)
    assert found.value == pytest.approx(x.mean())
    assert found.estimate().error == pytest.approx(exact)
    drawn = bootstrap(mean, blocks, rng, n_samples=4_000).estimate()
    assert drawn.error == pytest.approx(exact, rel=5 / np.sqrt(8_000))


def test_a_bootstrap_of_few_blocks_is_not_too_small() -> None:
    """Of 3 blocks a plain bootstrap would say sqrt(2/3) of the error."""
    x, blocks = np.array([0.0, 1.0, 5.0]), np.arange(3)
    drawn = bootstrap(lambda w: w @ x / w.sum(), blocks, np.random.default_rng(0), n_samples=4_000)
    assert drawn.estimate().error == pytest.approx(x.std(ddof=1) / np.sqrt(3), rel=0.06)


def test_errors_of_what_is_derived() -> None:
    x, blocks = np.random.default_rng(3).normal(5, 1, 200), np.arange(200)
    mean = jackknife(lambda w: w @ x / w.sum(), blocks)
    double = mean.map(lambda m: 2 * m + 7)
    assert double.estimate().error == pytest.approx(2 * mean.estimate().error)


def test_strata_keep_their_number_of_frames() -> None:
    blocks = np.arange(30) // 3
    strata = np.repeat([0, 1], 15)
    for counts in resampled(blocks, np.random.default_rng(4), strata=strata, n_samples=20):
        assert counts[:15].sum() == pytest.approx(15)
        assert counts[15:].sum() == pytest.approx(15)
        assert (counts.reshape(10, 3) == counts[::3, None]).all()


def test_blocks_that_cannot_be_drawn_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="one block has no spread"):
        next(resampled(np.zeros(4, dtype=int), rng))
    with pytest.raises(ValueError, match="cut each run into at least 2"):
        next(resampled(np.array([0, 1, 2]), rng, strata=[0, 0, 1]))
    with pytest.raises(ValueError, match="frames of two strata"):
        next(resampled(np.array([0, 0, 1]), rng, strata=[0, 1, 1]))


def test_weights_that_are_none_are_refused() -> None:
    for wrong in ([1.0, -1.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="finite, none of them negative"):
            jackknife(np.sum, np.arange(2), weights=wrong)
    with pytest.raises(ValueError, match=r"shape \(3,\), not \(2,\)"):
        jackknife(np.sum, np.arange(2), weights=np.ones(3))


def test_blocks_follow_the_correlation() -> None:
    rng = np.random.default_rng(5)
    white = rng.normal(size=(4_000, 1))
    slow = np.cumsum(rng.normal(size=(4_000, 1)), 0)
    assert time_blocks([white], (None,)).max() == 99
    assert time_blocks([slow], (None,)).max() == 7
    many = time_blocks([white[:20]] * 200, (None,))
    assert (many == np.arange(4_000) // 20).all()  # each trajectory is a block
    assert time_blocks([slow[:2_000]] * 2, (None,), fewest=10).max() == 19


# kernels


def test_a_kernel_surface_is_the_sum_of_gaussians_and_of_their_images() -> None:
    """A frame counts as if in the middle of a bin of a third of the bandwidth: 1 % is misplaced."""
    rng = np.random.default_rng(13)
    points = rng.normal((3.0, -3.0), (0.8, 0.6), (400, 2))
    weights = rng.uniform(0.5, 2.0, 400)
    grid = grid_over(np.zeros((1, 2)), PERIODS, 12)
    surface = kernel_surface(grid, points, bandwidth=(0.4, 0.5))(weights)
    fine = grid.points(3)
    density = np.zeros(fine.shape[:2])
    for shift in np.stack(np.meshgrid(*[2 * PI * np.arange(-1, 2)] * 2), -1).reshape(-1, 2):
        apart = (fine[:, :, None] - points - shift) / (0.4, 0.5)
        density += (weights * np.exp(-(apart**2).sum(-1) / 2)).sum(-1)
    exact = density.mean(1).reshape(12, 12) / (weights.sum() * 2 * PI * 0.4 * 0.5)
    found = np.exp(-surface)
    assert np.nansum(found) * grid.volume == pytest.approx(1)
    misplaced = np.abs(np.nan_to_num(found) - exact).sum() * grid.volume / 2
    assert misplaced < 0.01


def test_no_probability_leaves_by_the_ends() -> None:
    """Even frames up to one end of a line: the density is even up to there, none is elsewhere."""
    x = np.linspace(-2, 0, 4_001)[:, None]
    density = np.exp(-kernel_surface(LINE, x, bandwidth=0.2)(np.ones(4_001)))
    np.testing.assert_allclose(density[LINE.centers[0] < -1], 0.5, rtol=0.01)
    assert np.isnan(density[LINE.centers[0] > 1]).all()


def test_bins_far_from_all_frames_are_unknown() -> None:
    surface = kernel_surface(LINE, [[-1.0]], bandwidth=0.1)(np.ones(1))
    assert np.isnan(surface[LINE.centers[0] > -0.5]).all()
    assert np.isfinite(surface[np.abs(LINE.centers[0] + 1) < 0.3]).all()


def test_more_frames_ask_for_a_narrower_kernel() -> None:
    rng = np.random.default_rng(6)
    widths = []
    for n in (300, 30_000):
        values = rng.normal(0, 0.5, (n, 1))
        widths.append(choose_bandwidth(LINE, values, np.arange(n) * 20 // n)[0])
    # the best for a normal density: 1.06 sigma n^(-1/5)
    np.testing.assert_allclose(widths, [1.06 * 0.5 * n**-0.2 for n in (300, 30_000)], rtol=0.5)
    assert widths[1] < 0.6 * widths[0]


def test_a_bandwidth_of_nothing_is_refused() -> None:
    for wrong in (0.0, (0.1, 0.1), float("nan")):
        with pytest.raises(ValueError, match="the bandwidth is"):
            kernel_surface(LINE, [[0.0]], bandwidth=wrong)


# mean forces


def test_means_in_bins_are_weighted() -> None:
    values, samples = [[0.05], [0.06], [1.5]], [[1.0, 2.0], [4.0, 2.0], [7.0, 0.0]]
    field = bin_mean_field(LINE, values, samples)(np.array([2.0, 1.0, 0.0]))
    assert field.shape == (40, 2)
    np.testing.assert_allclose(field[20], [2, 2])
    assert np.isnan(np.delete(field, 20, 0)).all()


def field_of(grid: Grid) -> Floats:
    """Return minus the gradient of ``wells``."""
    x, y = mesh(grid)
    along = 4 * np.sin(2 * x) - 0.5 * np.cos(x) - 0.7 * np.sin(x)
    return np.stack([along, -3 * np.sin(y)], -1)


@pytest.mark.parametrize("periodic", [True, False])
def test_exact_forces_give_the_exact_surface(periodic: bool) -> None:
    """Within h^2 / 12 of the range of the first derivative: errors fall fourfold with h / 2."""
    apart = []
    for n in (40, 80):
        edges = np.linspace(-PI, PI, n + 1)
        grid = Grid((edges, edges), PERIODS if periodic else (None, None))
        force = field_of(grid)
        found = mean_force_energy(grid, Estimate(force, 0 * force), np.random.default_rng(0))
        assert np.isnan(found.misfit)
        difference = found.energy.value - normalized(wells(grid), grid)
        apart.append(np.abs(difference).max())
    assert apart[0] < 0.05
    assert apart[0] / apart[1] == pytest.approx(4, rel=0.1)


def test_forces_on_a_line() -> None:
    x = LINE.centers[0]
    force = Estimate((-(x**3) + x)[:, None], np.full((40, 1), 0.1))
    found = mean_force_energy(LINE, force, np.random.default_rng(7))
    assert np.isnan(found.misfit)  # a line has no loops
    exact = normalized(x**4 / 4 - x**2 / 2, LINE)
    np.testing.assert_allclose(found.energy.value, exact, atol=0.01)
    # a sum of independent steps of 0.1 times the width: the ends differ by sqrt(39) of them
    ends = found.energy.map(lambda f: f[-1] - f[0]).estimate().error
    assert ends == pytest.approx(0.1 * 0.1 * np.sqrt(38.5), rel=5 / np.sqrt(400))


def test_unknown_bins_and_smaller_parts_are_left_out() -> None:
    force = field_of(PLANE)
    force[10] = np.nan  # a wall: 10 rows on one side of it, 20 on the other
    force[20, 5] = np.nan
    found = mean_force_energy(PLANE, Estimate(force, 0 * force), np.random.default_rng(0))
    known = np.isfinite(found.energy.value)
    assert not known[:11].any()
    assert not known[20, 5]
    assert known[11:].sum() == 19 * 20 - 1
    difference = (found.energy.value - wells(PLANE))[known]
    assert np.ptp(difference) < 0.02  # bins of 0.1, as in the test above


def test_a_curl_is_seen() -> None:
    rng = np.random.default_rng(8)
    force, error = field_of(TORUS), np.full((30, 24, 2), 0.5)
    noisy = force + 0.5 * rng.standard_normal(force.shape)
    assert mean_force_energy(TORUS, Estimate(noisy, error), rng).misfit == pytest.approx(1, abs=0.1)
    noisy[..., 0] += np.sin(mesh(TORUS)[1])
    assert mean_force_energy(TORUS, Estimate(noisy, error), rng).misfit > 1.4


def test_resampled_forces_may_leave_bins_empty() -> None:
    force = field_of(TORUS)
    integrate = mean_force_integrator(TORUS, Estimate(force, 0 * force))
    holes = force.copy()
    holes[3, 4] = np.nan
    np.testing.assert_allclose(integrate(holes), integrate(force))


def test_forces_of_another_shape_or_unknown_throughout_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not \(30, 24, 2\)"):
        mean_force_integrator(TORUS, Estimate(np.zeros((30, 24)), np.zeros((30, 24))))
    nothing = np.full((30, 24, 2), np.nan)
    with pytest.raises(ValueError, match="no bin is known"):
        mean_force_integrator(TORUS, Estimate(nothing, nothing))


# basins


def test_rectangles_cross_the_ends_of_periods() -> None:
    across = Rectangle((3.0, -1.0), (-3.0, 1.0))
    points = np.array([[3.1, 0], [-3.1, 0], [0, 0], [3.1 - 2 * PI, 0.99], [3.1, 1.0], [3.0, -1.0]])
    inside = [True, True, False, True, False, True]
    assert across.contains(points, PERIODS).tolist() == inside
    whole = Rectangle((-PI, -PI), (PI, PI))
    assert whole.contains(points, PERIODS).all()
    straight = Rectangle((0.0,), (1.0,))
    assert straight.contains(np.array([[0.0], [1.0], [-0.1]]), (None,)).tolist() == [
        True,
        False,
        False,
    ]


def test_polygons_and_their_images() -> None:
    """An L whose notch is outside, shifted across the corner of the torus."""
    corners = np.array([[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2]]) + 2.5
    shape = Polygon(tuple(map(tuple, corners)))
    points = np.array([[0.5, 0.5], [1.5, 0.5], [0.5, 1.5], [1.5, 1.5], [-0.1, 1], [3, 0.5]]) + 2.5
    inside = [True, True, True, False, False, False]
    assert shape.contains(points, (None, None)).tolist() == inside
    wrapped = (points + PI) % (2 * PI) - PI
    assert shape.contains(wrapped, PERIODS).tolist() == inside
    assert shape.contains(wrapped, (None, None)).tolist() == [
        True,
        False,
        False,
        False,
        False,
        False,
    ]


def test_a_polygon_has_its_area() -> None:
    points = np.random.default_rng(9).uniform(-PI, PI, (40_000, 2))
    angle = np.linspace(0, 2 * PI, 60, endpoint=False)
    disc = Polygon(tuple(zip(3 + np.cos(angle), -3 + np.sin(angle), strict=True)))
    share = disc.contains(points, PERIODS).mean()
    exact = 30 * np.sin(2 * PI / 60) / (4 * PI**2)
    assert abs(share - exact) < 5 * np.sqrt(exact / 40_000)  # false alarms 6e-7


def test_names_of_several_shapes_and_what_is_in_none() -> None:
    left = [Rectangle((-PI, -PI), (-2, PI)), Rectangle((-1, -PI), (0, PI))]
    regions = {"left": left, "right": Rectangle((-0.5, -PI), (PI, PI))}
    points = [[-3, 0], [-1.5, 0], [-0.2, 0], [1, 0]]
    assert region_of(regions, points, PERIODS).tolist() == [0, -1, 0, 1]
    assert region_of_bins(regions, TORUS).shape == TORUS.shape


def test_populations_and_free_energies() -> None:
    surface = np.array([[0.0, np.log(2)], [np.nan, np.log(4)]])
    regions = np.array([[0, 1], [1, -1]])
    np.testing.assert_allclose(populations(surface, regions, 3), [4 / 7, 2 / 7, 0])
    np.testing.assert_allclose(free_energies([4 / 7, 2 / 7, 0]), [0, np.log(2), np.nan], atol=1e-12)
    shares = frame_populations(np.array([4.0, 2.0, 1.0]), np.array([0, 1, -1]), 2)
    np.testing.assert_allclose(shares, [4 / 7, 2 / 7])


def test_watershed_parts_the_wells_and_joins_ripples() -> None:
    basins = watershed(wells(TORUS), TORUS, depth=0.5)
    assert basins.max() == 1
    x = mesh(TORUS)[0]
    assert (basins[np.abs(x + PI / 2) < 1] == 0).all()  # the lower one, on both sides of y = pi
    assert (basins[np.abs(x - PI / 2) < 1] == 1).all()
    rippled = wells(TORUS) + 0.6 * np.random.default_rng(10).standard_normal(TORUS.shape)
    assert watershed(rippled, TORUS, depth=0.0).max() > 5
    again = watershed(rippled, TORUS, depth=2.0)
    assert again.max() == 1
    assert (again == basins).mean() > 0.9
    assert watershed(wells(TORUS), TORUS, depth=20.0).max() == 0


# paths


def test_the_path_goes_over_the_lower_pass() -> None:
    """The exact barriers lie between the grid's points: within its 0.03 kT."""
    grid = grid_over(np.zeros((1, 2)), PERIODS, 60)
    surface = wells(grid)
    left = mesh(grid)[0] < 0
    start, end = lowest_point(surface, grid, left), lowest_point(surface, grid, ~left)
    path = lowest_path(surface, grid, start, end)
    assert path.points[path.saddle] == pytest.approx((0.0, 0.0), abs=0.2)
    x = np.linspace(-PI, PI, 200_001)
    along = 2 * np.cos(2 * x) + 0.5 * np.sin(x) - 0.7 * np.cos(x)
    low, high = along[x < 0].min(), along[np.abs(x) < 1].max()
    other = along[(x > 0) & (x < 3)].min()
    assert path.barriers == pytest.approx((high - low, high - other), abs=0.03)
    np.testing.assert_allclose(barriers(surface, grid, start, end), path.barriers)
    back = lowest_path(surface, grid, end, start)
    assert back.barriers == path.barriers[::-1]
    steps = np.abs(np.diff(path.points, axis=0)) / grid.volume**0.5
    assert steps.max() < 1.01
    assert len(path.points) == round((end[0] - start[0]) / (2 * PI / 60)) + 1


def test_of_equal_passes_the_path_takes_the_deeper_valleys() -> None:
    """A ridge as high everywhere; a deep valley to one side is worth the way there."""
    surface = np.zeros(PLANE.shape)
    surface[:, 15] = -4.0
    surface[15] = 1.0
    path = lowest_path(surface, PLANE, (0.05, -0.45), (2.95, -0.45))
    assert path.barriers == (1, 1)
    assert path.points[path.saddle] == pytest.approx((1.55, 0.55))


def test_a_path_around_a_wall_crosses_the_end_of_the_period() -> None:
    surface = wells(TORUS)
    surface[14:16] = np.nan
    path = lowest_path(surface, TORUS, (-PI / 2, 0.1), (PI / 2, 0.1))
    assert path.points[path.saddle, 0] == pytest.approx(-PI, abs=0.3)
    assert path.points[-1, 0] == pytest.approx(PI / 2 - 2 * PI, abs=0.2)
    np.testing.assert_allclose(np.abs(np.diff(path.points[:, 0])).max(), 2 * PI / 30)


def test_a_thin_diagonal_wall_is_tight() -> None:
    surface = np.zeros((30, 20))
    for k in range(20):
        surface[5 + k, k] = np.nan
    assert np.isnan(barriers(surface, PLANE, (0.05, 0.5), (2.95, -0.5))).all()
    with pytest.raises(ValueError, match="no path connects"):
        lowest_path(surface, PLANE, (0.05, 0.5), (2.95, -0.5))


def test_a_minimum_is_a_path_to_itself() -> None:
    point = (-PI / 2, 0.1)
    path = lowest_path(wells(TORUS), TORUS, point, point)
    assert path.barriers == (0, 0)
    assert len(path.points) == 1
    assert (barriers(wells(TORUS), TORUS, point, point) == 0).all()


def test_ends_outside_or_unsampled_are_refused() -> None:
    surface = np.zeros(PLANE.shape)
    surface[0, 0] = np.nan
    with pytest.raises(ValueError, match="outside of the grid"):
        lowest_path(surface, PLANE, (5.0, 0.0), (1.0, 0.0))
    with pytest.raises(ValueError, match="unsampled bin"):
        lowest_path(surface, PLANE, (0.05, -0.95), (1.0, 0.0))
    with pytest.raises(ValueError, match="has shape"):
        lowest_path(surface.T, PLANE, (0.5, 0.5), (1.0, 0.0))


def test_paths_in_one_coordinate() -> None:
    surface = LINE.centers[0] ** 4 - 2 * LINE.centers[0] ** 2
    path = lowest_path(surface, LINE, (-1.05,), (1.05,))
    assert path.barriers == pytest.approx((1, 1), abs=0.02)


# profiles and distances


def test_a_profile_integrates_the_other_coordinate_out() -> None:
    surface = normalized(wells(TORUS), TORUS)
    found = profile(surface, TORUS, 0)
    x, n_y = TORUS.centers[0], 24
    exact = 2 * np.cos(2 * x) + 0.5 * np.sin(x) - 0.7 * np.cos(x)
    line = Grid((TORUS.edges[0],), (2 * PI,))
    np.testing.assert_allclose(found, normalized(exact, line), atol=1e-10)
    assert profile(surface, TORUS, 1).shape == (n_y,)
    with pytest.raises(ValueError, match="axis 2"):
        profile(surface, TORUS, 2)


def test_distances_by_hand() -> None:
    p, q = [2.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]
    assert surface_mse(p, q) == pytest.approx(np.log(2) ** 2 / 2)
    weights = np.array([0.5, 0.375, 0.125, 1e-10]) / 1
    logs = np.log([1, 2, 0.25 / 1e-10, 1])
    assert pmf_error(p, q) == pytest.approx((weights * logs**2).sum() / weights.sum())
    assert np.isnan(surface_mse([1.0, 0.0], [0.0, 1.0]))
    with pytest.raises(ValueError, match="shapes"):
        surface_mse([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="negative anywhere"):
        pmf_error([1.0, -1.0], [1.0, 2.0])


def test_rms_differences_are_aligned_and_cut() -> None:
    one = np.array([0.0, 1.0, 2.0, 10.0, np.nan])
    other = np.array([5.0, 7.0, 6.0, 0.0, 1.0])
    apart = np.array([5.0, 6.0, 4.0])
    assert rms_difference(one, other, below=6) == pytest.approx(apart.std())
    weights = np.array([1.0, 1.0, 2.0, 1.0, 1.0])
    mean = apart @ weights[:3] / 4
    expected = np.sqrt((apart - mean) ** 2 @ weights[:3] / 4)
    assert rms_difference(one, other, below=6, weights=weights) == pytest.approx(expected)


def alanine() -> Floats:
    """Return probabilities of 60 x 60 bins of six broad peaks placed as those of alanine."""
    grid = grid_over(np.zeros((1, 2)), PERIODS, 60)
    at = np.radians([[-69, 153], [-141, 159], [-75, -15], [-135, 9], [57, 27]])
    share = [0.396, 0.263, 0.272, 0.051, 0.017]
    points = grid.points()[:, 0]
    density = np.zeros(3600)
    for center, weight in zip(at, share, strict=True):
        apart = (points - center + PI) % (2 * PI) - PI
        density += weight * np.exp(-(apart**2 / (2 * np.array([0.3, 0.4]) ** 2)).sum(1))
    return (density / density.sum()).reshape(60, 60)


def test_floors_are_those_of_the_published_data() -> None:
    """Independent frames of alanine dipeptide, 60 x 60 bins: 1e4 frames 0.018, 4e5 frames 6e-4
    nats, 0.62 and 0.15 kT^2 (0.22 and 0.053 (kcal/mol)^2): the same within a factor of 2 for a
    model of that surface. JS falls as 1 / n once the occupied bins are full."""
    rng, exact = np.random.default_rng(11), alanine()
    published = {1e4: (0.0177, 0.221 / 0.596**2), 4e5: (0.0006, 0.053 / 0.596**2)}
    for n, expected in published.items():
        for metric, value in zip((jensen_shannon, surface_mse), expected, strict=True):
            floor = sampling_floor(metric, exact, rng, n_samples=n, n_repeats=10)
            assert 0.5 < floor.value / value < 2, (n, metric.__name__, floor.value, value)
            assert floor.error < 0.2 * floor.value


def test_the_floor_of_two_samples_is_the_sum_of_both() -> None:
    rng, exact = np.random.default_rng(12), np.full((10, 10), 0.01)
    one = sampling_floor(surface_mse, exact, rng, n_samples=1e5)
    both = sampling_floor(surface_mse, exact, rng, n_samples=1e5, n_reference=1e5)
    assert one.value == pytest.approx(100 / 1e5, rel=0.1)
    assert both.value == pytest.approx(2 * one.value, rel=0.1)
