"""The command line: one command for each job of the workflow.

Whatever makes a start slow (PyTorch, OpenMM, all that reads configs) is imported with the command
that was asked for, by name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import click

import deepcg
from deepcg.cli.completion import outline
from deepcg.runtime.errors import nearest


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the config and the function of a command are; imported when it is asked for.

    Parameters
    ----------
    summary
        For the list of commands.
    module, config, function
        Names.
    examples
        What may follow its name, for the help.
    defaults
        Values for fields that have no default.
    """

    summary: str
    module: str
    config: str
    function: str
    examples: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def load(self, name: str) -> click.Command:
        """Return the command."""
        module, options = import_module(self.module), import_module("deepcg.cli.commands")
        command: click.Command = options.ConfigCommand(
            name,
            getattr(module, self.config),
            getattr(module, self.function),
            defaults=self.defaults,
            examples=self.examples,
        )
        return command

    def outline(self, name: str) -> click.Command:
        """Return what can be completed of the command, without loading it."""
        return outline(name, self.summary, self.module, self.config, self.defaults)


@dataclass(frozen=True, slots=True)
class Topic:
    """Commands under a common name."""

    summary: str
    commands: Mapping[str, Entry | Topic]


COMMANDS = Topic(
    "Coarse-graining by force matching with symmetric deep networks.",
    {
        "simulate": Topic(
            "Simulate a microscopic model.",
            {
                "water": Entry(
                    "A box of water, with OpenMM.",
                    "deepcg.workflow.simulate",
                    "WaterSimulation",
                    "water",
                    ("--molecules 216 --ns 2", "-o runs/cold --temperature 280 --model tip4pew"),
                    defaults={"output": Path("runs/water")},
                ),
                "alanine": Entry(
                    "Alanine dipeptide in water or without, biased or not, with OpenMM.",
                    "deepcg.workflow.simulate",
                    "AlanineSimulation",
                    "alanine",
                    ("--solvent obc --ns 20 --store solute", "-o runs/biased --bias metadynamics"),
                    defaults={"output": Path("runs/alanine")},
                ),
            },
        ),
        "label": Entry(
            "Compute the forces of a trajectory.",
            "deepcg.workflow.label.command",
            "LabelConfig",
            "label_trajectory",
            ("runs/water/traj.dcd", "runs/water/traj.dcd --restrain --number 50"),
        ),
        "fit": Entry(
            "Fit a coarse-grained free energy.",
            "deepcg.workflow.fit.command",
            "FitConfig",
            "fit",
            (
                "runs/water/traj.dcd --map oxygens",
                "runs/alanine/traj.npz --map dihedrals --ensemble 4",
            ),
        ),
        "sample": Entry(
            "Sample a fitted model.",
            "deepcg.workflow.sample",
            "SampleConfig",
            "sample",
            ("run --replicas 8 --ps 500", "run --bias metadynamics --cv dihedrals"),
        ),
        "compress": Entry(
            "Make a fitted deeppot-se faster to sample.",
            "deepcg.workflow.compress",
            "CompressConfig",
            "compress",
            ("run", "run -o fast --min-distance 0.15"),
        ),
        "compare": Entry(
            "Compare samples with the microscopic model.",
            "deepcg.workflow.compare",
            "CompareConfig",
            "compare",
            ("run", "run --also baseline -o report"),
        ),
        "fes": Entry(
            "Free-energy surfaces and their differences.",
            "deepcg.workflow.fes.command",
            "FesConfig",
            "fes",
            ("run", "run --reference runs/biased/traj.npz --cv dihedrals"),
        ),
        "learn": Entry(
            "Data where an ensemble does not know the free energy.",
            "deepcg.workflow.learn.command",
            "LearnConfig",
            "learn",
            ("run runs/all.npz --queries 30", "run runs/water/traj.dcd --oracle restrained"),
        ),
        "variance": Entry(
            "Where an ensemble knows the free energy.",
            "deepcg.workflow.variance",
            "VarianceConfig",
            "variance",
            ("run", "run --reference runs/water/traj.labels.npz"),
        ),
        "info": Entry(
            "Tell what is in files and run folders.",
            "deepcg.workflow.info",
            "InfoConfig",
            "info",
            ("run", "runs/water/traj.dcd run/model.pt"),
        ),
    },
)


COMPLETION = """\b
Options and choices complete in the shell after
  eval "$(_DEEPCG_COMPLETE=bash_source deepcg)"
in ~/.bashrc; with zsh_source in ~/.zshrc; in fish after
  _DEEPCG_COMPLETE=fish_source deepcg | source
"""


class TopicGroup(click.Group):
    """The commands of a topic; only that which is asked for is loaded."""

    def __init__(self, name: str, topic: Topic, epilog: str | None = None) -> None:
        super().__init__(name, help=topic.summary, epilog=epilog)
        self.topic = topic

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Show the help where nothing is asked for."""
        return super().parse_args(ctx, args or ["--help"])

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return list(self.topic.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or refuse it with the nearest right name; a shell gets an outline."""
        found = self.topic.commands.get(cmd_name)
        if found is None:
            if ctx.resilient_parsing:
                return None
            near = nearest(cmd_name, self.topic.commands).replace("'", "")
            choices = ", ".join(self.topic.commands)
            raise click.UsageError(f"there is no command {cmd_name}{near} ({choices})", ctx)
        if isinstance(found, Topic):
            return TopicGroup(cmd_name, found)
        return found.outline(cmd_name) if ctx.resilient_parsing else found.load(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, c.summary) for name, c in self.topic.commands.items()])


def command_line() -> click.Command:
    """Return all commands under the name of the program."""
    version = click.version_option(deepcg.__version__, message="deepcg %(version)s")
    return version(TopicGroup("deepcg", COMMANDS, epilog=COMPLETION))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: status 2 and one line for what the user can mend."""
    # Threads that spin while they wait cost up to a factor of ten where another program
    # wants the cores, and gain little where none does. Read when OpenMP is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        status = command_line().main(
            arguments,
            prog_name="deepcg",
            standalone_mode=False,
            max_content_width=100,
            help_option_names=["-h", "--help"],
        )
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "deepcg"
        click.echo(f"{where}: {_line(error)}", err=True)
        status = 2
    except click.Abort:
        status = 130
    sys.exit(status)


def _line(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption) and error.ctx:
        options = [
            p for p in error.ctx.command.get_params(error.ctx) if isinstance(p, click.Option)
        ]
        shown = [name for o in options if not o.hidden for name in (*o.opts, *o.secondary_opts)]
        near = nearest(error.option_name, shown).replace("'", "")
        return f"there is no option {error.option_name}{near}"
    return " ".join(error.format_message().split())
