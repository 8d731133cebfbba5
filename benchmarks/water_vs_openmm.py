"""Nanoseconds a day of a coarse-grained water and of the atoms that it replaces.

Steps a model of 216 oxygens (alone, and replicas together) and OpenMM's TIP3P of as many molecules
(PME, rigid, 2 fs) on the same cores, in turn.
python benchmarks/water_vs_openmm.py RUN [time step in ps] [threads]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit
from side_by_side import header, medians

import sampling
from deepcg.atomistic.water_box import box_edge, water_box, water_system
from deepcg.compute.allocator import keep_freed_memory
from deepcg.potentials.model_file import load_model
from deepcg.potentials.verlet_list import force_field
from deepcg.units import thermal_energy
from deepcg.workflow.fit.run_folder import starts

MOLECULES, ATOM_STEP_PS, REPLICAS = 216, 0.002, (1, 8, 32)
STEPS = {"OpenMM": 300, 1: 200, 8: 40, 32: 10}
SKIN = 0.08


def main(run: Path, dt: float, threads: int) -> None:
    """Print milliseconds a step, ns/day, and ratios."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    work: dict[str, Callable[[], object]] = {"OpenMM TIP3P": atoms(threads)}
    for n in REPLICAS:
        work[f"CG, {n} x {MOLECULES} beads"] = beads(run, n, dt)
    times = medians(work)
    print(header(f"water of {run}, {dt * 1000:g} fs, against OpenMM TIP3P, 2 fs"))
    counts = (STEPS["OpenMM"], *(STEPS[n] for n in REPLICAS))
    rates = []
    for (name, seconds), n_steps, n in zip(times.items(), counts, (1, *REPLICAS), strict=True):
        step = ATOM_STEP_PS if name.startswith("OpenMM") else dt
        rates.append(n * n_steps * step / 1000 / (seconds / 86_400))
        print(
            f"{name:22s}{1e3 * seconds / n_steps:8.2f} ms/step"
            f"{1e6 * seconds / n_steps / n / MOLECULES:8.2f} us/molecule"
            f"{rates[-1]:9.0f} ns/day {rates[-1] / rates[0]:7.2f}"
        )


def context_of(threads: int) -> openmm.Context:
    """Return TIP3P under way."""
    edge = box_edge(MOLECULES, 0.997)
    topology, positions = water_box("tip3p", MOLECULES, edge, np.random.default_rng(0))
    system = water_system("tip3p", topology, cutoff=0.9, flexible=False)
    system.setDefaultPeriodicBoxVectors(*(edge * np.eye(3)))
    return under_way(system, positions, ATOM_STEP_PS, threads, 1000)


def under_way(
    system: openmm.System, positions: NDArray[np.float64], dt: float, threads: int, n_steps: int
) -> openmm.Context:
    """Return a System at 300 K on the CPU, relaxed from positions in nm and some steps on."""
    integrator = openmm.LangevinMiddleIntegrator(300, 1, dt)
    cpu = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(system, integrator, cpu, {"Threads": str(threads)})
    context.setPositions(positions * unit.nanometer)
    openmm.LocalEnergyMinimizer.minimize(context, 10, 200)
    context.setVelocitiesToTemperature(300, 0)
    context.getIntegrator().step(n_steps)
    return context


def atoms(threads: int) -> Callable[[], object]:
    """Return what takes steps of TIP3P."""
    context = context_of(threads)
    # the context must live as long as its integrator is used
    return lambda: context.getIntegrator().step(STEPS["OpenMM"])


def beads(run: Path, n: int, dt: float) -> Callable[[], object]:
    """Return what takes steps of n replicas of a model."""
    cpu = torch.device("cpu")
    model = load_model(run, cpu)
    model.potential.requires_grad_(False)
    frames, box = starts(run, model, cpu)
    start = frames[torch.arange(n) % len(frames)].clone()
    forces, kT = force_field(model.potential, box, skin=SKIN), thermal_energy(300.0)
    generator, masses = torch.Generator().manual_seed(0), model.masses.to(start)
    step = sampling.INTEGRATORS["baoab"](forces, masses, kT=kT, dt=dt, friction=1.0)
    state = sampling.start(forces, start, masses, kT=kT, generator=generator)

    def advance() -> None:
        nonlocal state
        for _ in range(STEPS[n]):
            state = step(state, generator)

    advance()
    return advance


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        float(sys.argv[2]) if len(sys.argv) > 2 else 0.01,
        int(sys.argv[3]) if len(sys.argv) > 3 else 2,
    )
