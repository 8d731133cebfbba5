"""Free energies of fewer coordinates: others are integrated out."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from free_energy.arrays import Floats
from free_energy.histogram import Grid, minus_log_density


def profile(energies: ArrayLike, grid: Grid, axis: int) -> Floats:
    """Return -ln p of one coordinate (n_bins,), in kT, of a surface (*grid); p integrates to 1.

    NaN of the surface is left out, and NaN where all of it is. ``Replicates.map`` gives errors.
    """
    surface = np.asarray(energies, dtype=float)
    if surface.shape != grid.shape or not 0 <= axis < surface.ndim:
        raise ValueError(f"axis {axis} of a surface {surface.shape} on a grid {grid.shape}")
    others = tuple(k for k in range(surface.ndim) if k != axis)
    mass = probabilities(surface).sum(others)
    return minus_log_density(mass, Grid((grid.edges[axis],), (grid.periods[axis],)))


def probabilities(energies: ArrayLike) -> Floats:
    """Return how probable each bin of a surface (*grid), kT, is, of sum 1; 0 where this is NaN."""
    surface = np.asarray(energies, dtype=float)
    known = np.isfinite(surface)
    if not known.any():
        return np.zeros(surface.shape)
    mass = np.exp(np.where(known, surface[known].min() - surface, -np.inf))
    share: Floats = mass / mass.sum()
    return share
