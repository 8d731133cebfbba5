"""What samples fast, compiled loops in single precision, against plain definitions in double.

Nothing here is a matter of chance: seeds are fixed, and there is no noise in the dynamics.
"""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

from deepcg.geometry.neighbor_list import neighbors
from deepcg.networks import NETWORKS, SIZES
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.potentials.priors import Repulsion
from deepcg.potentials.verlet_list import VerletForces
from deepcg.units import thermal_energy
from sampling import ForceField, baoab, run, start

F64 = torch.float64
KT, CUTOFF, SIDE = thermal_energy(300.0), 0.6, 4
EDGE = SIDE * 0.311  # nm, the density of water
N = SIDE**3
TYPES, MASSES = torch.zeros(N, dtype=torch.long), torch.full((N,), 18.0, dtype=F64)
WITH_LOOPS = [k for k, made in NETWORKS.items() if "plain" in inspect.signature(made).parameters]


def liquid() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    grid = torch.cartesian_prod(*[torch.arange(SIDE, dtype=F64)] * 3) * EDGE / SIDE
    return (grid + 0.06 * torch.rand(N, 3, generator=generator, dtype=F64))[None]


def potential(kind: str, dtype: torch.dtype, *, plain: bool) -> NetworkPotential:
    """Return the same random network in either way, with forces of some hundred kJ/mol/nm."""
    torch.manual_seed(3)
    network = NETWORKS[kind](CUTOFF, 1, **SIZES[kind]["small"], plain=plain).to(F64)
    box = EDGE * torch.eye(3, dtype=F64)[None]
    network.standardize(neighbors(liquid(), box, CUTOFF), TYPES)
    terms = [network, Repulsion(torch.full((1, 1), 0.28), KT)]
    return NetworkPotential(terms, CUTOFF, TYPES).to(dtype).requires_grad_(False)


def forces_of(kind: str, dtype: torch.dtype, *, plain: bool) -> ForceField:
    """Return forces as in sampling, or those of the reference, with fresh lists."""
    of, box = potential(kind, dtype, plain=plain), EDGE * torch.eye(3, dtype=dtype)
    if plain:
        return lambda x: energy_and_forces(of, x, box[None])
    return VerletForces(of, box, skin=0.02)


def energies(kind: str, dtype: torch.dtype, *, plain: bool, steps: int) -> Tensor:
    """Return the total energy a bead along velocity Verlet dynamics, kT."""
    forces = forces_of(kind, dtype, plain=plain)
    masses, generator = MASSES.to(dtype), torch.Generator().manual_seed(4)
    step = baoab(forces, masses, kT=KT, dt=0.004, friction=0.0)
    begin = start(forces, liquid().to(dtype), masses, kT=KT, generator=generator)
    speeds = torch.randn(1, N, 3, generator=torch.Generator().manual_seed(5), dtype=F64)
    begin = type(begin)(
        begin.positions, ((KT / 18) ** 0.5 * speeds).to(dtype), begin.forces, begin.energy
    )
    states = [state for _, state in run(step, begin, generator, n_steps=steps)]
    kinetic = torch.stack([9 * s.velocities.double().square().sum() for s in states])
    return (torch.stack([s.energy[0].double() for s in states]) + kinetic) / N / KT


@pytest.mark.parametrize("kind", WITH_LOOPS)
def test_forces_are_those_of_the_reference(kind: str) -> None:
    _, fast = forces_of(kind, torch.float32, plain=False)(liquid().float())
    _, wanted = forces_of(kind, F64, plain=True)(liquid())
    assert wanted.square().mean().sqrt() > 10  # the comparison is of something
    error = (fast - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
    assert error < 1e-4


@pytest.mark.parametrize("kind", WITH_LOOPS)
def test_energy_drifts_no_faster_than_in_the_reference(kind: str) -> None:
    """Over 1 ps; rounding may add a ten-thousandth of kT a bead and ps to the drift."""
    fast = energies(kind, torch.float32, plain=False, steps=250)
    reference = energies(kind, F64, plain=True, steps=250)
    assert torch.allclose(fast[0], reference[0], rtol=1e-5)
    time = torch.linspace(-0.5, 0.5, 250, dtype=F64)

    def drift(total: Tensor) -> float:
        return float((time * total).sum() / time.square().sum())  # of the straight line, per ps

    assert abs(drift(fast)) < 1.05 * abs(drift(reference)) + 1e-4
    assert float((fast - fast.mean()).std()) < 1.05 * float(reference.std()) + 1e-4
