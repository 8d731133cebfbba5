"""The irreducible noise: variance of the force that no function of coarse coordinates explains.

An instantaneous force is F = f(x) + R: f is the mean force at the coarse coordinates x, and R,
of mean 0 there, comes from what was left out. The mean square error of the best model is
s^2 = <R^2>, the noise floor. Three ways to it, from one simulation:

1. *The mean of training and validation error* of one fit. A least-squares fit of p parameters to
   N noisy numbers has the errors s^2 (1 - p/N) + b^2 on these and s^2 (1 + p/N) + b^2 on
   others, with b^2 what the best parameters leave of f: their mean is s^2 + b^2. It holds to first
   order in p/N, at the minimum, with noise alike on both sets and validation frames that do not
   remember the training frames. A fit that was stopped early or regularized, a linear smoother S,
   has a mean that is lower by s^2 tr(S - S^2) / N; far beyond p << N it is not an estimate at all.
2. *Two fits to disjoint halves* (`cross_fit`): right for any fit and any p/N, but for b^2.
3. *Pairs of frames that are close in x* (`close_frames`): no model, no b^2, few dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from deepcg.runtime.errors import InputError
from free_energy import Estimate, block_average

Array = NDArray[np.float64]

MOST_COORDINATES = 6
"""Beyond, hardly two frames of a trajectory are close."""


class Samples(Protocol):
    """Frames with instantaneous forces, of beads or of collective variables."""

    @property
    def forces(self) -> Tensor:
        """(n, ...)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, frames: slice, /) -> Self:
        """Return some of the frames."""
        ...


S = TypeVar("S", bound=Samples)


@dataclass(frozen=True, slots=True, eq=False)
class CrossFit:
    """What two fits to disjoint data say on frames that neither saw; means per component.

    Parameters
    ----------
    floor
        <(F - f_1) (F - f_2)> = s^2 + <(f_1 - f) (f_2 - f)>. The fits owe nothing to each other's
        data, so that of the last product only the square of their mean error is left: what the
        network cannot represent, and what both trainings lack alike. An upper bound.
    spread
        <(f_1 - f_2)^2> / 2: the square of the error of one fit that is due to the noise in its
        half of the data and to chance in its training.
    """

    floor: Estimate[float]
    spread: Estimate[float]


def cross_fit(
    first: Callable[[S], Tensor], second: Callable[[S], Tensor], samples: S, *, chunk: int = 20
) -> CrossFit:
    """Estimate the noise floor from two fits to disjoint halves of the data.

    Since (F - f_1) (F - f_2) = ((F - f_1)^2 + (F - f_2)^2 - (f_1 - f_2)^2) / 2, the product is what
    is left of the mean error of the two fits without what they learned from noise, at any number
    of parameters. Errors are from blocks of frames.

    Parameters
    ----------
    first, second
        From samples to the forces (n, ...) of the two fits.
    samples
        In the order of time; neither fit was trained on them, nor on frames that they remember.
    chunk
        Frames that are evaluated at once.

    Raises
    ------
    InputError
        There are less than 16 frames.
    """
    if len(samples) < 16:
        raise InputError(
            f"{len(samples)} held-out frames are too few for an error: keep 16 or more"
        )
    rows = []
    for start in range(0, len(samples), chunk):
        part = samples[start : start + chunk]
        f1, f2 = first(part).detach().double(), second(part).detach().double()
        left = (part.forces - f1) * (part.forces - f2), (f1 - f2).square() / 2
        rows.append(torch.stack([x.flatten(1).mean(1) for x in left], 1))
    both = block_average(torch.cat(rows).cpu().numpy())
    floor, spread = (
        Estimate(float(v), float(e)) for v, e in zip(both.value, both.error, strict=True)
    )
    return CrossFit(floor, spread)


@dataclass(frozen=True, slots=True, eq=False)
class CloseFrames:
    """What pairs of close frames say of the noise; mean squares per component of the force.

    Parameters
    ----------
    floor
        (k,), the variance of the noise, extrapolated to distance zero.
    nearest
        (k,), half the squared difference of nearest frames, without extrapolation: where it is
        much larger than the floor, the frames are too few for the number of coordinates.
    """

    floor: Estimate[Array]
    nearest: Array


def close_frames(
    values: ArrayLike,
    forces: ArrayLike,
    periods: Sequence[float | None],
    *,
    neighbors: int = 10,
    blocks: int = 20,
) -> CloseFrames:
    """Estimate the noise floor from pairs of frames that are close in their coordinates.

    Half the squared difference of the forces at x and x + D has the mean
    (s^2(x) + s^2(x + D) + (D . grad f)^2) / 2. Averaged over all frames and their m-th nearest
    ones, m = 1 ... ``neighbors``, it is a straight line in the mean of D^2, which grows with m
    alike everywhere; its intercept is the variance (the Gamma test: Evans and Jones, Proc. R.
    Soc. Lond. A 458, 2759 (2002)). Frames of the same block of time are never paired, as their
    noise is correlated; the error is from blocks, too.

    Parameters
    ----------
    values
        (n, d) coarse coordinates, in the order of time.
    forces
        (n, k) instantaneous forces.
    periods
        (d,), the period of each coordinate or ``None``. Others are measured by their spread.
    blocks
        Number of blocks of time, each much longer than the noise is correlated.

    Raises
    ------
    InputError
        There are too many coordinates, too few frames, or a coordinate does not change.
    """
    f = np.asarray(forces, dtype=float)
    x, box = _in_units_of_spread(np.asarray(values, dtype=float), periods)
    n, d = x.shape
    if d > MOST_COORDINATES:
        raise InputError(
            f"{d} coordinates are too many for pairs of close frames (at most {MOST_COORDINATES}): "
            f"fit two halves of the data instead"
        )
    if n < 5 * blocks or neighbors < 2:
        raise InputError(
            f"{n} frames in {blocks} blocks with {neighbors} neighbors: give at least 5 frames for "
            f"each block and 2 neighbors"
        )
    square, found = _apart_in_time(x, box, neighbors, blocks)  # (n, neighbors)
    gaps = np.stack([((f - f[m]) ** 2 / 2).mean(0) for m in found.T])  # (neighbors, k)
    share = _intercept_shares(square.mean(0))
    error = _error(f, found, share, blocks)
    return CloseFrames(Estimate(share @ gaps, error), gaps[0])


def _in_units_of_spread(values: Array, periods: Sequence[float | None]) -> tuple[Array, Array]:
    """Return coordinates of comparable size, and their periods (0 where there is none)."""
    if values.ndim != 2 or values.shape[1] != len(periods):
        raise InputError(
            f"the values have shape {values.shape} for {len(periods)} periods: give (frames, d) "
            f"values and d periods"
        )
    x, box = np.empty_like(values), np.zeros(len(periods))
    for k, (column, period) in enumerate(zip(values.T, periods, strict=True)):
        if not np.ptp(column) > 0:
            raise InputError(f"coordinate {k} is {column[0]:g} in all frames: leave it out")
        if period is None:
            x[:, k] = column / column.std()
        else:
            box[k] = 2 * np.pi
            turned = column / period % 1.0
            x[:, k] = box[k] * np.where(turned < 1, turned, 0)  # -1e-20 % 1 is 1
    return x, box


def _apart_in_time(
    x: Array, box: Array, neighbors: int, blocks: int
) -> tuple[Array, NDArray[np.int64]]:
    """Return squared distances and numbers of the nearest frames of other blocks."""
    edges = np.linspace(0, len(x), blocks + 1).astype(int)
    distances, numbers = [], []
    for low, high in pairwise(edges):
        others = np.r_[0:low, high : len(x)]
        distance, found = cKDTree(x[others], boxsize=box).query(x[low:high], neighbors)
        distances.append(distance)
        numbers.append(others[found])
    return np.concatenate(distances) ** 2, np.concatenate(numbers)


def _intercept_shares(x: Array) -> Array:
    """Return what each of the values at x (m,) has in the intercept of their straight line."""
    away = x - x.mean()
    shares: Array = 1 / len(x) - away * x.mean() / (away @ away)
    return shares


def _error(f: Array, found: NDArray[np.int64], share: Array, blocks: int) -> Array:
    """Return the standard error (k,) of the intercept.

    Half a squared difference is (R_n^2 + R_m^2) / 2 - R_n R_m. The squares add up to one R_n^2
    for each frame, whose mean has the error of a series in time. The products are independent
    of them and of each other, but that two frames may be neighbors of each other: then they
    count twice, which is taken for granted.
    """
    near = np.stack([f[m] for m in found.T])  # (neighbors, n, k)
    squares = (f - near.mean(0)) ** 2 * len(near) / (len(near) + 1)  # R_n^2, about
    products = sum(c**2 * squares[m] for c, m in zip(share, found.T, strict=True)) * squares
    series = block_average(squares, n_blocks=blocks).error
    error: Array = np.sqrt(series**2 + 2 * products.mean(0) / len(f))
    return error
