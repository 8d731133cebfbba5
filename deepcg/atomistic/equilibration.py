"""Molecular dynamics with OpenMM in stages: minimized, at a pressure, at constant volume."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm

from deepcg.atomistic.system import open_context, parse_xml, seed_of
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import InputError
from deepcg.runtime.progress import Progress
from deepcg.units import BOLTZMANN

_CUTOFF = 0.9  # nm, that for which the water models were made, or near it
_SHORTEST = 0.6  # nm: where the box allows less, the user must say so
_BREATHING = 0.93  # a box may shrink to 80 % of its volume before half its edge is the cutoff
_BAROSTAT_EVERY = 10  # steps; at OpenMM's 25 a volume takes twice as long to settle


@dataclass(frozen=True, slots=True)
class Thermostat:
    """A Langevin thermostat and where it runs.

    Parameters
    ----------
    temperature, friction, dt
        K, 1/ps, ps.
    seed
        From which every stage gets its own.
    platform, threads
        As ``open_context`` takes them.
    """

    temperature: float
    friction: float
    dt: float
    seed: int
    platform: openmm.Platform
    threads: int | None

    def context(self, system: openmm.System) -> openmm.Context:
        """Return a new Context of this System."""
        integrator = openmm.LangevinMiddleIntegrator(self.temperature, self.friction, self.dt)
        return open_context(system, integrator, self.platform, self.threads)

    def seed_of(self, stage: str, number: int = 0) -> int:
        """Return a seed of its own for every stage and segment; OpenMM's 0 means any."""
        return seed_of(self.seed, stage, number)


def fitting_cutoff(edge: float, asked: float | None, *, fixed: bool, what: str) -> float:
    """Return the cutoff in nm: the one asked for, or 0.9, or what fits in a box of this edge.

    ``fixed`` tells that the box does not change; ``what`` is what fills it.

    Raises
    ------
    InputError
        The box is too small for the cutoff, or for 0.6 nm where none was asked for.
    """
    longest = edge / 2 * (1.0 if fixed else _BREATHING)
    if asked is None:
        # rounded down: half the edge itself would be refused once it is rounded up
        cutoff = min(_CUTOFF, math.floor(longest * 1000 - 1e-6) / 1000)
        wanted = _SHORTEST
    else:
        cutoff = wanted = asked
    if not 0 < wanted <= min(cutoff, longest):
        raise InputError(
            f"a cutoff of {wanted:g} nm does not fit in a box of {what}, "
            f"{edge:.3f} nm wide: give more molecules, or a cutoff of at most {longest:.3f} nm"
        )
    return cutoff


def minimize(thermostat: Thermostat, system: openmm.System, positions: Doubles) -> openmm.State:
    """Return a state relaxed from positions (n_atoms, 3), nm, with velocities of ``thermostat``."""
    context = thermostat.context(system)
    context.setPositions(positions)
    context.applyConstraints(1e-7)
    context.computeVirtualSites()
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 500)
    context.setVelocitiesToTemperature(thermostat.temperature, thermostat.seed_of("velocities"))
    return state_of(context)


def find_volume(
    thermostat: Thermostat,
    system: openmm.System,
    state: openmm.State,
    *,
    pressure: float,
    n_steps: int,
    progress: Progress,
) -> openmm.State:
    """Return a state at the mean volume of a run at the pressure, its first half left out."""
    barostat = openmm.MonteCarloBarostat(pressure, thermostat.temperature, _BAROSTAT_EVERY)
    barostat.setRandomNumberSeed(thermostat.seed_of("barostat"))
    breathing = copy.deepcopy(system)
    breathing.addForce(barostat)
    context = thermostat.context(breathing)
    restart(context, state, thermostat.seed_of("find volume"))
    what = f"equilibrate at {pressure:g} bar"
    edges = [edge_of(context.getState()) for _ in _steps(context, n_steps, progress, what)]
    volumes = np.power(edges[len(edges) // 2 :] or [edge_of(state)], 3)
    return _resize(context, system, float(np.cbrt(volumes.mean())))


def equilibrate(
    thermostat: Thermostat,
    system: openmm.System,
    state: openmm.State,
    *,
    n_steps: int,
    progress: Progress,
) -> openmm.Context:
    """Return a Context at time 0, ``n_steps`` after a state and in its box."""
    if system.usesPeriodicBoundaryConditions():
        system.setDefaultPeriodicBoxVectors(*state.getPeriodicBoxVectors())
    context = thermostat.context(system)
    restart(context, state, thermostat.seed_of("equilibrate"))
    for _ in _steps(context, n_steps, progress, "equilibrate at constant volume"):
        pass
    at_time_0(context)
    return context


def at_time_0(context: openmm.Context) -> None:
    """Start the clock and the count of steps."""
    context.setTime(0)
    context.setStepCount(0)


def restart(context: openmm.Context, state: openmm.State, seed: int) -> None:
    """Forget all that is not in ``state``: neighbor lists, forces, random streams."""
    context.getIntegrator().setRandomNumberSeed(seed)
    context.reinitialize()
    context.setState(state)


def advance(context: openmm.Context, n_steps: int) -> None:
    """Take steps.

    Raises
    ------
    InputError
        OpenMM cannot.
    """
    try:
        context.getIntegrator().step(n_steps)
    except openmm.OpenMMException as error:
        reason = " ".join(str(error).split())[:150]
        time = context.getTime().value_in_unit(openmm.unit.picosecond)
        raise InputError(
            f"the simulation broke down after {time:.3f} ps ({reason}): try a smaller --dt-fs, "
            f"a smaller --cutoff or more molecules"
        ) from error


def state_of(context: openmm.Context) -> openmm.State:
    """Return all that a run needs to go on."""
    return context.getState(positions=True, velocities=True)


def read_state(path: Path) -> openmm.State:
    """Return a saved State.

    Raises
    ------
    InputError
        It cannot be read, or is something else.
    """
    try:
        return parse_state(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def parse_state(text: str, path: Path) -> openmm.State:
    """Return the State that a text says, read from ``path``.

    Raises
    ------
    InputError
        It says something else.
    """
    return parse_xml(text, openmm.State, path)


def edge_of(state: openmm.State) -> float:
    """Return the length of the first box vector, nm."""
    edge: float = state.getPeriodicBoxVectors()[0][0]._value
    return edge


def checked_energy(state: openmm.State) -> float:
    """Return the potential energy of a state, kJ/mol.

    Raises
    ------
    InputError
        It is not finite.
    """
    potential: float = state.getPotentialEnergy()._value
    if not math.isfinite(potential):
        raise InputError(
            f"the energy is not finite at {state.getTime()._value:g} ps: give a shorter dt_fs"
        )
    return potential


def kinetic_temperature(kinetic: float, system: openmm.System) -> float:
    """Return the temperature in K of a kinetic energy in kJ/mol."""
    moving: int = sum(system.getParticleMass(i)._value > 0 for i in range(system.getNumParticles()))
    constraints: int = system.getNumConstraints()
    degrees = 3 * moving - constraints - 3  # the center of mass stands still
    return 2 * kinetic / (degrees * BOLTZMANN)


def _resize(context: openmm.Context, system: openmm.System, edge: float) -> openmm.State:
    """Move whole molecules apart or together until the box has this edge."""
    whole = context.getState(positions=True, velocities=True, enforcePeriodicBox=True)
    positions = whole.getPositions(asNumpy=True)._value
    scale = edge / edge_of(whole)
    for molecule in context.getMolecules():
        positions[list(molecule)] += (scale - 1) * positions[list(molecule)].mean(0)
    resized = openmm.Context(system, openmm.VerletIntegrator(0.001), context.getPlatform())
    resized.setPeriodicBoxVectors(*(np.eye(3) * edge))
    resized.setPositions(positions)
    resized.setVelocities(whole.getVelocities(asNumpy=True))
    return state_of(resized)


def _steps(
    context: openmm.Context, n_steps: int, progress: Progress, what: str, at_once: int = 250
) -> Iterator[None]:
    """Take steps, yielding now and then."""
    for done in range(0, n_steps, at_once):
        advance(context, min(at_once, n_steps - done))
        progress(min(done + at_once, n_steps), n_steps, what)
        yield
