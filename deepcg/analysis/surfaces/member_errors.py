"""What the fit adds to the error of a surface from a model's samples, by data and by training.

To first order the surface of another member is F + <U' - U>, the mean of the difference of the two
free energies at given coordinates (Zwanzig, J. Chem. Phys. 22, 1420 (1954)), over the samples that
there are: no member needs samples of its own, and no weights that could break down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from deepcg.analysis.surfaces.estimates import CVSamples
from deepcg.analysis.surfaces.surface import FreeEnergySurface
from deepcg.runtime.arrays import Doubles
from free_energy import Grid, Replicates

SMOOTH = 1.0
"""Bins, a standard deviation: U' - U of two fits is smooth, its mean over a few frames is not."""

SAMPLING, DATA, TRAINING, BOTH = "sampling", "data", "training", "data and training"


def with_fit_error(
    landscape: FreeEnergySurface,
    sampled: CVSamples,
    energies: Doubles,
    sources: Sequence[int | None],
    *,
    resampled: bool,
    seed: int = 0,
) -> FreeEnergySurface:
    """Return the surface with errors that include the fit, and with their parts.

    The surface is as it was where there are too few members to tell a part.

    Parameters
    ----------
    energies
        (n_members, n), U of each at the frames, kJ/mol, each up to a constant.
    sources
        The member that each was refitted from, ``None`` for a fit of its own.
    resampled
        Whether fits of their own are to frames drawn anew, too.
    seed
        Of the normal variates by which parts are combined.
    """
    means = _conditional_means(landscape.grid, sampled, energies)
    away = member_deviations(means, sources, resampled=resampled)
    if not away:
        return landscape
    own = landscape.energy
    parts = {SAMPLING: own}
    samples, generator = own.samples, np.random.default_rng(seed)
    for name, of_part in away.items():
        n = len(of_part)
        parts[name] = Replicates(own.value, own.value + of_part, float(np.sqrt(n / (n - 1))))
        chosen = generator.standard_normal((len(samples), n)) / np.sqrt(n - 1)
        samples = samples + np.tensordot(chosen, of_part, 1) / own.inflation
    return replace(landscape, energy=replace(own, samples=samples), parts=parts)


def member_deviations(
    quantity: Doubles, sources: Sequence[int | None], *, resampled: bool
) -> dict[str, Doubles]:
    """Return by how much a quantity (n_members, ...) of members is off their mean, by part.

    Of refits it is the change from what they were refitted from, less the mean change, which is
    that of a longer training. Parts of less than two members are left out. The variance of a part
    is the sum of squares over n - 1.
    """
    refits = [k for k, source in enumerate(sources) if source is not None]
    fits = [k for k, source in enumerate(sources) if source is None]
    found = {}
    if len(refits) > 1:
        begun = [source for source in sources if source is not None]
        found[DATA] = quantity[refits] - quantity[begun]
    if len(fits) > 1:
        found[BOTH if resampled else TRAINING] = quantity[fits]
    return {name: values - values.mean(0) for name, values in found.items()}


def _conditional_means(grid: Grid, sampled: CVSamples, energies: Doubles) -> Doubles:
    """Return <U> (n_members, *grid) of the frames in and near each bin."""
    index, weights, n_bins = grid.index(sampled.values), sampled.weights, int(np.prod(grid.shape))
    inside = index >= 0
    modes = ["nearest" if period is None else "wrap" for period in grid.periods]

    def smoothed(values: Doubles) -> Doubles:
        table = np.bincount(index[inside], values[inside], n_bins).reshape(grid.shape)
        summed: Doubles = gaussian_filter(table, SMOOTH, mode=modes)
        return summed

    # differences of large energies: the common part first
    rest = energies - energies.mean(1, keepdims=True)
    common = rest.mean(0)
    total = smoothed(weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([smoothed(weights * (one - common)) / total for one in rest])
