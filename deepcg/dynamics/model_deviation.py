"""Model deviation along samples: which member moves them, how far all are apart, where to stop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deepcg.dynamics.run import SamplingError
from deepcg.potentials.beads import ShortRanged
from deepcg.potentials.ensemble import EnsemblePotential, load_beads, model_deviation
from deepcg.runtime.errors import InputError, pick
from deepcg.runtime.files import write_array
from deepcg.trajectory.formats import open_trajectory_file
from sampling import LimitExceeded, Method, ReflectingLimit

BEYOND = ("stop", "reflect")

MEMBERS = ("mean",)
"""What a member may be called beside its number."""

CHECKED_STEPS = 10
"""Steps between checks of the spread."""

CHUNK = 50
"""Frames whose spread is evaluated at a time."""


@dataclass(frozen=True, slots=True)
class ModelDeviationConfig:
    """What of an ensemble is sampled, and where.

    Parameters
    ----------
    member
        0, 1 ... or mean: the mean of all members, at the cost of all.
    max_deviation
        Largest spread of the members' forces on a bead that is allowed, kJ/mol/nm; by default any.
    beyond
        What to do with a replica whose spread is larger: stop or reflect.
    """

    member: str = "0"
    max_deviation: float | None = None
    beyond: str = "reflect"

    def __post_init__(self) -> None:
        if self.member not in MEMBERS and not self.member.isdecimal():
            raise InputError(f"member is {self.member!r}: give a number from 0, or mean")
        pick(dict.fromkeys(BEYOND), self.beyond, "choice of beyond")
        if self.max_deviation is not None and not self.max_deviation > 0:
            raise InputError(f"max_deviation is {self.max_deviation}: it must be positive")

    @property
    def settings(self) -> dict[str, str]:
        """What must be the same for a run to be resumed, where it is not the default."""
        found = {} if self.member == "0" else {"member": self.member}
        if self.max_deviation is not None:
            found |= {"max_deviation": str(self.max_deviation), "beyond": self.beyond}
        return found


@dataclass(frozen=True, slots=True, eq=False)
class ModelDeviationLimit:
    """The potential that moves replicas, and the ensemble that it is of, if there is one."""

    config: ModelDeviationConfig
    potential: ShortRanged
    ensemble: EnsemblePotential | None

    def limited(self, box: Tensor | None, method: Method | None) -> Method | None:
        """Return the method that keeps replicas where the spread is small, or the given one.

        ``box`` is (3, 3), nm, or ``None`` in the open.

        Raises
        ------
        InputError
            Both are asked for.
        """
        if self.config.max_deviation is None or self.ensemble is None:
            return method
        if method is not None:
            raise InputError("max_deviation goes without metadynamics and replica exchange")
        ensemble = self.ensemble

        def largest(positions: Tensor) -> Tensor:
            boxes = None if box is None else box.expand(len(positions), 3, 3)
            return model_deviation(ensemble.deviations(positions, boxes)).amax(1)

        reflect = self.config.beyond == "reflect"
        return ReflectingLimit(
            largest, self.config.max_deviation, every=CHECKED_STEPS, reflect=reflect
        )

    @contextmanager
    def explained(self, run: Path) -> Iterator[None]:
        """Turn a replica that is beyond the limit into an error for the user."""
        try:
            yield
        except LimitExceeded as error:
            when = "begins with" if error.taken == 0 else f"has after {error.taken} steps"
            raise SamplingError(
                f"replica {error.chain} {when} a spread of {error.value:.4g} kJ/mol/nm, above "
                f"--max-deviation {self.config.max_deviation:g}: fit {run} to more data there, "
                f"allow more, or give --beyond reflect"
            ) from error


def trust(config: ModelDeviationConfig, run: Path, device: torch.device) -> ModelDeviationLimit:
    """Return what a run has to sample.

    Raises
    ------
    InputError
        There is no such member, or no ensemble to tell a spread.
    """
    members = [model.potential.requires_grad_(False) for model in load_beads(run, device)]
    ensemble = EnsemblePotential(members) if len(members) > 1 else None
    if ensemble is None and config.max_deviation is not None:
        raise InputError(f"{run} is one fit and has no spread: give it members by 'deepcg fit'")
    if config.member == "mean":
        return ModelDeviationLimit(config, members[0] if ensemble is None else ensemble, ensemble)
    k = int(config.member)
    if k >= len(members):
        raise InputError(f"{run} has the members 0 to {len(members) - 1}, not {k}")
    return ModelDeviationLimit(config, members[k], ensemble)


def write_spread(
    path: Path, ensemble: EnsemblePotential, trajectories: Sequence[Path], box: Tensor | None
) -> str:
    """Write the spread in every frame of every replica; return what it is like in words.

    The file is float32 (n_frames, n_replicas, n_beads, 3), kJ/mol/nm: standard deviations of the
    components of the members' forces. The root of the sum of their squares is Sigma.
    """
    found = np.stack([spread_along(file, ensemble, box) for file in trajectories], axis=1)
    write_array(path, found)
    of_beads = np.sqrt((found.astype(float) ** 2).sum(-1))
    rms = float(np.sqrt((of_beads**2).mean()))
    return f"spread of the members' forces: {rms:.3g} kJ/mol/nm rms, at most {of_beads.max():.3g}"


def spread_along(
    trajectory: Path, ensemble: EnsemblePotential, box: Tensor | None
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return the spread in the frames of one file, (n_frames, n_beads, 3), kJ/mol/nm."""
    recording = open_trajectory_file(trajectory)
    like = next(ensemble.parameters())
    parts = []
    for block in recording.blocks(CHUNK, 0, recording.n_frames):
        positions = torch.from_numpy(np.array(block.positions)).to(like)
        boxes = None if box is None else box.to(like).expand(len(positions), 3, 3)
        parts.append(ensemble.deviations(positions, boxes).float().cpu().numpy())
    return np.concatenate(parts)
