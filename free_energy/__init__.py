"""Averages, distances and their errors from plain arrays: NumPy in and out."""

from free_energy.blocks import (
    block_average,
    block_count,
    mean_of_blocks,
    statistical_inefficiency,
)
from free_energy.divergence import jensen_shannon
from free_energy.estimate import Estimate
from free_energy.histogram import (
    Grid,
    bin_means,
    block_labels,
    grid_over,
    histogram_energy,
    normalised,
)

__all__ = [
    "Estimate",
    "Grid",
    "bin_means",
    "block_average",
    "block_count",
    "block_labels",
    "grid_over",
    "histogram_energy",
    "jensen_shannon",
    "mean_of_blocks",
    "normalised",
    "statistical_inefficiency",
]
