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

__version__ = "0.2.0"

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
"""What is offered, by module: NAME, or NAME=OTHER where it is OTHER there (types: a stub)."""

_HOMES = {
    name: (module, own or name)
    for module, words in _MODULES.items()
    for name, _, own in (word.partition("=") for word in words.split())
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    """Load what is asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'deepcg' has no attribute {name!r}")
    module, own = _HOMES[name]
    globals()[name] = found = getattr(import_module(module), own)
    return found


def __dir__() -> list[str]:
    """Return what is offered."""
    return __all__
