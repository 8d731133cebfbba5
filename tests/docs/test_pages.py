"""README and manual: their Python runs, their commands exist, their links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from pages import (
    ROOT,
    command_lines,
    inline_commands,
    links,
    name_of,
    pages,
    prose,
    python_blocks,
)
from toy_project import copied, kept_registries

from deepcg.cli.main import COMMANDS, TopicGroup

PAGES = pages()
CODE = [page for page in PAGES if any(block.reason is None for block in python_blocks(page))]
OLD_NAMES_IN = {"docs/changelog.md", "CHANGELOG.md"}


def parsed(words: list[str]) -> click.Context:
    """Return the context of a command line, which is read but not run."""
    command: click.Command = TopicGroup("deepcg", COMMANDS)
    context = click.Context(command, info_name="deepcg")
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None
        command = found
    context = command.make_context(command.name, list(words))
    names = {word.partition("=")[0] for word in words if word.startswith("--")}
    hidden = {o for p in command.params if getattr(p, "hidden", False) for o in p.opts}
    assert not names & hidden, f"old names: {names & hidden}"
    return context


def known_options() -> set[str]:
    """Return the options of all commands, those of old names left out."""

    def of(command: click.Command, context: click.Context) -> set[str]:
        if isinstance(command, click.Group):
            inside = [command.get_command(context, n) for n in command.list_commands(context)]
            return set().union(*(of(one, context) for one in inside if one is not None))
        shown = [p for p in command.get_params(context) if not getattr(p, "hidden", False)]
        return {name for p in shown for name in (*p.opts, *p.secondary_opts)}

    group = TopicGroup("deepcg", COMMANDS)
    return of(group, click.Context(group))


@pytest.mark.parametrize("page", CODE, ids=name_of)
def test_python_blocks_run_in_order(
    page: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied(project, tmp_path))
    names: dict[str, object] = {"__name__": "page"}
    with kept_registries():
        for block in python_blocks(page):
            if block.reason is None:
                exec(compile(block.text, name_of(page), "exec", dont_inherit=True), names)


def test_blocks_that_are_not_run_say_why() -> None:
    every = [block for page in PAGES for block in python_blocks(page)]
    marked = [block for block in every if block.reason is not None]
    assert (len(every) - len(marked), len(marked)) == (17, 2), "count them again"
    assert all(len(block.reason.split(": ")[1]) > 10 for block in marked)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_command_lines_are_those_of_the_program(page: Path) -> None:
    for words in command_lines(page):
        context = parsed(words)
        context.command._resolved(context)  # type: ignore[attr-defined]
    for words in inline_commands(page):
        parsed(words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_in_the_text_exist(page: Path) -> None:
    named = re.findall(r"`(--[a-z][\w-]*)", prose(page))
    assert not set(named) - known_options() - {"--help"}


def test_a_wrong_option_is_found() -> None:
    with pytest.raises(click.NoSuchOption):
        parsed(["fit", "traj.dcd", "--mapp", "oxygens"])


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    for target in links(page):
        file = target.partition("#")[0]
        assert not file or (page.parent / file).exists(), f"{target} is not there"


@pytest.mark.slow
def test_the_manual_is_built_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="needs the extra docs")
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "docs", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "<math" in (tmp_path / "theory.html").read_text(encoding="utf-8")
