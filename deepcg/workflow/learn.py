"""``deepcg learn``: data where an ensemble on collective variables does not know U."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepcg.active import StoredFrames, Survey, pick, survey
from deepcg.collective import VariableFrames
from deepcg.configuration import read_toml, to_flat, write_toml
from deepcg.ensemble import SurfaceEnsemble, load_surfaces, member_folder
from deepcg.errors import InputError
from deepcg.exploration import Box, Trust
from deepcg.figures import png
from deepcg.files import read_arrays, write_arrays, write_bytes, write_json
from deepcg.folders import make_folder
from deepcg.learning_figures import learning_figure
from deepcg.locks import folder_locked
from deepcg.model import SurfaceModel, save_model
from deepcg.progress import Progress, silent
from deepcg.report import versions
from deepcg.stack_training import train_stack
from deepcg.surface import SurfacePotential
from deepcg.surface_map import BINS, surface_of
from deepcg.training import TrainingConfig
from deepcg.units import thermal_energy
from deepcg.workflow.compare import fit_config_of
from deepcg.workflow.device import device_of
from deepcg.workflow.fit_config import FitConfig, absolute, with_preset
from deepcg.workflow.fit_variables import samples_of
from deepcg.workflow.members import drawn_frames, member_seed
from deepcg.workflow.variables import map_variables
from free_energy import Estimate


@dataclass(frozen=True, slots=True)
class LearnConfig:
    """Active learning: ask for forces where the members of an ensemble disagree, and fit anew.

    Parameters
    ----------
    run
        Folder of a fit of collective variables with two members or more.
    pool
        Trajectories with forces whose frames answer.
    output
        Folder of the run that comes of it, with one for each round.
    pool_topology, pool_system
        What belongs to the pool, where it is not that of the run's own data.
    rounds
        At most so many.
    places
        Places that are asked for in a round.
    each
        Frames that answer for a place.
    walkers, walk
        How many walkers look for what is not known, and for how many steps.
    low, high
        Trust levels, kJ/mol per unit: below the first spread the members are believed, above the
        second not at all; by default three times the rms spread over the frames of the run, and 1.5
        times that.
    ceiling
        Up to what free energy walkers are helped uphill, kJ/mol.
    until
        Stop when no more than this part of where walkers go is not known.
    at_random
        Take frames of the pool at random instead, for comparison.
    refit_steps
        Optimiser steps in a round, from the present weights.
    seed
        Of walkers and choices.
    threads
        CPU threads; by default all cores.
    resume
        Go on with what was interrupted, or with more rounds.
    """

    run: Path
    pool: tuple[Path, ...]
    output: Path = Path("learned")
    pool_topology: Path | None = None
    pool_system: Path | None = None
    rounds: int = 10
    places: int = 30
    each: int = 20
    walkers: int = 64
    walk: int = 1000
    low: float | None = None
    high: float | None = None
    ceiling: float = 60.0
    until: float = 0.02
    at_random: bool = False
    refit_steps: int = 400
    seed: int = 0
    threads: int | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        for name in ("rounds", "places", "each", "walkers", "walk", "refit_steps", "ceiling"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}: it must be positive")
        if not 0 <= self.until < 1:
            raise InputError(f"until is {self.until}: give 0 or more, and less than 1")
        if self.low is not None and not 0 < self.low < (self.high or 1.5 * self.low):
            raise InputError(
                f"the trust levels are {self.low} and {self.high}: give 0 < low < high"
            )


@dataclass(frozen=True, slots=True)
class Round:
    """What a round did: all but its frames and weights.

    ``unknown`` is the part of where walkers went at which Sigma was above the lower trust level
    before the round; ``spread`` is the rms of Sigma there.
    """

    number: int
    unknown: float
    spread: float
    asked: int
    answered: int
    frames: int


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What came of it: the members, what each round did, and what walkers find in the end."""

    models: tuple[SurfaceModel, ...]
    rounds: tuple[Round, ...]
    unknown: float
    frames: tuple[VariableFrames, ...]


def learn(
    config: LearnConfig,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> Learned:
    """Explore, ask and train until little is unknown; write a run folder for each round.

    Raises
    ------
    InputError
        The run is no ensemble of collective variables, the folder holds something else, or
        another process works there.
    """
    device_of("cpu", config.threads)
    with folder_locked(config.output):
        _check_folder(config)
        return _learn(config, progress, tell)


def _learn(config: LearnConfig, progress: Progress, tell: Callable[[str], None]) -> Learned:
    fitted = with_preset(fit_config_of(config.run))
    models = load_surfaces(config.run)
    if len(models) < 2:
        raise InputError(f"{config.run} has one member, and no spread: add some by --resume")
    own, pool = _data(config, fitted, progress)
    job = _Job(config, fitted, models, own, pool)
    write_toml(config.output / "learn.toml", _absolute(config))
    state = _State(tuple(model.potential for model in models), (), (), ())
    for number in range(1, config.rounds + 1):
        if (config.output / f"round-{number}" / "round.json").is_file():
            state = job.recalled(state, number)
        else:
            found = job.survey(state, number)
            if found.fraction <= config.until and not config.at_random:
                break
            state = job.round(state, found, number, progress)
        tell(_in_words(state.rounds[-1]))
    last = job.survey(state, config.rounds + 1)
    tell(f"{100 * last.fraction:.1f} % of where walkers go is not known now")
    learned = Learned(
        job.models_of(state.members), state.rounds, last.fraction, tuple(f for f in state.frames)
    )
    job.write(config.output, state)
    _write_results(config, learned, state, own)
    tell(f"run in {config.output}")
    return learned


def refitted(
    members: Sequence[SurfacePotential],
    parts: Sequence[VariableFrames],
    training: TrainingConfig,
    *,
    seeds: Sequence[int],
    resample: bool,
    progress: Progress = silent,
) -> list[SurfacePotential]:
    """Return members trained on from their present weights, on all frames that there are."""
    dtype = members[0].center.dtype
    samples = samples_of([part.to("cpu", dtype) for part in parts])
    lengths = [len(part) for part in parts]
    drawn = [drawn_frames(lengths, seed) for seed in seeds] if resample else None
    held_out = samples[:: max(1, len(samples) // 500)]
    return train_stack(
        members,
        samples,
        held_out,
        training,
        seeds=seeds,
        drawn=drawn,
        progress=progress,
    )[0]


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """The members, and what the rounds asked for: frames, and places without an answer."""

    members: tuple[SurfacePotential, ...]
    rounds: tuple[Round, ...]
    frames: tuple[VariableFrames, ...]
    asked: tuple[tuple[Tensor, Tensor], ...]  # places, whether answered

    @property
    def silent(self) -> Tensor:
        """Places at which nobody could answer, (m, d)."""
        missed = [places[~answered] for places, answered in self.asked]
        return torch.cat(missed) if missed else torch.zeros(0, 1)


class _Job:
    """What stays the same from round to round."""

    def __init__(
        self,
        config: LearnConfig,
        fitted: FitConfig,
        models: Sequence[SurfaceModel],
        own: list[VariableFrames],
        pool: VariableFrames,
    ) -> None:
        self.config, self.fitted, self.first, self.own = config, fitted, models[0], own
        everything = VariableFrames.join([_bare(part) for part in [*own, pool]]).values
        periods = models[0].potential.periods
        self.dtype = models[0].potential.center.dtype
        self.box = Box(
            periods, everything.amin(0).to(self.dtype), everything.amax(0).to(self.dtype)
        )
        self.oracle = StoredFrames(pool, self.box, config.each)
        self.kT = thermal_energy(fitted.temperature)
        self.trust = self._trust(models)

    def survey(self, state: _State, number: int) -> Survey:
        """Let walkers look for what is not known, from frames that are."""
        generator = torch.Generator().manual_seed(1000 * self.config.seed + number)
        known = torch.cat([part.values for part in [*self.own, *state.frames]]).to(self.dtype)
        start = known[torch.randint(len(known), (self.config.walkers,), generator=generator)]
        return survey(
            state.members,
            start,
            self.trust,
            self.box,
            kT=self.kT,
            steps=self.config.walk,
            silent=state.silent,
            generator=generator,
        )

    def round(self, state: _State, found: Survey, number: int, progress: Progress) -> _State:
        """Return the state after asking and training, which is then on disk."""
        config = self.config
        seed = 1000 * config.seed + number
        before = self.oracle.given.copy()
        if config.at_random:
            self.oracle.take(config.places * config.each, np.random.default_rng(seed))
            places, answered = torch.zeros(0, len(self.box.periods)), torch.zeros(0).bool()
        else:
            generator = torch.Generator().manual_seed(seed)
            places = pick(found, config.places, self.box, generator)
            answered = torch.from_numpy(self.oracle(places)[1])
        given = np.flatnonzero(self.oracle.given & ~before)
        frames = self.oracle.frames[torch.from_numpy(given)]
        spread = float(found.spread.square().mean().sqrt())
        done = Round(number, found.fraction, spread, len(places), int(answered.sum()), len(given))
        whole = (*state.frames, frames) if len(given) else state.frames
        members = self._trained(state.members, whole, number, progress)
        asked = (*state.asked, (places, answered))
        state = _State(members, (*state.rounds, done), whole, asked)
        folder = config.output / f"round-{number}"
        self.write(folder, state)
        arrays = {"given": given, "places": places.numpy(), "answered": answered.numpy()}
        write_arrays(folder / "asked.npz", arrays)
        write_json(folder / "round.json", asdict(done))  # last: the round is whole now
        return state

    def recalled(self, state: _State, number: int) -> _State:
        """Return the state after a round that is on disk."""
        folder = self.config.output / f"round-{number}"
        saved = read_arrays(folder / "asked.npz")
        given, places, answered = (saved[name] for name in ("given", "places", "answered"))
        self.oracle.given[given] = True
        frames = (self.oracle.frames[torch.from_numpy(given)],) if len(given) else ()
        return _State(
            tuple(model.potential for model in load_surfaces(folder)),
            (*state.rounds, Round(**json.loads((folder / "round.json").read_text()))),
            (*state.frames, *frames),
            (*state.asked, (torch.from_numpy(places), torch.from_numpy(answered))),
        )

    def models_of(self, members: Sequence[SurfacePotential]) -> tuple[SurfaceModel, ...]:
        """Return members with the names of their coordinates."""
        return tuple(replace(self.first, potential=member) for member in members)

    def write(self, folder: Path, state: _State) -> None:
        """Write a run folder."""
        make_folder(folder)
        models = self.models_of(state.members)
        members = replace(self.fitted.members, ensemble=len(models))
        write_toml(
            folder / "config.toml",
            absolute(replace(self.fitted, output=folder, members=members)),
        )
        for k, model in enumerate(models):
            make_folder(member_folder(folder, k))
            save_model(member_folder(folder, k) / "model.pt", model)
        if len(self.first.names) in BINS:
            # what was asked for is no trajectory of its own, and its number tells no density
            last = VariableFrames.join([_bare(part) for part in (self.own[-1], *state.frames)])
            parts = [*(_bare(part) for part in self.own[:-1]), last]
            potentials = [state.members[0], *state.members]
            surface = surface_of(potentials, parts, self.first.names, self.first.units, self.kT)
            nothing = np.full(surface.grid.shape, np.nan)
            replace(surface, histogram=Estimate(nothing, nothing)).save(folder / "surface.npz")

    def _trained(
        self,
        members: Sequence[SurfacePotential],
        frames: Sequence[VariableFrames],
        number: int,
        progress: Progress,
    ) -> tuple[SurfacePotential, ...]:
        plain = self.fitted.training
        training = replace(
            plain,
            steps=self.config.refit_steps,
            learning_rate=plain.learning_rate / 2,
            validations=1,
            patience=0,
        )
        # other orders of frames than in the rounds before
        seeds = [member_seed(plain.seed + 7919 * number, k) for k in range(len(members))]
        told: Progress = lambda done, total, what: progress(done, total, f"round {number}, {what}")
        found = refitted(
            members,
            [_bare(part) for part in [*self.own, *frames]],
            training,
            seeds=seeds,
            resample=self.fitted.members.resample,
            progress=told,
        )
        return tuple(found)

    def _trust(self, models: Sequence[SurfaceModel]) -> Trust:
        """Return the trust levels: those asked for, or those that fit the run's own frames."""
        ensemble = SurfaceEnsemble([model.potential for model in models])
        known = torch.cat([part.values for part in self.own]).to(self.dtype)
        _, forces = ensemble.stack.forces(known[:: max(1, len(known) // 2000)])
        alike = len(set(models[0].units)) == 1
        mean = forces.mean(0)
        scale = mean.new_ones(mean.shape[1]) if alike else mean.square().mean(0).sqrt()
        plain = Trust(1.0, 2.0, scale, self.config.ceiling)
        low = self.config.low or 3 * float(plain.spread(forces).square().mean().sqrt())
        return replace(plain, low=low, high=self.config.high or 1.5 * low)


def _data(
    config: LearnConfig, fitted: FitConfig, progress: Progress
) -> tuple[list[VariableFrames], VariableFrames]:
    """Return the frames that the run was fitted to, and those that answer."""
    own = map_variables(fitted.trajectory, fitted.data, fitted.temperature, config.output, progress)
    data = replace(
        fitted.data,
        topology=config.pool_topology or fitted.data.topology,
        system=config.pool_system or fitted.data.system,
        forces=None,
        start=0,
        stop=None,
        stride=1,
        also=config.pool[1:],
    )
    pool = map_variables(config.pool[0], data, fitted.temperature, config.output, progress)
    if pool.variables.names != own.variables.names:
        raise InputError(f"{config.pool[0]} has other coordinates than {config.run}")
    return list(own.trajectories), VariableFrames.join([_bare(p) for p in pool.trajectories])


def _bare(frames: VariableFrames) -> VariableFrames:
    """Return frames without weights: those that were asked for have none."""
    return VariableFrames(frames.values, frames.forces)


def _check_folder(config: LearnConfig) -> None:
    path = config.output / "learn.toml"
    if not path.is_file():
        if (config.output / "config.toml").exists():
            raise InputError(f"{config.output} holds another run: give another --output")
        return
    if not config.resume:
        raise InputError(f"{config.output} holds rounds: give --resume or another --output")
    old, new = to_flat(read_toml(path, LearnConfig)), to_flat(_absolute(config))
    for name, value in new.items():
        if name not in ("resume", "threads", "rounds", "until", "output") and old[name] != value:
            raise InputError(
                f"{config.output} was begun with {name} = {old[name]}, not {value}: resume with "
                f"the same, or give another --output"
            )


def _absolute(config: LearnConfig) -> LearnConfig:
    topology, system = config.pool_topology, config.pool_system
    return replace(
        config,
        run=config.run.resolve(),
        pool=tuple(path.resolve() for path in config.pool),
        pool_topology=None if topology is None else topology.resolve(),
        pool_system=None if system is None else system.resolve(),
    )


def _in_words(done: Round) -> str:
    return (
        f"round {done.number}: {100 * done.unknown:.1f} % of where walkers go was not known; "
        f"{done.asked} places asked for, {done.answered} answered; {done.frames} frames added"
    )


def _write_results(
    config: LearnConfig, learned: Learned, state: _State, own: list[VariableFrames]
) -> None:
    content = {
        "kind": "active learning",
        "run": str(config.run.resolve()),
        "pool": [str(path.resolve()) for path in config.pool],
        "members": len(learned.models),
        "rounds": [asdict(done) for done in learned.rounds],
        "unknown_at_the_end": learned.unknown,
        "frames_at_first": sum(len(part) for part in own),
        "frames_added": sum(len(part) for part in learned.frames),
        "versions": versions(),
    }
    write_json(config.output / "run.json", content)
    places = [asked.numpy() for asked, _ in state.asked]
    unknown = [done.unknown for done in learned.rounds] + [learned.unknown]
    model = learned.models[0]
    figure = learning_figure(
        places, unknown, model.names, model.units, source=str(config.output.name)
    )
    write_bytes(config.output / "learning.png", png(figure))
