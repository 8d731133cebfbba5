"""A pair spline is solved: as NumPy does, in any batches, and of pairs nothing is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from deepcg.networks import PairSpline
from deepcg.networks.base import LinearNetwork
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.potentials.priors import Repulsion
from deepcg.runtime.errors import InputError
from deepcg.training import least_squares
from deepcg.training.least_squares import normal_equations, solutions, solve
from deepcg.training.loss import force_error
from deepcg.training.samples import ForceSamples, prepare
from deepcg.trajectory.frames import Frames

CUTOFF, N = 0.6, 27
TYPES = torch.arange(N) % 2


def liquid(n_frames: int, noise: float, box: float | None = 1.35) -> Frames:
    """Soft spheres of two kinds with noise on their forces, in single precision."""
    generator = torch.Generator().manual_seed(3)
    grid = torch.cartesian_prod(*[torch.arange(3.0)] * 3) * 0.45
    positions = grid + 0.2 * torch.rand(n_frames, N, 3, generator=generator)
    boxes = None if box is None else box * torch.eye(3).expand(n_frames, 3, 3)
    _, forces = energy_and_forces(soft_spheres, positions, boxes)
    return Frames(
        positions, boxes, forces + noise * torch.randn(forces.shape, generator=generator), TYPES
    )


def soft_spheres(positions: Tensor, box: Tensor | None) -> Tensor:
    d = positions[:, :, None] - positions[:, None]
    if box is not None:
        edge = box[:, 0, 0][:, None, None, None]
        d = d - edge * (d / edge).round()
    r = (d.square().sum(-1) + torch.eye(N)).sqrt()
    strength = 20.0 * (1 + TYPES[:, None] + TYPES)
    return 0.5 * (strength * (1 - r / 0.55).clamp(min=0) ** 4 * (1 - torch.eye(N))).sum((1, 2))


def potential(*terms: torch.nn.Module, seed: int = 0) -> NetworkPotential:
    torch.manual_seed(seed)
    return NetworkPotential([PairSpline(CUTOFF, 2, n_knots=14), *terms], CUTOFF, TYPES)


def samples(frames: Frames, u: NetworkPotential) -> tuple[ForceSamples, ForceSamples]:
    found = prepare(u, frames)
    return found[: len(found) * 4 // 5], found[len(found) * 4 // 5 :]


def test_features_times_weights_are_the_forces() -> None:
    u = potential()
    seen = prepare(u, liquid(3, 0.0)).seen
    network = u.terms[0]
    assert isinstance(network, LinearNetwork)
    features = network.force_features(replace(seen, displacement=seen.displacement.double()), TYPES)
    weights = torch.randn(features.shape[3], dtype=torch.float64)
    network.set_weights(weights)
    wanted = u.forces(seen)[1].double()
    rounding = 1e-5 * float(wanted.abs().max())  # of sums in single precision
    torch.testing.assert_close(features @ weights, wanted, rtol=0, atol=rounding)


def test_the_solution_is_that_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Normal equations lose the square of the condition number, which the ridge bounds."""
    monkeypatch.setattr(least_squares, "NUMBERS_AT_ONCE", 10_000)  # batches of two frames
    u = potential()
    training, _ = samples(liquid(20, 30.0), u)
    network, ridge = u.terms[0], 1e-4
    seen = training.seen
    exact = replace(seen, displacement=seen.displacement.double())
    x = network.force_features(exact, TYPES).flatten(0, 2).numpy()
    y = training.forces.double().flatten().numpy()
    p = network.roughness().numpy()
    scale = np.trace(x.T @ x) / np.trace(p)
    root = np.sqrt(ridge * scale) * np.linalg.cholesky(p).T
    both, zeros = np.concatenate([x, root]), np.zeros(len(p))
    wanted = np.linalg.lstsq(both, np.concatenate([y, zeros]), rcond=None)[0]
    (found,) = solutions(normal_equations(network, u, training), network.roughness(), [ridge])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())


def test_nothing_is_left_of_a_pair_potential() -> None:
    """The error of cubic splines of 0.018 nm: relative to the forces, its cube, 1e-3 squared."""
    torch.manual_seed(0)
    u = NetworkPotential([PairSpline(CUTOFF, 2, n_knots=24)], CUTOFF, TYPES)
    training, held_out = samples(liquid(60, 0.0), u)
    _, validation = solve(u, training, held_out)
    assert validation < 1e-5 * float(held_out.forces.var())
    assert abs(float(force_error(u, held_out).mean()) - validation) < 0.1 * validation + 1e-4


def test_noise_is_left_and_hardly_more() -> None:
    """42 weights of 48 * 81 numbers: the error on others is (1 + p/n) times the noise; 4 standard
    errors of 972 numbers, which fail once in 16 000."""
    u = potential()
    training, held_out = samples(liquid(60, 30.0), u)
    _, validation = solve(u, training, held_out)
    assert abs(validation / 30.0**2 - 1 - 42 / 3888) < 4 * (2 / 972) ** 0.5


def test_members_do_not_depend_on_the_weights_that_they_begin_with() -> None:
    one, other = potential(seed=1), potential(seed=2)
    for u in (one, other):
        solve(u, *samples(liquid(20, 30.0), u))
    assert torch.equal(one.terms[0].coefficients, other.terms[0].coefficients)


def test_the_repulsion_is_taken_off_first() -> None:
    walls = Repulsion(torch.full((2, 2), 0.35), 2.5)
    u, plain = potential(walls), potential()
    frames = liquid(40, 0.0)
    of_walls = NetworkPotential([walls], CUTOFF, TYPES)
    _, extra = energy_and_forces(of_walls, frames.positions, frames.box)
    solve(plain, *samples(frames, plain))
    shifted = replace(frames, forces=frames.forces + extra)
    solve(u, *samples(shifted, u))
    one, other = (p.terms[0].coefficients.detach() for p in (u, plain))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_weights_of_components_count() -> None:
    """Frames without weight change nothing."""
    u, half = potential(), potential()
    training, held_out = samples(liquid(40, 30.0), u)
    weights = torch.ones_like(training.forces)
    weights[16:] = 0
    solve(u, replace(training, weights=weights), held_out, ridges=[1e-6])
    scale = normal_equations(u.terms[0], u, replace(training, weights=weights)).gram
    torch.testing.assert_close(scale, normal_equations(u.terms[0], u, training[:16]).gram)
    solve(half, training[:16], held_out, ridges=[1e-6])
    torch.testing.assert_close(u.terms[0].coefficients, half.terms[0].coefficients)


def test_correlated_noise_is_weighed() -> None:
    """One bead's noise of 300 must not spoil what the others tell: with weights the error is that
    of the rest, tens of times less."""
    found = []
    exact, noisy = liquid(200, 0.0, None), liquid(200, 1.0, None)
    loud = noisy.forces.clone()
    loud[:, 0] += 300 * torch.randn(200, 3, generator=torch.Generator().manual_seed(5))
    for noise in (False, True):
        u = potential()
        solve(u, *samples(replace(noisy, forces=loud), u), noise=noise)
        found.append(float(force_error(u, prepare(u, exact)).mean()))
    assert found[1] < found[0] / 10


def test_what_is_not_linear_or_not_finite_is_refused() -> None:
    u = potential()
    training, held_out = samples(liquid(10, 1.0), u)
    broken = training.forces.clone()
    broken[3, 3, 0] = torch.nan
    with pytest.raises(InputError, match="finite"):
        solve(u, replace(training, forces=broken), held_out)
    u.terms[0].requires_grad_(False)
    with pytest.raises(InputError, match="linear"):
        solve(u, training, held_out)
