"""Rounds on collective variables: walkers explore the surface of the ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepcg.analysis.surfaces.fitted import BINS, surface_of
from deepcg.geometry.periodic import shortest
from deepcg.potentials.ensemble import SurfaceEnsemble, load_surfaces
from deepcg.potentials.model_file import CVModel
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import InputError
from deepcg.runtime.progress import Progress, silent
from deepcg.training.config import TrainingConfig
from deepcg.training.members import drawn_frames
from deepcg.training.samples import joint_weights
from deepcg.training.stacked import train_stack
from deepcg.trajectory.frames import CVFrames
from deepcg.units import thermal_energy
from deepcg.workflow.dataset.collective_variables import map_variables
from deepcg.workflow.fit.collective_variables import samples_of
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.learn.acquisition import (
    Answer,
    Exploration,
    Oracle,
    StoredFrames,
    choose_queries,
    survey,
)
from deepcg.workflow.learn.config import LearnConfig
from deepcg.workflow.learn.exploration import Range, TrustLevels
from deepcg.workflow.learn.restrained_oracle import RestrainedDynamics, restrained_dynamics
from deepcg.workflow.learn.rounds import State
from free_energy import Estimate

WALKERS = 64


class VariablesJob:
    """What stays the same from round to round."""

    def __init__(self, config: LearnConfig, fitted: FitConfig, progress: Progress) -> None:
        self.config, self.fitted = config, fitted
        self.models = self.load(config.run)
        first = self.models[0].potential
        self.dtype = first.center.dtype
        mapped = map_variables(
            fitted.trajectory, fitted.data, fitted.temperature, config.output, progress
        )
        self.own = [_bare(part) for part in mapped.trajectories]
        self.kT = thermal_energy(fitted.temperature)
        self.stored: StoredFrames | None = None
        self.oracle: Oracle[CVFrames]
        if config.oracle == "stored":
            pool = _pool(config, fitted, mapped.variables.names, progress)
            self.box = self._box([*self.own, pool])
            self.oracle = self.stored = StoredFrames(pool, self.box, config.frames_per_query)
        else:
            self.box = self._box(self.own)
            self.oracle = HeldVariables(restrained_dynamics(config, fitted, self.box))
        self.trust = self._trust()

    @property
    def n_own(self) -> int:
        """Number of frames that the run was fitted to."""
        return sum(len(part) for part in self.own)

    def survey(
        self, state: State[CVModel, CVFrames], number: int, progress: Progress = silent
    ) -> Exploration:
        """Let walkers look for what is not known, from frames that are."""
        del progress
        generator = torch.Generator().manual_seed(1000 * self.config.seed + number)
        known = torch.cat([part.values for part in [*self.own, *state.data]]).to(self.dtype)
        n_walkers = self.config.walkers or WALKERS
        start = known[torch.randint(len(known), (n_walkers,), generator=generator)]
        return survey(
            [model.potential for model in state.models],
            start,
            self.trust,
            self.box,
            kT=self.kT,
            steps=self.config.walk,
            silent=state.silent,
            generator=generator,
        )

    def ask(
        self,
        state: State[CVModel, CVFrames],
        found: Exploration,
        number: int,
        folder: Path,
        progress: Progress = silent,
    ) -> Answer[CVFrames]:
        """Return forces at places that are not known, or, where this is asked for, anywhere."""
        del state
        config, seed = self.config, 1000 * self.config.seed + number
        if config.at_random:
            assert self.stored is not None
            return self.stored.take(
                config.queries * config.frames_per_query, np.random.default_rng(seed)
            )
        generator = torch.Generator().manual_seed(seed)
        return self.oracle(
            choose_queries(found, config.queries, self.box, generator), folder, progress
        )

    def train(
        self,
        models: Sequence[CVModel],
        data: Sequence[CVFrames],
        training: TrainingConfig,
        seeds: Sequence[int],
        progress: Progress = silent,
    ) -> tuple[CVModel, ...]:
        """Return members trained on from their present weights, on all frames that there are."""
        parts = [part.to("cpu", self.dtype) for part in [*self.own, *data]]
        samples = samples_of([_bare(part) for part in parts])
        labels = [part.errors for part in parts if part.errors is not None]
        if labels:
            errors = torch.cat(labels)
            n_frames = len(samples) - len(errors)
            samples = replace(samples, weights=joint_weights(self._noise(), n_frames, errors))
        lengths = [len(part) for part in parts]
        resample = self.fitted.members.resample
        drawn = [drawn_frames(lengths, seed) for seed in seeds] if resample else None
        trained, _ = train_stack(
            [model.potential for model in models],
            samples,
            samples[:: max(1, len(samples) // 500)],
            training,
            seeds=seeds,
            drawn=drawn,
            progress=progress,
        )
        return tuple(
            replace(model, potential=potential)
            for model, potential in zip(models, trained, strict=True)
        )

    def load(self, folder: Path) -> tuple[CVModel, ...]:
        """Return the members of a run folder."""
        return tuple(load_surfaces(folder))

    def write_more(self, folder: Path, state: State[CVModel, CVFrames]) -> None:
        """Write the surface, if there is one."""
        first = state.models[0]
        if len(first.names) not in BINS:
            return
        # what was asked for is no trajectory of its own, and its number tells no density
        last = CVFrames.join([_bare(part) for part in (self.own[-1], *state.data)])
        potentials = [first.potential, *(model.potential for model in state.models)]
        surface = surface_of(potentials, [*self.own[:-1], last], first.names, first.units, self.kT)
        nothing = np.full(surface.grid.shape, np.nan)
        replace(surface, histogram=Estimate(nothing, nothing)).save(folder / "surface.npz")

    def shown(self, answer: Answer[CVFrames]) -> Doubles:
        """Return the places of a round, (n, d)."""
        return answer.queries.numpy()

    @property
    def axes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names and units of the coordinates."""
        return self.models[0].names, self.models[0].units

    def _box(self, parts: Sequence[CVFrames]) -> Range:
        """Return where walkers may go: where frames are, or anywhere around a period."""
        values = torch.cat([part.values for part in parts])
        periods = self.models[0].potential.periods
        return Range(periods, values.amin(0).to(self.dtype), values.amax(0).to(self.dtype))

    def _trust(self) -> TrustLevels:
        """Return the trust levels: those asked for, or those that fit the run's own frames."""
        ensemble = SurfaceEnsemble([model.potential for model in self.models])
        known = torch.cat([part.values for part in self.own]).to(self.dtype)
        _, forces = ensemble.stack.forces(known[:: max(1, len(known) // 2000)])
        alike = len(set(self.models[0].units)) == 1
        mean = forces.mean(0)
        scale = mean.new_ones(mean.shape[1]) if alike else mean.square().mean(0).sqrt()
        plain = TrustLevels(1.0, 2.0, scale, self.config.ceiling)
        low = self.config.trust_low or 3 * float(plain.spread(forces).square().mean().sqrt())
        return replace(plain, low=low, high=self.config.trust_high or 1.5 * low)

    def _noise(self) -> Tensor:
        """Return the variance of what the run's own frames have beside the mean force, (d,)."""
        ensemble = SurfaceEnsemble([model.potential for model in self.models])
        own = CVFrames.join(self.own).to("cpu", self.dtype)
        assert own.forces is not None
        return (ensemble.forces(own.values)[1] - own.forces).square().mean(0)


@dataclass(frozen=True, slots=True, eq=False)
class HeldVariables:
    """Restrained dynamics as an oracle for collective variables."""

    dynamics: RestrainedDynamics

    def __call__(
        self, queries: Tensor, folder: Path, progress: Progress = silent
    ) -> Answer[CVFrames]:
        """Return mean forces with their errors; see `deepcg.workflow.learn.acquisition.Oracle`."""
        found = self.dynamics(queries, folder, progress)
        data = None if found.data is None else self.recall({}, folder)
        return Answer(found.queries, found.answered, data)

    def recall(self, saved: Mapping[str, NDArray[Any]], folder: Path) -> CVFrames | None:
        """Return the mean forces (n, d) of a round, kJ/mol per unit."""
        labels = self.dynamics.recall(saved, folder)
        if labels is None:
            return None
        tables = (labels.coordinates, labels.forces, labels.errors)
        values, forces, errors = (torch.from_numpy(table) for table in tables)
        return CVFrames(shortest(values, labels.variables.periods), forces, errors=errors)


def _pool(
    config: LearnConfig, fitted: FitConfig, names: tuple[str, ...], progress: Progress
) -> CVFrames:
    """Return the frames that answer."""
    data = replace(
        fitted.data,
        topology=config.pool_topology or fitted.data.topology,
        system=config.pool_system or fitted.data.system,
        forces=None,
        start=0,
        stop=None,
        stride=1,
        also=config.pool[1:],
        bias=(),
    )
    pool = map_variables(config.pool[0], data, fitted.temperature, config.output, progress)
    if pool.variables.names != names:
        raise InputError(f"{config.pool[0]} has other coordinates than {config.run}")
    return CVFrames.join([_bare(part) for part in pool.trajectories])


def _bare(frames: CVFrames) -> CVFrames:
    """Return frames without weights: those that were asked for have none."""
    return CVFrames(frames.values, frames.forces)
