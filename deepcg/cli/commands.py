"""Commands whose options are the fields of a config."""

from __future__ import annotations

import errno
import json
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import click
from tqdm.contrib.logging import logging_redirect_tqdm

from deepcg.cli.progress_bars import progress_on, say
from deepcg.cli.signals import Stopped, stoppable
from deepcg.runtime.config import (
    RENAMED,
    Setting,
    flat_fields,
    from_flat,
    from_text,
    read_values,
    renamed,
    summary,
)
from deepcg.runtime.errors import InputError
from deepcg.runtime.progress import Progress

Job = Callable[[Any, Progress, Callable[[str], None]], object]
"""Does what a config asks for; tells how far it is, and what came out."""

_METAVARS = {
    int: "INTEGER",
    float: "NUMBER",
    str: "TEXT",
    Path: "PATH",
    dict: "JSON",
    tuple: "A,B,...",
}

_OUTSIDE = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ESTALE,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
    }
)
"""What goes wrong outside of us: disks that are full, folders that are closed or gone."""

_DEFAULT_IN_WORDS = re.compile(
    r"[;,]? \(by default (?P<inside>[^)]+)\)|[;,]? by default (?P<words>.+?)(?=[.;:](?:\s|$)|$)"
)


class ConfigCommand(click.Command):
    """A command that fills a config from a file and from its options, and does the job.

    Parameters
    ----------
    config
        A dataclass. Paths without a default are arguments, other fields are options.
    defaults
        Values for fields that have no default, or another one here.
    examples
        What may follow the command: the help ends with it.
    """

    def __init__(
        self,
        name: str,
        config: type,
        job: Job,
        *,
        defaults: Mapping[str, Any],
        examples: Sequence[str] = (),
    ) -> None:
        self.config, self.job, self.defaults = config, job, defaults
        self.examples = examples
        self.settings = {setting.name: setting for setting in flat_fields(config)}
        params = [self._parameter(setting) for setting in self.settings.values()]
        params += [
            self._option(self.settings[new], old, hidden=True)
            for old, new in RENAMED.items()
            if new in self.settings and old not in self.settings
        ]
        super().__init__(name, params=[*params, _config_file()], help=summary(config))

    def invoke(self, ctx: click.Context) -> None:
        """Do the job; Ctrl-C ends it with status 130, SIGTERM with 143."""
        try:
            config = self._resolved(ctx)
            notes = logging_redirect_tqdm([logging.getLogger("deepcg")])
            with notes, progress_on(sys.stderr) as shown, stoppable(shown) as progress:
                self.job(config, progress, say)
        except InputError as error:
            raise click.UsageError(str(error), ctx) from error
        except OSError as error:
            if error.errno not in _OUTSIDE:
                raise
            place = "" if error.filename is None else f"{error.filename}: "
            line = f"{place}{error.strerror}; checkpoints that were written before are whole"
            raise click.UsageError(line, ctx) from error
        except KeyboardInterrupt as stop:
            resume = " with --resume" if "resume" in self.settings else ""
            click.echo(f"stopped; give the same command{resume} to go on", err=True)
            ctx.exit(stop.status if isinstance(stop, Stopped) else 130)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments, then the options in the groups of the config."""
        arguments = [s for s in self.settings.values() if self._is_argument(s)]
        if arguments:
            with formatter.section("Arguments"):
                formatter.write_dl([(s.name.upper(), s.help) for s in arguments])
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            setting = self.settings.get(parameter.name or "")
            if isinstance(parameter, click.Option) and record is not None:
                title = setting.group.rstrip(".") if setting else ""
                groups.setdefault(title or "Options", []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {ctx.command_path} {e}\n" for e in self.examples))

    def _resolved(self, ctx: click.Context) -> Any:
        """Return the config: the command line over the file over defaults."""
        typed = {k: v for k, v in ctx.params.items() if v is not None and v != ()}
        file = typed.pop("config_file", None)
        values = {} if file is None else read_values(Path(file), self.config)
        typed = renamed(typed, self.settings)
        values.update({name: self._read(self.settings[name], v) for name, v in typed.items()})
        values = {**self.defaults, **values}
        for setting in self.settings.values():
            if setting.required and setting.name not in values:
                usage = " ".join(self.collect_usage_pieces(ctx))
                raise InputError(f"{setting.name} is missing: {ctx.command_path} {usage}")
        return from_flat(self.config, values)

    def _read(self, setting: Setting, value: Any) -> Any:
        if isinstance(value, str):
            return from_text(value, setting.kind)
        if not isinstance(value, tuple):
            return value
        if self._is_argument(setting):
            return list(value)
        first, *others = (from_text(text, setting.kind) for text in value)
        return (
            first if not others else [*(first or ()), *(x for more in others for x in more or ())]
        )

    def _parameter(self, setting: Setting) -> click.Parameter:
        if self._is_argument(setting):
            many = -1 if setting.plain_kind is tuple else 1
            metavar = setting.name.upper() + ("..." if many == -1 else "")
            return click.Argument([setting.name], nargs=many, metavar=metavar, required=False)
        return self._option(setting, setting.name)

    def _option(self, setting: Setting, name: str, *, hidden: bool = False) -> click.Option:
        """Return the option of a setting, which may be under an old name, for no help to show."""
        dashes = name.replace("_", "-")
        text = self._help(setting)
        if setting.plain_kind is bool:
            switch = f"--{dashes}/--no-{dashes}"
            return click.Option([name, switch], default=None, help=text, hidden=hidden)
        short = ["-o"] if name == "output" else []
        metavar = _METAVARS[setting.plain_kind]
        # lists may be given in parts: the last part alone is never what was meant
        many = setting.plain_kind is tuple
        names = [name, *short, f"--{dashes}"]
        return click.Option(names, metavar=metavar, help=text, multiple=many, hidden=hidden)

    def _is_argument(self, setting: Setting) -> bool:
        """Whether this is what the command is about: its files."""
        is_files = setting.plain_kind in (Path, tuple) and setting.name != "output"
        return is_files and setting.required and setting.name not in self.defaults

    def _help(self, setting: Setting) -> str:
        text, default = setting.help, self.defaults.get(setting.name, setting.default)
        found = _DEFAULT_IN_WORDS.search(text)
        is_own = setting.name == setting.leader
        if default is None and found and is_own:
            text = text[: found.start()] + text[found.end() :]
        in_words = found and (found["inside"] or found["words"])
        shown = in_words if default is None and in_words else _shown(default)
        text = text if is_own else f"See --{setting.leader.replace('_', '-')}."
        return text if default is MISSING else f"{text}  [default: {shown}]"


def _config_file() -> click.Option:
    text = "TOML file with any of these settings, with _ for -; options override it."
    return click.Option(["config_file", "--config"], metavar="PATH", help=text)


def _shown(default: Any) -> str:
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return json.dumps(default) if isinstance(default, dict) else str(default)
