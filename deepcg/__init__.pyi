"""Types of what the package offers: a test compares the names with those of ``__init__.py``."""

from deepcg.atomistic.alanine.config import AlanineSimulation, BiasSettings
from deepcg.atomistic.water import WaterSimulation
from deepcg.dynamics.config import DynamicsConfig
from deepcg.dynamics.enhanced_sampling import BiasConfig
from deepcg.dynamics.model_deviation import ModelDeviationConfig
from deepcg.forces.bead_estimators import ESTIMATORS
from deepcg.mapping.beads import MAPPINGS
from deepcg.mapping.collective_variables import BY_TOPOLOGY as COLLECTIVE_VARIABLES
from deepcg.mapping.collective_variables import Variable
from deepcg.networks import NETWORKS
from deepcg.runtime.errors import InputError
from deepcg.training.config import TrainingConfig
from deepcg.training.members import MembersConfig
from deepcg.trajectory.frames import CVFrames, Frames
from deepcg.workflow.compare import CompareConfig, compare
from deepcg.workflow.compress import CompressConfig, compress
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fes.command import FesConfig, fes
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.info import InfoConfig, info
from deepcg.workflow.label.command import LabelConfig
from deepcg.workflow.label.command import label_trajectory as label
from deepcg.workflow.label.restrain_config import RestrainConfig
from deepcg.workflow.learn.command import learn
from deepcg.workflow.learn.config import LearnConfig
from deepcg.workflow.model import BeadModel, CollectiveVariableModel, load
from deepcg.workflow.sample import SampleConfig, sample
from deepcg.workflow.simulate import alanine as simulate_alanine
from deepcg.workflow.simulate import water as simulate_water
from deepcg.workflow.variance import VarianceConfig, variance
from sampling import INTEGRATORS

__version__: str

__all__ = [
    "COLLECTIVE_VARIABLES",
    "ESTIMATORS",
    "INTEGRATORS",
    "MAPPINGS",
    "NETWORKS",
    "AlanineSimulation",
    "BeadModel",
    "BiasConfig",
    "BiasSettings",
    "CVFrames",
    "CollectiveVariableModel",
    "CompareConfig",
    "CompressConfig",
    "DataConfig",
    "DynamicsConfig",
    "FesConfig",
    "FitConfig",
    "Frames",
    "InfoConfig",
    "InputError",
    "LabelConfig",
    "LearnConfig",
    "MembersConfig",
    "ModelDeviationConfig",
    "RestrainConfig",
    "SampleConfig",
    "TrainingConfig",
    "Variable",
    "VarianceConfig",
    "WaterSimulation",
    "__version__",
    "compare",
    "compress",
    "fes",
    "fit",
    "info",
    "label",
    "learn",
    "load",
    "sample",
    "simulate_alanine",
    "simulate_water",
    "variance",
]
