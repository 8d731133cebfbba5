"""The named regions of the (phi, psi) plane of a residue in water.

The borders are those that Thaler and Zavadlav drew for alanine dipeptide (J. Chem. Phys. 2022,
157, 244103): straight lines between the minima, so that populations of different models are sums
over the same bins.
"""

from __future__ import annotations

import math

from free_energy import Rectangle

AXES = ("phi", "psi")
"""First words of the names of the coordinates."""

SYMBOLS = {"PII": "PII", "C5": "C5", "alpha-R": "αR", "alpha-R''": "αR''", "alpha-L": "αL"}
"""How the regions are labelled in figures."""

PATHS = (("PII", "C5"), ("PII", "alpha-R"), ("PII", "alpha-L"))
"""Between which regions barriers are told."""


def _degrees(low: tuple[float, float], high: tuple[float, float]) -> Rectangle:
    (phi, psi), (to_phi, to_psi) = low, high
    return Rectangle(
        (math.radians(phi), math.radians(psi)), (math.radians(to_phi), math.radians(to_psi))
    )


BASINS = {
    "PII": _degrees((-110, 74), (13, -125)),
    "C5": _degrees((128, 74), (-110, -125)),
    "alpha-R": _degrees((-134, -125), (13, 74)),
    "alpha-R''": _degrees((128, -125), (-134, 74)),
    "alpha-L": _degrees((13, -180), (128, 180)),
}
"""The regions, which cover the plane; free energies are told from the first.

PII is called C7eq where there is no water; alpha-L includes C7ax.
"""
