"""Which basins of a surface are joined by data: only these have a relative free energy."""

from __future__ import annotations

import numpy as np
from scipy.sparse.csgraph import connected_components

from deepcg.analysis.surfaces.comparison import Regions
from deepcg.analysis.surfaces.estimates import CVSamples
from free_energy import region_of


def islands(sampled: CVSamples, regions: Regions) -> list[tuple[str, ...]]:
    """Return groups of visited regions between which trajectories go.

    Two regions are joined where one trajectory visits both. Runs that MBAR has put on one scale
    count as one trajectory: it refuses those that do not overlap.
    """
    series = [np.concatenate(sampled.series)] if sampled.pooled else sampled.series
    places = [region_of(regions, values, sampled.periods) for values in series]
    visits = np.zeros((len(places), len(regions)))
    for row, place in zip(visits, places, strict=True):
        row[np.unique(place[place >= 0])] = 1
    labels = connected_components(visits.T @ visits, directed=False)[1]
    seen = visits.any(0)
    names = list(regions)
    groups = [np.flatnonzero(seen & (labels == k)) for k in np.unique(labels[seen])]
    return [tuple(names[k] for k in group) for group in groups]


def apart_in_words(sampled: CVSamples, regions: Regions) -> str:
    """Say which regions are joined by no data; empty where all are."""
    groups = islands(sampled, regions) if regions else []
    if len(groups) < 2:
        return ""
    listed = " and ".join(f"{{{', '.join(group)}}}" for group in groups)
    return (
        f"{sampled.name}: no trajectory goes between {listed}: their free energies relative to one "
        f"another are those of how many frames were given, not of the ensemble"
    )
