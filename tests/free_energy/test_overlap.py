"""Runs that do not overlap are refused, with the pair that is apart: harmonic windows, exactly."""

from __future__ import annotations

import logging

import numpy as np
import pymbar
import pytest
from numpy.typing import NDArray

from free_energy.mbar import mbar_weights
from free_energy.overlap import overlap_of

Floats = NDArray[np.float64]


def windows(
    centers: list[float], n: int, seed: int = 0, spring: float = 1.0
) -> tuple[Floats, list[int]]:
    """Return the bias (K, N) of springs at frames without any other energy: normal ones."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(c, spring**-0.5, n) for c in centers])
    return np.array([spring / 2 * (x - c) ** 2 for c in centers]), [n] * len(centers)


@pytest.mark.parametrize("apart", [8.0, 12.0, 40.0, 400.0])
def test_two_windows_apart_are_refused(apart: float) -> None:
    with pytest.raises(
        ValueError, match=r"run 1 and run 2 share \S+ independent .* do not overlap"
    ):
        mbar_weights(*windows([0, apart], 500))


@pytest.mark.parametrize("apart", [0.0, 1.0, 2.0, 3.0, 4.0])
def test_windows_that_overlap_are_taken_in_silence(
    apart: float, caplog: pytest.LogCaptureFixture
) -> None:
    """17 frames in common at 4 standard deviations: the error is 0.24 kT."""
    mbar_weights(*windows([0, apart], 500))
    assert not caplog.records


def test_a_little_overlap_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        mbar_weights(*windows([0, 5], 500), names=["low.npz", "high.npz"])
    (record,) = caplog.records
    assert "low.npz and high.npz share" in record.getMessage()
    assert "an error of 0." in record.getMessage()


def test_three_windows_in_two_islands_name_the_gap() -> None:
    with pytest.raises(ValueError, match=r"run 2 and run 3 share .* run 1, run 2 \| run 3"):
        mbar_weights(*windows([0, 1, 11], 500))


def test_a_long_chain_of_good_windows_is_no_false_alarm(caplog: pytest.LogCaptureFixture) -> None:
    """Its second eigenvalue is 0.997: that alone must not refuse it."""
    mbar_weights(*windows([1.5 * k for k in range(40)], 200))
    assert not caplog.records


def test_a_chain_without_one_link_is_refused_there() -> None:
    centers = [1.5 * k for k in range(20) if k not in (10, 11, 12, 13)]
    with pytest.raises(ValueError, match="run 10 and run 11 share"):
        mbar_weights(*windows(centers, 200))


def test_windows_near_enough_with_too_few_frames_are_refused() -> None:
    """5 standard deviations apart: 500 frames are enough for an answer, 10 are not."""
    with pytest.raises(ValueError, match="do not overlap"):
        mbar_weights(*windows([0, 5], 10))
    bias, counts = windows([0, 3], 40)
    mbar_weights(bias, counts)
    with pytest.raises(ValueError, match="do not overlap"):  # worth one frame each
        mbar_weights(bias, counts, inefficiencies=[40.0, 40.0])


def test_many_equal_runs_overlap() -> None:
    mbar_weights(*windows([0.0] * 50, 20))


def test_the_matrix_is_pymbars_and_the_error_follows_the_shared_frames() -> None:
    bias, counts = windows([0, 2, 4], 400)
    engine = pymbar.MBAR(bias, counts, solver_protocol=({"method": "adaptive"},))
    theirs = engine.compute_overlap()
    terms = 400 * np.exp(engine.f_k[:, None] - bias)
    found = overlap_of(terms / terms.sum(0), np.ones(1200), np.repeat([0, 1, 2], 400))
    np.testing.assert_allclose(found.matrix, theirs["matrix"], atol=1e-6)
    assert found.gap == pytest.approx(theirs["scalar"], abs=1e-6)
    bias, counts = windows([0, 3], 400)
    engine = pymbar.MBAR(bias, counts, solver_protocol=({"method": "adaptive"},))
    terms = 400 * np.exp(engine.f_k[:, None] - bias)
    pair = overlap_of(terms / terms.sum(0), np.ones(800), np.repeat([0, 1], 400))
    error = engine.compute_free_energy_differences()["dDelta_f"][0, 1]
    assert np.sqrt(1 / pair.shared - 2 / 400) == pytest.approx(error, rel=0.02)
