"""Forces that are known better count more: the least variance that least squares can have."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from deepcg.networks import PairSpline
from deepcg.potentials.beads import NetworkPotential
from deepcg.training.config import BATCH, MOLECULE_BATCH, TrainingConfig, TrainingError
from deepcg.training.noise_weighting import LEAST, NoiseWeighting
from deepcg.training.samples import prepare, settled
from deepcg.training.trainer import train
from deepcg.trajectory.frames import Frames

CUTOFF, N_FRAMES = 0.6, 1200
TYPES = torch.zeros(5, dtype=torch.long)
CONFIG = TrainingConfig(steps=1000, batch_size=16, learning_rate=0.5, validations=4)


def covariance() -> Tensor:
    """One bead is hardly pushed, and two are pushed apart."""
    c = torch.diag(torch.tensor([30.0, 400.0, 600.0, 600.0, 300.0]).double() ** 2)
    c[2, 3] = c[3, 2] = -0.9 * 600.0**2
    return c


def noise(n_frames: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    independent = torch.randn(n_frames, 5, 3, generator=generator, dtype=torch.float64)
    return torch.linalg.cholesky(covariance()) @ independent


def molecules(n_frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    corners = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]) * 0.3
    return corners + 0.2 * torch.rand(n_frames, 5, 3, generator=generator)


def potential(seed: int = 0) -> NetworkPotential:
    torch.manual_seed(seed)
    return NetworkPotential([PairSpline(CUTOFF, 1, n_knots=12)], CUTOFF, TYPES)


@pytest.fixture(scope="module")
def true() -> NetworkPotential:
    u = potential()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        u.terms[0].coefficients.copy_(
            20 * torch.randn(u.terms[0].coefficients.shape, generator=generator)
        )
    return u


@pytest.fixture(scope="module")
def frames(true: NetworkPotential) -> Frames:
    x = molecules(N_FRAMES)
    exact = true.forces(prepare(true, Frames(x, None, x, TYPES)).seen)[1]
    return Frames(x, None, exact + noise(N_FRAMES).float(), TYPES)


def columns(u: NetworkPotential, frames: Frames) -> Tensor:
    """Return the forces (n_frames, 5, 3, n) of a unit of each coefficient: U is linear in them."""
    seen, found = prepare(u, frames).seen, []
    weights = u.terms[0].coefficients
    for k in range(weights.numel()):
        with torch.no_grad():
            weights.zero_().view(-1)[k] = 1.0
        found.append(u.forces(seen)[1].double())
    return torch.stack(found, -1)


def expected_errors(frames: Frames) -> tuple[float, float]:
    """Return the rms errors of the mean force by least squares, even and of least variance."""
    x = columns(potential(), frames).transpose(1, 2).flatten(0, 1)  # (3 n_frames, 5, n)
    c = covariance()
    plain = torch.linalg.pinv(torch.einsum("fbi,fbj->ij", x, x), rtol=1e-9)
    of_even = plain @ torch.einsum("fbi,bc,fcj->ij", x, c, x) @ plain
    of_noise = torch.linalg.pinv(
        torch.einsum("fbi,bc,fcj->ij", x, torch.linalg.inv(c), x), rtol=1e-9
    )
    errors = [torch.einsum("fbi,ij,fbj->fb", x, v, x).mean().sqrt() for v in (of_even, of_noise)]
    return float(errors[0]), float(errors[1])


def fitted_error(frames: Frames, true: NetworkPotential, weighting: str) -> float:
    u = potential()
    samples = prepare(u, frames)
    train(u, samples, samples[:10], replace(CONFIG, weighting=weighting))
    exact, found = true.forces(samples.seen)[1], u.forces(samples.seen)[1]
    return float((found - exact).square().mean().sqrt())


def test_the_error_is_the_least_that_the_noise_allows(
    frames: Frames, true: NetworkPotential
) -> None:
    """An rms over some ten coefficients scatters by 1 / sqrt(20) of itself: within 4 of these."""
    even, least = expected_errors(frames)
    assert least < even / 4
    assert fitted_error(frames, true, "auto") < least * (1 + 4 / 20**0.5)
    assert fitted_error(frames, true, "even") > even * (1 - 3 / 20**0.5)


def test_noise_of_the_covariance_becomes_even_and_independent() -> None:
    """Each of 15 entries within 5 standard errors (false alarms: 1 in 100 000)."""
    weighting, drawn = NoiseWeighting(noise(20_000)), noise(20_000, seed=1)
    weighting.covariance = covariance()
    weighed = weighting.weigh(drawn)
    rows = weighed.transpose(0, 1).flatten(1)
    found = rows @ rows.T / rows.shape[1]
    mean = covariance().diagonal().mean()
    kept = covariance() + LEAST * mean * torch.eye(5)  # what is made even
    lower = torch.linalg.inv(torch.linalg.cholesky(kept))
    expected = mean * lower @ covariance() @ lower.T
    assert ((found - expected).abs() < 5 * (2 / rows.shape[1]) ** 0.5 * mean).all()
    assert expected.diagonal().min() > 0.5 * mean


def test_the_covariance_follows_the_errors() -> None:
    """From zero to that of the noise, each entry within 5 standard errors (1 in 100 000)."""
    weighting = NoiseWeighting(torch.zeros(10, 5, 3))
    assert torch.isfinite(weighting.weigh(torch.zeros(2, 5, 3))).all()
    for k in range(800):
        weighting.follow(noise(8, seed=k))
    scale = covariance().diagonal().sqrt()
    difference = (weighting.covariance - covariance()) / scale / scale[:, None]
    error = (2 / (24 * 200)) ** 0.5  # a memory of 0.99 is worth 200 batches
    assert difference.abs().max() < 5 * error


def test_an_interrupted_training_ends_bit_for_bit_alike(frames: Frames, tmp_path) -> None:
    config = replace(CONFIG, steps=60)
    whole, halves = potential(), potential()
    samples = prepare(whole, frames)
    train(whole, samples, samples[:10], config)
    checkpoint = tmp_path / "checkpoint.pt"

    def stop(record) -> None:
        if record.step >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(halves, samples, samples[:10], config, report=stop, checkpoint=checkpoint)
    resumed = potential(seed=5)  # other weights: all must come from the checkpoint
    train(resumed, samples, samples[:10], config, checkpoint=checkpoint, resume=True)
    assert torch.equal(whole.terms[0].coefficients, resumed.terms[0].coefficients)
    even = replace(config, weighting="even")
    with pytest.raises(TrainingError, match="other settings"):
        train(resumed, samples, samples[:10], even, checkpoint=checkpoint, resume=True)


def test_only_molecules_are_weighed(frames: Frames) -> None:
    samples = prepare(potential(), frames)
    boxed = replace(frames, box=1.5 * torch.eye(3).expand(len(frames), 3, 3))
    liquid = prepare(potential(), boxed)
    weighing = replace(CONFIG, steps=1, weighting="noise")
    train(potential(), samples, samples[:10], weighing)
    with pytest.raises(TrainingError, match="--weighting noise is for instantaneous forces on one"):
        train(potential(), liquid, liquid[:10], weighing)
    labels = replace(samples, weights=torch.ones_like(samples.forces))
    with pytest.raises(TrainingError, match="choose even"):
        train(potential(), labels, samples[:10], weighing)
    train(potential(), liquid, liquid[:10], replace(CONFIG, steps=1))


def test_steps_see_more_frames_of_a_molecule(frames: Frames) -> None:
    boxed = replace(frames, box=1.5 * torch.eye(3).expand(len(frames), 3, 3))
    sizes = [settled(TrainingConfig(), prepare(potential(), x)).batch_size for x in (boxed, frames)]
    assert sizes == [BATCH, MOLECULE_BATCH] == [8, 32]
