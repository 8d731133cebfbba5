"""Errors that include the fit: of averages over a model's samples, and of their surfaces.

Everything here is of a particle in a double well, whose free energy is fitted by exact least
squares to forces with noise, and sampled without correlations: the true averages are integrals.
"""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from deepcg.analysis.surfaces.comparison import error_parts_of
from deepcg.analysis.surfaces.estimates import CVSamples, free_energy_surface_of
from deepcg.analysis.surfaces.member_errors import member_deviations, with_fit_error
from deepcg.analysis.surfaces.surface import FreeEnergySurface, load_free_energy_surface
from deepcg.analysis.uncertainty.response import TotalError, fit_variances, total_error
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.stacked import SurfaceStack
from deepcg.training.config import TrainingConfig
from deepcg.training.members import (
    MembersConfig,
    begins_from,
    block_counts,
    drawn_frames,
    refit_config,
)
from deepcg.training.samples import ForceSamples
from deepcg.training.stacked import train_stack
from deepcg.trajectory.frames import CVFrames
from free_energy import Grid

KT = 2.5
X = np.linspace(-1.6, 1.6, 801)
POWERS = np.arange(1, 5)
TRUTH = np.array([1.0, -9.0, 0.0, 5.0])
"""U(x) = x - 9 x^2 + 5 x^4, kJ/mol: wells at about +-1, a barrier of 4 kJ/mol."""

FITS, REFITS = 4, 12
BLOCKS = 20


def energy(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    return x[..., None] ** POWERS @ weights


def draw(weights: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    p = np.exp(-energy(weights, X) / KT)
    x = rng.choice(X, n, p=p / p.sum())
    moved: np.ndarray = x + rng.uniform(-0.5, 0.5, n) * (X[1] - X[0])
    return moved


def average(weights: np.ndarray, observables: np.ndarray) -> np.ndarray:
    p = np.exp(-energy(weights, X) / KT)
    mean: np.ndarray = p @ observables / p.sum()
    return mean


def measured(x: np.ndarray) -> np.ndarray:
    """Return averages to be told: place, width, and the share of the right well."""
    return np.stack([x, x**2, (x > 0).astype(float)], -1)


def least_squares(x: np.ndarray, forces: np.ndarray) -> np.ndarray:
    design = -POWERS * x[:, None] ** (POWERS - 1)
    found: np.ndarray = np.linalg.lstsq(design, forces, rcond=None)[0]
    return found


def ensemble(rng: np.random.Generator, n: int, noise: float, scatter: float) -> np.ndarray:
    """Return weights (n_members, 4): fits with a scatter of training each, then refits of them."""
    x = draw(TRUTH, n, rng)
    # noise that is constant over ten frames: blocks must be longer
    kicks = np.repeat(rng.normal(0, noise, n // 10), 10)
    forces = -(POWERS * x[:, None] ** (POWERS - 1)) @ TRUTH + kicks
    of_training = scatter * rng.normal(0, 1, (FITS, 4))
    fits = least_squares(x, forces) + of_training
    refits = []
    for k in range(REFITS):
        rows = drawn_frames([n], int(rng.integers(2**31)), [BLOCKS]).numpy()
        refits.append(least_squares(x[rows], forces[rows]) + of_training[k % FITS])
    return np.concatenate([fits, refits])


SOURCES = [None] * FITS + [k % FITS for k in range(REFITS)]


def z_of(rng: np.random.Generator, scatter: float, noise: float, n_samples: int) -> np.ndarray:
    members = ensemble(rng, 1000, noise, scatter)
    x = draw(members[0], n_samples, rng)
    seen = measured(x)
    energies = np.stack([energy(member, x) for member in members])
    variances = fit_variances(seen, energies, SOURCES, KT, resampled=False)
    sampling = seen.var(0, ddof=1) / n_samples
    told = np.sqrt(sampling + sum(np.maximum(part, 0) for part in variances.values()))
    found: np.ndarray = (seen.mean(0) - average(TRUTH, measured(X))) / told
    return found


@pytest.mark.parametrize(
    ("scatter", "noise", "n_samples"),
    [(0.0, 8.0, 4_000), (0.3, 0.1, 4_000), (0.0, 0.1, 200), (0.2, 6.0, 2_000)],
    ids=["data", "training", "sampling", "all three"],
)
def test_the_told_error_is_that_of_fits_to_independent_data(
    scatter: float, noise: float, n_samples: int
) -> None:
    """z of 120 independent data sets and samples, in three averages. The told variance is itself
    of 3 degrees of freedom (training) or 11 (data): z is of Student's t then, wider than normal in
    its tails, and its spread is taken from its quartiles, 1 for normal z and 1.13 for t of 3. The
    standard error of that spread is 0.11: 0.7 to 1.5 is left by chance in 1 of 1 000."""
    rng = np.random.default_rng(1)
    z = np.stack([z_of(rng, scatter, noise, n_samples) for _ in range(120)])
    width = np.subtract(*np.quantile(z, (0.75, 0.25), axis=0)) / 1.349
    assert (width > 0.7).all()
    assert (width < 1.5).all()
    assert 0.8 < width.mean() < 1.3


def test_a_change_follows_from_one_member_to_another() -> None:
    """To first order exact: two members that differ by a x shift <x> by -a var(x) / kT."""
    rng = np.random.default_rng(0)
    x = draw(TRUTH, 40_000, rng)
    tilt = np.array([-0.05, 0.05])[:, None] * x
    variance = fit_variances(x[:, None], tilt, [None, None], KT, resampled=False)["training"]
    # of two, +- d: 2 d^2 over one degree of freedom
    assert variance[0] == pytest.approx(2 * (0.05 * x.var() / KT) ** 2, rel=0.02)


def test_the_noise_of_samples_is_no_error_of_the_fit() -> None:
    """Members differ in what has nothing to do with the observable: of 200 trials the mean is zero
    within 4 of its standard errors, where the noise is ten times as large."""
    rng = np.random.default_rng(0)
    found, naive = [], []
    for _ in range(200):
        seen, other = rng.normal(size=(2, 400))
        energies = np.array([-2.0, 2.0])[:, None] * other
        found.append(fit_variances(seen[:, None], energies, [None] * 2, KT, resampled=False))
        naive.append(2 * (np.cov(seen, 2 * other)[0, 1] / KT) ** 2)
    values = np.array([one["training"][0] for one in found])
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(200)
    assert np.mean(naive) > 8 * values.std() / math.sqrt(200)


def test_parts_of_members() -> None:
    values = np.array([[1.0], [3.0], [1.5], [3.1], [0.5]])
    found = member_deviations(values, [None, None, 0, 1, 0], resampled=False)
    np.testing.assert_allclose(found["training"][:, 0], [-1.0, 1.0])
    changes = np.array([0.5, 0.1, -0.5])
    np.testing.assert_allclose(found["data"][:, 0], changes - changes.mean())
    assert list(member_deviations(values, [None] * 5, resampled=True)) == ["data and training"]
    assert member_deviations(values[:1], [None], resampled=False) == {}


def test_a_total_is_told_with_its_parts() -> None:
    error = total_error(np.array([0.3, 0.3, np.nan]), {"data": np.array([0.16, 0.16, 9.0])})
    assert error.total == pytest.approx(0.5)
    assert error.in_words("nm") == "0.5 nm rms (sampling 0.3, data 0.4)"
    hidden = total_error(np.array([0.3]), {"data": np.array([-1e-3])})
    assert hidden == TotalError({"sampling": pytest.approx(0.3), "data": 0.0})
    assert hidden.in_words() == "0.3 rms (sampling 0.3, data hidden by the noise of the samples)"


# surfaces


def plane(
    rng: np.random.Generator, n: int, tilt: np.ndarray
) -> tuple[FreeEnergySurface, CVSamples, np.ndarray]:
    """Return a surface of two straight coordinates, and members that are tilted along the first."""
    values = rng.uniform(0, 1, (n, 2))
    frames = (CVFrames(torch.from_numpy(values), None, None),)
    sampled = CVSamples("CG", ("a", "b"), ("nm", "nm"), (None, None), frames, 300.0, "here")
    edges = np.linspace(0, 1, 9)
    landscape = free_energy_surface_of(sampled, Grid((edges, edges), (None, None)))
    return landscape, sampled, tilt[:, None] * values[:, 0]


def test_members_add_their_errors_to_those_of_samples(tmp_path: Path) -> None:
    """Tilts of +-2 kJ/mol/nm: off the middle by d the error of training is 2 sqrt(2) d."""
    landscape, sampled, energies = plane(np.random.default_rng(0), 20_000, np.array([-2.0, 2.0]))
    found = with_fit_error(landscape, sampled, energies, [None, None], resampled=False)
    parts = found.error_parts
    assert list(parts) == ["data", "sampling", "training"]
    away = np.abs(found.grid.centers[0] - 0.5)[:, None] * np.ones((8, 8))
    inside = slice(2, 6), slice(2, 6)  # the mean over neighbors is off at the edge
    np.testing.assert_allclose(
        parts["training"][inside], 2 * math.sqrt(2) * away[inside], rtol=0.1, atol=0.05
    )
    whole = np.sqrt(parts["sampling"] ** 2 + parts["training"] ** 2)
    # 100 replicates tell the whole to 7 %: 0.3 is 4 standard errors
    np.testing.assert_allclose(found.error[inside], whole[inside], rtol=0.3)
    assert np.array_equal(found.value, landscape.value)
    told = error_parts_of(found, {})
    assert told is not None
    assert told.total > 3 * told.parts["sampling"]
    assert "training" in told.in_words()
    assert error_parts_of(landscape, {}) is None
    found.save(tmp_path / "fes.npz")
    again = load_free_energy_surface(tmp_path / "fes.npz")
    np.testing.assert_allclose(again.error_parts["training"], parts["training"], rtol=1e-3)


def test_one_member_adds_nothing() -> None:
    landscape, sampled, energies = plane(np.random.default_rng(0), 2_000, np.array([1.0]))
    assert with_fit_error(landscape, sampled, energies, [None], resampled=False) is landscape


# which frames members see


def test_members_are_fits_and_refits_in_turn() -> None:
    two = MembersConfig(ensemble=8, resample=True)
    assert [begins_from(two, k) for k in range(8)] == [None, 0, None, 2, 0, 2, 0, 2]
    cold = MembersConfig(ensemble=3, resample=True, common=0)
    assert [begins_from(cold, k) for k in range(3)] == [None] * 3
    assert [begins_from(MembersConfig(ensemble=3), k) for k in range(3)] == [None] * 3


def test_blocks_are_longer_than_what_is_left_correlates() -> None:
    rng = np.random.default_rng(0)
    fast = torch.from_numpy(rng.normal(size=(1000, 4, 3)))
    slow = fast[::100].repeat_interleave(100, 0)
    assert block_counts([fast, slow, fast[:4]], [1000, 1000, 4]) == [20, 2, 1]
    drawn = drawn_frames([1000, 1000], 0, [20, 2])
    assert (drawn.diff() != 1).sum() <= 21  # of 22 blocks 21 are drawn


def test_the_variance_of_few_blocks_is_right() -> None:
    """Of 4 000 draws of three blocks the variance is known to 2.2 %, by 4 of which it may be off;
    with as many draws as blocks it would be by a third."""
    values = torch.tensor([0.0, 1.0, 5.0])
    means = torch.stack([values[drawn_frames([3], seed, [3])].mean() for seed in range(4000)])
    assert float(means.var()) == pytest.approx(float(values.var()) / 3, rel=0.1)


# networks


@pytest.mark.slow
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "refits"])
def test_resampled_networks_tell_the_error_of_fits_to_independent_data(warm: bool) -> None:
    """60 data sets of one torsion, each fitted and refitted to eight draws of its blocks, cold from
    other random weights or from the fit in a quarter of the steps.

    z at 24 places, less the mean; of eight refits it is t of 7 degrees of freedom, whose spread is
    1.18, by which it is divided. U has some 5 independent components in 60 sets: the spread of z is
    known to 4 %, and 0.8 to 1.2 leaves out 1 in 10^5. Refits, by the benchmark, have 0.94 of the
    error of data and none of training's, which is added from the other fits of the set.
    """
    turn, sets, frames, refits, noise = 2 * math.pi, 60, 400, 8, 12.0
    generator = torch.Generator().manual_seed(0)
    x = turn * (torch.rand(sets * frames, 1, generator=generator) - 0.5)
    force = 8 * x.sin() + 6 * (2 * x).sin()  # of U = 8 cos x + 3 cos 2 x
    values = force + noise * torch.randn(x.shape, generator=generator)
    samples = ForceSamples(x, values, torch.full((1,), noise))
    training = TrainingConfig(
        steps=400, batch_size=128, learning_rate=2e-2, final_ratio=1e-3, validations=1
    )

    def trained(
        members: list[CVPotential], rows: list[torch.Tensor], seeds: list[int], how: TrainingConfig
    ) -> list[CVPotential]:
        return train_stack(members, samples, samples[:64], how, seeds=seeds, drawn=rows)[0]

    def fresh(seed: int) -> CVPotential:
        torch.manual_seed(seed)
        u = CVPotential((turn,), widths=(12, 12))
        u.standardize(x, values)
        return u

    own = [torch.arange(k * frames, (k + 1) * frames) for k in range(sets)]
    first, second = (list(range(a, a + sets)) for a in (1000, 2000))
    fits = trained([fresh(s) for s in first + second], own + own, first + second, training)
    seeds = [5000 + k for k in range(sets * refits)]
    rows = [own[k // refits][drawn_frames([frames], s)] for k, s in enumerate(seeds)]
    begun = [copy.deepcopy(fits[k // refits]) if warm else fresh(s) for k, s in enumerate(seeds)]
    how = refit_config(training, MembersConfig()) if warm else training
    found = trained(begun, rows, seeds, how)
    places = torch.linspace(-math.pi, math.pi, 25)[:-1, None]
    energies = SurfaceStack(fits + found)(places).detach().double().numpy()
    energies -= energies.mean(1, keepdims=True)
    truth = (8 * places.cos() + 3 * (2 * places).cos())[:, 0].double().numpy()
    plain, others = energies[:sets], energies[sets : 2 * sets]
    variance = energies[2 * sets :].reshape(sets, refits, -1).var(1, ddof=1)
    if warm:
        variance = variance + ((plain - others) ** 2 / 2).mean(0)
    z = (plain - truth) / np.sqrt(variance)
    assert 0.8 < math.sqrt((z**2).mean() * 5 / 7) < 1.2
