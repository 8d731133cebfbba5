"""What is measured on bead trajectories, with errors: structure, motion and their comparison.

==================== ==============================================================
file                 what it is
==================== ==============================================================
``trajectory_set``   named trajectories, cut into blocks for errors
``pairs``            pairs within a cutoff, and bonds
``curve``            a function with an error band, and the distance of two
``radial``           g(r), its first peak and first minimum
``local_order``      angles, coordination, averaged Steinhardt parameters
``tetrahedral``      tetrahedral order of the four nearest neighbors
``triplets``         angles of close triplets, equilateral triangles
``structure_factor`` S(k) and its limit at k = 0
``liquid_structure`` these four, of all systems
``pressure``         that of a fitted free energy
``diffusion``        mean squared displacement, velocity autocorrelation
``numbers``          first peaks, means, limits and diffusion, with verdicts
``observables``      one observable in all systems
``stein``            Stein's identities: forces tested without sampling
``stein_checks``     these, of a fitted model
``comparison``       everything that a report says
``figures``          its figures
``report``           ``report.html`` and ``report.json``
==================== ==============================================================
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
    limits_of_blocks,
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
    "cut",
    "diffusion",
    "distance",
    "equilateral_triplets",
    "expected_rms",
    "first_minimum",
    "first_peak",
    "limits_of_blocks",
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
