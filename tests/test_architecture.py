"""Imports go down the layers: a module may import only from the lines above its own."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("sampling", "free_energy", "deepcg")
LAYERS = [
    {"sampling", "free_energy"},
    {"deepcg", "deepcg.units"},
    {"deepcg.runtime"},
    {"deepcg.compute"},
    {"deepcg.geometry"},
    {"deepcg.trajectory", "deepcg.networks"},
    {"deepcg.mapping"},
    {"deepcg.potentials"},
    {"deepcg.atomistic"},
    {"deepcg.forces"},
    {"deepcg.training"},
    {"deepcg.dynamics"},
    {"deepcg.analysis"},
    {"deepcg.workflow"},
    {"deepcg.cli"},
    {"deepcg.__main__"},
]
WINGS = {  # data and model meet in the workflow alone
    "deepcg.networks": {"trajectory", "mapping", "forces", "atomistic"},
    "deepcg.training": {"forces", "atomistic", "analysis", "dynamics"},
    "deepcg.dynamics": {"training", "analysis", "forces", "atomistic"},
    "deepcg.analysis": {"training", "dynamics", "forces", "atomistic"},
    "deepcg.forces": {"networks", "potentials", "training"},
}
WITHOUT = {"deepcg.networks": {"openmm", "mdtraj"}}  # libraries that a wing does not know
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
LATE = {"deepcg", "deepcg.cli.main"}  # name modules as text, to begin fast: see import_module
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text()) for module, path in FILES.items()}


def layer(module: str) -> str:
    """Return the entry of LAYERS that a module belongs to: its room."""
    parts = module.split(".")
    whole = parts[0] if parts[0] != "deepcg" else ".".join(parts[:2])
    assert whole in LEVEL, f"{module} is in no layer: give it a place in LAYERS"
    return whole


def all_imports(module: str) -> set[str]:
    """Return all modules that a module imports, ours by the file that is imported."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in inside}
    return found


def imports(module: str) -> set[str]:
    """Return those of our modules that a module imports."""
    return {name for name in all_imports(module) if name.split(".")[0] in PACKAGES}


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


@pytest.mark.parametrize("room", sorted(WINGS))
def test_wings_do_not_know_each_other(room: str):
    forbidden = {f"deepcg.{name}" for name in WINGS[room]}
    for module in FILES:
        if layer(module) == room:
            assert not {layer(target) for target in imports(module)} & forbidden, module
            libraries = {name.split(".")[0] for name in all_imports(module)}
            assert not libraries & WITHOUT.get(room, set()), module


def test_imports_make_no_circle():
    TopologicalSorter({module: imports(module) - {module} for module in FILES}).prepare()


def test_only_what_begins_fast_names_modules_as_text():
    by_name = {module for module, path in FILES.items() if "import_module" in path.read_text()}
    assert by_name == LATE


@pytest.mark.parametrize("module", sorted(FILES))
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


@pytest.mark.parametrize("package", sorted(m for m, p in FILES.items() if p.name == "__init__.py"))
def test_a_folder_says_what_is_in_it(package: str):
    said = ast.get_docstring(TREES[package]) or ""
    inside = {path.stem for path in FILES[package].parent.glob("*.py")} - {"__init__", "__main__"}
    if package != "deepcg":
        assert not [name for name in inside if not re.search(rf"\b{name}\b", said)], package
