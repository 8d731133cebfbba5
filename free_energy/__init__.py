"""Averages, surfaces, distances and their errors from plain arrays: NumPy in and out.

Energies are in kT, coordinates in any unit. Axes of surfaces are in the order of the coordinates.
MBAR is in ``free_energy.mbar``.

=========== ========================================================================================
arrays      types of arrays in signatures
estimate    a number and how well it is known
blocks      errors of averages of correlated series
bootstrap   errors from blocks drawn anew
replicates  errors of whatever is computed from frames
histogram   free energies and conditional means on a grid
kernel      smooth surfaces, every frame a Gaussian
mean_force  a surface from its mean force
integration surfaces from differences of neighboring bins
combined    a surface from places and forces together
mbar        frames of several biased runs as one sample
overlap     whether such runs overlap, and which are apart
profiles    free energies of fewer coordinates
basins      regions, their populations and free energies
watershed   basins found from the surface itself
barriers    lowest passes between basins
neighbors   which bins touch, across periods too
two_samples whether two averages differ, and what would have been seen
metrics     how far two surfaces are apart
=========== ========================================================================================
"""

from free_energy.barriers import Path, barriers, lowest_path, lowest_point
from free_energy.basins import (
    Polygon,
    Rectangle,
    Region,
    frame_populations,
    free_energies,
    populations,
    region_of,
    region_of_bins,
)
from free_energy.blocks import block_average, block_count, mean_of_blocks, statistical_inefficiency
from free_energy.bootstrap import bootstrap, resampled, slowest_inefficiency, time_blocks
from free_energy.combined import combined_surface
from free_energy.estimate import Estimate
from free_energy.histogram import (
    Grid,
    bin_mean_field,
    bin_means,
    block_labels,
    grid_over,
    histogram_energy,
    histogram_surface,
    normalized,
)
from free_energy.kernel import choose_bandwidth, kernel_energy, kernel_surface
from free_energy.mean_force import Integral, mean_force_energy, mean_force_integrator
from free_energy.metrics import (
    jensen_shannon,
    pmf_error,
    rms_difference,
    sampling_floor,
    surface_mse,
)
from free_energy.profiles import probabilities, profile
from free_energy.replicates import Replicates, jackknife
from free_energy.two_samples import Blocks, TwoSampleTest, compare_blocks, compare_replicates
from free_energy.watershed import watershed

__all__ = [
    "Blocks",
    "Estimate",
    "Grid",
    "Integral",
    "Path",
    "Polygon",
    "Rectangle",
    "Region",
    "Replicates",
    "TwoSampleTest",
    "barriers",
    "bin_mean_field",
    "bin_means",
    "block_average",
    "block_count",
    "block_labels",
    "bootstrap",
    "choose_bandwidth",
    "combined_surface",
    "compare_blocks",
    "compare_replicates",
    "frame_populations",
    "free_energies",
    "grid_over",
    "histogram_energy",
    "histogram_surface",
    "jackknife",
    "jensen_shannon",
    "kernel_energy",
    "kernel_surface",
    "lowest_path",
    "lowest_point",
    "mean_force_energy",
    "mean_force_integrator",
    "mean_of_blocks",
    "normalized",
    "pmf_error",
    "populations",
    "probabilities",
    "profile",
    "region_of",
    "region_of_bins",
    "resampled",
    "rms_difference",
    "sampling_floor",
    "slowest_inefficiency",
    "statistical_inefficiency",
    "surface_mse",
    "time_blocks",
    "watershed",
]
