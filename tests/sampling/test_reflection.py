"""Chains that are kept where a measure of their positions is small."""

import math

import pytest
import torch

import sampling
from sampling import LimitExceeded, ReflectingLimit, baoab


def spring(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return U = x^2 / 2 and its force; kT = 1 below."""
    return 0.5 * x.square().sum((-2, -1)), -x


def largest(x: torch.Tensor) -> torch.Tensor:
    return x.abs().amax((-2, -1))


def begun(n: int, spread: float) -> tuple[sampling.SamplerState, torch.Generator, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    masses = torch.ones(1, dtype=torch.float64)
    positions = spread * (torch.rand(n, 1, 1, generator=generator, dtype=torch.float64) - 0.5)
    state = sampling.start(spring, positions, masses, kT=1.0, generator=generator)
    return state, generator, masses


def test_what_is_sampled_is_the_boltzmann_distribution_within_the_limit() -> None:
    """A Gaussian cut at +-1 has <x^2> = 1 - 2 phi(1) / erf(1 / sqrt 2) = 0.2911. 300 chains of 140
    times 1, with correlations of about 1: one standard error is 0.27 / sqrt(40 000) = 0.0014; the
    error of the integrator is dt^2 / 12 of it and less."""
    state, generator, masses = begun(300, 2.0)
    fence = ReflectingLimit(largest, 1.0, every=4, reflect=True)
    step = fence.step(baoab(spring, masses, kT=1.0, dt=0.1, friction=1.0))
    squares = []
    for n in range(1, 1601):
        state = step(state, generator)
        if n % 4 == 0:
            assert float(state.positions.abs().max()) <= 1.0
            if n > 200:
                squares.append(float(state.positions.square().mean()))
    assert sum(squares) / len(squares) == pytest.approx(0.2911, abs=0.006)
    assert 0 < int(fence.turned) < 300 * 400
    # velocities are not those of a wall that cools or heats
    assert float(state.velocities.square().mean()) == pytest.approx(1.0, abs=4 * math.sqrt(2 / 300))


def test_a_chain_that_is_turned_back_is_where_it_was_with_its_velocity_reversed() -> None:
    state, generator, masses = begun(2, 0.0)
    fast = sampling.SamplerState(
        state.positions, torch.tensor([[[9.0]], [[0.1]]]).double(), state.forces, state.energy
    )
    fence = ReflectingLimit(largest, 1.0, every=3, reflect=True)
    step = fence.step(baoab(spring, masses, kT=1.0, dt=0.1, friction=0.0))
    after = fast
    for _ in range(3):
        after = step(after, generator)
    assert float(after.velocities[0]) == -9.0
    assert float(after.positions[0]) == 0.0
    assert float(after.velocities[1]) > 0


def test_a_chain_beyond_the_limit_stops_all() -> None:
    state, generator, masses = begun(3, 0.0)
    fence = ReflectingLimit(largest, 0.5, every=2, reflect=False)
    step = fence.step(baoab(spring, masses, kT=1.0, dt=0.1, friction=1.0))
    steps = sampling.run(step, state, generator, n_steps=200)
    with pytest.raises(LimitExceeded) as stopped:
        list(steps)
    assert stopped.value.value > 0.5
    assert stopped.value.taken % 2 == 0
    outside, generator, masses = begun(3, 4.0)
    again = ReflectingLimit(largest, 0.5, every=2, reflect=True)
    with pytest.raises(LimitExceeded):
        again.step(baoab(spring, masses, kT=1.0, dt=0.1, friction=1.0))(outside, generator)


def test_it_goes_on_from_its_memory() -> None:
    def fresh() -> ReflectingLimit:
        return ReflectingLimit(largest, 0.8, every=3, reflect=True)

    state, generator, masses = begun(20, 1.0)
    dynamics = baoab(spring, masses, kT=1.0, dt=0.1, friction=1.0)
    whole = fresh()
    step = whole.step(dynamics)
    for _ in range(10):
        state = step(state, generator)
    middle, noise, memory = state, generator.get_state(), whole.get_state()
    for _ in range(10):
        state = step(state, generator)
    resumed = fresh()
    resumed.set_state(memory)
    generator.set_state(noise)
    again = resumed.step(dynamics)
    for _ in range(10):
        middle = again(middle, generator)
    assert torch.equal(middle.positions, state.positions)
    assert int(resumed.turned) == int(whole.turned)
