"""Means, errors and distances of series whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from free_energy import (
    block_average,
    block_count,
    jensen_shannon,
    mean_of_blocks,
    statistical_inefficiency,
)

N_REPEATS = 200


def ar1(rho: float, n: int, seed: int, repeats: int = 1) -> NDArray[np.float64]:
    """Return (repeats, n) series of mean 0 and variance 1 with rho(t) = rho**t."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((repeats, n)) * np.sqrt(1 - rho**2)
    noise[:, 0] /= np.sqrt(1 - rho**2)
    return np.asarray(lfilter([1.0], [1.0, -rho], noise, axis=1))


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_inefficiency_of_an_autoregressive_series_is_known(rho: float) -> None:
    exact = (1 + rho) / (1 - rho)
    found = [statistical_inefficiency(s) for s in ar1(rho, 4000, seed=1, repeats=N_REPEATS)]
    # the cut at the first negative pair biases by some per cent at n / g > 200
    assert np.mean(found) == pytest.approx(exact, rel=0.08)


def test_inefficiency_of_constant_and_alternating_series_is_one() -> None:
    assert statistical_inefficiency(np.full(50, 3.3)) == 1.0
    assert statistical_inefficiency(np.tile([1.0, -1.0], 50)) == 1.0


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("n_blocks", [None, 20])
def test_block_errors_are_of_the_right_size(rho: float, n_blocks: int | None) -> None:
    series = ar1(rho, 4000, seed=2, repeats=N_REPEATS)
    z = np.empty(N_REPEATS)
    for k, values in enumerate(series):
        mean = block_average(values, n_blocks=n_blocks)
        z[k] = float(mean.value) / float(mean.error)
    # std(z) has the standard error 0.05-0.06: the band is 3 to 4 of them; mean: 4
    assert 0.8 < z.std() < 1.2
    assert abs(z.mean()) < 4 / np.sqrt(N_REPEATS)


def test_block_errors_of_many_series_are_those_of_each() -> None:
    series = ar1(0.7, 1000, seed=3, repeats=6).T.reshape(1000, 2, 3)
    together = block_average(series, n_blocks=16)
    alone = block_average(series[:, 1, 2], n_blocks=16)
    assert together.value.shape == together.error.shape == (2, 3)
    assert together.error[1, 2] == pytest.approx(float(alone.error), rel=1e-12)


def test_blocks_are_long_against_the_correlation_and_never_fewer_than_eight() -> None:
    assert block_count(1000, 1.0) == 32
    assert block_count(1000, 20.0) == 10
    assert block_count(1000, 500.0) == 8
    assert block_count(5, 1.0) == 5


def test_weighted_blocks_give_the_pooled_ratio_and_its_error() -> None:
    rng = np.random.default_rng(4)
    z = np.empty(N_REPEATS)
    for k in range(N_REPEATS):
        counts = rng.poisson(50, 24).astype(float)
        hits = rng.binomial(counts.astype(int), 0.3)
        ratio = mean_of_blocks(hits / counts, counts)
        assert float(ratio.value) == pytest.approx(hits.sum() / counts.sum(), rel=1e-12)
        z[k] = (float(ratio.value) - 0.3) / float(ratio.error)
    assert 0.8 < z.std() < 1.2  # 4 standard errors of std(z)
    assert abs(z.mean()) < 4 / np.sqrt(N_REPEATS)


def test_jensen_shannon_is_zero_for_equal_and_ln_2_for_disjoint_histograms() -> None:
    assert jensen_shannon([1, 2, 3], [2, 4, 6]) == pytest.approx(0.0, abs=1e-15)
    assert jensen_shannon([1, 1, 0, 0], [0, 0, 5, 1]) == pytest.approx(np.log(2), rel=1e-12)


def test_jensen_shannon_of_two_coins_is_known() -> None:
    # p = (1, 0), q = (1/2, 1/2): (ln(4/3) + ln(2/3)/2 + ln(2)/2) / 2
    exact = (np.log(4 / 3) + np.log(2 / 3) / 2 + np.log(2) / 2) / 2
    assert jensen_shannon([1, 0], [1, 1]) == pytest.approx(exact, rel=1e-12)
    assert jensen_shannon([1, 1], [1, 0]) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistical_inefficiency([1.0, 2.0]), "not \\(n,\\)"),
        (lambda: block_average([1.0, 2.0, 3.0]), "too few"),
        (lambda: block_average(np.arange(9.0), n_blocks=1), "1 blocks of 9"),
        (lambda: mean_of_blocks(np.ones((3, 2)), np.zeros(3)), "no weight"),
        (lambda: jensen_shannon([1, -1], [1, 1]), "negative"),
        (lambda: jensen_shannon([1, 1], [1, 1, 1]), "shapes"),
    ],
)
def test_impossible_requests_are_refused(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=message):
        call()
