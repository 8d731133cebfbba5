"""Is an ensemble's spread the size of its error? Coverage, a factor, and parts of the error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from deepcg.runtime.arrays import Doubles

WITHIN = (0.6827, 0.9545)
"""Of normal errors, within 1 and 2 standard deviations."""

_TOP = 1e6  # a larger factor is none


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a predicted spread compares with the error, component by component.

    Parameters
    ----------
    n
        Number of components.
    rms_error, rms_spread
        Root mean squares, the error without that of the reference.
    correlation
        Spearman's, of the size of the error with the spread.
    factor
        What the spread is to be multiplied by for 68 % of the errors to be within it.
    before
        Fractions of the errors within 1 and 2 of the spreads.
    after
        The same with the factor, which is taken from one half of the components and tried on the
        other.
    """

    n: int
    rms_error: float
    rms_spread: float
    correlation: float
    factor: float
    before: tuple[float, float]
    after: tuple[float, float]

    def in_words(self, unit: str) -> str:
        """Say what the spread is worth, in its unit."""
        shares = [f"{100 * a:.0f} and {100 * b:.0f} %" for a, b in (self.before, self.after)]
        return (
            f"error {self.rms_error:.3g} {unit} rms, spread {self.rms_spread:.3g} {unit} "
            f"(rank correlation {self.correlation:.2f}, {self.n} components); within 1 and 2 "
            f"spreads {shares[0]} of the errors, with the factor {self.factor:.2f} {shares[1]} "
            f"(normal: 68 and 95 %)"
        )


def calibrate(error: Doubles, spread: Doubles, noise: Doubles | None = None) -> Calibration:
    """Compare the spread (...) with the error (...) of the same numbers.

    Parameters
    ----------
    error
        Prediction less reference.
    noise
        (...), standard error of the reference; ``None``: it is exact.
    """
    e, s = error.ravel(), spread.ravel()
    sigma = np.zeros_like(e) if noise is None else noise.ravel()
    known = np.isfinite(e) & np.isfinite(s) & np.isfinite(sigma)
    e, s, sigma = e[known], s[known], sigma[known]
    odd = np.arange(len(e)) % 2 == 1
    crossed = np.empty(len(e))
    for half in (odd, ~odd):
        crossed[half] = factor_of(e[~half], s[~half], sigma[~half])
    shares = [
        tuple(float((np.abs(e) <= k * np.hypot(a * s, sigma)).mean()) for k in (1, 2))
        for a in (np.ones(len(e)), crossed)
    ]
    excess = float((e**2).mean() - (sigma**2).mean())
    return Calibration(
        len(e),
        math.sqrt(max(0.0, excess)),
        float(np.sqrt((s**2).mean())),
        float(spearmanr(np.abs(e), s).statistic),
        factor_of(e, s, sigma),
        (shares[0][0], shares[0][1]),
        (shares[1][0], shares[1][1]),
    )


def factor_of(error: Doubles, spread: Doubles, noise: Doubles) -> float:
    """Return the factor on the spread (n,) that brings 68 % of the errors (n,) within one of it.

    The noise of the reference adds to it in squares. 0: the noise alone explains the errors.
    """
    # each error asks for a factor of its own, and as many are below as are within
    beyond = np.sqrt(np.maximum(0.0, error**2 - noise**2))
    with np.errstate(divide="ignore", invalid="ignore"):
        asked = np.where(beyond > 0, beyond / spread, 0.0)
    return float(np.quantile(np.minimum(asked, _TOP), WITHIN[0]))


@dataclass(frozen=True, slots=True)
class Parts:
    """What an error is made of, root mean squares over components.

    ``data`` is what other noisy data would change (noise-limited); ``start`` what other initial
    weights would; ``model`` is what is left however many of both are averaged over: what the
    network, or its training, cannot represent (model-limited).
    """

    data: float
    start: float
    model: float


def parts_of(fits: Doubles, truth: Doubles) -> Parts:
    """Return the parts of the error of fits (n_sets, n_members, ...) to independent sets of data.

    Variance components of a balanced nested design (Searle, Casella, McCulloch, Variance
    Components, Wiley 1992, chapter 3), less what the finite numbers add to each. ``truth`` is
    (...); there must be two sets and two members or more.

    Raises
    ------
    ValueError
        There are fewer.
    """
    n_sets, n_members = fits.shape[:2]
    if min(n_sets, n_members) < 2:
        raise ValueError(f"{n_sets} sets of {n_members} fits: give two or more of each")
    start = float(fits.var(1, ddof=1).mean())
    means = fits.mean(1)
    of_means = float(means.var(0, ddof=1).mean())
    data = of_means - start / n_members
    model = float(((means.mean(0) - truth) ** 2).mean()) - of_means / n_sets
    return Parts(*(math.sqrt(max(0.0, square)) for square in (data, start, model)))
