"""A named set of trajectories of the same beads, cut into blocks for errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import Tensor

from deepcg.geometry.box import box_heights
from deepcg.runtime.arrays import Doubles, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames
from free_energy import block_count, statistical_inefficiency

FEWEST_FRAMES = 16
PAIRS_AT_ONCE = 300_000  # bounds memory; the arrays of one pass stay near the cache


@dataclass(frozen=True, eq=False)
class TrajectorySet:
    """What one model visited.

    Parameters
    ----------
    name
        As it stands in legends: "TIP3P", "CG".
    replicas
        Independent trajectories, each continuous in time, with boxes.
    dt
        Time between frames, ps; ``None`` where it is not known.
    source
        Where the frames come from, for pages.
    type_names
        Names of the bead types 0, 1, ... of ``Frames.types``.
    speed
        ns/day of the simulation itself, where it was measured.
    """

    name: str
    replicas: Sequence[Frames]
    dt: float | None
    source: str
    type_names: tuple[str, ...] = ("bead",)
    speed: float | None = None

    def __post_init__(self) -> None:
        if self.n_frames < FEWEST_FRAMES:
            raise InputError(
                f"{self.name} has {self.n_frames} frames ({self.source}): "
                f"a comparison with errors needs at least {FEWEST_FRAMES}"
            )
        for frames in self.replicas:
            if frames.box is None:
                raise InputError(
                    f"{self.name} has no box ({self.source}): densities need periodic frames"
                )
            if frames.weights is not None:
                raise InputError(
                    f"{self.name} has weighted frames ({self.source}): compare unbiased runs"
                )
        highest = max(int(frames.types.max()) for frames in self.replicas)
        if highest >= len(self.type_names):
            raise InputError(
                f"{self.name} has beads of type {highest} but only "
                f"{len(self.type_names)} type names ({', '.join(self.type_names)})"
            )

    @property
    def n_frames(self) -> int:
        """Number of frames of all replicas together."""
        return sum(len(frames) for frames in self.replicas)

    @property
    def n_beads(self) -> int:
        """Number of beads in a frame."""
        return self.replicas[0].n_sites

    @property
    def types(self) -> Integers:
        """Bead types (n_beads,)."""
        return self.replicas[0].types.cpu().numpy().astype(np.int64)

    @property
    def longest_distance(self) -> float:
        """Half of the shortest box height, nm: no pair distance beyond it is complete."""
        return min(float(box_heights(_box(frames)).min()) for frames in self.replicas) / 2

    def blocks(self, count: int) -> list[Frames]:
        """Return about ``count`` contiguous pieces, none across replicas, at least one each."""
        pieces = []
        for frames in self.replicas:
            share = max(1, round(count * len(frames) / self.n_frames))
            edges = np.linspace(0, len(frames), min(share, len(frames)) + 1).astype(int)
            pieces += [frames[a:b] for a, b in pairwise(edges)]
        return pieces


@dataclass(frozen=True, eq=False)
class Sample:
    """A set of trajectories and the blocks that its correlation in time allows."""

    ensemble: TrajectorySet
    blocks: list[Frames]
    inefficiency: float

    @property
    def n_independent(self) -> float:
        """Number of frames divided by the statistical inefficiency."""
        return self.ensemble.n_frames / self.inefficiency

    @property
    def block_length(self) -> float:
        """Statistical inefficiencies in a block."""
        return max(1.0, self.n_independent / len(self.blocks))


def cut(ensemble: TrajectorySet, series: Sequence[Doubles]) -> Sample:
    """Cut an ensemble into blocks by the slowest of several properties of a frame.

    Parameters
    ----------
    series
        For each replica (n_frames, n_properties).
    """
    inefficiency = max(
        float(np.mean([statistical_inefficiency(s[:, k]) for s in series if len(s) >= 4] or [1.0]))
        for k in range(series[0].shape[1])
    )
    count = block_count(ensemble.n_frames, inefficiency)
    blocks = ensemble.blocks(max(count, 2))
    return Sample(ensemble, blocks, inefficiency)


def chunks(frames: Frames) -> Iterator[tuple[Doubles, Doubles]]:
    """Yield positions (f, n, 3) and boxes (f, 3, 3) in float64, a bounded number of frames."""
    step = max(1, PAIRS_AT_ONCE // max(1, frames.n_sites * (frames.n_sites - 1) // 2))
    box = _box(frames).numpy()
    for k in range(0, len(frames), step):
        positions = np.asarray(frames.positions[k : k + step].detach().cpu(), dtype=np.float64)
        yield positions, box[k : k + step]


def _box(frames: Frames) -> Tensor:
    assert frames.box is not None  # a TrajectorySet has checked it
    return frames.box.detach().cpu().double()
