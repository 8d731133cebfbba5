"""Acquisition of active learning: what is not known, which queries to make, and who answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Generator, Tensor

from deepcg.geometry.farthest_points import farthest_points
from deepcg.geometry.periodic import shortest
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.ensemble import SurfaceEnsemble
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.progress import Progress, silent
from deepcg.trajectory.frames import CVFrames
from deepcg.workflow.learn.exploration import Range, TrustLevels, explore

RADIUS = 0.15
"""Within which frames answer for a place, in the coordinates' lengths: 9 degrees of an angle."""


Data = TypeVar("Data", bound=Sized)
"""Frames with forces, or mean forces with their errors."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer(Generic[Data]):
    """What came of asking for forces at places.

    Parameters
    ----------
    queries
        (n, d), what was asked for.
    answered
        (n,), whether anybody knew.
    data
        Forces; ``None``: there are none.
    saved
        What an oracle needs, beside its files, to give the same answer again.
    """

    queries: Tensor
    answered: NDArray[np.bool_]
    data: Data | None
    saved: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class Oracle(Protocol[Data]):
    """Whoever can tell forces at places: a simulation, or frames that are kept."""

    def __call__(self, queries: Tensor, folder: Path, progress: Progress = silent) -> Answer[Data]:
        """Return the answer at places (n, d); what takes long is kept in files of the folder."""
        ...

    def recall(self, saved: Mapping[str, NDArray[Any]], folder: Path) -> Data | None:
        """Return the data of an answer that was given before, from ``saved`` arrays (...)."""
        ...


class StoredFrames:
    """Frames of a trajectory that are kept: each is given once.

    Parameters
    ----------
    frames
        With forces.
    box
        Of the coordinates.
    each
        How many of the nearest frames answer for a place.
    """

    def __init__(self, frames: CVFrames, box: Range, each: int) -> None:
        self.frames, self.each = frames, each
        self._lengths = box.lengths.double().numpy()
        self._periods = [
            None if period is None else period / length
            for period, length in zip(box.periods, self._lengths, strict=True)
        ]
        self._points = self._scaled(frames.values)
        self._tree = cKDTree(self._points, boxsize=[period or 0.0 for period in self._periods])
        self.given = np.zeros(len(frames), bool)

    def __call__(
        self, queries: Tensor, folder: Path, progress: Progress = silent
    ) -> Answer[CVFrames]:
        """Return the nearest frames that were not given before; see `Oracle`."""
        del folder, progress
        chosen: list[int] = []
        answered = np.zeros(len(queries), bool)
        near = self._tree.query_ball_point(self._scaled(queries), RADIUS)
        for k, found in enumerate(near):
            left = np.array([i for i in found if not self.given[i]], dtype=int)
            if not len(left):
                continue
            apart = shortest(self._points[left] - self._scaled(queries[k : k + 1]), self._periods)
            nearest = left[np.argsort((apart**2).sum(1), kind="stable")[: self.each]]
            self.given[nearest] = True
            chosen += nearest.tolist()
            answered[k] = True
        return self._answer(queries, answered, np.array(chosen, dtype=np.int64))

    def take(self, n: int, rng: np.random.Generator) -> Answer[CVFrames]:
        """Return n frames at random that were not given before, or all that are left."""
        left = np.flatnonzero(~self.given)
        chosen = rng.choice(left, min(n, len(left)), replace=False)
        nowhere = self.frames.values[:0]
        return self._answer(nowhere, np.zeros(0, bool), chosen)

    def recall(self, saved: Mapping[str, NDArray[Any]], folder: Path) -> CVFrames | None:
        """Return frames that were given before, of these numbers (n,), and give them no more."""
        del folder
        return self._give(saved["given"])

    def _answer(
        self, queries: Tensor, answered: NDArray[np.bool_], chosen: NDArray[np.int64]
    ) -> Answer[CVFrames]:
        given = np.sort(chosen)
        return Answer(queries, answered, self._give(given), {"given": given})

    def _give(self, given: NDArray[np.int64]) -> CVFrames | None:
        self.given[given] = True
        return self.frames[torch.from_numpy(given)] if len(given) else None

    def _scaled(self, values: Tensor) -> Doubles:
        points: Doubles = values.double().numpy() / self._lengths
        for k, period in enumerate(self._periods):
            if period is not None:  # as the tree wants them
                points[:, k] %= period
        return points


@dataclass(frozen=True, slots=True, eq=False)
class Exploration:
    """What walkers found.

    Parameters
    ----------
    visited, spread
        (n, d), (n,), where they were, and Sigma there.
    unknown
        (n,), where Sigma is above the lower trust level, and an answer can be hoped for.
    """

    visited: Tensor
    spread: Tensor
    unknown: Tensor

    @property
    def fraction(self) -> float:
        """Part of the places that is not known."""
        return float(self.unknown.double().mean())


def survey(
    members: Sequence[CVPotential],
    start: Tensor,
    trust: TrustLevels,
    box: Range,
    *,
    kT: float,
    steps: int,
    silent: Tensor,
    generator: Generator,
) -> Exploration:
    """Return where the members do not agree, as walkers from ``start`` (n, d) find it.

    ``silent`` (m, d) are places at which nobody could answer: what is near them does not count.
    """
    ensemble = SurfaceEnsemble(members)
    visited, spread = explore(
        ensemble, start, trust, box, kT=kT, steps=steps, every=10, generator=generator
    )
    unknown = spread > trust.low
    if len(silent):
        apart = box.put_back((visited[:, None] - silent).flatten(0, 1)) / box.lengths
        squares = apart.square().sum(-1).view(len(visited), len(silent))
        unknown = unknown & (squares.min(1).values > RADIUS**2)
    return Exploration(visited, spread, unknown)


def choose_queries(found: Exploration, number: int, box: Range, generator: Generator) -> Tensor:
    """Return places (number, d) that are not known and differ from one another.

    Each is the one farthest from those picked before, the first the one of largest Sigma.
    """
    candidates, spread = found.visited[found.unknown], found.spread[found.unknown]
    if not len(candidates):
        return candidates
    chosen = farthest_points(
        candidates / box.lengths,
        int(spread.argmax()),
        number,
        periodic=[period is not None for period in box.periods],
        distinct=True,
    )
    order = torch.randperm(len(chosen), generator=generator)
    return candidates[torch.tensor(chosen)[order]]
