"""Runs of a microscopic model: production that is cut off and resumed at will.

Production is a chain of segments. Each starts a fresh Context from a saved State, with a random
seed of its own, so a run that was cut off and resumed takes the steps of one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import openmm
from openmm import app, unit

from deepcg import __version__
from deepcg.atomistic.equilibration import Thermostat, advance, read_state, restart, state_of
from deepcg.atomistic.system import read_system
from deepcg.runtime.config import to_flat
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import read_json, to_disk, write_whole, writing
from deepcg.runtime.progress import Progress
from deepcg.runtime.provenance import check_same_settings

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
        found = _n_rows(files.log) if files.log.exists() else 0
        raise InputError(
            f"{trajectory} exists, with {found} frames: resume it, or give another output folder"
        )
    if trajectory.exists() and not files.checkpoint.exists():
        raise InputError(
            f"{trajectory} cannot be resumed without {files.checkpoint.name}: "
            f"give another output folder"
        )
    if not (resume and files.checkpoint.exists()):
        return False
    record = read_json(files.run)
    before = record.get("config") if isinstance(record, dict) else None
    if not isinstance(before, dict):
        raise InputError(f"{files.run} does not say what was run: give another output folder")
    check_same_settings(
        before,
        identity(config),
        found=f"{files.run} says",
        way_out="resume with the same, or give another output folder",
    )
    return True


def write_start(
    files: RunFiles,
    system: openmm.System,
    topology: app.Topology,
    context: openmm.Context,
    record: Mapping[str, object],
) -> None:
    """Write what a run starts from; the checkpoint last: it says that all is there.

    The files of frames come after it, in `produce`: without a checkpoint they are somebody else's.
    """
    files.checkpoint.unlink(missing_ok=True)
    periodic = system.usesPeriodicBoundaryConditions()
    whole = context.getState(positions=True, enforcePeriodicBox=periodic)
    with writing(files.topology), files.topology.open("w") as file:
        app.PDBFile.writeFile(topology, whole.getPositions(), file)
    write_whole(files.system, openmm.XmlSerializer.serialize(system))
    write_whole(files.run, json.dumps({**record, **_versions(context)}, indent=2) + "\n")
    write_whole(files.checkpoint, openmm.XmlSerializer.serialize(state_of(context)))


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
    if files.log.exists() and _n_rows(files.log) >= plan.frames:
        return
    state = read_state(files.checkpoint)
    context = thermostat.context(system)
    first = state.getStepCount() // plan.every
    if first > 0:
        recorder.truncate(first)
        _truncate_log(files.log, first)
    else:
        _create(files, recorder)
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


def _create(files: RunFiles, recorder: Recorder) -> None:
    """Write files of no frames."""
    recorder.create()
    columns = ("step", "time_ps", *recorder.columns, "speed_ns_day")
    with writing(files.log):
        files.log.write_text(",".join(columns) + "\n")


def _versions(context: openmm.Context) -> dict[str, object]:
    platform = context.getPlatform()
    names = platform.getPropertyNames()
    return {
        "versions": {"deepcg": __version__, "openmm": openmm.version.full_version},
        "platform": platform.getName(),
        "properties": {name: platform.getPropertyValue(context, name) for name in names},
    }


def _record_frame(
    files: RunFiles, recorder: Recorder, context: openmm.Context, speed: float
) -> None:
    """Add a frame to the trajectory, then its row to the log."""
    values = recorder.append(context)
    row = (context.getTime()._value, *values, speed)
    with writing(files.log), files.log.open("a") as file:
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
