"""Frames ready for force matching: inputs, forces, weights, and how they become batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from deepcg.geometry.neighbor_list import Neighbors, PairList, find_pairs
from deepcg.potentials.beads import NetworkPotential
from deepcg.runtime.errors import InputError
from deepcg.runtime.progress import Progress, silent
from deepcg.training.config import BATCH, MOLECULE_BATCH, RATE, TrainingConfig, TrainingError
from deepcg.training.noise_weighting import MOST_WEIGHED
from deepcg.trajectory.frames import Frames

Inputs = TypeVar("Inputs", Neighbors, Tensor)
"""What a potential is evaluated on: the environments of beads, or values of coordinates."""

InputsSeen_contra = TypeVar("InputsSeen_contra", Neighbors, Tensor, contravariant=True)

MOST_MEMORY = 10**9
"""Bytes that the environments of all frames may take: of more, each batch is searched anew."""

BYTES_OF_A_NUMBER = 12
"""Of each component of a displacement: it, its lattice vector, and a share of the rest."""


@dataclass(frozen=True, slots=True, eq=False)
class ForceSamples(Generic[Inputs]):
    """Frames ready for training.

    Parameters
    ----------
    inputs
        What the potential is evaluated on: the environments of beads, found once or, where they
        would take too much memory, when they are needed; or the values of d collective variables,
        (n_frames, d).
    forces
        Instantaneous forces: on beads (n_frames, n_beads, 3), kJ/mol/nm, less those of the force
        field; on collective variables (n_frames, d), kJ/mol per unit of each.
    scale
        In what unit an error of each component of the force counts, shaped as one frame's forces
        or a number: components of different units or noise are made comparable by it.
    weights
        How much every component of every frame counts in training, shaped as the forces, with a
        mean of 1 over frames; ``None``: all count the same. See `label_weights`.
    molecule
        Whether the forces are those on the beads of one molecule, without a box.
    """

    inputs: Inputs | LazyNeighbors
    forces: Tensor
    scale: Tensor
    weights: Tensor | None = None
    molecule: bool = False

    def __len__(self) -> int:
        return len(self.forces)

    def __getitem__(self, frames: slice | Tensor) -> ForceSamples[Inputs]:
        """Return some of the frames."""
        weights = None if self.weights is None else self.weights[frames]
        inputs, forces = self.inputs[frames], self.forces[frames]
        return ForceSamples(inputs, forces, self.scale, weights, self.molecule)

    @property
    def seen(self) -> Inputs:
        """What the potential is evaluated on, of all frames at once."""
        if isinstance(self.inputs, LazyNeighbors):
            found: Any = self.inputs.search()  # only beads have environments
            seen: Inputs = found
            return seen
        return self.inputs


@dataclass(frozen=True, slots=True, eq=False)
class LazyNeighbors:
    """Environments of beads that are found when they are needed: tens of times their positions.

    Parameters
    ----------
    potential
        Whose terms will see them.
    positions
        (n_frames, n_beads, 3), nm.
    box
        (n_frames, 3, 3), nm, or ``None``.
    """

    potential: NetworkPotential
    positions: Tensor
    box: Tensor | None

    def __getitem__(self, frames: slice | Tensor) -> LazyNeighbors:
        """Return some of the frames."""
        box = None if self.box is None else self.box[frames]
        return LazyNeighbors(self.potential, self.positions[frames], box)

    def search(self) -> Neighbors:
        """Find the environments in all frames."""
        pairs = find_pairs(self.positions, self.box, self.potential.cutoff)
        narrow = PairList(pairs.index.to(torch.int32), pairs.shift, pairs.count)
        kinds = narrow.with_types(self.potential.types)
        return self.potential.environments(self.positions, kinds)


def prepare(
    potential: NetworkPotential, frames: Frames, *, chunk: int = 200, progress: Progress = silent
) -> ForceSamples[Neighbors]:
    """Return the environments of the beads in all frames, and the forces that are to be explained.

    They are (n_frames, n_beads, 3), kJ/mol/nm; those of the potential's force field, which has no
    weights, are taken off. ``chunk`` frames are searched at a time.

    Raises
    ------
    InputError
        If the frames have no forces, or a box is too small for the cutoff.
    """
    if frames.forces is None:
        raise InputError("the frames have no forces to match")
    left = []
    samples = LazyNeighbors(potential, frames.positions, frames.box)
    parts: list[PairList] = []
    kept = True
    for start in range(0, len(frames), chunk):
        part = frames[start : start + chunk]
        left.append(_unexplained(potential, part))
        if kept:
            pairs = find_pairs(part.positions, part.box, potential.cutoff)
            parts.append(PairList(pairs.index.to(torch.int32), pairs.shift, pairs.count))
            numbers = parts[-1].shift.numel() / len(part) * len(frames)
            kept = numbers * BYTES_OF_A_NUMBER < MOST_MEMORY
        progress(min(start + chunk, len(frames)), len(frames), "neighbors")
    forces, scale = torch.cat(left), frames.forces.new_ones(())
    molecule = frames.box is None
    if not kept:
        return ForceSamples(samples, forces, scale, molecule=molecule)
    pairs = PairList.join(parts).with_types(potential.types)
    near = potential.environments(frames.positions, pairs)
    return ForceSamples(near, forces, scale, molecule=molecule)


def label_weights(errors: Tensor) -> Tensor:
    """Return 1 / (sigma^2 + s^2), divided by its mean over labels, (n, ...).

    An error of a fit to a mean force is the sum of the label's, of variance sigma^2, and of what
    remains without that, of a variance s^2 that is the same for all: what the network cannot
    represent, the width of the restraints, what moved too slowly to show in sigma. Least squares of
    least variance weights with the inverse of the sum. sigma is itself an estimate, from few
    blocks, and too small by a factor of two now and then: s^2, the median of sigma^2, keeps such a
    label from counting more than twice as much as a typical one.

    Parameters
    ----------
    errors
        (n, ...), standard errors sigma of the components of n labels, in the unit of the force.
    """
    variance = errors.square()
    # labels without any noise count alike
    weights = 1 / (variance + variance.median(0).values).clamp(min=1e-12)
    return weights / weights.mean(0)


def joint_weights(noise: Tensor, n_frames: int, errors: Tensor) -> Tensor:
    """Return weights, as `label_weights`, of n frames and the labels after them, (n + m, ...).

    Parameters
    ----------
    noise
        Variance of the noise of the components of instantaneous forces, broadcast to (...), in the
        square of the unit of the force.
    errors
        (m, ...), standard errors of the mean forces of m labels, in the unit of the force.
    """
    of_labels = errors.square()
    of_labels = of_labels + of_labels.median(0).values
    of_frames = noise.expand(n_frames, *errors.shape[1:])
    weights = 1 / torch.cat([of_frames, of_labels.to(noise)]).clamp(min=1e-12)
    return weights / weights.mean(0)


def settled(config: TrainingConfig, samples: ForceSamples[Inputs]) -> TrainingConfig:
    """Return a config in which nothing is left to the samples to decide.

    Raises
    ------
    TrainingError
        Noise is to be weighed where there is not one molecule of few beads, or labels have errors
        of their own.
    """
    able = samples.molecule and samples.weights is None and samples.forces.shape[1] <= MOST_WEIGHED
    if config.weighting == "noise" and not able:
        raise TrainingError(
            "--weighting noise is for instantaneous forces on one molecule of up to "
            f"{MOST_WEIGHED} beads, without a box: choose even"
        )
    return replace(
        config,
        learning_rate=RATE if config.learning_rate is None else config.learning_rate,
        batch_size=config.batch_size or (MOLECULE_BATCH if samples.molecule else BATCH),
        weighting="noise" if able and config.weighting != "even" else "even",
    )


class Deck:
    """The frames of a member as a deck of cards: shuffled, dealt in batches, shuffled anew.

    A batch follows from the seed and the step alone, so that a resumed training goes on alike.

    Parameters
    ----------
    frames
        (n,), numbers of those that the member sees.
    size
        Frames in a batch; what is left of a turn through all is not dealt.
    seed
        Of the order.
    """

    def __init__(self, frames: Tensor, size: int, seed: int) -> None:
        self.frames, self.size, self.seed = frames, size, seed
        self._turn, self._order = -1, frames

    def batch(self, step: int) -> Tensor:
        """Return the frames (size,) of a step; the first is 1."""
        turn, place = divmod(step - 1, len(self.frames) // self.size)
        if turn != self._turn:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + turn)
            self._order = self.frames[torch.randperm(len(self.frames), generator=generator)]
            self._turn = turn
        return self._order[place * self.size : (place + 1) * self.size]


def split(
    frames: Frames, validation_fraction: float, lengths: Sequence[int] = ()
) -> tuple[Frames, Frames]:
    """Return the first frames of each trajectory, and its last ones.

    Neighbors in time must not be on both sides. ``lengths`` are the numbers of frames of
    trajectories that were joined; by default all are of one.
    """
    first, last, start = [], [], 0
    for length in lengths or (len(frames),):
        check_length(length)
        n = training_length(length, validation_fraction)
        first.append(frames[start : start + n])
        last.append(frames[start + n : start + length])
        start += length
    return Frames.join(first), Frames.join(last)


def training_length(n_frames: int, validation_fraction: float) -> int:
    """Return how many of the frames of a trajectory `split` leaves for training."""
    return max(1, min(n_frames - 1, round((1 - validation_fraction) * n_frames)))


def check_length(n_frames: int) -> None:
    """Refuse a trajectory that cannot be split.

    Raises
    ------
    InputError
        It has less than two frames.
    """
    if n_frames < 2:
        raise InputError(f"{n_frames} frames are too few: one to train on, one to validate")


def _unexplained(potential: NetworkPotential, frames: Frames) -> Tensor:
    assert frames.forces is not None
    if potential.molecular is None:
        return frames.forces
    return frames.forces - potential.molecular.forces(frames.positions)[1]
