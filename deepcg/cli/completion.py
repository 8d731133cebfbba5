"""What a shell completes: commands, options and choices, without a wait.

Options are the fields of configs, and choices the keys of registries, whose modules take seconds to
import. So both are read from the source: a shell asks at every press of a key.
"""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator
from functools import cache
from pathlib import Path

import click
from click.shell_completion import CompletionItem

import deepcg

ROOT = Path(deepcg.__file__).parents[1]

PLAIN = {"bool", "int", "float", "str", "Path"}
"""Annotations of settings; other plain names are those of dataclasses inside a config."""

CHOICES = {
    "AlanineSimulation.constraints": ("deepcg.atomistic.alanine.config:_CONSTRAINTS",),
    "AlanineSimulation.force_field": ("deepcg.atomistic.alanine.molecule:FORCE_FIELDS",),
    "AlanineSimulation.solvent": ("deepcg.atomistic.alanine.molecule:SOLVENTS",),
    "AlanineSimulation.store": ("deepcg.atomistic.alanine.config:_STORES",),
    "BiasConfig.bias": ("deepcg.dynamics.enhanced_sampling:BIASES",),
    "BiasSettings.bias": ("deepcg.atomistic.alanine.config:_BIASES",),
    "DataConfig.estimator": (
        "deepcg.forces.bead_estimators:ESTIMATORS",
        "deepcg.forces.cv_estimators:VARIABLE_ESTIMATORS",
    ),
    "DynamicsConfig.integrator": ("sampling:INTEGRATORS",),
    "FitConfig.device": ("deepcg.compute.device:DEVICES",),
    "FitConfig.dtype": ("deepcg.workflow.fit.config:DTYPES",),
    "FitConfig.network": ("deepcg.networks:NETWORKS",),
    "FitConfig.prior": ("deepcg.workflow.fit.prior:PRIORS",),
    "LearnConfig.oracle": ("deepcg.workflow.learn.config:ORACLES",),
    "ModelDeviationConfig.beyond": ("deepcg.dynamics.model_deviation:BEYOND",),
    "ModelDeviationConfig.member": ("deepcg.dynamics.model_deviation:MEMBERS",),
    "RestrainConfig.estimator": (
        "deepcg.forces.bead_estimators:ESTIMATORS",
        "deepcg.forces.cv_estimators:VARIABLE_ESTIMATORS",
    ),
    "SampleConfig.compile": ("deepcg.workflow.sample:COMPILE",),
    "SampleConfig.device": ("deepcg.compute.device:DEVICES",),
    "SampleConfig.masses": ("deepcg.workflow.sample:MASSES",),
    "TrainingConfig.matmul": ("deepcg.compute.matmul_precision:MATMUL",),
    "TrainingConfig.optimizer": ("deepcg.training.config:OPTIMIZERS",),
    "TrainingConfig.weighting": ("deepcg.training.config:WEIGHTINGS",),
    "WaterSimulation.model": ("deepcg.atomistic.water_box:WATER_MODELS",),
}
"""Where the choices of a setting are: dict or tuple literals."""


def outline(name: str, help: str, module: str, config: str, given: Container[str]) -> click.Command:
    """Return a command with the options of a config, which can be completed but not run.

    ``given`` are the settings that have a value although their config has none.
    """
    parameters = [_parameter(owner, field, given) for owner, field in _fields(module, config)]
    file = click.Option(["config_file", "--config"], type=click.Path())
    return click.Command(name, params=[*parameters, file], help=help)


def choices_of(setting: str) -> list[str]:
    """Return the legal values of ``Config.setting``; none where it is free."""
    return [word for place in CHOICES.get(setting, ()) for word in _words(*place.split(":"))]


def _parameter(owner: str, field: ast.AnnAssign, given: Container[str]) -> click.Parameter:
    name, kind = ast.unparse(field.target), ast.unparse(field.annotation)
    dashes, many, is_path = name.replace("_", "-"), kind.startswith("tuple"), "Path" in kind
    if is_path and field.value is None and name != "output" and name not in given:
        return click.Argument([name], nargs=-1 if many else 1, type=click.Path())
    if kind == "bool":
        return click.Option([name, f"--{dashes}/--no-{dashes}"])
    names = [name, *(["-o"] if name == "output" else []), f"--{dashes}"]
    if is_path:
        return click.Option(names, type=click.Path(), multiple=many)

    def chosen(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        del ctx, parameter
        words = choices_of(f"{owner}.{name}")
        return [CompletionItem(word) for word in words if word.startswith(begun)]

    return click.Option(names, multiple=many, shell_complete=chosen)


def _fields(module: str, config: str) -> Iterator[tuple[str, ast.AnnAssign]]:
    """Yield the settings of a config, those of dataclasses inside it in their place."""
    module, found = _defined(module, config)
    assert isinstance(found, ast.ClassDef)
    for node in found.body:
        if not isinstance(node, ast.AnnAssign) or "ClassVar" in ast.unparse(node.annotation):
            continue
        if isinstance(node.annotation, ast.Name) and node.annotation.id not in PLAIN:
            yield from _fields(module, node.annotation.id)
        else:
            yield config, node


def _words(module: str, name: str) -> list[str]:
    """Return the keys of a dict, or the items of a tuple."""
    module, found = _defined(module, name)
    value = getattr(found, "value", None)
    items = value.keys if isinstance(value, ast.Dict) else getattr(value, "elts", [value])
    words = []
    for item in items:
        if isinstance(item, ast.Name):
            words += _words(module, item.id)
        elif isinstance(item, ast.Constant):
            words.append(str(item.value))
    return words


def _defined(module: str, name: str) -> tuple[str, ast.stmt]:
    """Return the module that defines a name, and the statement there."""
    for node in _tree(module).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return _defined(node.module, alias.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        if name in names or name == getattr(node, "name", None):
            return module, node
    raise LookupError(f"{module} defines no {name}")


@cache
def _tree(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))
