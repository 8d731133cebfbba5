"""Frames of several runs, each under its own bias, as one sample without any: MBAR.

Shirts and Chodera, J. Chem. Phys. 129, 124105 (2008). pymbar finds the free energies of the runs
from frames so far apart that they are independent; Newton steps from there let all frames count,
correlated ones by the inverse of their statistical inefficiency, and give resampled data
their own solution at little cost. Not in ``free_energy`` itself: pymbar is slow to import.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from free_energy.arrays import Floats, Integers
from free_energy.overlap import APART, FEW, Overlap, overlap_of

logging.getLogger("pymbar").setLevel(logging.ERROR)  # its import advertises an accelerator

from pymbar import MBAR  # noqa: E402

TOLERANCE = 1e-9
"""Of the sum of the probabilities of each run, relative to the number of frames."""

MOST_STEPS = 50

_log = logging.getLogger(__name__)


def mbar_weights(
    bias: ArrayLike,
    counts: Sequence[int],
    *,
    inefficiencies: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
) -> Floats:
    """Return the weight of each frame in the ensemble without a bias (N,), of sum 1.

    For the arguments see ``mbar_weighting``.
    """
    weighting = mbar_weighting(bias, counts, inefficiencies=inefficiencies, names=names)
    return weighting(np.ones(sum(counts)))


def mbar_weighting(
    bias: ArrayLike,
    counts: Sequence[int],
    *,
    inefficiencies: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
) -> Callable[[Floats], Floats]:
    """Return the function that gives the weights (N,), of sum 1, of how often frames count (N,).

    For ``bootstrap``, with runs as strata: a surface of these weights, and its error.

    Parameters
    ----------
    bias
        (K, N), the bias of each of the runs, in kT, at each of the frames of all runs, run after
        run in the order of ``counts``.
    counts
        (K,), number of frames of each run, at least 1.
    inefficiencies
        (K,), successive frames of each run worth one independent frame; ``None``: 1 each.
    names
        (K,), of the runs, for messages; ``None``: "run 1", "run 2", ...

    Raises
    ------
    ValueError
        Shapes do not match, a bias is not finite, or the runs do not overlap: see `overlap_of`.
        Where they hardly do, a warning is logged.
    """
    reduced = np.asarray(bias, dtype=float)
    lengths = np.asarray(counts, dtype=np.int64)
    worth = np.ones(len(lengths)) if inefficiencies is None else np.asarray(inefficiencies, float)
    _check(reduced, lengths, worth)
    run = np.repeat(np.arange(len(lengths)), lengths)
    start = _independent_solution(reduced, lengths, worth)
    shifted = start[:, None] - reduced
    highest = shifted.max(0)
    factors = np.exp(shifted - highest)  # (K, N)
    labels = [f"run {k + 1}" for k in range(len(lengths))] if names is None else list(names)
    _check_overlap(_overlap(factors, 1 / worth[run], run), labels)

    def weights(times: Floats) -> Floats:
        amounts = times / worth[run]
        sizes = np.bincount(run, amounts, len(lengths)).astype(float)
        mixture = _solve(factors, amounts, sizes)
        used = amounts > 0
        logs = np.where(used, np.log(np.where(used, amounts, 1) / mixture) - highest, -np.inf)
        found: Floats = np.exp(logs - logs.max())
        found /= found.sum()
        return found

    return weights


def _overlap(factors: Floats, amounts: Floats, run: Integers) -> Overlap:
    """Return the overlap of runs of which frames count by ``amounts`` (N,).

    The free energies are those of pymbar, whose solver may end anywhere where runs are apart; what
    the probabilities of a run sum to need not be its size then, and columns still sum to 1.
    """
    sizes = np.bincount(run, amounts, len(factors)).astype(float)
    terms = sizes[:, None] * factors
    return overlap_of(terms / terms.sum(0), amounts, run)


def _check_overlap(overlap: Overlap, names: Sequence[str]) -> None:
    """Refuse runs that are apart, and warn of those that hardly overlap."""
    if not overlap.shared >= APART:
        raise ValueError(
            f"{overlap.in_words(names)}: they do not overlap, and their free energies relative to "
            f"one another are not known; add runs between them"
        )
    if overlap.shared < FEW:
        _log.warning(
            "%s: their free energies relative to one another have an error of %.1f kT or more; "
            "add runs between them, or sample longer",
            overlap.in_words(names),
            overlap.shared**-0.5,
        )


def _independent_solution(reduced: Floats, lengths: Integers, worth: Floats) -> Floats:
    """Return the free energies of the runs (K,) by pymbar, of one frame in each inefficiency."""
    first = np.concatenate([[0], np.cumsum(lengths)])
    kept = [
        np.arange(a, b, int(np.ceil(g)))
        for a, b, g in zip(first[:-1], first[1:], worth, strict=True)
    ]
    solver = ({"method": "adaptive"},)
    sizes = [len(own) for own in kept]
    found: Floats = MBAR(reduced[:, np.concatenate(kept)], sizes, solver_protocol=solver).f_k
    return found


def _solve(factors: Floats, amounts: Floats, sizes: Floats) -> Floats:
    """Return sum_k N_k exp(f_k - u_k) at each frame (N,), over the highest of its terms at start.

    Newton's method on the convex objective whose gradient is the difference between the number
    of frames of each run and the sum of their probabilities under it.
    """
    change = np.zeros(len(sizes))
    for _ in range(MOST_STEPS):
        scaled = sizes * np.exp(change)
        mixture: Floats = scaled @ factors
        expected = scaled * (factors @ (amounts / mixture))
        missing = sizes - expected
        if np.abs(missing).max() < TOLERANCE * sizes.sum():
            return mixture
        shared = scaled[:, None] * ((factors * (amounts / mixture**2)) @ factors.T) * scaled
        step = np.linalg.lstsq(np.diag(expected) - shared, missing, rcond=1e-12)[0]
        step -= step[0]
        change += step / max(1.0, np.abs(step).max())  # far from the solution, not too far at once
    raise ValueError("MBAR does not converge: add runs between those that do not overlap")


def _check(reduced: Floats, lengths: Integers, worth: Floats) -> None:
    n_runs = len(lengths)
    if reduced.shape != (n_runs, lengths.sum()):
        raise ValueError(
            f"the bias has shape {reduced.shape}, not ({n_runs}, {lengths.sum()}): "
            "one row for each run, one column for each frame of all runs"
        )
    if not np.isfinite(reduced).all():
        raise ValueError("the bias is not finite at every frame")
    if lengths.min() < 1 or worth.shape != (n_runs,) or not worth.min() >= 1:
        raise ValueError("each run needs a frame and a statistical inefficiency of at least 1")
