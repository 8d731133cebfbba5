"""Restrained dynamics: coarse coordinates are held while all other motion goes on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import openmm
import torch
from torch import Tensor

from deepcg.atomistic.restraints import LEFT
from deepcg.atomistic.system import open_context
from deepcg.potentials.priors.system_forces import WITHOUT_ENERGY
from deepcg.runtime.arrays import Booleans, Doubles
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames

_CHUNK = 2**21  # numbers held at a time
_TOLERANCE = 1e-6  # of constraints, relative
_STAGES = 100  # of the way of springs that move
_WAYS_OUT = "give a smaller dt_fs, a larger width, or frames of dynamics, where no atoms clash"


@dataclass(frozen=True, slots=True)
class Run:
    """How long a restrained run is, in steps of ``dt`` ps: ``samples`` frames, ``every`` steps.

    Langevin dynamics, at a ``temperature`` in K with a ``friction`` in 1/ps. Springs that begin
    away from their targets move there in ``steering`` steps, before the equilibration.
    """

    dt: float
    equilibration: int
    samples: int
    every: int
    temperature: float
    friction: float
    steering: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class RestrainedSystem:
    """A System without thermostats, barostats and the like, and where it runs.

    Make it by `bench`. ``virtual`` (n_atoms,) is true for virtual sites, ``threads`` counts those
    of the CPU platform; ``None``: all.
    """

    system: openmm.System
    virtual: Booleans
    platform: openmm.Platform
    threads: int | None

    @property
    def masses(self) -> Doubles:
        """(n_atoms,), Da."""
        n = self.system.getNumParticles()
        return np.array([self.system.getParticleMass(i)._value for i in range(n)])

    @property
    def periodic(self) -> bool:
        """Whether there are boxes."""
        return bool(self.system.usesPeriodicBoundaryConditions())

    def with_forces(self, frames: Frames) -> Frames:
        """Return the frames with the forces of the System on their atoms."""
        context = self._context(self.system, openmm.VerletIntegrator(0.001))
        forces = []
        for k in range(len(frames)):
            _place(context, frames[k : k + 1])
            forces.append(self._sample(context, self._groups())[1])
        return replace(frames, forces=torch.from_numpy(np.stack(forces)).to(frames.positions))

    def run(
        self, springs: list[openmm.Force], start: Frames, run: Run, seed: int
    ) -> Iterator[Frames]:
        """Yield the samples of a run with springs, in double precision, in the order of time.

        It starts at the one frame of ``start``. Forces are those of the System, without springs.

        Raises
        ------
        InputError
            The dynamics break down.
        """
        held, used = copy.deepcopy(self.system), self._groups()
        free = set(range(32)) - used
        if not free:
            raise InputError("the System uses all 32 force groups: leave one to the springs")
        for spring in springs:
            spring.setForceGroup(max(free))
            held.addForce(spring)
        integrator = openmm.LangevinMiddleIntegrator(run.temperature, run.friction, run.dt)
        integrator.setRandomNumberSeed(seed)
        context = self._context(held, integrator)
        _place(context, start)
        context.setVelocitiesToTemperature(run.temperature, seed)
        _steer(context, run.steering)
        _advance(context, run.equilibration)
        at_once = max(1, _CHUNK // (3 * start.n_sites))
        for first in range(0, run.samples, at_once):
            samples = []
            for _ in range(first, min(first + at_once, run.samples)):
                _advance(context, run.every)
                samples.append(self._sample(context, used))
            yield _frames(samples, start)

    def _context(self, system: openmm.System, integrator: openmm.Integrator) -> openmm.Context:
        return open_context(system, integrator, self.platform, self.threads)

    def _sample(self, context: openmm.Context, groups: set[int]) -> tuple[Doubles, Doubles]:
        """Return positions, nm, and forces of some groups, kJ/mol/nm, both (n_atoms, 3)."""
        state = context.getState(positions=True, forces=True, groups=groups)
        forces: Doubles = state.getForces(asNumpy=True)._value
        if not np.isfinite(forces).all():
            raise InputError(f"a force is not finite: {_WAYS_OUT}")
        forces[self.virtual] = 0  # on their atoms already
        return state.getPositions(asNumpy=True)._value, forces

    def _groups(self) -> set[int]:
        """Return the force groups in use."""
        forces = self.system.getForces()
        nonbonded = (f for f in forces if isinstance(f, openmm.NonbondedForce))
        far = {f.getReciprocalSpaceForceGroup() for f in nonbonded} - {-1}
        return far | {f.getForceGroup() for f in forces}


def bench(
    system: openmm.System, platform: openmm.Platform, threads: int | None = None
) -> RestrainedSystem:
    """Return where restrained dynamics of a System run.

    Thermostats and barostats would add to the dynamics here, and where all beads are held,
    what removes the motion of the center of mass would take away from it: they are left out.
    """
    bare = copy.deepcopy(system)
    for number in reversed(range(bare.getNumForces())):
        if isinstance(bare.getForce(number), WITHOUT_ENERGY):
            bare.removeForce(number)
    virtual = [bare.isVirtualSite(i) for i in range(bare.getNumParticles())]
    return RestrainedSystem(bare, np.array(virtual), platform, threads)


def _place(context: openmm.Context, frame: Frames) -> None:
    if frame.box is not None:
        context.setPeriodicBoxVectors(*frame.box[0].double().numpy())
    context.setPositions(frame.positions[0].double().numpy())
    # files hold single precision
    context.applyConstraints(_TOLERANCE)
    context.computeVirtualSites()


def _steer(context: openmm.Context, steps: int) -> None:
    stages = min(_STAGES, steps)
    for stage in range(stages):
        context.setParameter(LEFT, 1 - (stage + 1) / stages)
        _advance(context, steps * (stage + 1) // stages - steps * stage // stages)


def _advance(context: openmm.Context, steps: int) -> None:
    try:
        context.getIntegrator().step(steps)
    except openmm.OpenMMException as error:
        reason = " ".join(str(error).split()).partition(". ")[0]
        raise InputError(f"the restrained dynamics broke down ({reason}): {_WAYS_OUT}") from error


def _frames(samples: list[tuple[Doubles, Doubles]], start: Frames) -> Frames:
    positions, forces = (torch.from_numpy(np.stack(some)) for some in zip(*samples, strict=True))
    box: Tensor | None = None
    if start.box is not None:
        box = start.box.double().expand(len(samples), 3, 3)
    return Frames(positions, box, forces, start.types)
