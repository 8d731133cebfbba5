"""Averages, distances and their errors from plain arrays: NumPy in and out."""

from free_energy.blocks import (
    block_average,
    block_count,
    mean_of_blocks,
    statistical_inefficiency,
)
from free_energy.divergence import jensen_shannon
from free_energy.estimate import Estimate

__all__ = [
    "Estimate",
    "block_average",
    "block_count",
    "jensen_shannon",
    "mean_of_blocks",
    "statistical_inefficiency",
]
