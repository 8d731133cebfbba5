"""Nanoseconds a day of alanine dipeptide without its water, many at once, and of one with it.

Moves replicas of a model of all 22 atoms of the solute at the time step that `deepcg sample` takes
(equal masses), and OpenMM's explicit water (342 TIP3P, PME, hydrogens of 3 Da) at those that
`deepcg simulate alanine` takes: 2 fs, and 4 fs with rigid bonds to hydrogen. In turn, on the same
threads. Prints ns/day of all replicas together, and how many times that of explicit water at 2 fs.

    python benchmarks/alanine_replicas.py RUN [threads]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import openmm
import torch
from side_by_side import header, medians
from water_vs_openmm import under_way

import sampling
from deepcg.atomistic.alanine.molecule import alanine, alanine_system, solvated
from deepcg.compute.allocator import keep_freed_memory
from deepcg.dynamics.config import DynamicsConfig
from deepcg.dynamics.time_step import fastest, time_step
from deepcg.potentials.model_file import load_model
from deepcg.potentials.verlet_list import VerletForces
from deepcg.units import thermal_energy
from deepcg.workflow.fit.run_folder import starts
from deepcg.workflow.sample import FREQUENCY_FRAMES, SampleConfig

WATERS, EDGE, CUTOFF = 342, 2.3238, 0.9
ATOM_STEPS = {"none": 0.002, "hbonds": 0.004}
N_ATOM_STEPS = 150
REPLICA_STEPS = {1: 300, 32: 60, 256: 10, 1024: 3}


def main(run: Path, threads: int) -> None:
    """Print milliseconds a step, ns/day, and ratios."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    dt, work = safe_step(run), {}
    days: dict[str, float] = {}
    for constraints, step in ATOM_STEPS.items():
        name = f"OpenMM, {step * 1000:g} fs, constraints: {constraints}"
        work[name] = explicit(constraints, step, threads)
        days[name] = N_ATOM_STEPS * step / 1000
    for n, steps in REPLICA_STEPS.items():
        name = f"CG, {dt * 1000:.2f} fs, replicas: {n}"
        work[name] = replicas(run, n, dt, steps)
        days[name] = n * steps * dt / 1000
    times = medians(work)
    print(header(f"alanine dipeptide of {run}"))
    rates = {name: ns * 86_400 / times[name] for name, ns in days.items()}
    first = next(iter(rates.values()))
    for name, rate in rates.items():
        print(f"{name:40s}{rate:10.0f} ns/day {rate / first:8.2f}")


def safe_step(run: Path) -> float:
    """Return the time step of ``deepcg sample``, ps."""
    forces, frames, masses = model_of(run)
    some = frames[torch.linspace(0, len(frames) - 1, FREQUENCY_FRAMES).round().long()]
    return time_step(fastest(forces, some, masses), DynamicsConfig().interval_ps)


def model_of(run: Path) -> tuple[VerletForces, torch.Tensor, torch.Tensor]:
    """Return forces, frames to start from, and equal masses."""
    cpu = torch.device("cpu")
    model = load_model(run, cpu)
    model.potential.requires_grad_(False)
    frames, box = starts(run, model, cpu)
    masses = model.masses.to(frames)
    forces = VerletForces(model.potential, box, skin=SampleConfig(run).skin)
    return forces, frames, masses.mean().expand(len(masses)).clone()


def replicas(run: Path, n: int, dt: float, n_steps: int) -> Callable[[], object]:
    """Return what takes steps of n replicas."""
    advance = moving(run, n, dt)
    advance(n_steps)
    return lambda: advance(n_steps)


def moving(run: Path, n: int, dt: float) -> Callable[[int], torch.Tensor]:
    """Return what takes so many steps of n replicas, and gives their positions (n, beads, 3)."""
    forces, frames, masses = model_of(run)
    kT, generator = thermal_energy(300.0), torch.Generator().manual_seed(0)
    step = sampling.INTEGRATORS["baoab"](forces, masses, kT=kT, dt=dt, friction=1.0)
    begin = frames[torch.arange(n) % len(frames)]
    state = sampling.start(forces, begin, masses, kT=kT, generator=generator)

    def advance(n_steps: int) -> torch.Tensor:
        nonlocal state
        for _ in range(n_steps):
            state = step(state, generator)
        return state.positions

    return advance


def explicit(constraints: str, dt: float, threads: int) -> Callable[[], object]:
    """Return what takes steps of the solute in water."""
    context = explicit_context(constraints, dt, threads)
    # the context must live as long as its integrator is used
    return lambda: context.getIntegrator().step(N_ATOM_STEPS)


def explicit_context(constraints: str, dt: float, threads: int) -> openmm.Context:
    """Return the solute in water, under way without a bias."""
    topology, positions = alanine(-1.2, 2.6)
    topology, positions = solvated("ff99sb", topology, positions, waters=WATERS, edge=EDGE)
    system = alanine_system(
        "ff99sb",
        "explicit",
        topology,
        constraints=constraints,
        hydrogen_mass=3.0,
        cutoff=CUTOFF,
    )
    return under_way(system, positions, dt, threads, 500)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
