"""Sampling of hundreds of replicas on a CUDA device, without a way back to the host."""

from __future__ import annotations

import pytest
import torch

from deepcg.neighbors import all_pairs, find_pairs
from deepcg.networks import NETWORKS, SIZES
from deepcg.potential import NetworkPotential, VerletForces
from deepcg.priors import Repulsion
from deepcg.units import thermal_energy
from sampling import baoab, start

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

REPLICAS, N, EDGE, CUTOFF = 300, 64, 1.3, 0.5
KT = thermal_energy(300.0)


def liquid() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    grid = torch.cartesian_prod(*[torch.arange(4.0)] * 3) * EDGE / 4
    return grid + 0.06 * torch.rand(REPLICAS, N, 3, generator=generator)


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
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            state = step(state, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert state.positions.is_cuda
    assert bool(torch.isfinite(state.energy).all())
    _, wanted = forces(state.positions)
    torch.testing.assert_close(state.forces, wanted, rtol=1e-3, atol=1e-2)
