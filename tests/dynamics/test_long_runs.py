"""Dynamics on every network, and a run as long as ten hours of sampling water.

Statistical tests accept 4 standard errors, from independent replicas: false alarms once in 16 000.
"""

from __future__ import annotations

import gc
import math
import os
import resource
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from torch import Tensor

from deepcg.analysis.structure.stein import axes, configurational
from deepcg.dynamics.config import DynamicsConfig
from deepcg.dynamics.run import Replicas, run_dynamics, temperature
from deepcg.networks import NETWORKS, SIZES
from deepcg.potentials.beads import NetworkPotential
from deepcg.potentials.priors import Repulsion
from deepcg.potentials.verlet_list import VerletForces
from deepcg.units import BOLTZMANN
from sampling import INTEGRATORS, SamplerState, run, start

F64 = torch.float64
KT = 300 * BOLTZMANN
N, BOX, CUTOFF = 27, 1.3, 0.6
TYPES = torch.arange(N) % 2
MASSES = torch.tensor([18.0, 30.0], dtype=F64)[TYPES]


@pytest.fixture(params=sorted(NETWORKS))
def potential(request: pytest.FixtureRequest) -> NetworkPotential:
    """An untrained network of either kind beside a repulsion, in double precision."""
    torch.manual_seed(2)
    kind = request.param
    network = NETWORKS[kind](CUTOFF, 2, **SIZES[kind]["small"])
    terms = [network, Repulsion(torch.full((2, 2), 0.4), KT)]
    return NetworkPotential(terms, CUTOFF, TYPES).to(F64).requires_grad_(False)


def lattice(n_replicas: int) -> Tensor:
    grid = torch.cartesian_prod(*[torch.arange(3, dtype=F64)] * 3) * BOX / 3
    return grid.repeat(n_replicas, 1, 1)


def forces_of(potential: NetworkPotential) -> VerletForces:
    return VerletForces(potential, torch.eye(3, dtype=F64) * BOX, skin=0.04)


def moved(
    potential: NetworkPotential, n_replicas: int, n_steps: int, every: int, **options: float | str
) -> list[SamplerState]:
    kind, dt = str(options["integrator"]), float(options["dt"])
    forces, generator = forces_of(potential), torch.Generator().manual_seed(5)
    step = INTEGRATORS[kind](forces, MASSES, kT=KT, dt=dt, friction=float(options["friction"]))
    begin = start(forces, lattice(n_replicas), MASSES, kT=KT, generator=generator)
    states = run(step, begin, generator, n_steps=n_steps, every=every)
    return [state for _, state in states]


def test_energy_is_kept_to_second_order_in_dt(potential: NetworkPotential) -> None:
    def spread(dt: float) -> float:
        options = {"integrator": "baoab", "dt": dt, "friction": 0.0}
        states = moved(potential, 1, round(0.4 / dt), 1, **options)
        kinetic = [float((MASSES[:, None] * s.velocities**2).sum() / 2) for s in states]
        total = [float(s.energy[0]) + k for s, k in zip(states, kinetic, strict=True)]
        return float(np.ptp(total))

    assert spread(0.004) / spread(0.002) == pytest.approx(4, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("integrator", "dt", "friction"), [("baoab", 0.004, 5.0), ("overdamped", 0.002, 50.0)]
)
def test_temperatures_of_motion_and_of_places_are_right(
    potential: NetworkPotential, integrator: str, dt: float, friction: float
) -> None:
    replicas = 24
    options = {"integrator": integrator, "dt": dt, "friction": friction}
    states = moved(potential, replicas, 600, 30, **options)[8:]
    if integrator == "baoab":  # the velocities of the other are noise alone
        kinetic = torch.stack([temperature(s, MASSES, dt) for s in states]).mean(0)
        assert abs(float(kinetic.mean()) - 300) < 4 * float(kinetic.std()) / math.sqrt(replicas)
    forces = forces_of(potential)

    def far_and_near(x: Tensor) -> Tensor:
        forces.renew()
        return forces(x)[1]

    sums = np.zeros((2, replicas))
    for state in states[::6]:
        identity = configurational(far_and_near, state.positions, axes(state.positions), KT)
        sums += identity.work, identity.heat
    ratio = sums[0].sum() / sums[1].sum()
    residuals = sums[0] - ratio * sums[1]
    error = residuals.std() * math.sqrt(replicas) / sums[1].sum()
    assert abs(ratio - 1) < 4 * error, f"{ratio} +- {error}"
    assert error < 0.1


def wells(x: Tensor) -> tuple[Tensor, Tensor]:
    """Harmonic wells of 50 kJ/mol/nm^2."""
    return 25 * x.square().sum((1, 2)), -50 * x


@pytest.mark.slow
def test_a_million_steps_hold_temperature_energy_and_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tenth of the steps first: what grows with their number would grow ninefold after them."""
    topology = mdtraj.Topology()
    residue = topology.add_residue("W", topology.add_chain())
    for _ in range(2):
        topology.add_atom("O", mdtraj.element.oxygen, residue)

    def go(ps: float, *, resume: bool) -> object:
        return run_dynamics(
            Replicas(wells, torch.zeros(4, 2, 3), torch.full((2,), 18.0), None, topology),
            DynamicsConfig(ps=ps, equilibration_ps=5.0, interval_ps=0.25, dt=0.005),
            tmp_path / "samples",
            resume=resume,
            checkpoint_seconds=0.5,
        )

    def used() -> tuple[float, int]:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20, len(os.listdir("/proc/self/fd"))

    go(500.0, resume=False)
    memory, files = used()
    summary = go(5000.0, resume=True)
    memory_after, files_after = used()
    log = np.loadtxt(tmp_path / "samples" / "log.csv", delimiter=",", skiprows=1)
    energy = log[:, 3:7].mean(0)  # of each replica
    kinetic = log[:, 7:11].mean(0)
    exact = 4 * 2 * 3 / 2 * KT / 4
    z_energy = (energy.mean() - exact) / (energy.std(ddof=1) / 2)
    z_kinetic = (kinetic.mean() - 300) / (kinetic.std(ddof=1) / 2)
    halves = np.array_split(log, 2)
    drift = abs(halves[1][:, 1].mean() - halves[0][:, 1].mean())
    noise = log[:, 1].std() * math.sqrt(2 * 8 / len(log))  # frames correlate over 8 at most
    with capsys.disabled():
        print(
            f"\n{len(log)} frames, {kinetic.mean():.2f} K (z = {z_kinetic:.1f}), energy "
            f"{energy.mean():.4f} kJ/mol (exact {exact:.4f}, z = {z_energy:.1f}), halves differ by "
            f"{drift:.4f} (noise {noise:.4f}), memory {memory:.1f} -> {memory_after:.1f} MB"
        )
    assert summary.n_frames == 20_000  # type: ignore[attr-defined]
    # 4 replicas: Student's t of 3 degrees of freedom is beyond 12.9 once in 1000
    assert abs(z_energy) < 12.9
    assert abs(z_kinetic) < 12.9
    assert abs(energy.mean() - exact) < 0.02 * exact
    assert abs(kinetic.mean() - 300) < 4
    assert drift < 4 * noise
    assert memory_after - memory < 8
    assert files_after == files
