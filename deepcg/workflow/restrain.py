"""``deepcg label --restrain``: mean forces from short restrained dynamics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deepcg.collective import CollectiveVariables, build_variables, is_collective
from deepcg.data import Source, open_source, read
from deepcg.errors import InputError
from deepcg.estimators import ESTIMATORS
from deepcg.frames import Frames
from deepcg.mapping import LinearMapping, bead_topology, build_mapping
from deepcg.mean_force_labels import (
    MeanForceLabels,
    are_labels,
    load_labels,
    mean_force,
    no_labels,
    of_beads,
    of_variables,
)
from deepcg.progress import Progress, silent
from deepcg.provenance import file_hash
from deepcg.restrained import Bench, Run, bench
from deepcg.springs import BeadSprings, Springs, VariableSprings, check_step
from deepcg.systems import open_platform, read_system
from deepcg.units import thermal_energy
from deepcg.variable_forces import VARIABLE_ESTIMATORS
from deepcg.workflow.beads import DataConfig, constraints_of, read_used, sample_of

Floats = NDArray[np.float64]

FEWEST_SAMPLES = 32
"""In a run: fewer have no honest error."""

_LIGHT = 3.0  # Da: what is lighter, and free to vibrate, needs short steps


@dataclass(frozen=True, slots=True)
class RestrainConfig:
    """Mean forces from restrained dynamics.

    Parameters
    ----------
    map
        Coarse coordinates, as in deepcg fit; of collective variables dihedrals, angles and
        distances.
    number
        How many configurations of the trajectory to restrain: evenly spaced in time for beads,
        spread evenly over the range for collective variables.
    ps
        Length of the run at each configuration, ps. Motion that is slower makes noise of which
        the errors do not know.
    equilibration_ps
        What precedes it, ps.
    interval_ps
        From sample to sample, ps.
    width_nm, width_rad
        How far the springs let a coordinate go, as a standard deviation: mean forces are means
        over this.
    temperature
        Temperature, K.
    friction
        Of the Langevin thermostat, 1/ps.
    dt_fs
        Time step, fs; by default 2, or 0.5 where hydrogens vibrate.
    estimator
        How forces on atoms become forces on the coordinates: as in deepcg fit.
    seed
        Seed of the choice of configurations and of the dynamics.
    """

    map: str = "oxygens"
    number: int = 100
    ps: float = 5.0
    equilibration_ps: float = 1.0
    interval_ps: float = 0.02
    width_nm: float = 0.003
    width_rad: float = 0.03
    temperature: float = 300.0
    friction: float = 1.0
    dt_fs: float | None = None
    estimator: str = "least-noise"
    seed: int = 1

    def __post_init__(self) -> None:
        positive = ("number", "ps", "interval_ps", "width_nm", "width_rad")
        for name in (*positive, "temperature", "friction", "dt_fs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value:g}: give a positive number")
        for name in ("equilibration_ps", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name):g}: give 0 or more")
        if self.ps < FEWEST_SAMPLES * self.interval_ps:
            raise InputError(
                f"ps is {self.ps:g}, with a sample every {self.interval_ps:g} ps: give at least "
                f"{FEWEST_SAMPLES * self.interval_ps:g}, for {FEWEST_SAMPLES} samples"
            )


@dataclass(frozen=True, slots=True)
class Files:
    """What there is to restrain, and where the labels go."""

    trajectory: Path
    output: Path | None
    topology: Path | None
    system: Path | None

    @property
    def labels(self) -> Path:
        """``TRAJ.labels.npz``."""
        path = self.trajectory
        stem = path.name if path.is_dir() else path.stem
        return (path.parent if self.output is None else self.output) / f"{stem}.labels.npz"


def label_restrained(
    files: Files,
    config: RestrainConfig,
    platform: str = "auto",
    threads: int | None = None,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Restrain configurations, one after the other, and return the file of their mean forces.

    The file is written anew with each label. Labels of this trajectory, System and settings
    that are there already are kept, and what was cut off goes on where it was. Beside labels of
    beads a PDB file says what these are.

    Raises
    ------
    InputError
        There is no System, or it is not that of the trajectory; the coordinates, the estimator or
        the settings cannot be used; a file of other labels is in the way.
    """
    work = _prepare(files, config, platform, threads)
    labels = _begin(files.labels, work.labels)
    frames = work.choose(config, progress)
    files.labels.parent.mkdir(parents=True, exist_ok=True)
    if len(labels) < len(frames):
        tell(work.about)
    for index in range(len(labels), len(frames)):
        progress(index, len(frames), "restrained dynamics")
        labels = work.label(labels, frames[index], _seed(config, "run", index))
        labels.save(files.labels)
        progress(index + 1, len(frames), "restrained dynamics")
    work.write_topology(files.labels.with_suffix(".pdb"), labels)
    tell(f"{labels.describe()}\nlabels in {files.labels}")
    return files.labels


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """All that does not change from label to label; ``labels`` are without any."""

    source: Source
    bench: Bench
    springs: Springs
    estimate: Callable[[Frames], Tensor]
    run: Run
    labels: MeanForceLabels
    topology: mdtraj.Topology | None
    about: str

    def choose(self, config: RestrainConfig, progress: Progress) -> list[int]:
        """Return the frames to start from, in the order of the labels."""
        n, wanted = self.source.n_frames, config.number
        if isinstance(self.springs, VariableSprings):
            rng = np.random.default_rng(_seed(config, "choose", 0))
            chunks = read_used(self.source, DataConfig(), progress, with_forces=False)
            values = np.concatenate([self.springs.values(part) for part in chunks])
            return spread_out(values, self.springs.variables.periods, wanted, rng)
        middles = (np.arange(wanted) + 0.5) * n / wanted
        frames: list[int] = middles.astype(int).tolist()
        return frames

    def label(self, labels: MeanForceLabels, frame: int, seed: int) -> MeanForceLabels:
        """Return the labels, and that of a run from a frame."""
        start = next(read(self.source, chunk=1, start=frame, stop=frame + 1))
        targets = self.springs.values(start)[0]
        springs = self.springs.forces(targets, periodic=self.bench.periodic)
        displacements, forces = [], []
        try:
            for atoms in self.bench.run(springs, start, self.run, seed):
                values = self.springs.values(atoms)
                displacements.append(self.springs.displacements(values, targets))
                forces.append(self.estimate(atoms).double().numpy())
        except InputError as error:
            raise InputError(f"frame {frame} of {self.source.trajectory}: {error}") from error
        moved, felt = np.concatenate(displacements), np.concatenate(forces)
        label = mean_force(moved, felt, targets, self.springs.stiffness)
        return labels.with_label(label, None if start.box is None else start.box[0].numpy())

    def write_topology(self, path: Path, labels: MeanForceLabels) -> None:
        """Write what beads there are, at the positions of the first label."""
        if self.topology is None:
            return
        frame = mdtraj.Trajectory(labels.coordinates[:1].astype(np.float32), self.topology)
        if labels.box is not None:
            frame.unitcell_vectors = labels.box[:1].astype(np.float32)
        frame.save_pdb(str(path))


def spread_out(
    values: Floats, periods: tuple[float | None, ...], number: int, rng: np.random.Generator
) -> list[int]:
    """Return ``number`` of the values (n, d) that cover their range, in random order.

    Each is the one farthest from those before it, with periodic coordinates as points on a circle
    and the range of others as long as half of its circumference.
    """
    columns = []
    for column, period in zip(values.T, periods, strict=True):
        if period is None:
            columns.append(math.pi * column / max(np.ptp(column), 1e-300))
        else:
            turn = 2 * math.pi * column / period
            columns += [np.cos(turn), np.sin(turn)]
    points = np.stack(columns, -1)
    chosen = [int(rng.integers(len(points)))]
    apart = np.full(len(points), np.inf)
    while len(chosen) < number:
        apart = np.minimum(apart, np.square(points - points[chosen[-1]]).sum(1))
        apart[chosen] = -1  # of equal values each once
        chosen.append(int(apart.argmax()))
    return [chosen[k] for k in rng.permutation(number)]


def _prepare(files: Files, config: RestrainConfig, platform: str, threads: int | None) -> _Work:
    source = open_source(files.trajectory, topology=files.topology, system=files.system)
    if config.number > source.n_frames:
        raise InputError(
            f"number is {config.number}, more than the frames of {files.trajectory}: "
            f"give at most {source.n_frames}"
        )
    if source.system is None:
        raise InputError(
            f"{files.trajectory} has no System beside it: give --system FILE (an OpenMM System)"
        )
    place = bench(read_system(source.system), open_platform(platform), threads)
    if len(place.masses) != source.n_atoms:
        raise InputError(
            f"{files.trajectory} has {source.n_atoms} atoms, its System {len(place.masses)} "
            "particles: dynamics need the positions of all, give a trajectory that has them"
        )
    data = DataConfig(map=config.map, estimator=config.estimator)
    sample = sample_of(source, data)
    if place.periodic and sample.box is None:
        raise InputError(f"{files.trajectory} has no boxes, but its System is periodic")
    task = {"made_by": "deepcg label --restrain", **asdict(config)}
    task |= {
        "trajectory_hash": file_hash(files.trajectory),
        "system_hash": file_hash(source.system),
    }
    held = constraints_of(source, sample, data.constraints)
    forced = place.with_forces(sample)
    kT = thermal_energy(config.temperature)
    if is_collective(config.map):
        variables = build_variables(config.map, source.topology)
        forces = VARIABLE_ESTIMATORS[config.estimator](
            variables, [forced], held, source.topology, place.masses, config.temperature
        )
        springs: Springs = VariableSprings(variables, _widths(variables, config), kT)
        labels, topology, about = no_labels(task, of_variables(variables)), None, forces.describe()
        estimate: Callable[[Frames], Tensor] = forces
    else:
        mapping = build_mapping(config.map, source.topology)
        assert isinstance(mapping, LinearMapping)
        on_beads = ESTIMATORS[config.estimator](mapping, [forced], held, config.temperature)
        springs = BeadSprings(mapping, config.width_nm, kT)
        labels, about = no_labels(task, of_beads(mapping)), on_beads.describe()
        topology, estimate = bead_topology(mapping, source.topology), on_beads
    run = _run(config, place)
    check_step(springs, sample, place.masses, run.dt)
    return _Work(source, place, springs, estimate, run, labels, topology, about)


def _widths(variables: CollectiveVariables, config: RestrainConfig) -> Floats:
    widths = {"nm": config.width_nm, "rad": config.width_rad}
    return np.array([widths[unit] for unit in variables.units])


def _run(config: RestrainConfig, place: Bench) -> Run:
    dt_fs = config.dt_fs or (0.5 if _vibrates(place) else 2.0)
    every = round(1000 * config.interval_ps / dt_fs)
    if every < 1 or not math.isclose(every * dt_fs, 1000 * config.interval_ps, rel_tol=1e-6):
        raise InputError(
            f"interval_ps is {config.interval_ps:g}: give a multiple of the time step, {dt_fs:g} fs"
        )
    return Run(
        dt=dt_fs / 1000,
        equilibration=round(1000 * config.equilibration_ps / dt_fs),
        samples=round(config.ps / config.interval_ps),
        every=every,
        temperature=config.temperature,
        friction=config.friction,
    )


def _vibrates(place: Bench) -> bool:
    """Whether there are light atoms that no constraint holds."""
    held = {i for k in range(place.system.getNumConstraints()) for i in _held(place.system, k)}
    light = np.flatnonzero((place.masses > 0) & (place.masses < _LIGHT))
    return not held.issuperset(light.tolist())


def _held(system: Any, constraint: int) -> tuple[int, int]:
    first, second, _ = system.getConstraintParameters(constraint)
    return first, second


def _begin(path: Path, none: MeanForceLabels) -> MeanForceLabels:
    """Return the labels that are there already.

    Raises
    ------
    InputError
        What is there is something else.
    """
    if not path.exists():
        return none
    if not are_labels(path):
        raise InputError(
            f"{path} is no file of labels: move it away, or give another output folder"
        )
    found = load_labels(path)
    for name, value in none.task.items():
        if found.task.get(name) != value:
            raise InputError(
                f"{path} has labels with {name} = {found.task.get(name)}, not {value}: "
                "move it away, or give another output folder"
            )
    return replace(found, task=none.task)


def _seed(config: RestrainConfig, stage: str, number: int) -> int:
    """Return a seed of its own for every stage and label; OpenMM's 0 means any."""
    words = [config.seed, number, *stage.encode()]
    return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1) or 1
