"""MBAR on runs whose densities are known, and against pymbar's own surfaces."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pymbar
import pytest
from numpy.typing import NDArray

from free_energy import Grid, bootstrap, histogram_surface, time_blocks
from free_energy.mbar import mbar_weighting, mbar_weights

Floats = NDArray[np.float64]

SPRING, CENTERS = 4.0, np.linspace(-2.5, 2.5, 6)
COUNTS = [4_000, 2_000, 3_000, 3_000, 2_500, 3_500]
GRID = Grid((np.linspace(-2.5, 2.5, 26),), (None,))


def springs(x: Floats) -> Floats:
    return SPRING / 2 * (x - CENTERS[:, None]) ** 2


def windows(seed: int) -> list[Floats]:
    """Return frames of a normal density under each spring: normal too."""
    rng = np.random.default_rng(seed)
    stiff = 1 + SPRING
    return [
        rng.normal(SPRING * c / stiff, stiff**-0.5, n) for c, n in zip(CENTERS, COUNTS, strict=True)
    ]


def test_weights_give_the_density_without_a_bias() -> None:
    """z of 25 bins of a normal density: rms within 0.7 and 1.4 (false alarms below 1 %, and
    the error by the bootstrap of single frames); 4 standard deviations out, F is 8 kT."""
    runs = windows(1)
    x = np.concatenate(runs)
    weighting = mbar_weighting(springs(x), COUNTS)
    surface = histogram_surface(GRID, x[:, None])
    strata = np.repeat(np.arange(6), COUNTS)
    blocks = time_blocks([run[:, None] for run in runs], (None,), fewest=30)
    rng = np.random.default_rng(2)
    found = bootstrap(lambda m: surface(weighting(m)), blocks, rng, strata=strata).estimate()
    fine = GRID.points(9)[..., 0]
    exact = -np.log(np.exp(-(fine**2) / 2).mean(1))
    exact += np.log(np.exp(-exact).sum() * GRID.volume)
    z = (found.value - exact) / found.error
    assert 0.7 < np.sqrt((z**2).mean()) < 1.4
    assert found.error.max() < 0.2


def test_the_equations_are_solved_as_pymbar_solves_them() -> None:
    x = np.concatenate(windows(3))
    bias = springs(x)
    weights = mbar_weights(bias, COUNTS)
    assert weights.sum() == pytest.approx(1)
    engine = pymbar.MBAR(bias, COUNTS, solver_protocol=({"method": "adaptive"},))
    inverse = np.exp(engine.f_k[:, None] - bias).T @ np.array(COUNTS)
    np.testing.assert_allclose(weights, 1 / inverse / (1 / inverse).sum(), rtol=1e-6)


def test_correlated_runs_count_less() -> None:
    """A run in which every frame is there 10 times, of inefficiency 10, is as if once."""
    runs = windows(4)
    plain = mbar_weights(springs(np.concatenate(runs)), COUNTS)
    runs[2] = runs[2].repeat(10)
    counts = [len(run) for run in runs]
    worth = [1, 1, 10, 1, 1, 1]
    found = mbar_weights(springs(np.concatenate(runs)), counts, inefficiencies=worth)
    first = sum(COUNTS[:2])
    copies = found[first : first + 10 * COUNTS[2]].reshape(-1, 10)
    np.testing.assert_allclose(copies.sum(1), plain[first : first + COUNTS[2]], rtol=1e-6)
    np.testing.assert_allclose(found[:first], plain[:first], rtol=1e-6)


def test_frames_that_count_twice_are_as_if_there_twice() -> None:
    runs = windows(5)
    x = np.concatenate(runs)
    times = np.ones(len(x))
    times[: COUNTS[0]] = 2.0
    found = mbar_weighting(springs(x), COUNTS)(times)
    doubled = np.concatenate([runs[0], x])
    again = mbar_weights(springs(doubled), [2 * COUNTS[0], *COUNTS[1:]])
    expected = np.concatenate([2 * again[: COUNTS[0]], again[2 * COUNTS[0] :]])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    gone = mbar_weighting(springs(x), COUNTS)(np.where(np.arange(len(x)) == 7, 0.0, 1.0))
    assert gone[7] == 0


def test_one_run_is_reweighted_by_its_bias() -> None:
    x = np.linspace(-1, 1, 50)
    weights = mbar_weights(x[None] ** 2, [50])
    np.testing.assert_allclose(weights, np.exp(x**2) / np.exp(x**2).sum())


def test_large_biases_do_not_overflow() -> None:
    x = np.concatenate(windows(6))
    weights = mbar_weights(springs(x) + 2_000.0, COUNTS)
    np.testing.assert_allclose(weights, mbar_weights(springs(x), COUNTS), rtol=1e-6)


def test_wrong_arguments_are_refused() -> None:
    bias = np.zeros((2, 5))
    with pytest.raises(ValueError, match=r"shape \(2, 5\), not \(2, 6\)"):
        mbar_weights(bias, [3, 3])
    with pytest.raises(ValueError, match="not finite"):
        mbar_weights(np.full((2, 5), np.inf), [3, 2])
    with pytest.raises(ValueError, match="at least 1"):
        mbar_weights(bias, [3, 2], inefficiencies=[1.0, 0.5])


def test_the_import_is_silent() -> None:
    """pymbar's own tells of an accelerator that is not there."""
    done = subprocess.run(
        [sys.executable, "-c", "import free_energy.mbar"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_surface_against_that_of_pymbar() -> None:
    """The same histogram by pymbar.FES, to the digits of its solver, at the same free energies;
    its analytic errors of differences to one bin and ours by bootstrap within 30 % of each
    other: 100 draws and 30 blocks a window leave a spread of 8 %."""
    runs = windows(7)
    x = np.concatenate(runs)
    bias = springs(x)
    reduced = x**2 / 2 + bias
    edges = np.linspace(-2.5, 2.5, 11)
    grid = Grid((edges,), (None,))
    fes = pymbar.FES(reduced, COUNTS, mbar_options={"solver_protocol": ({"method": "adaptive"},)})
    fes.generate_fes(x**2 / 2, x, fes_type="histogram", histogram_parameters={"bin_edges": edges})
    middle = grid.centers[0]
    told = fes.get_fes(
        middle,
        reference_point="from-specified",
        fes_reference=middle[5],
        uncertainty_method="analytical",
    )
    weighting, surface = mbar_weighting(bias, COUNTS), histogram_surface(grid, x[:, None])
    strata = np.repeat(np.arange(6), COUNTS)
    blocks = time_blocks([run[:, None] for run in runs], (None,), fewest=30)
    found = bootstrap(
        lambda m: surface(weighting(m)), blocks, np.random.default_rng(8), strata=strata
    ).map(lambda f: f - f[5])
    np.testing.assert_allclose(found.value, told["f_i"], atol=1e-5)
    others = np.arange(10) != 5
    ratio = found.estimate().error[others] / told["df_i"][others]
    assert (np.abs(np.log(ratio)) < np.log(1.3)).all(), ratio
