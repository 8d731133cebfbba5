"""The members of an ensemble: their seeds, their frames, and the weights they begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from deepcg.networks import COMPRESSED
from deepcg.potentials.beads import NetworkPotential
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.ensemble import load_members
from deepcg.potentials.model_file import Architecture, CVModel, Model
from deepcg.runtime.config import plain
from deepcg.runtime.errors import InputError
from free_energy import block_labels

BLOCKS = 20
"""Of each trajectory, to draw with replacement."""

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
        Fit each to blocks of frames drawn with replacement, too.
    start_from
        Run folder whose weights to begin with, member by member.
    freeze
        Parts of the network whose weights are kept: embedding, fitting.
    """

    ensemble: int = 1
    resample: bool = False
    start_from: Path | None = None
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.ensemble < 1:
            raise InputError(f"ensemble is {self.ensemble}: give the number of fits, 1 or more")
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


def drawn_frames(lengths: Sequence[int], seed: int) -> Tensor:
    """Return numbers of frames, (about n,), in blocks drawn with replacement (Efron's bootstrap).

    The n frames are those of trajectories of these lengths, joined; a block is of one of them.
    """
    blocks = torch.from_numpy(block_labels(lengths, BLOCKS))
    frames_of = [torch.nonzero(blocks == k)[:, 0] for k in range(int(blocks.max()) + 1)]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(frames_of), (len(frames_of),), generator=generator).tolist()
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
