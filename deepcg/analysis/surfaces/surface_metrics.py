"""The distances of the literature between surfaces that come without their frames."""

from __future__ import annotations

import numpy as np

from deepcg.analysis.surfaces.comparison import Metric, in_kcal
from deepcg.analysis.surfaces.surface import FreeEnergySurface
from deepcg.runtime.arrays import Doubles
from deepcg.units import thermal_energy
from free_energy import Estimate, jensen_shannon, pmf_error


def metrics_of_surfaces(
    landscape: FreeEnergySurface, reference: FreeEnergySurface
) -> tuple[Metric, ...]:
    """Return Jensen-Shannon divergence, FES-MSE and PMF error of two surfaces on their own bins.

    Of the probabilities exp(-F/kT), 0 where F is not known. The literature has 60 x 60 and 100 x
    100 bins of frames (see ``metrics_of``): the number of bins is in the names. Floors are NaN:
    what two samples of one distribution differ by depends on how a surface was made of them.
    """
    kT = thermal_energy(reference.temperature)
    p, q = _probabilities(reference, kT), _probabilities(landscape, kT)
    bins = " x ".join(str(n) for n in p.shape)
    kinds = (
        ("Jensen-Shannon divergence", "nats", jensen_shannon),
        ("FES-MSE", "(kcal/mol)²", in_kcal(kT)),
        ("PMF error", "kT²", pmf_error),
    )
    unknown = Estimate(np.nan, np.nan)
    return tuple(
        Metric(f"{name}, {bins} bins", unit, float(function(p, q)), unknown)
        for name, unit, function in kinds
    )


def _probabilities(landscape: FreeEnergySurface, kT: float) -> Doubles:
    """Return the probabilities of bins (*grid), whose sum is 1."""
    known = np.isfinite(landscape.value)
    lowest = landscape.value[known].min()
    weights = np.where(known, np.exp(-(np.where(known, landscape.value, lowest) - lowest) / kT), 0)
    probabilities: Doubles = weights / weights.sum()
    return probabilities
