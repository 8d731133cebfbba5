"""The microscopic model of alanine dipeptide: molecular dynamics, plain or biased on (phi, psi)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app

from deepcg.alanine import (
    C_ALPHA,
    FORCE_FIELDS,
    N_ATOMS,
    SOLVENTS,
    alanine,
    alanine_system,
    solvated,
    torsions,
    usual_edge,
)
from deepcg.bias import (
    UNBIASED,
    BiasedSystem,
    Table,
    bias_energy,
    read_table,
    umbrella,
    write_table,
)
from deepcg.dcd import DcdFormat, to_disk
from deepcg.errors import InputError, pick
from deepcg.files import write_whole
from deepcg.metadynamics import Filling, Hills, fill
from deepcg.microscopic_run import (
    Recorder,
    RunFiles,
    Schedule,
    Thermostat,
    at_time_0,
    check_ranges,
    check_start,
    checked_energy,
    edge_of,
    equilibrate,
    find_volume,
    fitting_cutoff,
    identity,
    in_steps,
    kinetic_temperature,
    minimise,
    produce,
    read_start,
    read_state,
    schedule,
    state_of,
    write_start,
)
from deepcg.progress import Progress, silent
from deepcg.solute_frames import SoluteFrames
from deepcg.systems import open_platform

_CONSTRAINTS = ("none", "hbonds")
_HEAVY = 2.9  # Da
_STORES = ("all", "solute")
_BIASES = ("none", "metadynamics", "umbrella", "file")
_POSITIVE = (
    "ns",
    "waters",
    "temperature",
    "pressure",
    "edge",
    "friction",
    "dt_fs",
    "interval_ps",
    "cutoff",
    "walkers",
    "threads",
    "checkpoint_ps",
)
_POSITIVE_OF_BIAS = (
    "freeze_after_ns",
    "hill_height",
    "hill_width",
    "hill_every_ps",
    "windows",
    "spring",
)
_HYDROGEN = (1.008, 4.0)  # Da; with more, a methyl's carbon would be lighter than its hydrogens
_START = (-1.2, 2.6)  # phi, psi of polyproline II, the deepest basin in water


@dataclass(frozen=True, kw_only=True)
class BiasSettings:
    """Bias on phi and psi.

    Parameters
    ----------
    bias
        none, metadynamics (well-tempered), umbrella (one trajectory for each window) or
        file:BIAS.npy, a table (n, n) in kJ/mol on n angles from -pi to pi, indexed [phi, psi]; also
        file:BIAS.npz with such a table as ``bias`` or ``bias_grid``.
    freeze_after_ns
        Metadynamics: how long hills are left, ns. Then the bias stays as it is and the
        production run begins: only this is written, so that exp(bias / kT) weights it exactly.
    hill_height
        Height of the first hills, kJ/mol.
    hill_width
        Width of a hill, rad.
    hill_every_ps
        Time between hills of a walker, ps.
    bias_factor
        Metadynamics: how many times the temperature phi and psi are sampled at in the end.
    windows
        Umbrella: number of windows along phi and along psi; N gives N x N trajectories.
    spring
        Umbrella: spring constant, kJ/mol/rad^2.
    """

    bias: str = "none"
    freeze_after_ns: float = 1.0
    hill_height: float = 1.0
    hill_width: float = 0.3
    hill_every_ps: float = 0.5
    bias_factor: float = 10.0
    windows: int = 12
    spring: float = 100.0

    @property
    def kind(self) -> str:
        """What comes before a colon."""
        return self.bias.partition(":")[0]


@dataclass(frozen=True, kw_only=True)
class AlanineSimulation:
    """Simulate alanine dipeptide (ACE-ALA-NME) with OpenMM, in water or without.

    Parameters
    ----------
    output
        Folder for the trajectory ``traj.dcd`` (or ``traj.npz``), ``traj.pdb``, ``traj.system.xml``,
        ``traj.log.csv``, ``traj.bias.npz``, ``traj.run.json`` and ``traj.checkpoint.xml``;
        ``traj-0.dcd`` and so on where there are several.
    ns
        Length of the production run of each walker, ns.
    waters
        Number of water molecules (TIP3P), in a cubic box.
    solvent
        explicit (water), vacuum or obc (the implicit solvent OBC2).
    force_field
        ff99sb or ff14sb, both AMBER's.
    constraints
        Bonds of the peptide that are rigid: none or hbonds. Water is rigid.
    hydrogen_mass
        Mass of the peptide's hydrogens, Da, taken from the atoms that they are bonded to: it
        allows longer steps and leaves all averages as they are.
    temperature
        Temperature, K.
    pressure
        Pressure, bar, at which the size of the box is found. The run is at constant volume.
    edge
        Edge of the box, nm; by default found at the pressure.
    friction
        Friction of the Langevin thermostat, 1/ps.
    dt_fs
        Time step, fs: at most 2, with rigid bonds to hydrogen 4, and half of that with hydrogens
        lighter than 2.9 Da; by default the most.
    interval_ps
        Time between frames, ps.
    equilibration_ps
        Length of the equilibration, ps: at constant volume, and before it as long at the
        pressure, if the box has to be found.
    cutoff
        Cutoff of the direct interactions, nm; by default 0.9, or what fits in the box.
    store
        What is written of a frame: all (positions of all atoms) or solute (positions and
        forces of the peptide's atoms, the forces without bias and from the whole system).
    walkers
        Number of independent runs, from starts of their own; metadynamics fills one common bias.
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
    biasing
        See ``BiasSettings``.
    """

    output: Path
    ns: float = 2.0
    waters: int = 342
    solvent: str = "explicit"
    force_field: str = "ff99sb"
    constraints: str = "none"
    hydrogen_mass: float = 3.0
    temperature: float = 300.0
    pressure: float = 1.0
    edge: float | None = None
    friction: float = 2.0
    dt_fs: float | None = None
    interval_ps: float = 0.2
    equilibration_ps: float = 100.0
    cutoff: float | None = None
    store: str = "all"
    walkers: int = 1
    seed: int = 1
    platform: str = "auto"
    threads: int | None = None
    checkpoint_ps: float = 10.0
    resume: bool = False
    biasing: BiasSettings = field(default_factory=BiasSettings)


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
        cannot be used; the folder holds a run already, or another than the one to resume; the
        energy is no longer finite.
    """
    job = _Job.of(config)
    for walker in job.walkers:
        if not check_start(walker.files, walker.frames, config, resume=config.resume):
            _start(job, walker, progress)
    if config.biasing.kind == "metadynamics" and not all(w.bias.exists() for w in job.walkers):
        _fill(job, progress)
    for number, walker in enumerate(job.walkers, 1):
        name = f" walker {number} of {len(job.walkers)}" if len(job.walkers) > 1 else ""
        _produce(job, walker, progress, name)
    return tuple(walker.trajectory for walker in job.walkers)


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
        return self.trajectory if self.store == "all" else self.files.named(".frames.bin")

    @property
    def bias(self) -> Path:
        return self.files.named(".bias.npz")


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A checked config and what follows from it."""

    config: AlanineSimulation
    plan: Schedule
    hills: Hills
    cutoff: float | None
    walkers: list[_Walker]

    @property
    def filling(self) -> Path:
        """The checkpoint of metadynamics, there while hills are left."""
        return self.config.output / "traj.hills.npz"

    @classmethod
    def of(cls, config: AlanineSimulation) -> _Job:
        _check(config)
        dt_fs = config.dt_fs or _longest_step(config)
        plan = schedule(
            ns=config.ns,
            dt_fs=dt_fs,
            interval_ps=config.interval_ps,
            checkpoint_ps=config.checkpoint_ps,
            equilibration_ps=config.equilibration_ps,
        )
        return cls(config, plan, _hills(config, dt_fs), _cutoff(config), _walkers(config, plan))


def _check(config: AlanineSimulation) -> None:
    """Refuse what is out of its range."""
    pick(FORCE_FIELDS, config.force_field, "force field")
    pick(SOLVENTS, config.solvent, "solvent")
    pick(dict.fromkeys(_CONSTRAINTS), config.constraints, "choice of constraints")
    pick(dict.fromkeys(_STORES), config.store, "choice of what to store:")
    pick(dict.fromkeys(_BIASES), config.biasing.kind, "bias")
    check_ranges(vars(config), positive=_POSITIVE, at_least_0=("equilibration_ps", "seed"))
    check_ranges(vars(config.biasing), positive=_POSITIVE_OF_BIAS, at_least_0=())
    if not 1 < config.biasing.bias_factor < np.inf:
        raise InputError(f"bias_factor is {config.biasing.bias_factor:g}: give more than 1")
    if not _HYDROGEN[0] <= config.hydrogen_mass <= _HYDROGEN[1]:
        low, high = _HYDROGEN
        raise InputError(f"hydrogen_mass is {config.hydrogen_mass:g}: give {low} to {high} Da")
    longest = _longest_step(config)
    if config.dt_fs is not None and config.dt_fs > longest:
        raise InputError(
            f"dt_fs is {config.dt_fs:g}: give at most {longest:g} with constraints "
            f"{config.constraints} and hydrogens of {config.hydrogen_mass:g} Da"
        )
    if config.solvent != "explicit" and (config.edge or config.cutoff):
        raise InputError(f"there is no box with solvent {config.solvent}: leave out edge, cutoff")
    if config.biasing.kind == "umbrella" and config.walkers != 1:
        raise InputError(f"walkers is {config.walkers}: with umbrella there is one in each window")


def _longest_step(config: AlanineSimulation) -> float:
    """Return the longest safe time step, fs.

    An eighth of the shortest period: that of C-H with hydrogens of 3 Da is 16 fs. With rigid bonds
    to hydrogen that of C=O, and the librations of water, are longer.
    """
    if config.constraints == "none":
        return 2.0 if config.hydrogen_mass >= _HEAVY else 1.0
    return 4.0 if config.hydrogen_mass >= _HEAVY else 2.0


def _cutoff(config: AlanineSimulation) -> float | None:
    if config.solvent != "explicit":
        return None
    edge, what = config.edge or usual_edge(config.waters), f"{config.waters} waters"
    return fitting_cutoff(edge, config.cutoff, fixed=config.edge is not None, what=what)


def _hills(config: AlanineSimulation, dt_fs: float) -> Hills:
    bias = config.biasing
    return Hills(
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
        centres = -np.pi + 2 * np.pi / bias.windows * (np.arange(bias.windows) + 0.5)
        windows = [(float(phi), float(psi)) for phi in centres for psi in centres]
        return [(at, umbrella(at, bias.spring)) for at in windows]
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
    progress(0, 1, "minimise")
    state = minimise(thermostat, _with_bias(system, walker.table), positions)
    progress(1, 1, "minimise")
    n_steps = job.plan.equilibration
    if job.cutoff is not None:
        if config.edge is None and walker is job.walkers[0]:
            acting = _with_bias(system, walker.table)
            pressure = config.pressure
            state = find_volume(
                thermostat, acting, state, pressure=pressure, n_steps=n_steps, progress=progress
            )
        topology.setPeriodicBoxVectors(state.getPeriodicBoxVectors())
        system.setDefaultPeriodicBoxVectors(*state.getPeriodicBoxVectors())
    acting = _with_bias(system, walker.table)
    context = equilibrate(thermostat, acting, state, n_steps=n_steps, progress=progress)
    walker.files.folder.mkdir(parents=True, exist_ok=True)
    for stale in (walker.bias, job.filling):
        stale.unlink(missing_ok=True)
    if walker.table is not None:
        write_table(walker.bias, walker.table, config.temperature)
    recorder = _recorder(job, walker, system, topology, walker.table)
    write_start(walker.files, system, topology, context, recorder, _record(job, context))


def _edge(job: _Job, walker: _Walker) -> float:
    """Return the edge of the box to build, nm: all walkers have that of the first."""
    if job.config.edge is not None or walker is job.walkers[0]:
        return job.config.edge or usual_edge(job.config.waters)
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
        filling = Filling.load(checkpoint)
    else:
        filling = Filling.begin([read_state(w.files.checkpoint) for w in job.walkers])
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
    checkpoint.unlink()


def _produce(job: _Job, walker: _Walker, progress: Progress, name: str) -> None:
    system, topology = read_start(walker.files)
    table = read_table(walker.bias) if walker.bias.exists() else None
    recorder = _recorder(job, walker, system, topology, table)
    acting = _with_bias(system, table)
    produce(walker.thermostat, job.plan, walker.files, acting, recorder, progress, name)
    if isinstance(recorder, _SoluteRecorder):
        recorder.frames.publish()


def _with_bias(system: openmm.System, table: Table | None) -> openmm.System:
    return system if table is None else BiasedSystem(system, table).system


def _recorder(
    job: _Job,
    walker: _Walker,
    system: openmm.System,
    topology: app.Topology,
    table: Table | None,
) -> Recorder:
    if walker.store == "all":
        every = job.plan.every
        dcd = DcdFormat(topology, job.plan.dt, first_step=every, every=every)
        return _WholeRecorder(walker.trajectory, dcd)
    constants = {"temperature": np.array(job.config.temperature)}
    if job.cutoff is not None:
        constants["box"] = np.array([v._value for v in system.getDefaultPeriodicBoxVectors()])
    if table is not None:
        constants["bias_grid"] = table
    return _SoluteRecorder(SoluteFrames(walker.trajectory, N_ATOMS, constants))


_COLUMNS = (
    "potential_kJ_mol",
    "kinetic_kJ_mol",
    "temperature_K",
    "phi_rad",
    "psi_rad",
    "bias_kJ_mol",
)


@dataclass(frozen=True, slots=True)
class _WholeRecorder:
    """Writes positions of all atoms, with molecules whole and their centres in the box."""

    path: Path
    dcd: DcdFormat
    columns: tuple[str, ...] = _COLUMNS

    def create(self) -> None:
        self.dcd.create(self.path)

    def append(self, context: openmm.Context) -> tuple[float, ...]:
        periodic = self.dcd.topology.getPeriodicBoxVectors() is not None
        state = context.getState(
            positions=True, energy=True, groups=set(UNBIASED), enforcePeriodicBox=periodic
        )
        row = _row(context, state)
        self.dcd.append(self.path, state.getPositions(asNumpy=True)._value)
        return row

    def truncate(self, n_frames: int) -> None:
        self.dcd.truncate(self.path, n_frames)

    def to_disk(self) -> None:
        to_disk(self.path)


@dataclass(frozen=True, slots=True)
class _SoluteRecorder:
    """Writes positions of the peptide relative to its C-alpha, and the unbiased forces on it."""

    frames: SoluteFrames
    columns: tuple[str, ...] = _COLUMNS

    @property
    def path(self) -> Path:
        return self.frames.records

    def create(self) -> None:
        self.frames.create()

    def append(self, context: openmm.Context) -> tuple[float, ...]:
        state = context.getState(positions=True, forces=True, energy=True, groups=set(UNBIASED))
        row = _row(context, state)
        x: NDArray[np.float64] = state.getPositions(asNumpy=True)._value[:N_ATOMS]
        forces = state.getForces(asNumpy=True)._value[:N_ATOMS]
        phi, psi, bias = row[-3:]
        self.frames.append(x - x[C_ALPHA], forces, bias, phi, psi)
        return row

    def truncate(self, n_frames: int) -> None:
        self.frames.truncate(n_frames)

    def to_disk(self) -> None:
        self.frames.to_disk()


def _row(context: openmm.Context, state: openmm.State) -> tuple[float, ...]:
    """Return the columns of the log for an unbiased state of a Context."""
    potential = checked_energy(state)
    kinetic = state.getKineticEnergy()._value
    temperature = kinetic_temperature(kinetic, context.getSystem())
    phi, psi = torsions(state.getPositions(asNumpy=True)._value)
    return potential, kinetic, temperature, float(phi), float(psi), bias_energy(context)
