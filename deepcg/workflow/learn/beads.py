"""Rounds on beads: replicas of the ensemble's mean look for what it does not know."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepcg.dynamics.config import DynamicsConfig
from deepcg.dynamics.model_deviation import CHUNK, ModelDeviationConfig
from deepcg.dynamics.samples import read_samples, trajectories_in
from deepcg.forces.mean_force_labels import MeanForceLabels
from deepcg.geometry.box import lattice_shift
from deepcg.geometry.farthest_points import farthest_points
from deepcg.geometry.neighbor_list import Neighbors
from deepcg.potentials.ensemble import EnsemblePotential, load_beads, model_deviation
from deepcg.potentials.model_file import Model
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import write_arrays
from deepcg.runtime.progress import Progress, silent
from deepcg.training.config import TrainingConfig
from deepcg.training.loss import squared_errors
from deepcg.training.members import drawn_frames
from deepcg.training.samples import ForceSamples, joint_weights, prepare
from deepcg.training.trainer import train
from deepcg.trajectory.frames import Frames
from deepcg.workflow.dataset.beads import Beads
from deepcg.workflow.fit.beads import beads_of
from deepcg.workflow.fit.config import DTYPES, FitConfig
from deepcg.workflow.fit.run_folder import START_FRAMES
from deepcg.workflow.learn.acquisition import Answer, Exploration
from deepcg.workflow.learn.config import STEPS_PS, LearnConfig
from deepcg.workflow.learn.restrained_oracle import restrained_dynamics
from deepcg.workflow.learn.rounds import State, write_run
from deepcg.workflow.sample import SampleConfig, sample

WALKERS = 8

KNOWN_FRAMES = 500
"""Of the run's own, from which trust levels and noise are found."""

ENVIRONMENT = 12
"""Nearest beads by which the environments of beads in a box are told apart."""


class BeadsJob:
    """What stays the same from round to round."""

    def __init__(self, config: LearnConfig, fitted: FitConfig, progress: Progress) -> None:
        if config.oracle == "stored":
            raise InputError(
                "stored frames answer for collective variables only: give --oracle restrained"
            )
        self.config, self.fitted = config, fitted
        self.models = self.load(config.run)
        beads: Beads = beads_of(fitted, progress)[0]
        if beads.errors is not None:
            raise InputError(f"{config.run} was fitted to labels: give a fit to a trajectory")
        self.own = beads.frames.to("cpu", DTYPES[fitted.dtype])
        self.lengths = beads.lengths or (len(self.own),)
        self.oracle = restrained_dynamics(config, fitted, None)
        every = max(1, len(self.own) // KNOWN_FRAMES)
        self.known = self.own[::every]
        measured = _largest(self.models, self.known)
        self.low = config.trust_low or 3 * float(measured.square().mean().sqrt())
        self.high = config.trust_high or 1.5 * self.low

    @property
    def n_own(self) -> int:
        """Number of frames that the run was fitted to."""
        return len(self.own)

    def survey(
        self, state: State[Model, MeanForceLabels], number: int, progress: Progress = silent
    ) -> Exploration:
        """Let replicas of the mean of the members move, turned back where it is not trusted.

        Their files are in the folder of the round before, or in ``round-0``.
        """
        folder = self.config.output / f"round-{number - 1}"
        if number == 1:
            write_run(self, folder, state)
        sample(self._sampling(folder, number), progress)
        paths = trajectories_in(folder / "samples")
        positions = torch.cat([read_samples(path)[0] for path in paths]).to(self.own.positions)
        # (frames, replicas, beads, 3)
        deviations = np.load(folder / "samples" / "spread.npy", allow_pickle=False)
        of_replicas = torch.from_numpy(deviations).transpose(0, 1).flatten(0, 1)
        spread = model_deviation(of_replicas).amax(1)
        return Exploration(positions.flatten(1), spread, spread > self.low)

    def ask(
        self,
        state: State[Model, MeanForceLabels],
        found: Exploration,
        number: int,
        folder: Path,
        progress: Progress = silent,
    ) -> Answer[MeanForceLabels]:
        """Return mean forces at configurations of large spread that differ from one another."""
        del number
        candidates, spread = found.visited[found.unknown], found.spread[found.unknown]
        if not len(candidates):
            return Answer(candidates, np.zeros(0, bool), None, {"spread": spread.numpy()})
        box = None if self.own.box is None else self.own.box[:1].expand(len(candidates), 3, 3)
        frames = Frames(candidates.view(len(candidates), -1, 3), box, None, self.own.types)
        points = fingerprints(frames, _sigmas(state.models, frames).argmax(1))
        worst, number = int(spread.argmax()), self.config.queries
        chosen = torch.tensor(farthest_points(points, worst, number, distinct=True))
        answer = self.oracle(candidates[chosen], folder, progress)
        return replace(answer, saved={"spread": spread[chosen].numpy()})

    def train(
        self,
        models: Sequence[Model],
        data: Sequence[MeanForceLabels],
        training: TrainingConfig,
        seeds: Sequence[int],
        progress: Progress = silent,
    ) -> tuple[Model, ...]:
        """Return members trained on from their present weights, on all frames and labels."""
        samples = self._samples(models[0], data, progress)
        trained = []
        for k, (model, seed) in enumerate(zip(models, seeds, strict=True)):
            told: Progress = lambda done, total, what, k=k: progress(  # type: ignore[misc]
                k * total + done, len(models) * total, f"member {k + 1}, {what}"
            )
            potential = copy.deepcopy(model.potential).requires_grad_(True)
            seen = self._seen(samples, seed)
            held_out = samples[:: max(1, len(samples) // 100)]
            train(potential, seen, held_out, replace(training, seed=seed), progress=told)
            trained.append(replace(model, potential=potential))
        return tuple(trained)

    def load(self, folder: Path) -> tuple[Model, ...]:
        """Return the members of a run folder."""
        return tuple(load_beads(folder))

    def write_more(self, folder: Path, state: State[Model, MeanForceLabels]) -> None:
        """Write the beads, and frames and labels that are trusted, for replicas to start from."""
        shutil.copyfile(self.config.run / "beads.pdb", folder / "beads.pdb")
        known = self.known
        if state.data:
            labels = Frames.join([self._frames(labels) for labels in state.data])
            some = max(1, len(known) // len(labels))  # half of the starts are labels, if it can be
            known = Frames.join([known[::some], labels])
        trusted = known[torch.nonzero(_largest(state.models, known) < self.high)[:, 0]]
        if not len(trusted):
            raise InputError(
                f"the members agree on none of the frames of {self.config.run}: give a larger "
                f"--trust-high than {self.high:.4g}"
            )
        chosen = torch.linspace(0, len(trusted) - 1, START_FRAMES).round().long()
        arrays = {"positions": trusted.positions[chosen].numpy()}
        if trusted.box is not None:
            arrays["box"] = trusted.box[chosen].numpy()
        write_arrays(folder / "start.npz", arrays)

    def shown(self, answer: Answer[MeanForceLabels]) -> Doubles:
        """Return the spread on the worst bead before the round, (n, 1)."""
        return answer.saved["spread"][:, None].astype(float)

    @property
    def axes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What is shown."""
        return ("Sigma on the worst bead",), ("kJ/mol/nm",)

    def _sampling(self, folder: Path, number: int) -> SampleConfig:
        config = self.config
        return SampleConfig(
            folder,
            replicas=config.walkers or WALKERS,
            dynamics=DynamicsConfig(
                temperature=self.fitted.temperature,
                ps=config.walk_ps,
                equilibration_ps=0.0,
                interval_ps=STEPS_PS,
                seed=1000 * config.seed + number,
            ),
            uncertainty=ModelDeviationConfig(
                member="mean", max_deviation=self.high, beyond="reflect"
            ),
            device="cpu",
            threads=config.threads,
            resume=True,
        )

    def _samples(
        self, model: Model, data: Sequence[MeanForceLabels], progress: Progress
    ) -> ForceSamples[Neighbors]:
        """Return the run's own frames, and all labels after them, with their weights."""
        if not data:
            return prepare(model.potential, self.own, progress=progress)
        labels = Frames.join([self._frames(labels) for labels in data])
        frames = Frames.join([replace(self.own, weights=None), labels])
        errors = torch.from_numpy(np.concatenate([labels.errors for labels in data]))
        samples = prepare(model.potential, frames, progress=progress)
        weights = joint_weights(self._noise(), len(self.own), errors.to(frames.positions))
        return replace(samples, weights=weights)

    def _noise(self) -> Tensor:
        """Return the variance of what the run's own frames have beside the mean force, (b, 1)."""
        known = prepare(self.models[0].potential, self.known)
        ensemble = EnsemblePotential([model.potential for model in self.models])
        return squared_errors(ensemble, known).mean((0, 2))[:, None]

    def _frames(self, labels: MeanForceLabels) -> Frames:
        """Return the beads of labels; those of one molecule have no box."""
        boxed = self.own.box is not None and labels.box is not None
        frames = Frames(
            torch.from_numpy(labels.coordinates),
            torch.from_numpy(labels.box) if boxed else None,
            torch.from_numpy(labels.forces),
            self.own.types,
        )
        return frames.to("cpu", self.own.positions.dtype)

    def _seen(self, samples: ForceSamples[Neighbors], seed: int) -> ForceSamples[Neighbors]:
        """Return what a member sees: all, or blocks of frames drawn anew and all labels."""
        if not self.fitted.members.resample:
            return samples
        labels = torch.arange(len(self.own), len(samples))
        return samples[torch.cat([drawn_frames(self.lengths, seed), labels])]


def fingerprints(frames: Frames, worst: Tensor) -> Tensor:
    """Return numbers (n, m) that tell configurations apart, however they are turned, nm.

    In the open these are all distances between beads; in a box those from the bead ``worst`` (n,)
    to its nearest ones.
    """
    x = frames.positions
    if frames.box is None:
        i, j = torch.triu_indices(x.shape[1], x.shape[1], offset=1)
        apart = x[:, i] - x[:, j]
        return apart.square().sum(-1).sqrt()
    apart = x - x[torch.arange(len(x)), worst][:, None]
    apart = apart + lattice_shift(apart, frames.box.to(apart))
    return apart.square().sum(-1).sqrt().sort(1).values[:, 1 : 1 + ENVIRONMENT]


def _sigmas(models: Sequence[Model], frames: Frames) -> Tensor:
    """Return Sigma (n, n_beads), kJ/mol/nm, of frames."""
    ensemble = EnsemblePotential([model.potential.requires_grad_(False) for model in models])
    parts = [frames[k : k + CHUNK] for k in range(0, len(frames), CHUNK)]
    return torch.cat(
        [model_deviation(ensemble.deviations(part.positions, part.box)) for part in parts]
    )


def _largest(models: Sequence[Model], frames: Frames) -> Tensor:
    """Return the largest Sigma (n,) in each frame."""
    return _sigmas(models, frames).amax(1)
