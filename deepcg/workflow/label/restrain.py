"""``deepcg label --restrain``: mean forces from short restrained dynamics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import mdtraj
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deepcg.atomistic.restrained_dynamics import RestrainedSystem, Run, bench
from deepcg.atomistic.restraints import BeadRestraint, CVRestraint, Restraint, check_step
from deepcg.atomistic.system import open_platform, read_system, seed_of
from deepcg.forces.bead_estimators import ESTIMATORS
from deepcg.forces.constraints import Constraints
from deepcg.forces.cv_estimators import variable_estimator
from deepcg.forces.mean_force_labels import (
    MeanForce,
    MeanForceLabels,
    are_labels,
    load_labels,
    mean_force,
    no_labels,
    of_beads,
    of_variables,
)
from deepcg.geometry.farthest_points import farthest_points
from deepcg.mapping.beads import AUTO, LinearMapping, bead_topology, default_map
from deepcg.mapping.collective_variables import build_variables, is_collective
from deepcg.potentials.priors.system_forces import without_bias
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import replacing
from deepcg.runtime.locks import folder_locked
from deepcg.runtime.progress import Progress, silent
from deepcg.runtime.provenance import check_same_settings
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.pdb_writer import save_pdb
from deepcg.trajectory.reader import Trajectory, iter_frames, open_trajectory
from deepcg.trajectory.skipped_frames import SkippedFrames
from deepcg.units import thermal_energy
from deepcg.workflow.dataset.beads import (
    Described,
    constraints_of,
    mapping_of,
    read_used,
    sample_of,
    used_frames,
)
from deepcg.workflow.label.restrain_config import RestrainConfig

_LIGHT = 3.0  # Da: what is lighter, and free to vibrate, needs short steps


@dataclass(frozen=True, slots=True)
class Files:
    """What there is to restrain, and where the labels go."""

    trajectory: Path
    output: Path | None
    topology: Path | None
    system: Path | None
    trust: bool = False
    forces_without: tuple[str, ...] = ()
    forces_with: tuple[str, ...] = ()
    skip_frames: str | None = None
    bonds: str = "auto"

    @property
    def chosen(self) -> dict[str, list[str]]:
        """Which forces are left out or kept by name, where any are."""
        both = {"forces_without": self.forces_without, "forces_with": self.forces_with}
        return {key: [*names] for key, names in both.items() if names}

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
        the settings cannot be used; a file of other labels is in the way; another process makes
        these labels.
    """
    work = prepare(files, config, platform, threads)
    with folder_locked(files.labels.parent, f".{files.labels.name}.lock"):
        labels = _label(work, files.labels, config, progress, tell)
    tell(f"{labels.describe()}\nlabels in {files.labels}")
    return files.labels


def _label(
    work: Restraints,
    path: Path,
    config: RestrainConfig,
    progress: Progress,
    tell: Callable[[str], None],
) -> MeanForceLabels:
    """Return all labels, which are in the file ``path``, too."""
    labels = begin(path, work.none)
    frames = work.choose(config, progress)
    if len(labels) < len(frames):
        tell(work.coordinates.estimate.describe())
    for index in range(len(labels), len(frames)):
        progress(index, len(frames), "restrained dynamics")
        labels = work.label(labels, frames[index], seed_of(config.seed, "run", index))
        labels.save(path)
        progress(index + 1, len(frames), "restrained dynamics")
    work.write_topology(path.with_suffix(".pdb"), labels)
    return labels


class _Estimate(Described, Protocol):
    """Forces on the coordinates from those on the atoms."""

    def __call__(self, frames: Frames, /) -> Tensor:
        """Return the forces of frames, (n, ...)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Coordinates:
    """What is restrained; ``topology`` is that of beads, ``saved`` goes into the file of labels."""

    springs: Restraint
    estimate: _Estimate
    saved: dict[str, NDArray[Any]]
    topology: mdtraj.Topology | None


@dataclass(frozen=True, slots=True, eq=False)
class Restraints:
    """All that does not change from label to label; ``none`` are labels without any."""

    source: Trajectory
    bench: RestrainedSystem
    coordinates: _Coordinates
    run: Run
    none: MeanForceLabels

    def choose(self, config: RestrainConfig, progress: Progress) -> list[int]:
        """Return the frames to start from, in the order of the labels."""
        numbers = used_frames(self.source, config.data)
        n, wanted, springs = len(numbers), config.number, self.coordinates.springs
        if isinstance(springs, CVRestraint):
            rng = np.random.default_rng(seed_of(config.seed, "choose", 0))
            chunks = read_used(self.source, config.data, progress, with_forces=False)
            values = np.concatenate([springs.values(part) for part in chunks])
            chosen = spread_out(values, springs.variables.periods, wanted, rng)
            return [int(numbers[k]) for k in chosen]
        middles = (np.arange(wanted) + 0.5) * n / wanted
        frames: list[int] = numbers[middles.astype(int)].tolist()
        return frames

    def label(self, labels: MeanForceLabels, frame: int, seed: int) -> MeanForceLabels:
        """Return the labels, and that of a run from a frame."""
        start = next(iter_frames(self.source, chunk=1, start=frame, stop=frame + 1))
        try:
            label = self.hold(start, self.coordinates.springs.values(start)[0], seed)
        except InputError as error:
            raise InputError(f"frame {frame} of {self.source.trajectory}: {error}") from error
        return labels.with_label(label, None if start.box is None else start.box[0].numpy())

    def hold(self, start: Frames, targets: Doubles, seed: int) -> MeanForce:
        """Return the label of a run from the one frame of ``start``, held at targets (...).

        With ``run.steering`` springs begin where the frame is, and move.

        Raises
        ------
        InputError
            The dynamics break down.
        """
        springs, periodic = self.coordinates.springs, self.bench.periodic
        away = None
        if self.run.steering:
            away = springs.displacements(springs.values(start), targets)[0]
        pulls = springs.forces(targets, periodic=periodic, away=away)
        displacements, forces = [], []
        for atoms in self.bench.run(pulls, start, self.run, seed):
            displacements.append(springs.displacements(springs.values(atoms), targets))
            forces.append(self.coordinates.estimate(atoms).double().numpy())
        moved, felt = np.concatenate(displacements), np.concatenate(forces)
        return mean_force(moved, felt, targets, springs.stiffness)

    def write_topology(self, path: Path, labels: MeanForceLabels) -> None:
        """Write what beads there are, at the positions of the first label."""
        topology = self.coordinates.topology
        if topology is None:
            return
        frame = mdtraj.Trajectory(labels.coordinates[:1].astype(np.float32), topology)
        if labels.box is not None:
            frame.unitcell_vectors = labels.box[:1].astype(np.float32)
        with replacing(path) as part:
            save_pdb(part, frame)


def spread_out(
    values: Doubles, periods: tuple[float | None, ...], number: int, rng: np.random.Generator
) -> list[int]:
    """Return ``number`` of the values (n, d) that cover their range, in random order.

    Each is the one farthest from those before it, with periodic coordinates as points on a circle
    and the range of others as long as half of its circumference.
    """
    columns = [
        math.pi * x / max(np.ptp(x), 1e-300) if period is None else 2 * math.pi * x / period
        for x, period in zip(values.T, periods, strict=True)
    ]
    first, periodic = int(rng.integers(len(values))), [period is not None for period in periods]
    chosen = farthest_points(np.stack(columns, -1), first, number, periodic=periodic)
    return [chosen[k] for k in rng.permutation(number)]


def prepare(files: Files, config: RestrainConfig, platform: str, threads: int | None) -> Restraints:
    """Return what makes labels of a trajectory's frames.

    Raises
    ------
    InputError
        As `label_restrained`.
    """
    source = open_trajectory(
        files.trajectory,
        topology=files.topology,
        system=files.system,
        bonds=files.bonds,
        trust=files.trust,
        skipped=SkippedFrames.of(files.skip_frames),
    )
    source.skipped.check(source.trajectory, source.n_frames)
    if config.map == AUTO:
        config = replace(config, map=default_map(source.graph, source.trajectory))
    place = _bench(source, files, config, platform, threads)
    sample = sample_of(source, config.data)
    if place.periodic and sample.box is None:
        raise InputError(f"{source.trajectory} has no boxes, but its System is periodic")
    held = constraints_of(source, sample, config.data.constraints)
    forced = place.with_forces(sample)
    restrain = _variables if is_collective(config.map) else _beads
    coordinates = restrain(config, source, forced, held, place.masses)
    run = _run(config, place)
    check_step(coordinates.springs, sample, place.masses, run.dt)
    task = {
        "made_by": "deepcg label --restrain",
        **asdict(config),
        **files.chosen,
        "trajectory_hash": source.hash["trajectory"],
        "system_hash": source.hash["system"],
        **({"skip_frames": files.skip_frames} if files.skip_frames else {}),
    }
    return Restraints(source, place, coordinates, run, no_labels(task, coordinates.saved))


def _bench(
    source: Trajectory, files: Files, config: RestrainConfig, platform: str, threads: int | None
) -> RestrainedSystem:
    """Return where frames of the source are run, if there are enough, and of all atoms."""
    if config.number > len(source.kept):
        raise InputError(
            f"number is {config.number}, more than the frames of {source.trajectory}: "
            f"give at most {len(source.kept)}"
        )
    if source.system is None:
        raise InputError(
            f"{source.trajectory} has no System beside it: give --system FILE (an OpenMM System)"
        )
    system = read_system(source.system, trust=source.trust)
    system = without_bias(system, files.forces_without, files.forces_with, source.system)
    place = bench(system, open_platform(platform), threads)
    if len(place.masses) != source.n_atoms:
        raise InputError(
            f"{source.trajectory} has {source.n_atoms} atoms, its System {len(place.masses)} "
            "particles: dynamics need the positions of all, give a trajectory that has them"
        )
    return place


def _variables(
    config: RestrainConfig, source: Trajectory, sample: Frames, held: Constraints, masses: Doubles
) -> _Coordinates:
    variables = build_variables(config.map, source.topology, through_box=source.graph.through_box)
    widths = {"nm": config.width_nm, "rad": config.width_rad}
    width = np.array([widths[unit] for unit in variables.units])
    springs = CVRestraint(variables, width, thermal_energy(config.temperature))
    estimate = variable_estimator(config.estimator)(
        variables, [sample], held, source.graph, masses, config.temperature
    )
    return _Coordinates(springs, estimate, of_variables(variables), None)


def _beads(
    config: RestrainConfig, source: Trajectory, sample: Frames, held: Constraints, masses: Doubles
) -> _Coordinates:
    del masses
    mapping = mapping_of(config.data, source)
    assert isinstance(mapping, LinearMapping)
    springs = BeadRestraint(mapping, config.width_nm, thermal_energy(config.temperature))
    estimate = ESTIMATORS[config.estimator](mapping, [sample], held, config.temperature)
    topology = bead_topology(mapping, source.graph)
    return _Coordinates(springs, estimate, of_beads(mapping), topology)


def _run(config: RestrainConfig, place: RestrainedSystem) -> Run:
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


def _vibrates(place: RestrainedSystem) -> bool:
    """Whether there are light atoms that no constraint holds."""
    held = {i for k in range(place.system.getNumConstraints()) for i in _held(place.system, k)}
    light = np.flatnonzero((place.masses > 0) & (place.masses < _LIGHT))
    return not held.issuperset(light.tolist())


def _held(system: Any, constraint: int) -> tuple[int, int]:
    first, second, _ = system.getConstraintParameters(constraint)
    return first, second


def begin(path: Path, none: MeanForceLabels) -> MeanForceLabels:
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
    check_same_settings(
        found.task,
        none.task,
        found=f"{path} has labels with",
        way_out="move it away, or give another output folder",
    )
    return replace(found, task=none.task)
