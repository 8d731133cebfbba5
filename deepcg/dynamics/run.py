"""The job below ``deepcg sample``: replicas of Langevin dynamics on U, written as they go."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

import sampling
from deepcg.dynamics.blowups import describe
from deepcg.dynamics.config import DynamicsConfig
from deepcg.dynamics.sampled_temperature import about_temperature, mean_temperature
from deepcg.dynamics.samples import Samples, trajectories_in
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import write_whole
from deepcg.runtime.progress import Progress, silent
from deepcg.runtime.provenance import check_same_settings
from deepcg.units import BOLTZMANN, thermal_energy
from sampling import (
    INTEGRATORS,
    Biased,
    Blowup,
    Checkpoint,
    ForceField,
    Method,
    ReplicaExchange,
    SamplerState,
    Step,
    run,
    thermally_stable,
)

_log = logging.getLogger(__name__)

Settings = Mapping[str, float | int | str]


class SamplingError(InputError):
    """The dynamics left what the model describes: for the user to mend.

    By a smaller time step, a longer training or a repulsive prior.
    """


@dataclass(frozen=True, slots=True)
class Summary:
    """What came out of the replicas; nm, ps, K, kJ/mol.

    ``ns_per_day`` adds up all replicas. ``temperature_error`` is the standard error of correlated
    frames, or of the scatter between replicas where these are too short for it (then ``None`` for
    a single one); ``temperature_warning`` is what to tell where the temperature is not the
    ``temperature_target``. Temperatures are ``None`` for overdamped dynamics, which have no
    velocities. ``energy`` is without a bias. With replica exchange, ``energy`` and ``temperature``
    are those of the lowest temperature, and ``acceptance`` has the accepted fraction of swaps of
    every temperature with the next. Replicas ``dropped`` blew up; their frames do not count.
    """

    n_replicas: int
    n_beads: int
    n_frames: int
    ps: float
    interval_ps: float
    energy: float
    temperature: float | None
    temperature_error: float | None
    seconds: float
    ns_per_day: float
    ns_per_day_per_replica: float
    acceptance: tuple[float, ...] = ()
    dropped: tuple[int, ...] = ()
    temperature_target: float | None = None
    temperature_warning: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Replicas:
    """What moves, and how it is moved.

    Parameters
    ----------
    force_field
        (n_replicas, n_beads, 3), nm, to energies, kJ/mol, and forces, kJ/mol/nm. The bias of a
        `Biased` one moves the replicas and is left out of the energies that are written.
    start
        (n_replicas, n_beads, 3), nm; its dtype and device are those of the dynamics.
    masses
        (n_beads,), Da.
    box
        (3, 3), nm, rows are the box vectors; ``None`` for open boundaries.
    topology
        The beads.
    method
        Metadynamics or replica exchange. With the latter the first replicas, as many as there are
        ladders, are those at the temperature of the samples: ``000.dcd`` ...; the others, at higher
        ones, are ``hot-330K-000.dcd`` ....
    forget
        Called after each interval for a force field that remembers (a neighbor list with a
        skin): it must drop that memory, or a resumed run differs in rounding.
    """

    force_field: ForceField
    start: Tensor
    masses: Tensor
    box: Tensor | None
    topology: mdtraj.Topology
    method: Method | None = None
    forget: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        n_beads = self.topology.n_atoms
        if self.start.ndim != 3 or self.start.shape[1:] != (n_beads, 3):
            shape = tuple(self.start.shape)
            raise ValueError(f"start has shape {shape}, not (replicas, {n_beads}, 3)")
        if self.masses.shape != (n_beads,):
            raise ValueError(f"masses have shape {tuple(self.masses.shape)}, not ({n_beads},)")


def run_dynamics(
    replicas: Replicas,
    config: DynamicsConfig,
    output: Path,
    *,
    settings: Settings | None = None,
    resume: bool = False,
    progress: Progress = silent,
    checkpoint_seconds: float = 30.0,
    drop_blown_up: bool = False,
) -> Summary:
    """Sample exp(-U/kT) with one replica per start and write what ``deepcg compare`` reads.

    The folder ``output`` gets ``000.dcd``, ``001.dcd`` ... (positions are unwrapped, so beads
    wander out of the box and displacements are true), ``topology.pdb``, ``log.csv``,
    ``checkpoint.pt`` and, at the end, ``summary.json``. After an interruption ``resume``
    goes on from the checkpoint, and all trajectories and the log have the bytes of a run
    that was never interrupted; a longer ``config.ps`` extends a run that was complete.

    Parameters
    ----------
    settings
        What else must be the same for a run to be resumed.
    checkpoint_seconds
        Wall time between checkpoints; results do not depend on it.
    drop_blown_up
        Go on without replicas that blow up, with a note in the log; their trajectories become
        ``dropped-000.dcd`` ....

    Raises
    ------
    SamplingError
        A replica blew up, or with ``drop_blown_up`` all did; the checkpoint and all frames up to
        it are kept.
    InputError
        The folder holds other samples, or cannot be resumed from; ``drop_blown_up`` was given with
        a method, which makes replicas depend on one another.
    """
    if drop_blown_up and replicas.method is not None:
        raise InputError("--drop-blown-up is for replicas that are independent: leave it out")
    job = _job(replicas, config, output, checkpoint_seconds, drop_blown_up)
    notes = {**asdict(config), "dt": config.step, **(settings or {})}
    begin = _resume if _is_resumable(output, resume) else _begin
    checkpoint = begin(job, notes)
    replicas.forget()
    try:
        checkpoint = job.propagate(checkpoint, progress)
    except Blowup as blowup:
        path = job.samples.checkpoint
        line = describe(blowup, replicas.topology, replicas.box, config.step, path)
        raise SamplingError(line) from blowup
    return _summarize(job, checkpoint)


def temperature(state: SamplerState, masses: Tensor, dt: float) -> Tensor:
    """Return the kinetic temperature of each replica, (n_replicas,), K.

    From the velocities before the last half kick of BAOAB: for harmonic wells they have no
    error in ``dt``, while those at the end of the step are too cold by the fraction
    (omega dt)^2 / 4 though the positions are right (Zhang et al., J. Phys. Chem. A 2019,
    123, 6056). Friction and noise act on all 3 n degrees of freedom.
    """
    v = state.velocities - dt / 2 / masses[:, None] * state.forces
    twice_kinetic = (masses[:, None] * v.square()).sum((-2, -1))
    return twice_kinetic / (3 * len(masses) * BOLTZMANN)


@dataclass(frozen=True, slots=True)
class _Job:
    """What stays the same while replicas move."""

    replicas: Replicas
    step: Step
    generator: Generator
    masses: Tensor
    kT: float | Tensor
    config: DynamicsConfig
    samples: Samples
    checkpoint_seconds: float
    drop_blown_up: bool

    def propagate(self, latest: Checkpoint, progress: Progress) -> Checkpoint:
        """Go on from a checkpoint to the end; return, and leave on disk, the last one."""
        began = saved = time.monotonic()
        spent = float(latest.notes["seconds"])
        total = self.config.n_equilibration + self.config.n_frames
        states, dead = self._states(latest), 0
        try:
            while True:
                try:
                    n, state = next(states)
                except StopIteration:
                    break
                except Blowup as blowup:
                    latest = self._without(blowup.replica, latest, dead, blowup)
                    states, dead = self._states(latest), dead + 1
                    continue
                done, dead = n // self.config.every, 0
                kinetic = self._temperature(state)
                dropped = dropped_of(latest)
                self._write(done - self.config.n_equilibration, state, kinetic, dropped)
                seconds = spent + time.monotonic() - began
                latest = self.checkpoint(n, state, {**latest.notes, "seconds": seconds})
                self.replicas.forget()
                progress(done, total, self._word(done, kinetic))
                if time.monotonic() - saved > self.checkpoint_seconds:
                    self.samples.save(latest)
                    saved = time.monotonic()
        finally:
            self.samples.save(latest)
        return latest

    def _without(self, replica: int, latest: Checkpoint, dead: int, blowup: Blowup) -> Checkpoint:
        """Return the last checkpoint without a replica; another one moves in its place, unseen.

        So the others take the steps that they would have taken: they share their noise. ``dead``
        counts those that blew up since that checkpoint: who is in the place may do so again.
        """
        dropped = dropped_of(latest) | {replica}
        healthy = [i for i in range(self.samples.n_target) if i not in dropped]
        if not self.drop_blown_up or not healthy or dead > 2 * len(self.samples.trajectories):
            raise blowup
        old = latest.state
        parts = [t.clone() for t in (old.positions, old.velocities, old.forces, old.energy)]
        for part in parts:
            part[replica] = part[healthy[dead % len(healthy)]]
        names = ",".join(map(str, sorted(dropped)))
        latest = replace(
            latest, state=SamplerState(*parts), notes={**latest.notes, "dropped": names}
        )
        self.recall(latest)
        self.samples.save(latest)
        self.samples.drop(dropped)
        _log.warning(
            "replica %d blew up at step %d (%.3f ps) and is dropped; %d others go on",
            replica,
            blowup.step,
            blowup.step * self.config.step,
            len(healthy),
        )
        return latest

    def checkpoint(self, n: int, state: SamplerState, notes: Settings) -> Checkpoint:
        """Return all that is needed to go on from here."""
        method = self.replicas.method
        memory = {} if method is None else method.get_state()
        return Checkpoint(n, state, self.generator.get_state(), dict(notes), memory)

    def recall(self, checkpoint: Checkpoint) -> None:
        """Set the noise and the method to what they were at a checkpoint."""
        self.generator.set_state(checkpoint.generator_state)
        if self.replicas.method is not None:
            self.replicas.method.set_state(checkpoint.memory)

    def _states(self, latest: Checkpoint) -> Iterator[tuple[int, SamplerState]]:
        every = self.config.every
        total = (self.config.n_equilibration + self.config.n_frames) * every
        return run(
            self.step,
            latest.state,
            self.generator,
            n_steps=max(0, total - latest.step),
            every=every,
            first=latest.step,
            sound=thermally_stable(self.masses, self.kT),
            method=self.replicas.method,
        )

    def _write(
        self, frame: int, state: SamplerState, kinetic: Tensor, dropped: frozenset[int]
    ) -> None:
        if frame > 0:
            energy, force_field = state.energy, self.replicas.force_field
            if isinstance(force_field, Biased):
                energy = energy - force_field.bias_energy(state.positions)
            time_ps = frame * self.config.interval_ps
            self.samples.append(time_ps, state.positions, energy, kinetic, dropped)

    def _temperature(self, state: SamplerState) -> Tensor:
        if self.config.integrator == "overdamped":  # its velocities are noise alone
            return torch.full_like(state.energy, torch.nan)
        return temperature(state, self.masses, self.config.step)

    def _word(self, done: int, kinetic: Tensor) -> str:
        phase = "equilibrating" if done <= self.config.n_equilibration else "sampling"
        mean = float(kinetic[: self.samples.n_target].mean())
        return phase if math.isnan(mean) else f"{phase}, {mean:.0f} K"


def dropped_of(checkpoint: Checkpoint) -> frozenset[int]:
    """Return the replicas that were dropped before a checkpoint."""
    return frozenset(int(i) for i in str(checkpoint.notes.get("dropped", "")).split(",") if i)


def _job(
    replicas: Replicas,
    config: DynamicsConfig,
    output: Path,
    checkpoint_seconds: float,
    drop_blown_up: bool,
) -> _Job:
    start, method = replicas.start, replicas.method
    masses = replicas.masses.to(start)
    kT = method.kT if isinstance(method, ReplicaExchange) else thermal_energy(config.temperature)
    step = INTEGRATORS[config.integrator](
        replicas.force_field, masses, kT=kT, dt=config.step, friction=config.friction
    )
    samples = Samples.of(
        output,
        _names(len(start), method),
        replicas.topology,
        replicas.box,
        dt=config.step,
        first_step=(config.n_equilibration + 1) * config.every,
        every=config.every,
    )
    return _Job(
        replicas,
        step if method is None else method.step(step),
        Generator(start.device).manual_seed(config.seed),
        masses,
        kT,
        config,
        samples,
        checkpoint_seconds,
        drop_blown_up,
    )


def _names(n_replicas: int, method: Method | None) -> list[str]:
    """Return the names of the trajectories."""
    if not isinstance(method, ReplicaExchange):
        return [f"{i:03d}" for i in range(n_replicas)]
    kelvin = (method.levels[1:] / BOLTZMANN).tolist()
    ladders = [f"{i:03d}" for i in range(method.n_ladders)]
    return ladders + [f"hot-{t:g}K-{name}" for t in kelvin for name in ladders]


def _begin(job: _Job, notes: Settings) -> Checkpoint:
    """Return the state before the first step, on disk as the first checkpoint."""
    positions, force_field = job.replicas.start, job.replicas.force_field
    try:
        state = sampling.start(
            force_field, positions, job.masses, kT=job.kT, generator=job.generator
        )
    except FloatingPointError as error:
        raise SamplingError(f"{error} at the start: beads overlap, or the model is bad") from error
    checkpoint = job.checkpoint(0, state, {**notes, "seconds": 0.0})
    job.samples.save(checkpoint)  # first: frames without a checkpoint are somebody else's
    job.samples.create(positions[0])
    return checkpoint


def _resume(job: _Job, notes: Settings) -> Checkpoint:
    """Return the checkpoint, with all files cut back to it."""
    path, config, positions = job.samples.checkpoint, job.config, job.replicas.start
    try:
        checkpoint = job.samples.load(positions.device)
        _check_same_run(path, checkpoint, positions, notes)
        job.recall(checkpoint)
        _check_same_model(path, checkpoint.state, job.replicas.force_field)
        n_frames = checkpoint.step // config.every - config.n_equilibration
        dropped = dropped_of(checkpoint)
        job.samples.take_back(dropped)
        if n_frames > 0:
            job.samples.truncate(n_frames, dropped)
        else:  # the files may not be there yet
            job.samples.create(positions[0])
        job.samples.drop(dropped)
    except (ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot resume: {error}; delete {path.parent} to begin anew") from error
    return checkpoint


def _is_resumable(output: Path, resume: bool) -> bool:
    """Return whether to resume; refuse to overwrite the samples of another run."""
    saved = [output / "checkpoint.pt", output / "checkpoint.previous.pt"]
    checkpoints = [file for file in saved if file.exists()]
    if checkpoints and resume:
        return True
    found = checkpoints or trajectories_in(output)
    if found:
        way_out = "cannot be resumed without checkpoint.pt" if resume else "resume them"
        log = output / "log.csv"
        frames = max(0, log.read_bytes().count(b"\n") - 1) if log.exists() else 0
        raise InputError(
            f"{output} holds samples already ({found[0].name}), {frames} frames: {way_out}, or "
            "delete"
        )
    return False


def _check_same_run(path: Path, checkpoint: Checkpoint, positions: Tensor, notes: Settings) -> None:
    shape = checkpoint.state.positions.shape
    if shape != positions.shape:
        raise InputError(
            f"{path} is of {shape[0]} replicas of {shape[1]} beads, not of "
            f"{positions.shape[0]} of {positions.shape[1]}"
        )
    if checkpoint.state.positions.dtype != positions.dtype:
        raise InputError(
            f"{path} is of {checkpoint.state.positions.dtype}, not of {positions.dtype}"
        )
    check_same_settings(
        checkpoint.notes,
        notes,
        found=f"{path} is of a run with",
        way_out=f"resume with the old value, or delete {path.parent}",
        free=("ps",),
    )


def _check_same_model(path: Path, state: SamplerState, force_field: ForceField) -> None:
    energy, _ = force_field(state.positions)
    off = (energy - state.energy).abs() / (1 + state.energy.abs())
    if float(off.max()) > 1e-3:  # far above the rounding of another device
        i = int(off.argmax())
        raise InputError(
            f"{path} is of another model: energy {float(state.energy[i]):.6g} kJ/mol then, "
            f"{float(energy[i]):.6g} now; delete {path.parent} to sample the new one"
        )


def _scatter(series: NDArray[np.float64]) -> float | None:
    """Return the standard error from the means of replicas, of (n_frames, n_replicas)."""
    n = series.shape[1]
    return float(series.mean(0).std(ddof=1) / math.sqrt(n)) if n > 1 else None


def _summarize(job: _Job, checkpoint: Checkpoint) -> Summary:
    samples, config, method = job.samples, job.config, job.replicas.method
    n_replicas, n_target = len(samples.trajectories), samples.n_target
    log: NDArray[np.float64] = np.loadtxt(samples.log, delimiter=",", skiprows=1, ndmin=2)
    dropped = dropped_of(checkpoint)
    healthy = [i for i in range(n_target) if i not in dropped]
    series = log[:, 3 + n_replicas :][:, healthy]
    kinetic = None if np.isnan(series).any() else float(series.mean())
    error = _scatter(series)
    sampled = None if kinetic is None else mean_temperature(series)
    warning = None
    if sampled is not None:
        error = sampled.error
        warning = about_temperature(
            sampled, config.temperature, dt=config.step, friction=config.friction
        )
    seconds = float(checkpoint.notes["seconds"])
    speed = checkpoint.step * config.step / 1000 / (seconds / 86_400)
    summary = Summary(
        n_replicas=n_replicas,
        n_beads=len(job.masses),
        n_frames=len(log),
        ps=len(log) * config.interval_ps,
        interval_ps=config.interval_ps,
        energy=float(log[:, 1].mean()),
        temperature=kinetic,
        temperature_error=None if kinetic is None else error,
        seconds=seconds,
        ns_per_day=speed * n_replicas,
        ns_per_day_per_replica=speed,
        acceptance=tuple(method.acceptance.tolist()) if isinstance(method, ReplicaExchange) else (),
        dropped=tuple(sorted(dropped)),
        temperature_target=config.temperature,
        temperature_warning=warning,
    )
    write_whole(samples.folder / "summary.json", json.dumps(asdict(summary), indent=2) + "\n")
    return summary
