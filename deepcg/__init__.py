"""Coarse-graining by force matching with symmetric deep networks (DeePCG).

What this package offers is named here; the rest may change. A fitted model is a function of
arrays (nm, kJ/mol):

    import deepcg

    model = deepcg.load("runs/cg")
    frames = model.map("runs/water/traj.dcd")
    energy, forces = model.energy_and_forces(frames.positions, frames.box)

Every command is a function of its config, which writes the same files and returns the result:
``deepcg.fit(deepcg.FitConfig(Path("traj.dcd"), output=Path("runs/cg")))``. Give ``tell=print`` to
see what the command would say. Results show themselves in a notebook, and draw by ``.plot()``.

Nothing is loaded before it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

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

if TYPE_CHECKING:
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
else:
    _MODULES = {
        "deepcg.atomistic.alanine.config": "AlanineSimulation BiasSettings",
        "deepcg.atomistic.water": "WaterSimulation",
        "deepcg.dynamics.config": "DynamicsConfig",
        "deepcg.dynamics.enhanced_sampling": "BiasConfig",
        "deepcg.dynamics.model_deviation": "ModelDeviationConfig",
        "deepcg.forces.bead_estimators": "ESTIMATORS",
        "deepcg.mapping.beads": "MAPPINGS",
        "deepcg.mapping.collective_variables": "COLLECTIVE_VARIABLES=BY_TOPOLOGY Variable",
        "deepcg.networks": "NETWORKS",
        "deepcg.runtime.errors": "InputError",
        "deepcg.training.config": "TrainingConfig",
        "deepcg.training.members": "MembersConfig",
        "deepcg.trajectory.frames": "CVFrames Frames",
        "deepcg.workflow.compare": "CompareConfig compare",
        "deepcg.workflow.compress": "CompressConfig compress",
        "deepcg.workflow.dataset.beads": "DataConfig",
        "deepcg.workflow.fes.command": "FesConfig fes",
        "deepcg.workflow.fit.command": "fit",
        "deepcg.workflow.fit.config": "FitConfig",
        "deepcg.workflow.info": "InfoConfig info",
        "deepcg.workflow.label.command": "LabelConfig label=label_trajectory",
        "deepcg.workflow.label.restrain_config": "RestrainConfig",
        "deepcg.workflow.learn.command": "learn",
        "deepcg.workflow.learn.config": "LearnConfig",
        "deepcg.workflow.model": "BeadModel CollectiveVariableModel load",
        "deepcg.workflow.sample": "SampleConfig sample",
        "deepcg.workflow.simulate": "simulate_alanine=alanine simulate_water=water",
        "deepcg.workflow.variance": "VarianceConfig variance",
        "sampling": "INTEGRATORS",
    }
    _HOMES = {
        name: (module, own or name)
        for module, words in _MODULES.items()
        for name, _, own in (word.partition("=") for word in words.split())
    }

    def __getattr__(name: str) -> Any:
        """Load what is asked for (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module 'deepcg' has no attribute {name!r}")
        module, own = _HOMES[name]
        globals()[name] = found = getattr(import_module(module), own)
        return found

    def __dir__() -> list[str]:
        """Return what is offered."""
        return __all__
