"""The microscopic model of alanine dipeptide: molecular dynamics, plain or biased on (phi, psi)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openmm
from openmm import app

from deepcg.atomistic.alanine.config import AlanineSimulation, check_settings, usual_step
from deepcg.atomistic.alanine.metadynamics import MetadynamicsSettings, MetadynamicsState, fill
from deepcg.atomistic.alanine.molecule import N_ATOMS, alanine, alanine_system, solvated, usual_edge
from deepcg.atomistic.alanine.recorders import SoluteRecorder, WholeRecorder
from deepcg.atomistic.alanine.solute_frames import SoluteFrames, records_of
from deepcg.atomistic.alanine.torsion_bias import (
    BiasedSystem,
    Table,
    read_table,
    umbrella,
    write_table,
)
from deepcg.atomistic.equilibration import (
    Thermostat,
    at_time_0,
    edge_of,
    equilibrate,
    find_volume,
    fitting_cutoff,
    minimize,
    read_state,
    state_of,
)
from deepcg.atomistic.production import (
    Recorder,
    RunFiles,
    Schedule,
    check_start,
    identity,
    in_steps,
    produce,
    read_start,
    schedule,
    write_start,
)
from deepcg.atomistic.system import open_platform
from deepcg.runtime.files import write_whole
from deepcg.runtime.locks import folder_locked
from deepcg.runtime.progress import Progress, silent
from deepcg.trajectory.formats.dcd_writer import DcdFormat

_START = (-1.2, 2.6)  # phi, psi of polyproline II, the deepest basin in water


def simulate_alanine(config: AlanineSimulation, progress: Progress = silent) -> tuple[Path, ...]:
    """Simulate alanine dipeptide at constant volume and return the trajectories of all walkers.

    The log holds a row per frame: kJ/mol (without the bias), K, rad, the bias in kJ/mol, ns/day.
    ``traj.bias.npz`` holds the bias, ``traj.system.xml`` does not. With ``store="solute"`` the
    trajectory is a ``.npz`` of positions relative to the C-alpha, unbiased forces, bias,
    phi and psi.

    Raises
    ------
    InputError
        A field is out of its range; the cutoff does not fit in the box; the file of the bias
        cannot be used; the folder holds a run already, or another than the one to resume;
        another process works in it; the energy is no longer finite.
    """
    job = _Job.of(config)
    with folder_locked(config.output):
        _simulate(job, progress)
    return tuple(walker.trajectory for walker in job.walkers)


def _simulate(job: _Job, progress: Progress) -> None:
    config = job.config
    for walker in job.walkers:
        if not check_start(walker.files, walker.frames, config, resume=config.resume):
            _start(job, walker, progress)
    if config.biasing.kind == "metadynamics" and not all(w.bias.exists() for w in job.walkers):
        _fill(job, progress)
    job.filling.unlink(missing_ok=True)
    for number, walker in enumerate(job.walkers, 1):
        name = f" walker {number} of {len(job.walkers)}" if len(job.walkers) > 1 else ""
        _produce(job, walker, progress, name)


@dataclass(frozen=True, slots=True, eq=False)
class _Walker:
    """A run: its files, seed, first angles, and a bias that is known before it starts."""

    files: RunFiles
    thermostat: Thermostat
    at: tuple[float, float]
    table: Table | None
    store: str

    @property
    def trajectory(self) -> Path:
        return self.files.named(".dcd" if self.store == "all" else ".npz")

    @property
    def frames(self) -> Path:
        """The file that frames are added to."""
        return self.trajectory if self.store == "all" else records_of(self.trajectory)

    @property
    def bias(self) -> Path:
        return self.files.named(".bias.npz")


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A checked config and what follows from it."""

    config: AlanineSimulation
    plan: Schedule
    hills: MetadynamicsSettings
    cutoff: float | None
    walkers: list[_Walker]

    @property
    def filling(self) -> Path:
        """The checkpoint of metadynamics, there while hills are left."""
        return self.config.output / "traj.hills.npz"

    @classmethod
    def of(cls, config: AlanineSimulation) -> _Job:
        check_settings(config)
        dt_fs = config.dt_fs or usual_step(config)
        plan = schedule(
            ns=config.ns,
            dt_fs=dt_fs,
            interval_ps=config.interval_ps,
            checkpoint_ps=config.checkpoint_ps,
            equilibration_ps=config.equilibration_ps,
        )
        return cls(config, plan, _hills(config, dt_fs), _cutoff(config), _walkers(config, plan))


def _cutoff(config: AlanineSimulation) -> float | None:
    if config.solvent != "explicit":
        return None
    edge, what = config.box_length or usual_edge(config.waters), f"{config.waters} waters"
    return fitting_cutoff(edge, config.cutoff, fixed=config.box_length is not None, what=what)


def _hills(config: AlanineSimulation, dt_fs: float) -> MetadynamicsSettings:
    bias = config.biasing
    return MetadynamicsSettings(
        height=bias.hill_height,
        width=bias.hill_width,
        bias_factor=bias.bias_factor,
        every=in_steps("hill_every_ps", bias.hill_every_ps, dt_fs),
        number=max(1, round(bias.freeze_after_ns * 1000 / bias.hill_every_ps)),
        per_segment=max(1, round(config.checkpoint_ps / bias.hill_every_ps)),
    )


def _walkers(config: AlanineSimulation, plan: Schedule) -> list[_Walker]:
    platform = open_platform(config.platform)
    base = Thermostat(
        config.temperature, config.friction, plan.dt, config.seed, platform, config.threads
    )
    starts = _starts(config)
    digits = len(str(len(starts) - 1))
    return [
        _Walker(
            RunFiles(config.output, f"traj-{k:0{digits}d}" if len(starts) > 1 else "traj"),
            replace(base, seed=base.seed_of("walker", k)) if k else base,
            at,
            table,
            config.store,
        )
        for k, (at, table) in enumerate(starts)
    ]


def _starts(config: AlanineSimulation) -> list[tuple[tuple[float, float], Table | None]]:
    """Return where walkers start, and in what bias."""
    bias = config.biasing
    if bias.kind == "umbrella":
        centers = -np.pi + 2 * np.pi / bias.windows * (np.arange(bias.windows) + 0.5)
        windows = [(float(phi), float(psi)) for phi in centers for psi in centers]
        return [(at, umbrella(at, bias.force_constant)) for at in windows]
    if bias.kind == "file":
        return [(_START, read_table(Path(bias.bias.partition(":")[2])))] * config.walkers
    return [(_START, None)] * config.walkers


def _start(job: _Job, walker: _Walker, progress: Progress) -> None:
    """Build and equilibrate a walker, and write all files of a run without frames."""
    config, thermostat = job.config, walker.thermostat
    topology, positions = alanine(*walker.at)
    edge = _edge(job, walker)
    if job.cutoff is not None:
        topology, positions = solvated(
            config.force_field, topology, positions, waters=config.waters, edge=edge
        )
    system = alanine_system(
        config.force_field,
        config.solvent,
        topology,
        constraints=config.constraints,
        hydrogen_mass=config.hydrogen_mass,
        cutoff=job.cutoff,
    )
    progress(0, 1, "minimize")
    state = minimize(thermostat, _with_bias(system, walker.table), positions)
    progress(1, 1, "minimize")
    n_steps = job.plan.equilibration
    if job.cutoff is not None:
        if config.box_length is None and walker is job.walkers[0]:
            acting = _with_bias(system, walker.table)
            pressure = config.pressure
            state = find_volume(
                thermostat, acting, state, pressure=pressure, n_steps=n_steps, progress=progress
            )
        topology.setPeriodicBoxVectors(state.getPeriodicBoxVectors())
        system.setDefaultPeriodicBoxVectors(*state.getPeriodicBoxVectors())
    acting = _with_bias(system, walker.table)
    context = equilibrate(thermostat, acting, state, n_steps=n_steps, progress=progress)
    for stale in (walker.bias, job.filling):
        stale.unlink(missing_ok=True)
    if walker.table is not None:
        write_table(walker.bias, walker.table, config.temperature)
    write_start(walker.files, system, topology, context, _record(job, context))


def _edge(job: _Job, walker: _Walker) -> float:
    """Return the edge of the box to build, nm: all walkers have that of the first."""
    if job.config.box_length is not None or walker is job.walkers[0]:
        return job.config.box_length or usual_edge(job.config.waters)
    system, _ = read_start(job.walkers[0].files)
    edge: float = system.getDefaultPeriodicBoxVectors()[0][0]._value
    return edge


def _record(job: _Job, context: openmm.Context) -> dict[str, object]:
    periodic = job.cutoff is not None
    return {
        "config": identity(job.config),
        "dt_fs": job.plan.dt * 1000,
        "cutoff_nm": job.cutoff,
        "edge_nm": edge_of(context.getState()) if periodic else None,
    }


def _fill(job: _Job, progress: Progress) -> None:
    """Build the bias of metadynamics, and let all walkers begin in it."""
    checkpoint = job.filling
    system, _ = read_start(job.walkers[0].files)
    if checkpoint.exists():
        filling = MetadynamicsState.load(checkpoint)
    else:
        filling = MetadynamicsState.begin([read_state(w.files.checkpoint) for w in job.walkers])
    thermostat = job.walkers[0].thermostat
    filling = fill(thermostat, system, job.hills, filling, checkpoint, progress)
    context = thermostat.context(system)
    for walker, state in zip(job.walkers, filling.states, strict=True):
        context.setState(state)
        at_time_0(context)
        write_whole(walker.files.checkpoint, openmm.XmlSerializer.serialize(state_of(context)))
    # last, and all of them before any production: they say that the checkpoints are those above
    for walker in job.walkers:
        write_table(walker.bias, filling.table, job.config.temperature)


def _produce(job: _Job, walker: _Walker, progress: Progress, name: str) -> None:
    system, topology = read_start(walker.files)
    table = read_table(walker.bias) if walker.bias.exists() else None
    recorder = _recorder(job, walker, system, topology, table)
    acting = _with_bias(system, table)
    produce(walker.thermostat, job.plan, walker.files, acting, recorder, progress, name)
    if isinstance(recorder, SoluteRecorder):
        recorder.frames.publish()


def _with_bias(system: openmm.System, table: Table | None) -> openmm.System:
    return system if table is None else BiasedSystem(system, table).system


def _recorder(
    job: _Job, walker: _Walker, system: openmm.System, topology: app.Topology, table: Table | None
) -> Recorder:
    if walker.store == "all":
        every = job.plan.every
        dcd = DcdFormat(topology, job.plan.dt, first_step=every, every=every)
        return WholeRecorder(walker.trajectory, dcd)
    constants = {"temperature": np.array(job.config.temperature)}
    if job.cutoff is not None:
        constants["box"] = np.array([v._value for v in system.getDefaultPeriodicBoxVectors()])
    if table is not None:
        constants["bias_grid"] = table
    return SoluteRecorder(SoluteFrames(walker.trajectory, N_ATOMS, constants))
