"""The microscopic model of water: molecular dynamics of a box of molecules with OpenMM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm

from deepcg.atomistic.equilibration import (
    Thermostat,
    checked_energy,
    edge_of,
    equilibrate,
    find_volume,
    fitting_cutoff,
    kinetic_temperature,
    minimize,
)
from deepcg.atomistic.production import (
    RunFiles,
    Schedule,
    check_ranges,
    check_start,
    identity,
    produce,
    read_start,
    schedule,
    write_start,
)
from deepcg.atomistic.system import open_platform
from deepcg.atomistic.water_box import WATER_MODELS, box_edge, density, water_box, water_system
from deepcg.runtime.errors import InputError, pick
from deepcg.runtime.files import to_disk
from deepcg.runtime.locks import folder_locked
from deepcg.runtime.progress import Progress, silent
from deepcg.trajectory.formats.dcd_writer import DcdFormat

_POSITIVE = (
    "molecules",
    "ns",
    "temperature",
    "density",
    "friction",
    "interval_ps",
    "checkpoint_ps",
    "dt_fs",
    "cutoff",
    "threads",
)
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

    Positions are written with molecules whole and their centers in the box, without the
    frame at time 0. The log holds a row per frame: kJ/mol, K, nm^3, g/cm3, ns/day.

    Raises
    ------
    InputError
        A field is out of its range; the cutoff does not fit in the box; the folder holds a
        run already, or another than the one to resume; another process works in it; the
        energy is no longer finite.
    """
    plan, cutoff = _plan(config), default_cutoff(config)
    with folder_locked(config.output):
        return _simulate(config, plan, cutoff, progress)


def _simulate(config: WaterSimulation, plan: Schedule, cutoff: float, progress: Progress) -> Path:
    files = RunFiles(config.output)
    trajectory = files.named(".dcd")
    begun = check_start(files, trajectory, config, resume=config.resume)
    platform = open_platform(config.platform)
    thermostat = Thermostat(
        config.temperature, config.friction, plan.dt, config.seed, platform, config.threads
    )
    if not begun:
        _start(config, plan, cutoff, files, thermostat, progress)
    system, topology = read_start(files)
    frames = DcdFormat(topology, plan.dt, first_step=plan.every, every=plan.every)
    recorder = _WaterRecorder(trajectory, frames, config.molecules)
    produce(thermostat, plan, files, system, recorder, progress)
    return trajectory


def default_cutoff(config: WaterSimulation) -> float:
    """Return the cutoff in nm: the one asked for, or 0.9, or what fits in the box.

    Raises
    ------
    InputError
        The box is too small for the cutoff, or for 0.6 nm where none was asked for.
    """
    edge = box_edge(config.molecules, config.density)
    what = f"{config.molecules} molecules"
    return fitting_cutoff(edge, config.cutoff, fixed=config.pressure is None, what=what)


@dataclass(frozen=True, slots=True)
class _WaterRecorder:
    """Writes positions, with molecules whole and their centers in the box."""

    path: Path
    frames: DcdFormat
    molecules: int
    columns: tuple[str, ...] = (
        "potential_kJ_mol",
        "kinetic_kJ_mol",
        "temperature_K",
        "volume_nm3",
        "density_g_cm3",
    )

    def create(self) -> None:
        self.frames.create(self.path)

    def append(self, context: openmm.Context) -> tuple[float, ...]:
        state = context.getState(positions=True, energy=True, enforcePeriodicBox=True)
        potential = checked_energy(state)
        self.frames.append(self.path, state.getPositions(asNumpy=True)._value)
        kinetic = state.getKineticEnergy()._value
        volume = edge_of(state) ** 3
        temperature = kinetic_temperature(kinetic, context.getSystem())
        return potential, kinetic, temperature, volume, density(self.molecules, volume)

    def truncate(self, n_frames: int) -> None:
        self.frames.truncate(self.path, n_frames)

    def to_disk(self) -> None:
        to_disk(self.path)


def _plan(config: WaterSimulation) -> Schedule:
    """Check the fields and return what follows from them."""
    pick(WATER_MODELS, config.model, "water model")
    check_ranges(vars(config), positive=_POSITIVE, at_least_0=("equilibration_ps", "seed"))
    dt_fs = config.dt_fs or (0.5 if config.flexible else 2.0)
    longest = _LONGEST_STEP[config.flexible]
    if dt_fs > longest:
        kind = "flexible" if config.flexible else "rigid"
        raise InputError(f"dt_fs is {dt_fs:g}: give at most {longest:g} for {kind} water")
    return schedule(
        ns=config.ns,
        dt_fs=dt_fs,
        interval_ps=config.interval_ps,
        checkpoint_ps=config.checkpoint_ps,
        equilibration_ps=config.equilibration_ps,
    )


def _start(
    config: WaterSimulation,
    plan: Schedule,
    cutoff: float,
    files: RunFiles,
    thermostat: Thermostat,
    progress: Progress,
) -> None:
    """Build and equilibrate the box, and write all files of a run without frames."""
    edge = box_edge(config.molecules, config.density)
    rng = np.random.default_rng(config.seed)
    topology, positions = water_box(config.model, config.molecules, edge, rng)
    system = water_system(config.model, topology, cutoff=cutoff, flexible=config.flexible)
    what = f"minimize, cutoff {cutoff:g} nm"
    progress(0, 1, what)
    state = minimize(thermostat, system, positions)
    progress(1, 1, what)
    if config.pressure is not None:
        n_steps = plan.equilibration
        state = find_volume(
            thermostat, system, state, pressure=config.pressure, n_steps=n_steps, progress=progress
        )
    topology.setPeriodicBoxVectors(state.getPeriodicBoxVectors())
    context = equilibrate(thermostat, system, state, n_steps=plan.equilibration, progress=progress)
    record = {
        "config": identity(config),
        "dt_fs": plan.dt * 1000,
        "cutoff_nm": cutoff,
        "edge_nm": edge_of(context.getState()),
    }
    write_start(files, system, topology, context, record)
