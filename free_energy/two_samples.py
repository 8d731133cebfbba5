"""Whether two averages differ: one test for curves, surfaces and single numbers.

A curve has many correlated bins and few independent blocks, so that the covariance of its errors
is singular and no chi-square holds. What the errors alone would make of the difference is drawn
instead: residuals of blocks with random signs (the wild bootstrap: Liu, Ann. Statist. 16, 1696
(1988)), which keeps the correlations of bins and lets each side have its own number of blocks and
their own spread. Two statistics are looked at, both in units of the errors that each draw itself
shows: the mean square of the difference, and the mean square of its ratio to the error in each
bin. The p value is that of the smaller of their two p values, among the same of the draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

from free_energy.arrays import Floats
from free_energy.blocks import mean_of_blocks
from free_energy.estimate import Estimate
from free_energy.replicates import Replicates

LEVEL = 0.05
"""Of false alarms: p values up to it are called a difference."""

POWER = 0.8
"""Of comparisons in which a deviation of the size that is told as detectable is seen."""

N_DRAWS = 2000
"""They tell p = 0.05 to 0.005."""

FEWEST = 8
"""Independent blocks or replicates of either side; their spread is not known from fewer."""

SMALL = 0.1
"""Of the mean variance: added to that of every bin, since those of rare bins are known poorly."""

ITERATIONS = 30


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """An average (p,) that is known from independent blocks.

    Parameters
    ----------
    values
        (n_blocks, p), the average in each block.
    weights
        (n_blocks,), how much each block counts; those that count nothing are left out.
    length
        Statistical inefficiencies in a block; blocks of n of them miss a part 1 / (2 n) of the
        variance of the slowest exponential correlation, and less of that of faster ones: the
        middle of both, 1 / (4 n), is made up for.
    """

    values: Floats
    weights: Floats
    length: float = inf

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.weights.shape != self.values.shape[:1]:
            raise ValueError(
                f"blocks of shape {self.values.shape} with weights of {self.weights.shape}: "
                f"give (n, p) and (n,)"
            )

    @property
    def count(self) -> int:
        """Number of blocks that count."""
        return int((self.weights > 0).sum())

    def counting(self) -> tuple[Floats, Floats]:
        """Return the blocks that count, and their shares of the mean."""
        used = self.weights > 0
        return self.values[used], self.weights[used] / self.weights[used].sum()


@dataclass(frozen=True, slots=True, eq=False)
class Apart:
    """A difference (p,) and what errors alone would make of it.

    Whatever is a source of error of either side has its part in ``error`` and in ``draws``.

    Parameters
    ----------
    value, error
        (p,), and its standard error.
    draws, draw_errors
        (m, p), differences as the errors alone make them, and the standard errors, (m, p) or
        (1, p), that would be told of these.
    """

    value: Floats
    error: Floats
    draws: Floats
    draw_errors: Floats


@dataclass(frozen=True, slots=True)
class TwoSampleTest:
    """The difference of two averages: seen or not, how large, and what would have been seen.

    Parameters
    ----------
    p
        How often errors alone make a difference as large, and the error of p by its draws.
    rms
        Root mean square of the difference over the bins less what errors add to it, with its
        standard error; 0 where they add more than is there.
    detectable
        Rms of a deviation that is seen in ``POWER`` of comparisons, in the shape that is hardest
        to see: that of the largest error.
    place
        Index of the bin where the difference is largest.
    """

    p: Estimate[float]
    rms: Estimate[float]
    detectable: float
    place: int

    @property
    def differs(self) -> bool:
        """Whether p is at most ``LEVEL``."""
        return self.p.value <= LEVEL

    @property
    def p_in_words(self) -> str:
        """The p value; below what the draws can tell, that."""
        least = 1 / (N_DRAWS + 1)
        return "p < 0.001" if self.p.value < 2 * least else f"p = {self.p.value:.2g}"


def compare_blocks(
    one: Blocks, other: Blocks, generator: np.random.Generator, *, n_draws: int = N_DRAWS
) -> TwoSampleTest:
    """Return the test of the difference one - other of two averages known from blocks.

    Raises
    ------
    ValueError
        The averages are not of the same bins, or either is of less than two blocks.
    """
    return judge(apart_by_blocks(one, other, generator, n_draws=n_draws))


def compare_replicates(
    one: Replicates, other: Replicates, generator: np.random.Generator, *, n_draws: int = N_DRAWS
) -> TwoSampleTest:
    """Return the test of the difference of two quantities (p,) whose errors replicates tell.

    A side without replicates is taken to be exact.
    """
    return judge(apart_by_replicates(one, other, generator, n_draws=n_draws))


def apart_by_blocks(
    one: Blocks, other: Blocks, generator: np.random.Generator, *, n_draws: int = N_DRAWS
) -> Apart:
    """Return the difference of two averages, with draws by random signs of residuals."""
    if one.values.shape[1] != other.values.shape[1]:
        raise ValueError("the two averages have different numbers of bins")
    value, variance, draws, spread = np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1)
    for sign, side in ((1.0, one), (-1.0, other)):
        values, shares = side.counting()
        n = len(values)
        mean = mean_of_blocks(values, shares)
        missed = 1 - 1 / (4 * max(side.length, 1.0))
        parts = shares[:, None] * (values - mean.value) * sqrt(n / (n - 1) / missed)
        signs = generator.choice([-1.0, 1.0], (n_draws, n))
        shift = signs @ parts
        # the variance that mean_of_blocks tells of such blocks, its square written out
        squares, mixed = (parts**2).sum(0), signs @ (shares[:, None] * parts)
        own = squares - 2 * shift * mixed + shift**2 * (shares**2).sum()
        value = value + sign * mean.value
        variance = variance + mean.error**2 / missed
        draws = draws + shift
        spread = spread + np.maximum(own, 0) * n / (n - 1)
    return Apart(value, np.sqrt(variance), draws, np.sqrt(spread))


def apart_by_replicates(
    one: Replicates, other: Replicates, generator: np.random.Generator, *, n_draws: int = N_DRAWS
) -> Apart:
    """Return the difference of two quantities, with normal draws of the replicates' covariance."""
    value = one.value - other.value
    variance, draws = np.zeros_like(value), np.zeros((n_draws, len(value)))
    for side in (one, other):
        n = len(side.samples)
        if not n:
            continue
        parts = side.inflation * (side.samples - side.samples.mean(0)) / sqrt(n)
        variance = variance + (parts**2).sum(0)
        draws = draws + generator.standard_normal((n_draws, n)) @ parts
    error = np.sqrt(variance)
    return Apart(value, error, draws, error[None])


def judge(apart: Apart) -> TwoSampleTest:
    """Return whether a difference is more than its errors make, its size and what is detectable."""
    size, noise = (apart.value**2).mean(), (apart.error**2).mean()
    sizes, noises = (apart.draws**2).mean(1), (apart.draw_errors**2).mean(1)
    found = np.array([_ratio(size, noise), _relative(apart.value[None], apart.error[None])[0]])
    drawn = np.stack([_ratio(sizes, noises), _relative(apart.draws, apart.draw_errors)], 1)
    n = len(drawn)
    smallest = _tails(drawn, drawn).min(1)
    p = (1 + (smallest <= _tails(found[None], drawn).min()).sum()) / (n + 1)
    enough = np.quantile(drawn[:, 0], 1 - np.quantile(smallest, LEVEL))
    return TwoSampleTest(
        Estimate(float(p), sqrt(p * (1 - p) / n)),
        _size(apart, sizes - noises),
        _detectable(apart.draws, enough * noises),
        int(np.abs(apart.value).argmax()),
    )


def _tails(found: Floats, drawn: Floats) -> Floats:
    """Return the share of draws (m, k) that are at least as large as what is found (n, k)."""
    columns = [
        (1 + len(own) - np.searchsorted(np.sort(own), values, side="left")) / (len(own) + 1)
        for values, own in zip(found.T, drawn.T, strict=True)
    ]
    return np.stack(columns, 1)


def _relative(values: Floats, errors: Floats) -> Floats:
    """Return the mean square (m,) of differences (m, p) over their errors."""
    variance = errors**2
    found: Floats = _ratio(values**2, variance + SMALL * variance.mean(1, keepdims=True)).mean(1)
    return found


def _ratio(values: Floats, noises: Floats) -> Floats:
    """Return values over noises; without noise, 0 for a value of 0 and infinity for others."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.where(values > 0, np.divide(values, noises), 0.0)
    return found


def _size(apart: Apart, excess: Floats) -> Estimate[float]:
    """Return the rms difference without what errors add; ``excess`` (m,) is that of the draws.

    The variance of its square is that of the draws' and that of their product with the
    difference; in the latter the difference's own error counts once too often.
    """
    square = float((apart.value**2).mean() - (apart.error**2).mean())
    product = (apart.draws * apart.value).mean(1)
    variance = max(float(excess.var()), 4 * float((product**2).mean()) - float(excess.var()))
    rms = sqrt(max(square, 0.0))
    error = min(sqrt(variance) / (2 * rms), variance**0.25) if rms > 0 else variance**0.25
    return Estimate(rms, error)


def _detectable(draws: Floats, enough: Floats) -> float:
    """Return the rms of a deviation along the largest error that is seen in ``POWER`` of draws.

    With a draw it makes a mean square of d^2 + 2 d a + q, which is seen from ``enough`` (m,) on.
    """
    shape = draws[(draws**2).sum(1).argmax()]
    for _ in range(ITERATIONS):  # to the leading eigenvector of the draws' covariance
        turned = draws.T @ (draws @ shape)
        length = np.linalg.norm(turned)
        if not length > 0:
            return 0.0
        shape = turned / length
    shape = shape * sqrt(len(shape))
    along, square = draws @ shape / len(shape), (draws**2).mean(1)
    least = np.sqrt(np.maximum(along**2 - square + enough, 0.0)) - along
    return float(np.quantile(np.where(square >= enough, 0.0, np.maximum(least, 0.0)), POWER))
