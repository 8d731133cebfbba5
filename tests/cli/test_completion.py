from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from importlib import import_module
from typing import get_type_hints

import click
import pytest
from click.shell_completion import ShellComplete

from deepcg.cli.completion import CHOICES, choices_of
from deepcg.cli.main import COMMANDS, Entry, Topic, command_line


def entries(topic: Topic) -> Iterator[tuple[str, Entry]]:
    for name, command in topic.commands.items():
        if isinstance(command, Topic):
            yield from entries(command)
        else:
            yield name, command


ENTRIES = dict(entries(COMMANDS))


def completed(words: str) -> list[str]:
    """Return what the last of the words may become."""
    *before, begun = words.split(" ")
    shell = ShellComplete(command_line(), {}, "deepcg", "_DEEPCG_COMPLETE")
    return [item.value for item in shell.get_completions(before, begun)]


def in_bash(words: str) -> str:
    """Return what the program tells bash, and on standard error what it imports."""
    about = {"_DEEPCG_COMPLETE": "bash_complete", "COMP_WORDS": f"deepcg {words}"}
    about["COMP_CWORD"] = str(len(words.split(" ")))
    command = [sys.executable, "-X", "importtime", "-m", "deepcg"]
    done = subprocess.run(command, env=os.environ | about, capture_output=True, text=True)
    assert " torch" not in done.stderr
    assert "deepcg.cli.completion" in done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ENTRIES)
def test_a_shell_knows_the_parameters_of_a_command(name: str):
    def told(command: click.Command) -> set[tuple[object, ...]]:
        shown = [p for p in command.params if not getattr(p, "hidden", False)]
        return {
            (type(p), p.name, p.nargs, p.multiple, *p.opts, *p.secondary_opts)  # type: ignore[attr-defined]
            if isinstance(p, click.Option)
            else (type(p), p.name, p.nargs)
            for p in shown
        }

    assert told(ENTRIES[name].outline(name)) == told(ENTRIES[name].load(name))


@pytest.mark.parametrize("setting", CHOICES)
def test_choices_are_those_of_the_registries(setting: str):
    expected: list[str] = []
    for place in CHOICES[setting]:
        module, _, name = place.partition(":")
        expected += getattr(import_module(module), name)
    assert choices_of(setting) == expected
    assert len(expected) > (setting != "ModelDeviationConfig.member")


def test_choices_are_of_settings_that_there_are():
    known = {
        f"{config}.{setting.name}"
        for entry in ENTRIES.values()
        for config, setting in settings(getattr(import_module(entry.module), entry.config))
    }
    assert CHOICES.keys() <= known


def settings(cls: type) -> Iterator[tuple[str, Field[object]]]:
    kinds = get_type_hints(cls)
    for field in fields(cls):
        if is_dataclass(kinds[field.name]):
            yield from settings(kinds[field.name])
        else:
            yield cls.__name__, field


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("f", ["fit", "fes"]),
        ("simulate ", ["water", "alanine"]),
        ("fit --network ", ["deeppot-se", "deeppot-se-l", "pair-spline"]),
        ("fit x --network=deeppot-se-", ["deeppot-se-l"]),
        ("fit --device ", ["auto", "cpu", "cuda"]),
        ("fit --dtype ", ["float32", "float64"]),
        ("fit --optimizer a", ["adam", "adamw"]),
        ("fit --weighting ", ["auto", "even", "noise"]),
        ("fit --matmul h", ["highest", "high"]),
        ("fit --estimator p", ["projected"]),
        ("sample --bias ", ["none", "metadynamics", "umbrella"]),
        ("sample run --integrator b", ["baoab"]),
        ("sample --member ", ["mean"]),
        ("sample --beyond ", ["stop", "reflect"]),
        ("learn --oracle ", ["stored", "restrained"]),
        ("simulate alanine --bias m", ["metadynamics"]),
        ("fes --c", ["--cv", "--config"]),
        ("sample --dro", ["--drop-blown-up"]),
        ("sample --on x --be", ["--beyond"]),
        ("simulate nothing ", ["water", "alanine"]),
        ("fit --temperature ", []),
    ],
)
def test_words_are_completed(words: str, expected: list[str]):
    assert completed(words) == expected


def test_files_are_left_to_the_shell():
    assert in_bash("fit ") == "file,\n"
    assert in_bash("fit --topology ") == "file,\n"


def test_bash_is_answered_without_loading_the_command():
    assert in_bash("fit --network pair") == "plain,pair-spline\n"
    assert in_bash("simulate wat") == "plain,water\n"
