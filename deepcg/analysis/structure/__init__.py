"""What is measured on bead trajectories, with errors: structure, motion and their comparison.

==================== =======================================================
"""

from deepcg.analysis.structure.comparison import Comparison, compare_structures
from deepcg.analysis.structure.curve import Curve, Distance, distance, expected_rms, noise_floor
from deepcg.analysis.structure.diffusion import (
    Diffusion,
    NotAvailable,
    diffusion,
    velocity_autocorrelation,
)
from deepcg.analysis.structure.local_order import angles, averaged_steinhardt, local_structure
from deepcg.analysis.structure.observables import Agreement, Observable, Scalar
from deepcg.analysis.structure.pairs import Bonds, Pairs, bonds_within, pairs_within
from deepcg.analysis.structure.pressure import model_pressure
from deepcg.analysis.structure.radial import (
    first_minimum,
    first_peak,
    radial_distributions,
    radial_edges,
    shell_series,
)
from deepcg.analysis.structure.structure_factor import (
    compressibility_limit,
    structure_factor,
    wave_number_edges,
)
from deepcg.analysis.structure.tetrahedral import tetrahedral_order, tetrahedral_parameters
from deepcg.analysis.structure.trajectory_set import Sample, TrajectorySet, cut
from deepcg.analysis.structure.triplets import close_angles, equilateral_triplets, side_edges

__all__ = [
    "Agreement",
    "Bonds",
    "Comparison",
    "Curve",
    "Diffusion",
    "Distance",
    "NotAvailable",
    "Observable",
    "Pairs",
    "Sample",
    "Scalar",
    "TrajectorySet",
    "angles",
    "averaged_steinhardt",
    "bonds_within",
    "close_angles",
    "compare_structures",
    "compressibility_limit",
    "cut",
    "diffusion",
    "distance",
    "equilateral_triplets",
    "expected_rms",
    "first_minimum",
    "first_peak",
    "local_structure",
    "model_pressure",
    "noise_floor",
    "pairs_within",
    "radial_distributions",
    "radial_edges",
    "shell_series",
    "side_edges",
    "structure_factor",
    "tetrahedral_order",
    "tetrahedral_parameters",
    "velocity_autocorrelation",
    "wave_number_edges",
]
