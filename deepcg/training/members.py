"""The members of an ensemble: their seeds, their frames, and the weights they begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from deepcg.networks import COMPRESSED
from deepcg.potentials.beads import NetworkPotential
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.ensemble import load_members
from deepcg.potentials.model_file import Architecture, CVModel, Model
from deepcg.runtime.config import plain
from deepcg.runtime.errors import InputError
from deepcg.training.config import TrainingConfig
from free_energy import block_labels, statistical_inefficiency
from free_energy.blocks import INEFFICIENCIES_PER_BLOCK

BLOCKS = 20
"""Most of each trajectory, to draw with replacement; fewer where they would be correlated."""

COMMON, REFIT = 2, 0.25
"""Fits to all frames that refits begin from, and the steps of a refit as a fraction of theirs."""

FEWEST_BLOCKS = 8
"""Of all trajectories: of fewer, the spread of refits is itself little known."""

MOST_SERIES = 60
"""Components of forces whose correlation in time is looked at."""

LOOKED_AT = 1000
"""First frames of each trajectory whose forces tell the correlation in time."""

FEWEST_FRAMES = 8
"""Of a trajectory, for its correlation to be looked at: a shorter one is a block."""

PARTS = {"embedding": ("radial", "embeddings"), "fitting": ("fitting",)}
"""What of a network a name stands for."""


@dataclass(frozen=True, slots=True)
class MembersConfig:
    """Ensembles, and fits that begin from others.

    Parameters
    ----------
    ensemble
        Number of fits from different random weights, whose spread tells where U is known; with
        --resume more can be added to a fit.
    resample
        Fit each to blocks of frames drawn with replacement, too. Of beads, a few are fitted to all
        frames, and the others are refitted from these to frames drawn (see --common).
    common
        With --resample of beads: number of fits to all frames, from different random weights, that
        the refits begin from; 0: each is fitted to its frames from random weights of its own.
    refit
        With --resample of beads: steps of a refit as a fraction of those of a fit.
    start_from
        Run folder whose weights to begin with, member by member.
    freeze
        Parts of the network whose weights are kept: embedding, fitting.
    """

    ensemble: int = 1
    resample: bool = False
    common: int = COMMON
    refit: float = REFIT
    start_from: Path | None = None
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.ensemble < 1:
            raise InputError(f"ensemble is {self.ensemble}: give the number of fits, 1 or more")
        if self.common < 0:
            raise InputError(f"common is {self.common}: give 0 or more fits to begin from")
        of_refits = self.common != COMMON or self.refit != REFIT
        if of_refits and not self.resample:
            raise InputError(
                "common and refit are of members on frames drawn: give --resample, too"
            )
        if not 0 < self.refit <= 1:
            raise InputError(f"refit is {self.refit}: choose more than 0 and at most 1")
        for name in self.freeze:
            if name not in PARTS:
                raise InputError(f"freeze is {name!r}: choose from {', '.join(PARTS)}")
        if self.freeze and self.start_from is None:
            raise InputError("freeze keeps weights of another fit: give --start-from RUN, too")
        if len(set(self.freeze)) == len(PARTS):
            raise InputError(f"freeze is {', '.join(self.freeze)}: nothing is left to train")


def member_seed(seed: int, member: int) -> int:
    """Return the seed of a member: the first has that of a plain fit."""
    return seed if member == 0 else 1000 * seed + member


def begins_from(config: MembersConfig, member: int) -> int | None:
    """Return the member that one of beads is refitted from; ``None``: it is a fit of its own.

    Fits to all frames and refits alternate until there are as many fits as asked for: members that
    are added later leave those before as they are.
    """
    if not config.resample or not config.common:
        return None
    if member < 2 * config.common:
        return None if member % 2 == 0 else member - 1
    return 2 * (member % config.common)


def refit_config(training: TrainingConfig, members: MembersConfig) -> TrainingConfig:
    """Return how a refit is trained: as a fit, with the same first rate, in fewer steps.

    A lower rate would leave it where it began, and its spread too small: of a surface of two angles
    that is known exactly, a tenth of the rate leaves 65 % of the error that data have, a third
    79 %, the whole rate 94 %.
    """
    return replace(
        training,
        steps=max(1, round(members.refit * training.steps)),
        validations=max(1, round(members.refit * training.validations)),
        patience=0,
    )


def block_counts(errors: Sequence[Tensor], lengths: Sequence[int]) -> list[int]:
    """Return into how many blocks to cut each trajectory: longer than what is left correlates.

    What frames say of U beyond the mean force is what a fit leaves of the forces. A block is at
    least ``free_energy.blocks.INEFFICIENCIES_PER_BLOCK`` statistical inefficiencies of it long, of
    the mean of single components or of the mean square of a frame, whichever is slower.

    Parameters
    ----------
    errors
        Of the first frames of each trajectory (n, ...): forces less those of a fit.
    lengths
        Numbers of frames of the trajectories.
    """
    return [
        max(1, min(BLOCKS, int(length / (INEFFICIENCIES_PER_BLOCK * _inefficiency(of_one)))))
        for of_one, length in zip(errors, lengths, strict=True)
    ]


def _inefficiency(errors: Tensor) -> float:
    if len(errors) < FEWEST_FRAMES:
        return float(len(errors))
    flat = errors.detach().flatten(1).double().cpu().numpy()
    some = np.unique(np.linspace(0, flat.shape[1] - 1, MOST_SERIES).astype(int))
    single = float(np.mean([statistical_inefficiency(series) for series in flat[:, some].T]))
    return max(single, statistical_inefficiency((flat**2).mean(1)))


def drawn_frames(lengths: Sequence[int], seed: int, counts: Sequence[int] | None = None) -> Tensor:
    """Return numbers of frames, (about n,), in blocks drawn with replacement.

    The n frames are those of trajectories of these lengths, joined; a block is of one of them. Of
    B blocks B - 1 are drawn: the variance is right for few blocks, too (Rao and Wu, J. Am. Stat.
    Assoc. 83, 231 (1988)). A frame that is drawn twice is there twice, and counts twice in a
    training: no frame is copied. ``counts`` are the blocks of each trajectory, by default
    ``BLOCKS``.
    """
    labels, first = [], 0
    for length, count in zip(lengths, counts or [BLOCKS] * len(lengths), strict=True):
        own = block_labels([length], count)
        labels.append(first + own)
        first += int(own.max()) + 1
    blocks = torch.from_numpy(np.concatenate(labels))
    frames_of = [torch.nonzero(blocks == k)[:, 0] for k in range(first)]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(first, (max(1, first - 1),), generator=generator).tolist()
    return torch.cat([frames_of[k] for k in drawn])


def initialize_from(
    potential: NetworkPotential, architecture: Architecture, config: MembersConfig, member: int
) -> None:
    """Give a standardized potential the network of a member of the run to begin from.

    Where the run has fewer members they serve again. The repulsion stays where the new data put it.

    Raises
    ------
    InputError
        The run is of another network, or a part is not in it.
    """
    if config.start_from is None:
        return
    model = _source(config.start_from, member)
    if not isinstance(model, Model):
        raise InputError(f"{config.start_from} is of collective variables, not of beads")
    _check_same(model.architecture, architecture, config.start_from)
    # the network comes first, priors follow
    potential.terms[0].load_state_dict(model.potential.terms[0].state_dict())
    _hold(potential, config)


def initialize_surface_from(potential: CVPotential, config: MembersConfig, member: int) -> None:
    """Give a potential the weights of a member of the run to begin from, as `initialize_from` does.

    Raises
    ------
    InputError
        As there.
    """
    if config.start_from is None:
        return
    model = _source(config.start_from, member)
    if not isinstance(model, CVModel):
        raise InputError(f"{config.start_from} is of beads, not of collective variables")
    old = model.potential
    for name in ("periods", "widths", "harmonics"):
        if getattr(old, name) != getattr(potential, name):
            raise InputError(
                f"{config.start_from} has {name} = {getattr(old, name)}, this fit has "
                f"{getattr(potential, name)}: give the same"
            )
    potential.load_state_dict(old.state_dict())
    _hold(potential, config)


def _source(run: Path, member: int) -> Model | CVModel:
    models = load_members(run)
    return models[member % len(models)]


def _check_same(old: Architecture, new: Architecture, run: Path) -> None:
    if old.network in COMPRESSED:
        raise InputError(f"{run} is compressed, for inference only: start from what it was made of")
    for name in ("network", "options", "cutoff", "n_types"):
        one, other = plain(getattr(old, name)), plain(getattr(new, name))
        if one != other:
            raise InputError(
                f"{run} has the {name} {one} of the network, this fit has {other}: give the same"
            )


def _hold(potential: NetworkPotential | CVPotential, config: MembersConfig) -> None:
    """Let the weights of frozen parts need no gradient."""
    for part in config.freeze:
        found = [p for name, p in potential.named_parameters() if part_of(name, potential) == part]
        if not found:
            raise InputError(f"this network has no part {part!r} to freeze")
        for parameter in found:
            parameter.requires_grad_(False)


def part_of(name: str, potential: nn.Module) -> str | None:
    """Return which of `PARTS` weights are of, by their name in the potential."""
    if isinstance(potential, CVPotential):
        last = len(potential.network) - 1
        return "fitting" if name.startswith(f"network.{last}.") else "embedding"
    pieces = name.split(".")
    return next((part for part, names in PARTS.items() if set(names) & set(pieces)), None)
