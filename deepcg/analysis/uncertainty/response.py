"""How averages over a model's samples would change from one member of an ensemble to another.

To first order in U' - U the average of an observable O changes by -cov(O, U' - U) / kT over the
samples that there are (linear response; as an estimate of the error of simulations with committees
of networks: Imbalzano et al., J. Chem. Phys. 154, 074102 (2021)). Weights exp(-(U' - U) / kT) would
be exact, but of a liquid they leave a handful of samples: the spread of U' - U grows with
the number of beads, the change of an average does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deepcg.analysis.surfaces.member_errors import SAMPLING, member_deviations
from deepcg.runtime.arrays import Doubles

PIECES = 10
"""Of the samples, of which each tells changes of its own: the noise of samples is taken off."""


@dataclass(frozen=True, slots=True)
class TotalError:
    """The standard error of a function, root mean square over its points, and its parts.

    Parts are by name, sampling first; a part that the noise of the samples hides is 0.
    """

    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """The root of the sum of squares."""
        return math.sqrt(sum(part**2 for part in self.parts.values()))

    def in_words(self, unit: str = "") -> str:
        """Say how large the error is, and of what."""
        unit = f" {unit}" if unit else ""
        told = ", ".join(
            f"{name} {part:.2g}" if part else f"{name} hidden by the noise of the samples"
            for name, part in self.parts.items()
        )
        return f"{self.total:.2g}{unit} rms ({told})"


def fit_variances(
    observable: Doubles,
    energies: Doubles,
    sources: Sequence[int | None],
    kT: float,
    *,
    resampled: bool,
) -> dict[str, Doubles]:
    """Return what parts of the fit add to the variance of an average (n_points,), by name.

    The noise that the samples' number leaves in a change is taken off: products of the changes that
    different pieces of the samples tell have none. So a value may be below zero, where it means
    zero.

    Parameters
    ----------
    observable
        (n_frames, n_points), in the order of time, replica by replica.
    energies
        (n_members, n_frames), U of each member at the frames, kJ/mol, each up to a constant.
    sources, resampled
        As in `member_deviations`.
    """
    changes = []
    for part in np.array_split(np.arange(len(observable)), PIECES):
        rest = observable[part] - observable[part].mean(0)
        apart = energies[:, part] - energies[:, part].mean(1, keepdims=True)
        apart = apart - apart.mean(0)
        changes.append(-apart @ rest / (kT * (len(part) - 1)))
    of_pieces = member_deviations(np.stack(changes, 1), sources, resampled=resampled)
    found = {}
    for name, away in of_pieces.items():  # (n, PIECES, n_points)
        whole, own = away.sum(1) ** 2, (away**2).sum(1)
        pairs = (whole - own) / (PIECES * (PIECES - 1))
        found[name] = pairs.sum(0) / (len(away) - 1)
    return found


def total_error(sampling: Doubles, variances: Mapping[str, Doubles]) -> TotalError:
    """Return the error of a function, from its sampling error and variances (n_points,) of parts.

    Points where the sampling error is not known are left out.
    """
    known = np.isfinite(sampling)
    parts = {SAMPLING: float(np.sqrt((sampling[known] ** 2).mean()))}
    for name, variance in variances.items():
        parts[name] = math.sqrt(max(0.0, float(variance[known].mean())))
    return TotalError(parts)
