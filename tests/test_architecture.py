"""Imports go down the layers: a module may import only from the lines above its own."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("sampling", "free_energy", "deepcg")
LAYERS = [
    {"sampling", "free_energy"},
    {"deepcg"},  # the version only
    {  # faces
        "deepcg.analysis",
        "deepcg.atomistic",
        "deepcg.cli",
        "deepcg.compute",
        "deepcg.dynamics",
        "deepcg.forces",
        "deepcg.geometry",
        "deepcg.mapping",
        "deepcg.potentials",
        "deepcg.runtime",
        "deepcg.training",
        "deepcg.trajectory",
    },
    {"deepcg.runtime.errors"},
    {
        "deepcg.geometry.box",
        "deepcg.runtime.files",
        "deepcg.compute.matmul_precision",
        "deepcg.compute.allocator",
        "deepcg.geometry.periodic",
        "deepcg.runtime.progress",
        "deepcg.compute.graph_capture",
    },
    {"deepcg.trajectory.formats.dcd_writer"},
    {
        "deepcg.cli.progress_bars",
        "deepcg.analysis.uncertainty.calibration",
        "deepcg.training.noise_weighting",
        "deepcg.runtime.provenance",
        "deepcg.cli.signals",
        "deepcg.compute.threads",
        "deepcg.units",
        "deepcg.compute.simd",
        "deepcg.compute.onednn",
        "deepcg.compute.tensor_cache",
        "deepcg.compute.device",
        "deepcg.geometry.internal_coordinates",
    },
    {"deepcg.compute.loops"},
    {"deepcg.trajectory.frames", "deepcg.training.noise_floor"},
    {
        "deepcg.dynamics.blowups",
        "deepcg.runtime.config",
        "deepcg.trajectory.formats",
        "deepcg.dynamics.samples",
    },
    {"deepcg.runtime.locks"},
    {"deepcg.dynamics.time_step"},
    {"deepcg.geometry.cell_list", "deepcg.forces.rotation_loops"},
    {"deepcg.atomistic.system", "deepcg.trajectory.topology", "deepcg.atomistic.water_box"},
    {"deepcg.mapping.bead_types"},
    {
        "deepcg.trajectory.consistency",
        "deepcg.trajectory.frame_weights",
        "deepcg.mapping.beads",
        "deepcg.geometry.neighbor_list",
    },
    {"deepcg.trajectory.sanity_checks"},
    {"deepcg.mapping.chirality"},
    {
        "deepcg.mapping.collective_variables",
        "deepcg.forces.constraints",
        "deepcg.trajectory.reader",
        "deepcg.potentials.priors",
        "deepcg.analysis.structure.stein",
    },
    {
        "deepcg.forces.force_map",
        "deepcg.atomistic.labels",
        "deepcg.forces.mean_force_labels",
        "deepcg.networks",
    },
    {"deepcg.atomistic.restraints"},
    {"deepcg.atomistic.restrained_dynamics"},
    {
        "deepcg.forces.control_variates",
        "deepcg.forces.inverse_gradient",
        "deepcg.potentials.beads",
        "deepcg.forces.rigid_motions",
    },
    {"deepcg.potentials.collective_variables"},
    {"deepcg.potentials.stacked"},
    {"deepcg.forces.bead_estimators", "deepcg.forces.cv_estimators"},
    {"deepcg.potentials.model_file", "deepcg.training.trainer", "deepcg.analysis.structure"},
    {"deepcg.potentials.ensemble", "deepcg.training.stacked"},
    {"deepcg.potentials.torch_compile", "deepcg.workflow.learn.exploration"},
    {"deepcg.workflow.learn.acquisition"},
    {
        "deepcg.atomistic.alanine.molecule",
        "deepcg.atomistic.equilibration",
        "deepcg.atomistic.alanine.solute_frames",
    },
    {
        "deepcg.dynamics.enhanced_sampling",
        "deepcg.atomistic.production",
        "deepcg.atomistic.alanine.torsion_bias",
    },
    {
        "deepcg.atomistic.alanine.config",
        "deepcg.atomistic.alanine.recorders",
        "deepcg.atomistic.alanine.metadynamics",
    },
    {
        "deepcg.atomistic.alanine.simulation",
        "deepcg.dynamics.bias_files",
        "deepcg.dynamics.run",
        "deepcg.atomistic.water",
        "deepcg.analysis.structure.stein_checks",
    },
    {
        "deepcg.analysis.structure.figures",
        "deepcg.analysis.axes",
        "deepcg.analysis.surfaces.ramachandran",
        "deepcg.analysis.surfaces.fitted",
    },
    {"deepcg.analysis.surfaces.mbar_weights", "deepcg.analysis.surfaces.surface"},
    {"deepcg.analysis.surfaces.estimates"},
    {
        "deepcg.analysis.surfaces.comparison",
        "deepcg.analysis.surfaces.figures",
        "deepcg.analysis.uncertainty.spread",
    },
    {
        "deepcg.workflow.learn.figures",
        "deepcg.analysis.surfaces.fitted_figures",
        "deepcg.analysis.uncertainty.figures",
    },
    {"deepcg.analysis.html"},
    {"deepcg.analysis.structure.report"},
    {"deepcg.analysis.surfaces.report", "deepcg.analysis.uncertainty.report"},
    {"deepcg.training.members", "deepcg.training.quality", "deepcg.dynamics.model_deviation"},
    {"deepcg.workflow"},
    {"deepcg.cli.commands"},
    {"deepcg.cli.main"},
    {"deepcg.__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
LATE = {"deepcg.cli.main"}  # what a command needs would make --help of the others slow
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text()) for module, path in FILES.items()}


def layer(module: str) -> str:
    """Return the entry of LAYERS that a module belongs to."""
    parts = module.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts), 1 if parts[0] == "deepcg" else 0, -1))
    whole = module if module == "deepcg" else next((name for name in names if name in LEVEL), None)
    assert whole is not None, f"{module} is in no layer: give it a place in LAYERS"
    return whole


def imports(module: str) -> set[str]:
    """Return those of our modules that a module imports."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in inside}
    return {name for name in found if name.split(".")[0] in PACKAGES}


def test_no_module_is_without_a_layer():
    assert {"sampling", "free_energy", "deepcg.potentials.beads"} <= FILES.keys()
    for module in FILES:
        layer(module)


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_go_downwards(module: str):
    me = layer(module)
    for target in imports(module):
        other = layer(target)
        below = other == me or LEVEL[other] < LEVEL[me]
        assert below, f"{module} ({me}) must not import {target} ({other})"


def test_imports_make_no_circle():
    TopologicalSorter({module: imports(module) - {module} for module in FILES}).prepare()


@pytest.mark.parametrize("module", sorted(FILES.keys() - LATE))
def test_nothing_is_imported_at_call_time(module: str):
    for function in ast.walk(TREES[module]):
        if isinstance(function, ast.FunctionDef):
            late = [n for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)]
            assert not late, f"{module}.{function.name} imports in line {late[0].lineno}"


@pytest.mark.parametrize("module", sorted(FILES))
def test_signatures_name_all_their_options(module: str):
    for function in ast.walk(TREES[module]):
        if isinstance(function, ast.FunctionDef | ast.Lambda):
            assert function.args.kwarg is None, f"{module}, line {function.lineno}: **kwargs"
