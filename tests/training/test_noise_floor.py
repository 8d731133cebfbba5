"""The noise floor against noise of known size; z is a distance in standard errors.

Tests of a single z accept |z| < 4: by chance one in 16 000 fails with a new seed. The spread of z
over 100 repeats is known to 7 %: a right one leaves 0.75 to 1.3 less than once in 2000 times. The
seeds are fixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepcg.runtime.errors import InputError
from deepcg.training.noise_floor import CrossFit, close_frames, cross_fit

Array = NDArray[np.float64]
PERIODS = (2 * math.pi, 2 * math.pi)
NOISE = np.array([9.0, 25.0])  # variances


def torus(n: int, seed: int, *, correlated: bool = False) -> tuple[Array, Array]:
    """Return wandering (phi, psi) with the forces of a known U and noise of variance `NOISE`.

    The noise is stronger where cos(phi) > 0, or else remembered over about 5 frames.
    """
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.normal(0, 0.7, (n, 2)), axis=0)
    phi, psi = x.T
    mean = np.stack([8 * np.sin(phi) + 4 * np.cos(phi + psi), 6 * np.sin(2 * psi)], 1)
    noise = np.sqrt(NOISE) * rng.normal(size=(n, 2))
    if not correlated:
        return x, mean + noise * np.sqrt(1 + np.cos(phi))[:, None]
    for k in range(1, n):
        noise[k] = 0.8 * noise[k - 1] + 0.6 * noise[k]
    return x, mean + noise


def test_close_frames_find_the_variance_with_an_honest_error():
    found = [close_frames(*torus(2000, seed), PERIODS).floor for seed in range(100)]
    z = np.stack([(e.value - NOISE) / e.error for e in found])
    assert ((z.std(0) > 0.75) & (z.std(0) < 1.3)).all(), z.std(0)
    assert (np.abs(z.mean(0)) < 0.4).all(), z.mean(0)  # 4 standard errors of the mean
    assert np.mean([e.error / NOISE for e in found]) < 0.08


def test_the_error_is_honest_where_few_neighbors_make_the_line():
    z = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        values, noise = rng.uniform(-3, 3, (800, 2)), rng.normal(size=(800, 2))
        floor = close_frames(values, noise, PERIODS, neighbors=3).floor
        z.append((floor.value - 1) / floor.error)
    spread = np.std(z, 0)
    assert ((spread > 0.75) & (spread < 1.3)).all(), spread


def test_the_mean_force_is_no_noise_but_for_the_nearest_frames():
    x = np.random.default_rng(1).uniform(-3, 3, (4000, 2))
    found = close_frames(x, 10 * np.sin(x), PERIODS)
    assert (found.nearest > 0.02).all()
    assert (np.abs(found.floor.value) < found.nearest / 4).all()


def test_noise_that_lasts_is_not_missed():
    """Neighbors in time have alike noise: pairs of them would make it look small."""
    values, forces = torus(4000, 3, correlated=True)
    found = close_frames(values, forces, PERIODS, blocks=20).floor
    assert (np.abs(found.value - NOISE) < 4 * found.error).all()


def test_the_period_is_part_of_the_coordinate():
    values, forces = torus(1000, 1)
    turned = (values + math.pi) % (2 * math.pi) - math.pi
    here, there = (close_frames(v, forces, PERIODS).floor for v in (values, turned))
    np.testing.assert_allclose(here.value, there.value, rtol=1e-9)
    degrees = close_frames(np.degrees(values), forces, (360.0, 360.0)).floor
    np.testing.assert_allclose(degrees.value, here.value, rtol=1e-9)


def test_a_distance_beside_a_dihedral():
    rng = np.random.default_rng(4)
    values = np.stack([0.01 * rng.normal(size=3000), rng.uniform(-3, 3, 3000)], 1)
    forces = (-2000 * values[:, 0] + 10 * np.sin(values[:, 1]) + rng.normal(0, 3, 3000))[:, None]
    found = close_frames(values, forces, (None, 2 * math.pi)).floor
    assert abs(found.value[0] - 9) < 4 * found.error[0] < 0.1 * 4 * 9


@pytest.mark.parametrize(
    ("shape", "periods", "message"),
    [
        ((200, 7), (None,) * 7, "7 coordinates are too many"),
        ((99, 2), (None, None), "99 frames in 20 blocks"),
        ((200, 2), (None,), r"shape \(200, 2\) for 1 periods"),
    ],
)
def test_what_cannot_be_used_is_refused(
    shape: tuple[int, int], periods: tuple[None, ...], message: str
):
    values = np.random.default_rng(0).normal(size=shape)
    with pytest.raises(InputError, match=message):
        close_frames(values, values, periods)


def test_a_coordinate_that_never_changes_is_refused():
    values = np.stack([np.arange(200.0), np.full(200, 7.0)], 1)
    with pytest.raises(InputError, match="coordinate 1 is 7 in all frames"):
        close_frames(values, values, (None, None))


@dataclass(frozen=True)
class Rows:
    """Samples of a linear regression."""

    features: Tensor
    forces: Tensor

    def __len__(self) -> int:
        return len(self.forces)

    def __getitem__(self, frames: slice) -> Rows:
        return Rows(self.features[frames], self.forces[frames])

    def fit(self, n_used: int) -> Tensor:
        used = self.features[:, :n_used]
        return torch.linalg.lstsq(used, self.forces).solution

    def error(self, weights: Tensor) -> float:
        used = self.features[:, : len(weights)]
        return float((self.forces - used @ weights).square().mean())


def regression(n: int, seed: int, noise: float = 2.0) -> Rows:
    """Return n frames of 3 force components: 60 features of weight 1, and noise."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 60, generator=generator, dtype=torch.float64)
    clean = features.sum(1, keepdim=True).expand(n, 3)
    return Rows(features, clean + noise * torch.randn(n, 3, generator=generator).double())


def crossed(weights: tuple[Tensor, Tensor], rest: Rows) -> CrossFit:
    first, second = (lambda s, w=weights[k]: s.features[:, : len(w)] @ w for k in range(2))
    return cross_fit(first, second, rest, chunk=33)


def test_two_halves_find_the_variance_where_one_fit_does_not():
    """p / N = 1/2 in each half: training and validation errors are far from symmetric."""
    halves, rest = [regression(120, 1), regression(120, 2)], regression(4000, 3)
    weights = halves[0].fit(60), halves[1].fit(60)
    found = crossed(weights, rest)
    assert abs(found.floor.value - 4) < 4 * found.floor.error
    assert found.floor.error < 0.2
    true = [float((w - 1).square().mean(1).sum()) for w in (w.T.T for w in weights)]
    assert abs(found.spread.value - np.mean(true)) < 0.3 * np.mean(true)
    middle = (halves[0].error(weights[0]) + rest.error(weights[0])) / 2
    assert middle > 4.5


def test_one_fit_is_enough_where_parameters_are_few():
    data, rest = regression(6000, 1), regression(6000, 2)
    weights = data.fit(60)
    middle = (data.error(weights) + rest.error(weights)) / 2
    assert abs(middle / 4 - 1) < 4 * math.sqrt(2 / (2 * 3 * 6000))


def test_what_both_fits_cannot_represent_counts_as_noise():
    halves, rest = [regression(600, 1), regression(600, 2)], regression(4000, 3)
    found = crossed((halves[0].fit(57), halves[1].fit(57)), rest)
    assert abs(found.floor.value - (4 + 3)) < 4 * found.floor.error + 0.1  # 3 features are hidden


def test_the_error_of_cross_fitting_is_honest():
    weights = regression(120, 1).fit(60), regression(120, 2).fit(60)
    exact = 4 + float(((weights[0] - 1) * (weights[1] - 1)).sum(0).mean())
    found = [crossed(weights, regression(300, 10 + seed)).floor for seed in range(100)]
    z = [(e.value - exact) / e.error for e in found]
    assert 0.75 < np.std(z) < 1.3
    assert abs(np.mean(z)) < 0.4


def test_too_few_held_out_frames_are_refused():
    with pytest.raises(InputError, match="15 held-out frames are too few"):
        crossed((torch.ones(60, 3).double(), torch.ones(60, 3).double()), regression(15, 1))
