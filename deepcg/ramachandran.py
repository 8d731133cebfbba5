"""The named regions of the (phi, psi) plane of a residue in water.

The borders are those that Thaler and Zavadlav drew for alanine dipeptide (J. Chem. Phys. 2022,
157, 244103): straight lines between the minima, so that populations of different models are sums
over the same bins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BASINS = ("PII", "C5", "alpha-R", "alpha-R''", "alpha-L")
"""Names of the regions, by the number that `basin` gives; energies are told from the first.

PII is called C7eq where there is no water; alpha-L includes C7ax.
"""

SYMBOLS = {"PII": "PII", "C5": "C5", "alpha-R": "αR", "alpha-R''": "αR″", "alpha-L": "αL"}
"""How the regions are labelled in figures."""

PATHS = (("PII", "C5"), ("PII", "alpha-R"), ("PII", "alpha-L"))
"""Between which regions barriers are told."""

_LEFT = (13.0, 128.0)  # degrees, of phi
_HELIX = (-125.0, 74.0)  # of psi
_BRIDGE, _EXTENDED = -134.0, -110.0  # of phi


def basin(phi: ArrayLike, psi: ArrayLike) -> NDArray[np.int64]:
    """Return the number of the region, an index into `BASINS`, of each (phi, psi), rad."""
    x, y = (_within_a_turn(np.degrees(np.asarray(angle, dtype=float))) for angle in (phi, psi))
    left = (x >= _LEFT[0]) & (x < _LEFT[1])
    helix = (y >= _HELIX[0]) & (y < _HELIX[1])
    beyond = x >= _LEFT[1]  # what lies to the left of -180 degrees
    helical = np.where((x < _BRIDGE) | beyond, 3, 2)
    extended = np.where((x < _EXTENDED) | beyond, 1, 0)
    return np.where(left, 4, np.where(helix, helical, extended))


def _within_a_turn(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    turned: NDArray[np.float64] = (degrees + 180) % 360 - 180
    return turned
