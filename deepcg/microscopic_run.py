"""Runs of a microscopic model with OpenMM: from a start to frames, cut off and resumed at will.

Production is a chain of segments. Each starts a fresh Context from a saved State, with a random
seed of its own, so a run that was cut off and resumed takes the steps of one that was not.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from deepcg import __version__
from deepcg.configuration import to_flat
from deepcg.dcd import to_disk
from deepcg.errors import InputError
from deepcg.files import write_whole
from deepcg.progress import Progress
from deepcg.systems import open_context, read_system
from deepcg.units import BOLTZMANN

_CUTOFF = 0.9  # nm, that for which the water models were made, or near it
_SHORTEST = 0.6  # nm: where the box allows less, the user must say so
_BREATHING = 0.93  # a box may shrink to 80 % of its volume before half its edge is the cutoff
_BAROSTAT_EVERY = 10  # steps; at OpenMM's 25 a volume takes twice as long to settle
_FREE = ("output", "ns", "platform", "threads", "resume")  # may change when a run is resumed


@dataclass(frozen=True, slots=True)
class Schedule:
    """The time step in ps, and everything else in steps or frames."""

    dt: float
    every: int
    frames: int
    frames_per_segment: int
    equilibration: int


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
        words = [self.seed, number, *stage.encode()]
        return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1) or 1


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of a run, all with one stem, in a folder."""

    folder: Path
    stem: str = "traj"

    def named(self, ending: str) -> Path:
        """Return the file with this ending, such as ``.dcd``."""
        return self.folder / f"{self.stem}{ending}"

    @property
    def topology(self) -> Path:
        """The start as PDB."""
        return self.named(".pdb")

    @property
    def system(self) -> Path:
        """The OpenMM System."""
        return self.named(".system.xml")

    @property
    def log(self) -> Path:
        """A row for each frame."""
        return self.named(".log.csv")

    @property
    def run(self) -> Path:
        """What was run."""
        return self.named(".run.json")

    @property
    def checkpoint(self) -> Path:
        """From where a run goes on."""
        return self.named(".checkpoint.xml")


class Recorder(Protocol):
    """Writes the frames of a run."""

    @property
    def path(self) -> Path:
        """The file with the frames."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what ``append`` returns."""
        ...

    def create(self) -> None:
        """Write a file of no frames."""
        ...

    def append(self, context: openmm.Context) -> tuple[float, ...]:
        """Write a frame and return what the log says of it."""
        ...

    def truncate(self, n_frames: int) -> None:
        """Forget all but the first frames."""
        ...

    def to_disk(self) -> None:
        """Wait until all frames would survive a power cut."""
        ...


def check_ranges(
    values: Mapping[str, Any], *, positive: tuple[str, ...], at_least_0: tuple[str, ...]
) -> None:
    """Refuse numbers that are out of range; ``None`` is not.

    Raises
    ------
    InputError
        Names the first of them.
    """
    for name in positive:
        if values[name] is not None and not 0 < values[name] < math.inf:
            raise InputError(f"{name} is {values[name]:g}: give a positive number")
    for name in at_least_0:
        if not 0 <= values[name] < math.inf:
            raise InputError(f"{name} is {values[name]:g}: give 0 or more")


def in_steps(name: str, ps: float, dt_fs: float) -> int:
    """Return how many time steps a time is.

    Raises
    ------
    InputError
        It is no multiple of the time step.
    """
    steps = round(ps / dt_fs * 1000)
    if steps < 1 or not math.isclose(steps * dt_fs, ps * 1000, rel_tol=1e-6):
        raise InputError(f"{name} is {ps:g}: give a multiple of the time step, {dt_fs:g} fs")
    return steps


def schedule(
    *, ns: float, dt_fs: float, interval_ps: float, checkpoint_ps: float, equilibration_ps: float
) -> Schedule:
    """Return the schedule of a run.

    Raises
    ------
    InputError
        The interval is no multiple of the time step, or longer than the run.
    """
    every = in_steps("interval_ps", interval_ps, dt_fs)
    frames = round(ns * 1000 / interval_ps)
    if frames < 1:
        raise InputError(f"ns is {ns:g}, less than an interval of {interval_ps:g} ps")
    return Schedule(
        dt=dt_fs / 1000,
        every=every,
        frames=frames,
        frames_per_segment=max(1, round(checkpoint_ps / interval_ps)),
        equilibration=round(equilibration_ps / dt_fs * 1000),
    )


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


def identity(config: Any) -> dict[str, object]:
    """Return the fields of a config that may not change when a run is resumed."""
    return {name: value for name, value in to_flat(config).items() if name not in _FREE}


def check_start(files: RunFiles, trajectory: Path, config: Any, *, resume: bool) -> bool:
    """Return whether the run has a checkpoint to go on from.

    Raises
    ------
    InputError
        The trajectory is there and not to be resumed, has no checkpoint, or belongs to a run
        with other settings.
    """
    if trajectory.exists() and not resume:
        raise InputError(f"{trajectory} exists: resume it, or give another output folder")
    if trajectory.exists() and not files.checkpoint.exists():
        raise InputError(
            f"{trajectory} cannot be resumed without {files.checkpoint.name}: "
            f"give another output folder"
        )
    if not (resume and files.checkpoint.exists()):
        return False
    before = json.loads(files.run.read_text())["config"]
    for name, value in identity(config).items():
        if before.get(name) != value:
            raise InputError(
                f"{files.run} says {name} = {before.get(name)}, not {value}: resume with the same, "
                "or give another output folder"
            )
    return True


def minimise(
    thermostat: Thermostat, system: openmm.System, positions: NDArray[np.float64]
) -> openmm.State:
    """Return a state relaxed from positions in nm, with velocities of the temperature."""
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


def write_start(
    files: RunFiles,
    system: openmm.System,
    topology: app.Topology,
    context: openmm.Context,
    recorder: Recorder,
    record: Mapping[str, object],
) -> None:
    """Write the files of a run of no frames; the checkpoint last: it says that all are there."""
    files.folder.mkdir(parents=True, exist_ok=True)
    files.checkpoint.unlink(missing_ok=True)
    periodic = system.usesPeriodicBoundaryConditions()
    whole = context.getState(positions=True, enforcePeriodicBox=periodic)
    with files.topology.open("w") as file:
        app.PDBFile.writeFile(topology, whole.getPositions(), file)
    write_whole(files.system, openmm.XmlSerializer.serialize(system))
    write_whole(files.run, json.dumps({**record, **_versions(context)}, indent=2) + "\n")
    recorder.create()
    columns = ("step", "time_ps", *recorder.columns, "speed_ns_day")
    files.log.write_text(",".join(columns) + "\n")
    _checkpoint(files, recorder, context)


def read_start(files: RunFiles) -> tuple[openmm.System, app.Topology]:
    """Return the System and the topology of a run, in their box if they have one."""
    topology = app.PDBFile(str(files.topology)).topology
    system = read_system(files.system)
    if system.usesPeriodicBoundaryConditions():
        box = [vector._value for vector in system.getDefaultPeriodicBoxVectors()]
        topology.setPeriodicBoxVectors(box * unit.nanometer)
    return system, topology


def produce(
    thermostat: Thermostat,
    plan: Schedule,
    files: RunFiles,
    system: openmm.System,
    recorder: Recorder,
    progress: Progress,
    name: str = "",
) -> None:
    """Go on from the checkpoint until all frames are there; ``name`` is for the progress.

    Raises
    ------
    InputError
        The energy is no longer finite.
    """
    if _n_rows(files.log) >= plan.frames:
        return
    state = read_state(files.checkpoint)
    context = thermostat.context(system)
    first = state.getStepCount() // plan.every
    recorder.truncate(first)
    _truncate_log(files.log, first)
    began = time.monotonic()
    for frame in range(first, plan.frames):
        if frame % plan.frames_per_segment == 0:
            if frame > first:
                state = _checkpoint(files, recorder, context)
            restart(context, state, thermostat.seed_of("produce", frame))
        advance(context, plan.every)
        days = (time.monotonic() - began) / 86400
        speed = (frame + 1 - first) * plan.every * plan.dt / 1000 / days
        _record_frame(files, recorder, context, speed)
        progress(frame + 1, plan.frames, f"simulate{name}, {speed:.0f} ns/day")


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
    """Return a saved State."""
    return openmm.XmlSerializer.deserialize(path.read_text())


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
    degrees = 3 * moving - constraints - 3  # the centre of mass stands still
    return 2 * kinetic / (degrees * BOLTZMANN)


def _versions(context: openmm.Context) -> dict[str, object]:
    platform = context.getPlatform()
    names = platform.getPropertyNames()
    return {
        "versions": {"deepcg": __version__, "openmm": openmm.version.full_version},
        "platform": platform.getName(),
        "properties": {name: platform.getPropertyValue(context, name) for name in names},
    }


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


def _record_frame(
    files: RunFiles, recorder: Recorder, context: openmm.Context, speed: float
) -> None:
    """Add a frame to the trajectory, then its row to the log."""
    values = recorder.append(context)
    row = (context.getTime()._value, *values, speed)
    with files.log.open("a") as file:
        file.write(",".join([str(context.getStepCount()), *(f"{v:.6f}" for v in row)]) + "\n")


def _checkpoint(files: RunFiles, recorder: Recorder, context: openmm.Context) -> openmm.State:
    """Save the state, once the frames that it counts on are on the disk."""
    recorder.to_disk()
    to_disk(files.log)
    state = state_of(context)
    write_whole(files.checkpoint, openmm.XmlSerializer.serialize(state))
    return state


def _truncate_log(path: Path, rows: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    with path.open("r+b") as file:
        file.truncate(sum(map(len, lines[: rows + 1])))


def _n_rows(path: Path) -> int:
    return path.read_bytes().count(b"\n") - 1
