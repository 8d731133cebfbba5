"""A page for each command, from the config that the command line reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
from sphinx.application import Sphinx
from written import write_pages

from deepcg.cli.main import COMMANDS, Topic
from deepcg.runtime.config import summary


def commands(topic: Topic, name: str = "deepcg") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its whole name."""
    for word, entry in topic.commands.items():
        whole = f"{name} {word}"
        if isinstance(entry, Topic):
            yield from commands(entry, whole)
        else:
            yield whole, entry.load(word)


def page(name: str, command: click.Command) -> str:
    """Return the page of a command: usage, arguments, options by group."""
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lines = [f"# `{name}`", "", _plain(summary(command.config)), "", "```text", usage, "```", ""]
    arguments = [s for s in command.settings.values() if command._is_argument(s)]
    if arguments:
        lines += ["## Arguments", ""]
    for setting in arguments:
        lines += [f"`{setting.name.upper()}`", f": {_plain(setting.help)}", ""]
    groups: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            setting = command.settings.get(parameter.name or "")
            title = setting.group.rstrip(".") if setting and setting.group else "Options"
            groups.setdefault(title, []).append(record)
    for title, records in groups.items():
        lines += [f"## {title}", ""]
        for option, text in records:
            words, _, default = text.partition("  [default: ")
            shown = f" *Default:* {_plain(default.removesuffix(']'))}." if default else ""
            lines += [f"`{option}`", f": {_plain(words)}{shown}", ""]
    examples = getattr(command, "examples", ())
    if examples:
        lines += ["## Examples", "", "```text", *(f"{name} {e}" for e in examples), "```", ""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return text of which nothing is markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|$~])", r"\\\1", text)


def write(app: Sphinx) -> None:
    """Write the pages of all commands."""
    pages = {
        f"{name.removeprefix('deepcg ').replace(' ', '-')}.md": page(name, command)
        for name, command in commands(COMMANDS)
    }
    write_pages(Path(app.srcdir) / "commands", pages)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write before sources are looked for."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
