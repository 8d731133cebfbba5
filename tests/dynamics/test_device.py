"""Sampling of hundreds of replicas on a CUDA device, without a way back to the host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from deepcg.geometry.neighbor_list import all_pairs, find_pairs
from deepcg.networks import NETWORKS, SIZES
from deepcg.potentials.beads import NetworkPotential
from deepcg.potentials.priors import Repulsion
from deepcg.potentials.torch_compile import CompiledPotential
from deepcg.potentials.verlet_list import VerletForces
from deepcg.training.loss import matmul_change
from deepcg.training.samples import prepare
from deepcg.trajectory.frames import Frames
from deepcg.units import thermal_energy
from sampling import baoab, start

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

REPLICAS, MANY, N, EDGE, CUTOFF = 300, 1000, 64, 1.3, 0.5
KT = thermal_energy(300.0)


def liquid(n_replicas: int = REPLICAS, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(*[torch.arange(4.0)] * 3) * EDGE / 4
    return grid + 0.06 * torch.rand(n_replicas, N, 3, generator=generator)


def two_types(kind: str) -> NetworkPotential:
    """A potential on the device, with walls that some beads are inside."""
    torch.manual_seed(0)
    types = torch.arange(N) % 2
    network = NETWORKS[kind](CUTOFF, 2, **SIZES[kind]["small"])
    walls = Repulsion(torch.tensor([[0.28, 0.3], [0.3, 0.29]]), KT)
    potential = NetworkPotential([network, walls], CUTOFF, types)
    pairs = find_pairs(liquid(2), EDGE * torch.eye(3).expand(2, 3, 3), CUTOFF)
    network.standardize(potential.environments(liquid(2), pairs.with_types(types)), types)
    return potential.cuda().requires_grad_(False)


def assert_same_forces(
    found: tuple[torch.Tensor, torch.Tensor], wanted: tuple[torch.Tensor, torch.Tensor]
) -> None:
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-3, atol=1e-2)


@contextmanager
def no_waiting() -> Iterator[None]:
    """Refuse whatever waits for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_lists_made_on_the_device_are_those_of_the_host() -> None:
    box = EDGE * torch.eye(3).expand(REPLICAS, 3, 3)
    wanted = all_pairs(liquid(), box, CUTOFF)
    found = find_pairs(liquid().cuda(), box.cuda(), CUTOFF)
    assert found.index.is_cuda
    assert torch.equal(found.count.cpu(), wanted.count)
    assert torch.equal(found.index.cpu(), wanted.index)
    torch.testing.assert_close(found.shift.cpu(), wanted.shift)


def test_steps_of_hundreds_of_replicas_do_not_wait_for_the_host() -> None:
    """Between renewals of the list the only wait is the question whether one is due.

    Waits are refused while the energy, the forces and a step are worked out; the question is asked
    outside.
    """
    torch.manual_seed(0)
    kind = "deeppot-se-l"
    network = NETWORKS[kind](CUTOFF, 1, **SIZES[kind]["small"])
    terms = [network, Repulsion(torch.full((1, 1), 0.2), KT)]
    potential = NetworkPotential(terms, CUTOFF, torch.zeros(N, dtype=torch.long)).cuda()
    potential.requires_grad_(False)
    forces = VerletForces(potential, EDGE * torch.eye(3).cuda(), skin=0.05)
    masses, generator = torch.full((N,), 18.0).cuda(), torch.Generator("cuda").manual_seed(2)
    state = start(forces, liquid().cuda(), masses, kT=KT, generator=generator)
    assert forces.pairs is not None
    pairs = forces.pairs
    step = baoab(lambda x: potential.all_forces(x, pairs), masses, kT=KT, dt=1e-4, friction=1.0)
    state = step(state, generator)  # what is set up once may wait
    with no_waiting():
        for _ in range(5):
            state = step(state, generator)
    assert state.positions.is_cuda
    assert bool(torch.isfinite(state.energy).all())
    _, wanted = forces(state.positions)
    torch.testing.assert_close(state.forces, wanted, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("kind", ["deeppot-se", "deeppot-se-l"])
def test_a_compiled_potential_has_the_same_forces(kind: str) -> None:
    """At other positions and with other lists, which a CUDA graph must not have by heart.

    The first call sets up, the second records a graph, all others repeat it.
    """
    potential, box = two_types(kind), EDGE * torch.eye(3).cuda()
    compiled = CompiledPotential(potential, pytest.fail)
    results = []
    for seed in range(1, 6):
        positions = liquid(REPLICAS, seed).cuda()
        pairs = find_pairs(positions, box.expand(REPLICAS, 3, 3), CUTOFF + 0.03)
        pairs = pairs.with_types(potential.types)
        found = compiled.all_forces(positions, pairs)
        results.append((found, potential.all_forces(positions, pairs)))
    for found, wanted in results:  # those of the first calls are still theirs
        assert_same_forces(found, wanted)


def test_compiled_steps_of_a_thousand_replicas_do_not_wait_for_the_host() -> None:
    """Waits are refused while the energy, the forces and a step are worked out; see above."""
    potential = two_types("deeppot-se-l")
    compiled = CompiledPotential(potential, pytest.fail)
    forces = VerletForces(compiled, EDGE * torch.eye(3).cuda(), skin=0.05)
    masses, generator = torch.full((N,), 18.0).cuda(), torch.Generator("cuda").manual_seed(2)
    state = start(forces, liquid(MANY).cuda(), masses, kT=KT, generator=generator)
    assert forces.pairs is not None
    pairs = forces.pairs
    step = baoab(lambda x: compiled.all_forces(x, pairs), masses, kT=KT, dt=1e-4, friction=1.0)
    for _ in range(3):  # what sets up and records a graph may wait
        state = step(state, generator)
    with no_waiting():
        for _ in range(5):
            state = step(state, generator)
    assert bool(torch.isfinite(state.energy).all())
    wanted = potential.all_forces(state.positions, pairs)
    assert_same_forces((state.energy, state.forces), wanted)


@pytest.mark.parametrize("matmul", ["high", "medium"])
def test_fast_products_change_the_forces_by_less_than_a_percent(matmul: str) -> None:
    """Without labels the mean error is the mean square of the forces themselves."""
    potential = two_types("deeppot-se")
    box = EDGE * torch.eye(3).expand(REPLICAS, 3, 3)
    frames = Frames(liquid(), box, torch.zeros(REPLICAS, N, 3), torch.arange(N) % 2)
    samples = prepare(potential, frames.to("cuda", torch.float32))
    before = torch.get_float32_matmul_precision()
    assert abs(matmul_change(potential, samples, matmul)) < 1e-2
    assert torch.get_float32_matmul_precision() == before
