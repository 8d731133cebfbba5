"""The microscopic model: molecular dynamics of water with OpenMM.

Production is a chain of segments. Each starts a fresh Context from a saved State, with a random
seed of its own, so a run that was cut off and resumed takes the steps of one that was not.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from deepcg import __version__
from deepcg.dcd import DcdFormat, to_disk
from deepcg.errors import InputError, pick
from deepcg.files import write_whole
from deepcg.progress import Progress, silent
from deepcg.systems import open_context, open_platform, read_system
from deepcg.units import BOLTZMANN
from deepcg.water_box import WATER_MODELS, box_edge, density, water_box, water_system

_CUTOFF = 0.9  # nm, that for which the water models were made, or near it
_SHORTEST = 0.6  # nm: where the box allows less, the user must say so
_BREATHING = 0.93  # a box may shrink to 80 % of its volume before half its edge is the cutoff
_BAROSTAT_EVERY = 10  # steps; at OpenMM's 25 a volume takes twice as long to settle
_LONGEST_STEP = {False: 4.0, True: 1.0}  # fs, by flexible: the period of O-H is 9 fs


@dataclass(frozen=True, kw_only=True)
class WaterSimulation:
    """Simulate a box of water with OpenMM: rigid or flexible, at constant volume.

    Parameters
    ----------
    output
        Folder for ``traj.dcd``, ``traj.pdb``, ``traj.system.xml``, ``traj.log.csv``,
        ``traj.run.json`` (what was run) and ``traj.checkpoint.xml``.
    molecules
        Number of water molecules, in a cubic box.
    ns
        Length of the production run, ns.
    model
        Water model: opc, spce, tip3p, tip3pfb, tip4pew.
    flexible
        Let bonds and angles vibrate.
    temperature
        Temperature, K.
    pressure
        Pressure, bar: find the density at this pressure first. The production run is at
        constant volume with or without it.
    density
        Density, g/cm3; with a pressure, that of the start.
    friction
        Friction of the Langevin thermostat, 1/ps.
    dt_fs
        Time step, fs; by default 2, or 0.5 if flexible.
    interval_ps
        Time between frames, ps.
    equilibration_ps
        Length of the equilibration, ps: at constant volume, and before it as long at the
        pressure, if there is one.
    cutoff
        Cutoff of the direct interactions, nm; by default 0.9, or what fits in the box.
    seed
        Seed of the start and of the thermostat.
    platform
        OpenMM platform: auto, CPU, CUDA, OpenCL, HIP, Reference.
    threads
        Threads of the CPU platform; by default all. Steps depend on it through rounding.
    checkpoint_ps
        Time between checkpoints, ps.
    resume
        Go on from the last checkpoint, as far as ``ns`` says.
    """

    output: Path
    molecules: int = 216
    ns: float = 0.5
    model: str = "tip3p"
    flexible: bool = False
    temperature: float = 300.0
    pressure: float | None = None
    density: float = 0.997
    friction: float = 1.0
    dt_fs: float | None = None
    interval_ps: float = 0.5
    equilibration_ps: float = 100.0
    cutoff: float | None = None
    seed: int = 1
    platform: str = "auto"
    threads: int | None = None
    checkpoint_ps: float = 10.0
    resume: bool = False


def simulate_water(config: WaterSimulation, progress: Progress = silent) -> Path:
    """Simulate a box of water at constant volume and return the path of ``traj.dcd``.

    Positions are written with molecules whole and their centres in the box, without the
    frame at time 0. The log holds a row per frame: kJ/mol, K, nm^3, g/cm3, ns/day.

    Raises
    ------
    InputError
        A field is out of its range; the cutoff does not fit in the box; the folder holds a
        run already, or another than the one to resume; the energy is no longer finite.
    """
    plan = _plan(config)
    files = _Files(config.output)
    if files.trajectory.exists() and not config.resume:
        raise InputError(f"{files.trajectory} exists: resume it, or give another output folder")
    if files.trajectory.exists() and not files.checkpoint.exists():
        raise InputError(
            f"{files.trajectory} cannot be resumed without {files.checkpoint.name}: "
            f"give another output folder"
        )
    platform = open_platform(config.platform)
    if not (config.resume and files.checkpoint.exists()):
        _start(config, plan, files, platform, progress)
    _check_same(config, files)
    if _n_rows(files.log) < plan.frames:
        _produce(config, plan, files, platform, progress)
    return files.trajectory


def default_cutoff(config: WaterSimulation) -> float:
    """Return the cutoff in nm: the one asked for, or 0.9, or what fits in the box.

    Raises
    ------
    InputError
        The box is too small for the cutoff, or for 0.6 nm where none was asked for.
    """
    edge = box_edge(config.molecules, config.density)
    longest = edge / 2 * (1.0 if config.pressure is None else _BREATHING)
    if config.cutoff is None:
        # rounded down: half the edge itself would be refused once it is rounded up
        cutoff = min(_CUTOFF, math.floor(longest * 1000 - 1e-6) / 1000)
        wanted = _SHORTEST
    else:
        cutoff = wanted = config.cutoff
    if not 0 < wanted <= min(cutoff, longest):
        raise InputError(
            f"a cutoff of {wanted:g} nm does not fit in a box of {config.molecules} molecules, "
            f"{edge:.3f} nm wide: give more molecules, or a cutoff of at most {longest:.3f} nm"
        )
    return cutoff


@dataclass(frozen=True, slots=True)
class _Plan:
    """The time step in ps, and everything else in steps or frames."""

    dt: float
    every: int
    frames: int
    frames_per_segment: int
    equilibration: int
    cutoff: float


@dataclass(frozen=True, slots=True)
class _Files:
    folder: Path

    @property
    def trajectory(self) -> Path:
        return self.folder / "traj.dcd"

    @property
    def topology(self) -> Path:
        return self.folder / "traj.pdb"

    @property
    def system(self) -> Path:
        return self.folder / "traj.system.xml"

    @property
    def log(self) -> Path:
        return self.folder / "traj.log.csv"

    @property
    def run(self) -> Path:
        return self.folder / "traj.run.json"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "traj.checkpoint.xml"


def _plan(config: WaterSimulation) -> _Plan:
    """Check the fields and return what follows from them."""
    pick(WATER_MODELS, config.model, "water model")
    positive = ("molecules", "ns", "temperature", "density", "friction", "interval_ps")
    for name in (*positive, "checkpoint_ps", "dt_fs", "cutoff", "threads"):
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} is {value:g}: give a positive number")
    for name in ("equilibration_ps", "seed"):
        if not 0 <= getattr(config, name) < math.inf:
            raise InputError(f"{name} is {getattr(config, name):g}: give 0 or more")
    dt_fs = config.dt_fs or (0.5 if config.flexible else 2.0)
    longest = _LONGEST_STEP[config.flexible]
    if dt_fs > longest:
        kind = "flexible" if config.flexible else "rigid"
        raise InputError(f"dt_fs is {dt_fs:g}: give at most {longest:g} for {kind} water")
    every = round(config.interval_ps / dt_fs * 1000)
    if every < 1 or not math.isclose(every * dt_fs, config.interval_ps * 1000, rel_tol=1e-6):
        raise InputError(
            f"interval_ps is {config.interval_ps:g}: give a multiple of the time step, {dt_fs:g} fs"
        )
    frames = round(config.ns * 1000 / config.interval_ps)
    if frames < 1:
        raise InputError(f"ns is {config.ns:g}, less than an interval of {config.interval_ps:g} ps")
    return _Plan(
        dt=dt_fs / 1000,
        every=every,
        frames=frames,
        frames_per_segment=max(1, round(config.checkpoint_ps / config.interval_ps)),
        equilibration=round(config.equilibration_ps / dt_fs * 1000),
        cutoff=default_cutoff(config),
    )


def _start(
    config: WaterSimulation,
    plan: _Plan,
    files: _Files,
    platform: openmm.Platform,
    progress: Progress,
) -> None:
    """Build and equilibrate the box, and write all files of a run without frames."""
    edge = box_edge(config.molecules, config.density)
    rng = np.random.default_rng(config.seed)
    topology, positions = water_box(config.model, config.molecules, edge, rng)
    system = water_system(config.model, topology, cutoff=plan.cutoff, flexible=config.flexible)
    what = f"minimise, cutoff {plan.cutoff:g} nm"
    progress(0, 1, what)
    state = _minimise(config, plan, system, positions, platform)
    progress(1, 1, what)
    if config.pressure is not None:
        state = _find_volume(config, plan, system, state, platform, progress)
    system.setDefaultPeriodicBoxVectors(*state.getPeriodicBoxVectors())
    topology.setPeriodicBoxVectors(state.getPeriodicBoxVectors())
    context = _context(config, plan, system, platform)
    _restart(context, state, _seed(config, "equilibrate"))
    for _ in _steps(context, plan.equilibration, progress, "equilibrate at constant volume"):
        pass
    context.setTime(0)
    context.setStepCount(0)
    _write_start(config, plan, files, context, topology)


def _write_start(
    config: WaterSimulation,
    plan: _Plan,
    files: _Files,
    context: openmm.Context,
    topology: app.Topology,
) -> None:
    """Write the files, the checkpoint last: it says that the others are there."""
    files.folder.mkdir(parents=True, exist_ok=True)
    files.checkpoint.unlink(missing_ok=True)
    whole = context.getState(positions=True, enforcePeriodicBox=True)
    with files.topology.open("w") as file:
        app.PDBFile.writeFile(topology, whole.getPositions(), file)
    write_whole(files.system, openmm.XmlSerializer.serialize(context.getSystem()))
    write_whole(files.run, json.dumps(_record(config, plan, context), indent=2) + "\n")
    _dcd(topology, plan).create(files.trajectory)
    files.log.write_text(",".join(_COLUMNS) + "\n")
    _checkpoint(files, context)


def _record(config: WaterSimulation, plan: _Plan, context: openmm.Context) -> dict[str, object]:
    """Return what is needed to repeat the run."""
    platform = context.getPlatform()
    names = platform.getPropertyNames()
    return {
        "config": _identity(config),
        "dt_fs": plan.dt * 1000,
        "cutoff_nm": plan.cutoff,
        "edge_nm": _edge(context.getState()),
        "versions": {"deepcg": __version__, "openmm": openmm.version.full_version},
        "platform": platform.getName(),
        "properties": {name: platform.getPropertyValue(context, name) for name in names},
    }


def _identity(config: WaterSimulation) -> dict[str, object]:
    """Return the fields that may not change when a run is resumed."""
    free = ("output", "ns", "platform", "threads", "resume")
    return {name: value for name, value in asdict(config).items() if name not in free}


def _produce(
    config: WaterSimulation,
    plan: _Plan,
    files: _Files,
    platform: openmm.Platform,
    progress: Progress,
) -> None:
    """Go on from the checkpoint until all frames are there."""
    topology = app.PDBFile(str(files.topology)).topology
    system = read_system(files.system)
    box = [vector._value for vector in system.getDefaultPeriodicBoxVectors()]
    topology.setPeriodicBoxVectors(box * unit.nanometer)
    dcd = _dcd(topology, plan)
    state = openmm.XmlSerializer.deserialize(files.checkpoint.read_text())
    context = _context(config, plan, system, platform)
    first = state.getStepCount() // plan.every
    dcd.truncate(files.trajectory, first)
    _truncate_log(files.log, first)
    began = time.monotonic()
    for frame in range(first, plan.frames):
        if frame % plan.frames_per_segment == 0:
            if frame > first:
                state = _checkpoint(files, context)
            _restart(context, state, _seed(config, "produce", frame))
        _advance(context, plan.every)
        days = (time.monotonic() - began) / 86400
        speed = (frame + 1 - first) * plan.every * plan.dt / 1000 / days
        _write_frame(config, files, dcd, context, speed)
        progress(frame + 1, plan.frames, f"simulate, {speed:.0f} ns/day")


def _check_same(config: WaterSimulation, files: _Files) -> None:
    """Refuse to resume a run with other settings than its own."""
    before = json.loads(files.run.read_text())["config"]
    for name, value in _identity(config).items():
        if before[name] != value:
            raise InputError(
                f"{files.run} says {name} = {before[name]}, not {value}: resume with the same, "
                "or give another output folder"
            )


def _minimise(
    config: WaterSimulation,
    plan: _Plan,
    system: openmm.System,
    positions: NDArray[np.float64],
    platform: openmm.Platform,
) -> openmm.State:
    """Return the lattice, relaxed, with velocities of the temperature."""
    context = _context(config, plan, system, platform)
    context.setPositions(positions)
    context.applyConstraints(1e-7)
    context.computeVirtualSites()
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 500)
    context.setVelocitiesToTemperature(config.temperature, _seed(config, "velocities"))
    return _state(context)


def _find_volume(
    config: WaterSimulation,
    plan: _Plan,
    system: openmm.System,
    state: openmm.State,
    platform: openmm.Platform,
    progress: Progress,
) -> openmm.State:
    """Return a state at the mean volume of a run at the pressure, its first half left out."""
    barostat = openmm.MonteCarloBarostat(config.pressure, config.temperature, _BAROSTAT_EVERY)
    barostat.setRandomNumberSeed(_seed(config, "barostat"))
    breathing = copy.deepcopy(system)
    breathing.addForce(barostat)
    context = _context(config, plan, breathing, platform)
    _restart(context, state, _seed(config, "find volume"))
    what = f"equilibrate at {config.pressure:g} bar"
    edges = [_edge(context.getState()) for _ in _steps(context, plan.equilibration, progress, what)]
    volumes = np.power(edges[len(edges) // 2 :] or [_edge(state)], 3)
    return _resize(context, system, float(np.cbrt(volumes.mean())))


def _resize(context: openmm.Context, system: openmm.System, edge: float) -> openmm.State:
    """Move whole molecules apart or together until the box has this edge."""
    whole = context.getState(positions=True, velocities=True, enforcePeriodicBox=True)
    positions = whole.getPositions(asNumpy=True)._value
    scale = edge / _edge(whole)
    for molecule in context.getMolecules():
        positions[list(molecule)] += (scale - 1) * positions[list(molecule)].mean(0)
    resized = openmm.Context(system, openmm.VerletIntegrator(0.001), context.getPlatform())
    resized.setPeriodicBoxVectors(*(np.eye(3) * edge))
    resized.setPositions(positions)
    resized.setVelocities(whole.getVelocities(asNumpy=True))
    return _state(resized)


def _context(
    config: WaterSimulation, plan: _Plan, system: openmm.System, platform: openmm.Platform
) -> openmm.Context:
    integrator = openmm.LangevinMiddleIntegrator(config.temperature, config.friction, plan.dt)
    return open_context(system, integrator, platform, config.threads)


def _restart(context: openmm.Context, state: openmm.State, seed: int) -> None:
    """Forget all that is not in ``state``: neighbor lists, forces, random streams."""
    context.getIntegrator().setRandomNumberSeed(seed)
    context.reinitialize()
    context.setState(state)


def _state(context: openmm.Context) -> openmm.State:
    return context.getState(positions=True, velocities=True)


def _steps(
    context: openmm.Context, n_steps: int, progress: Progress, what: str, at_once: int = 250
) -> Iterator[None]:
    """Take steps, yielding now and then."""
    for done in range(0, n_steps, at_once):
        _advance(context, min(at_once, n_steps - done))
        progress(min(done + at_once, n_steps), n_steps, what)
        yield


def _advance(context: openmm.Context, n_steps: int) -> None:
    try:
        context.getIntegrator().step(n_steps)
    except openmm.OpenMMException as error:
        reason = " ".join(str(error).split())[:150]
        time = context.getTime().value_in_unit(openmm.unit.picosecond)
        raise InputError(
            f"the simulation broke down after {time:.3f} ps ({reason}): try a smaller --dt-fs, "
            f"a smaller --cutoff or more molecules"
        ) from error


def _seed(config: WaterSimulation, stage: str, number: int = 0) -> int:
    """Return a seed of its own for every stage and segment; OpenMM's 0 means any."""
    words = [config.seed, number, *stage.encode()]
    return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1) or 1


def _dcd(topology: app.Topology, plan: _Plan) -> DcdFormat:
    return DcdFormat(topology, plan.dt, first_step=plan.every, every=plan.every)


_COLUMNS = (
    "step",
    "time_ps",
    "potential_kJ_mol",
    "kinetic_kJ_mol",
    "temperature_K",
    "volume_nm3",
    "density_g_cm3",
    "speed_ns_day",
)


def _write_frame(
    config: WaterSimulation,
    files: _Files,
    dcd: DcdFormat,
    context: openmm.Context,
    speed: float,
) -> None:
    """Add a frame to the trajectory, then its row to the log."""
    state = context.getState(positions=True, energy=True, enforcePeriodicBox=True)
    potential = state.getPotentialEnergy()._value
    if not math.isfinite(potential):
        raise InputError(
            f"the energy is not finite at {state.getTime()._value:g} ps: give a shorter dt_fs"
        )
    dcd.append(files.trajectory, state.getPositions(asNumpy=True)._value)
    kinetic = state.getKineticEnergy()._value
    volume = _edge(state) ** 3
    row = (
        state.getTime()._value,
        potential,
        kinetic,
        2 * kinetic / (_degrees_of_freedom(context.getSystem()) * BOLTZMANN),
        volume,
        density(config.molecules, volume),
        speed,
    )
    with files.log.open("a") as file:
        file.write(",".join([str(state.getStepCount()), *(f"{value:.6f}" for value in row)]) + "\n")


def _degrees_of_freedom(system: openmm.System) -> int:
    moving: int = sum(system.getParticleMass(i)._value > 0 for i in range(system.getNumParticles()))
    constraints: int = system.getNumConstraints()
    return 3 * moving - constraints - 3  # the centre of mass stands still


def _checkpoint(files: _Files, context: openmm.Context) -> openmm.State:
    """Save the state, once the frames that it counts on are on the disk."""
    to_disk(files.trajectory)
    to_disk(files.log)
    state = _state(context)
    write_whole(files.checkpoint, openmm.XmlSerializer.serialize(state))
    return state


def _truncate_log(path: Path, rows: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    with path.open("r+b") as file:
        file.truncate(sum(map(len, lines[: rows + 1])))


def _n_rows(path: Path) -> int:
    return path.read_bytes().count(b"\n") - 1


def _edge(state: openmm.State) -> float:
    edge: float = state.getPeriodicBoxVectors()[0][0]._value
    return edge
