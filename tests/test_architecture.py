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
    {"deepcg.errors"},
    {
        "deepcg.boxes",
        "deepcg.files",
        "deepcg.matmul",
        "deepcg.memory",
        "deepcg.periods",
        "deepcg.progress",
        "deepcg.tracing",
    },
    {"deepcg.dcd"},
    {
        "deepcg.bars",
        "deepcg.calibration",
        "deepcg.noise_weighting",
        "deepcg.provenance",
        "deepcg.stopping",
        "deepcg.threads",
        "deepcg.units",
        "deepcg.vectors",
    },
    {"deepcg.folders", "deepcg.frames", "deepcg.noise"},
    {"deepcg.blowups", "deepcg.configuration", "deepcg.formats", "deepcg.samples"},
    {"deepcg.locks"},
    {"deepcg.time_step"},
    {"deepcg.pair_search", "deepcg.rotation_loops"},
    {"deepcg.systems", "deepcg.topology", "deepcg.water_box"},
    {"deepcg.bead_types"},
    {"deepcg.agreement", "deepcg.frame_weights", "deepcg.mapping", "deepcg.neighbors"},
    {"deepcg.plausibility"},
    {"deepcg.chirality"},
    {"deepcg.collective", "deepcg.constraints", "deepcg.data", "deepcg.priors", "deepcg.stein"},
    {"deepcg.force_estimators", "deepcg.labels", "deepcg.mean_force_labels", "deepcg.networks"},
    {"deepcg.springs"},
    {"deepcg.restrained"},
    {
        "deepcg.control_variates",
        "deepcg.general_forces",
        "deepcg.potential",
        "deepcg.rigid_motions",
    },
    {"deepcg.surface"},
    {"deepcg.surface_stack"},
    {"deepcg.estimators", "deepcg.variable_forces"},
    {"deepcg.model", "deepcg.training", "deepcg.observables"},
    {"deepcg.ensemble", "deepcg.stack_training"},
    {"deepcg.compiled", "deepcg.exploration"},
    {"deepcg.active"},
    {"deepcg.alanine", "deepcg.molecular_dynamics", "deepcg.solute_frames"},
    {"deepcg.biasing", "deepcg.microscopic_run", "deepcg.torsion_bias"},
    {"deepcg.alanine_config", "deepcg.alanine_recorders", "deepcg.metadynamics"},
    {
        "deepcg.alanine_simulation",
        "deepcg.bias_files",
        "deepcg.dynamics",
        "deepcg.microscopic",
        "deepcg.noise_free",
    },
    {"deepcg.figures", "deepcg.plane", "deepcg.ramachandran", "deepcg.surface_map"},
    {"deepcg.bias_pooling", "deepcg.landscape"},
    {"deepcg.landscape_estimates"},
    {"deepcg.landscape_comparison", "deepcg.landscape_figures", "deepcg.variance"},
    {"deepcg.learning_figures", "deepcg.surface_figures", "deepcg.variance_figures"},
    {"deepcg.pages"},
    {"deepcg.report"},
    {"deepcg.landscape_report", "deepcg.variance_report"},
    {"deepcg.workflow"},
    {"deepcg.options"},
    {"deepcg.cli"},
    {"deepcg.__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
LATE = {"deepcg.cli"}  # what a command needs would make --help of the others slow
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text()) for module, path in FILES.items()}


def layer(module: str) -> str:
    """Return the entry of LAYERS that a module belongs to."""
    parts = module.split(".")
    whole = parts[0] if parts[0] != "deepcg" else ".".join(parts[:2])
    assert whole in LEVEL, f"{module} is in no layer: give it a place in LAYERS"
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
    assert {"sampling", "free_energy", "deepcg.potential"} <= FILES.keys()
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
