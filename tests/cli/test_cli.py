from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import tomli_w
from click.testing import CliRunner

from deepcg.atomistic.labels import label
from deepcg.atomistic.water import WaterSimulation, simulate_water
from deepcg.cli.commands import ConfigCommand
from deepcg.cli.main import COMMANDS, Entry, Topic, main
from deepcg.runtime.config import RENAMED, from_text, read_toml, write_toml
from deepcg.runtime.errors import InputError
from deepcg.workflow.fes.command import FesConfig
from deepcg.workflow.fit.config import FitConfig

Run = Callable[..., tuple[int, str, str]]


def entries(topic: Topic, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Entry]]:
    for name, command in topic.commands.items():
        words = (*before, name)
        if isinstance(command, Topic):
            yield from entries(command, words)
        else:
            yield words, command


ENTRIES = dict(entries(COMMANDS))


@pytest.fixture
def deepcg(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command and returns its status, output and errors."""

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_the_commands_are_those_of_the_readme():
    names = [" ".join(words) for words in ENTRIES]
    assert names == [
        "simulate water",
        "simulate alanine",
        "label",
        "fit",
        "sample",
        "compress",
        "compare",
        "fes",
        "learn",
        "variance",
        "info",
    ]


@pytest.mark.parametrize("words", [(), ("simulate",), *ENTRIES], ids=" ".join)
def test_every_command_has_help(deepcg: Run, words: tuple[str, ...]):
    status, out, err = deepcg(*words, "--help")
    assert (status, err) == (0, "")
    assert out.startswith("Usage: " + " ".join(["deepcg", *words]))
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("words", ENTRIES, ids=" ".join)
def test_every_option_says_what_it_does_and_its_default(words: tuple[str, ...]):
    command: Any = ENTRIES[words].load(words[-1])
    for setting in command.settings.values():
        assert setting.help, f"{setting.name} has no entry in a docstring"
    for option in command.params:
        if isinstance(option, click.Option) and option.name != "config_file":
            assert "[default: " in (option.help or ""), option.name
            assert "[default: ]" not in (option.help or ""), option.name


def test_the_list_of_commands_loads_no_command():
    code = (
        "import sys; from deepcg.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print({'torch', 'openmm', 'numpy', 'mdtraj'} & sys.modules.keys())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Commands:" in out.stdout
    assert out.stdout.endswith("set()\n")
    assert out.stderr == ""


def test_the_version_is_printed(deepcg: Run):
    assert deepcg("--version") == (0, "deepcg 0.2.0\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("fitt x", "deepcg: there is no command fitt; did you mean fit?"),
        ("simulate watre", "deepcg simulate: there is no command watre; did you mean water?"),
        ("fit x --cutof 1", "deepcg fit: there is no option --cutof; did you mean --cutoff?\n"),
        ("compress x --closes 1", "deepcg compress: there is no option --closes\n"),
        ("variance x --against y --reference z", "against is an old name of reference: give"),
        ("learn x y --low -1", "give 0 < trust_low < trust_high"),
        ("fit x --batch_size 1", "no option --batch_size; did you mean --batch-size?"),
        ("fit", "deepcg fit: trajectory is missing: deepcg fit [OPTIONS] TRAJECTORY"),
        ("fit x y", "deepcg fit: Got unexpected extra argument (y)"),
        ("fit x --steps many", "deepcg fit: steps is 'many': give a whole number"),
        ("fit x --steps -5", "deepcg fit: steps is -5"),
        ("fit x --network-options [1]", "network_options is [1]: give a table of options"),
        ("fit x --network deepot-se", "did you mean 'deeppot-se'?"),
        ("fit x --optimizer adm", "did you mean 'adam'?"),
        ("fit nothing.dcd", "deepcg fit: there is no trajectory nothing.dcd"),
        ("fit x --config nothing.toml", "deepcg fit: nothing.toml cannot be read"),
        ("label nothing.dcd", "deepcg label: there is no trajectory nothing.dcd"),
        ("sample nothing", "deepcg sample: there is no model nothing"),
        ("compare nothing", "deepcg compare: nothing is not a run folder"),
        ("info nothing", "deepcg info: there is no file nothing"),
        ("info", "deepcg info: paths is missing: deepcg info [OPTIONS] PATHS..."),
        ("simulate water --model tip3", "deepcg simulate water: unknown water model 'tip3'"),
        ("simulate water --molecules 10", "does not fit in a box of 10 molecules"),
    ],
)
def test_a_mistake_gets_one_line_and_status_2(
    deepcg: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    message: str,
):
    monkeypatch.chdir(tmp_path)
    status, out, err = deepcg(*words.split())
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True, slots=True)
class Flour:
    """What to bake with.

    Parameters
    ----------
    grams
        Mass, g.
    """

    grams: int = 500


@dataclass(frozen=True, slots=True)
class Bread:
    """Bake bread.

    Parameters
    ----------
    recipe
        A file.
    output
        Folder.
    heat
        Temperature, K; by default that of the day.
    seeds
        Kinds, in order.
    rich
        With more of everything.
    flour
        Which.
    """

    recipe: Path
    output: Path
    heat: float | None = None
    seeds: tuple[str, ...] = ()
    rich: bool = False
    flour: Flour = field(default_factory=Flour)


def bake(*words: object, error: BaseException | None = None) -> tuple[Any, Any]:
    """Return the config that the words lead to, and how the command ended."""
    baked = []

    def job(config: Bread, progress: Any, tell: Callable[[str], None]) -> None:
        if error is not None:
            raise error
        baked.append(config)
        tell("done")

    defaults = {"output": Path("oven")}
    command = ConfigCommand("bake", Bread, job, defaults=defaults)
    result = CliRunner().invoke(command, [str(word) for word in words])
    return (baked or [None])[0], result


def test_options_fill_the_config():
    config, result = bake(
        "r.txt", "-o", "out", "--heat", 450, "--seeds", "a,b", "--grams", 3, "--no-rich"
    )
    assert config == Bread(Path("r.txt"), Path("out"), 450.0, ("a", "b"), False, Flour(3))
    assert result.stdout == "done\n"


def test_what_is_not_given_is_the_default():
    assert bake("r.txt")[0] == Bread(Path("r.txt"), Path("oven"))


def test_options_override_the_file(tmp_path: Path):
    file = tmp_path / "bread.toml"
    file.write_text('recipe = "r.txt"\nheat = 400\nrich = true\ngrams = 700\n')
    r, out = Path("r.txt"), Path("oven")
    assert bake("--config", file)[0] == Bread(r, out, 400.0, (), True, Flour(700))
    config = bake("--config", file, "--grams", 3, "--seeds", "rye", "--heat", "none")[0]
    assert config == Bread(r, out, None, ("rye",), True, Flour(3))
    assert bake("--config", file, "--no-rich")[0] == Bread(r, out, 400.0, (), False, Flour(700))
    assert bake("r.txt", "--rich")[0] == Bread(r, out, None, (), True, Flour())


def test_help_shows_units_defaults_and_groups():
    text = bake("--help")[1].stdout
    assert "Arguments:\n  RECIPE  A file." in text
    assert "--heat NUMBER" in text
    assert "Temperature, K.  [default: that of the day]" in text
    assert "-o, --output PATH" in text
    assert "[default: oven]" in text
    assert "What to bake with:\n  --grams INTEGER  Mass, g.  [default: 500]" in text


def test_a_key_that_is_unknown_in_a_file_is_named(tmp_path: Path):
    file = tmp_path / "bread.toml"
    file.write_text("gram = 3\n")
    config, result = bake("r.txt", "--config", file)
    assert (config, result.exit_code) == (None, 2)
    assert f"{file}: there is no setting 'gram'; did you mean 'grams'?" in result.stderr


def test_an_interrupt_says_how_to_go_on():
    config, result = bake("r.txt", error=KeyboardInterrupt())
    assert (config, result.exit_code) == (None, 130)
    assert result.stderr == "stopped; give the same command to go on\n"


def test_a_bug_keeps_its_traceback():
    error = ZeroDivisionError("bug")
    assert bake("r.txt", error=error)[1].exception is error


def test_the_settings_of_a_run_can_be_used_again(deepcg: Run, tmp_path: Path):
    file = tmp_path / "config.toml"
    write_toml(file, FitConfig(Path("nothing.dcd"), tmp_path / "run", network="pair-spline"))
    assert read_toml(file, FitConfig).network == "pair-spline"
    assert deepcg("fit", "--config", file)[2].startswith("deepcg fit: there is no trajectory")


VALUES = {
    "box_length": "2.5",
    "cv": "distance:0,1",
    "drop_blown_up": "true",
    "force_constant": "40",
    "frames_per_query": "3",
    "max_deviation": "7.5",
    "min_distance": "0.1",
    "queries": "4",
    "reference": "labels.npz",
    "stop_fraction": "0.25",
    "trust_high": "9",
    "trust_low": "0.5",
}
OLD_NAMES = [
    (words, old, new)
    for words, entry in ENTRIES.items()
    for old, new in RENAMED.items()
    if new in entry.load(words[-1]).settings  # type: ignore[attr-defined]
]


def resolved(command: Any, *words: str) -> Any:
    """Return the config that the words lead to, with some file for each argument."""
    files = ["x" for setting in command.settings.values() if command._is_argument(setting)]
    return command._resolved(command.make_context("deepcg", [*files, *words]))


def test_settings_were_renamed_in_commands():
    assert {old for _, old, _ in OLD_NAMES} == RENAMED.keys()


@pytest.mark.parametrize(("words", "old", "new"), OLD_NAMES)
def test_an_old_name_gives_the_same_config(
    words: tuple[str, ...], old: str, new: str, tmp_path: Path
):
    command: Any = ENTRIES[words].load(words[-1])
    value = from_text(VALUES[new], command.settings[new].kind)
    given = [] if value is True else [VALUES[new]]
    expected = resolved(command, f"--{new.replace('_', '-')}", *given)
    assert expected != resolved(command)
    assert resolved(command, f"--{old.replace('_', '-')}", *given) == expected
    file = tmp_path / "config.toml"
    file.write_text(tomli_w.dumps({old: value}))
    assert resolved(command, "--config", str(file)) == expected
    file.write_text(file.read_text() + file.read_text().replace(old, new))
    with pytest.raises(InputError, match=f"{old} is an old name of {new}: give {new} alone"):
        resolved(command, "--config", str(file))


@pytest.mark.parametrize("words", ENTRIES, ids=" ".join)
def test_help_ends_with_two_examples_that_are_right(deepcg: Run, words: tuple[str, ...]):
    examples = deepcg(*words, "--help")[1].partition("\nExamples:\n")[2].splitlines()
    assert len(examples) == 2
    command: Any = ENTRIES[words].load(words[-1])
    for example in examples:
        parts = example.split()
        assert parts[: len(words) + 1] == ["deepcg", *words]
        arguments = parts[len(words) + 1 :]
        command._resolved(command.make_context("deepcg", arguments))


def test_help_tells_how_to_complete(deepcg: Run):
    assert '\n    eval "$(_DEEPCG_COMPLETE=bash_source deepcg)"\n' in deepcg("--help")[1]


@pytest.mark.parametrize("words", ENTRIES, ids=" ".join)
def test_no_help_shows_an_old_name(deepcg: Run, words: tuple[str, ...]):
    shown = set(re.findall(r"--[a-z-]+", deepcg(*words, "--help")[1]))
    settings = ENTRIES[words].load(words[-1]).settings  # type: ignore[attr-defined]
    old = {f"--{name.replace('_', '-')}" for name in RENAMED if name not in settings}
    assert shown.isdisjoint(old)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a trajectory of 32 molecules, labelled."""
    trajectory = simulate_water(
        WaterSimulation(
            output=tmp_path_factory.mktemp("water"),
            molecules=32,
            ns=6e-4,
            interval_ps=0.05,
            equilibration_ps=0.5,
            cutoff=0.4,
            platform="CPU",
            threads=1,
        )
    )
    label(trajectory, platform="CPU", threads=1)
    return trajectory


@pytest.fixture
def water(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the trajectory, and of what lies beside it, to spoil."""
    for path in made.parent.glob("traj.*"):
        shutil.copy(path, tmp_path)
    return tmp_path / made.name


def without(trajectory: Path, *endings: str) -> None:
    for ending in endings:
        trajectory.with_suffix(ending).unlink()


def spoil_topology(trajectory: Path) -> None:
    pdb = trajectory.with_suffix(".pdb")
    lines = pdb.read_text().splitlines(keepends=True)
    atoms = [line for line in lines if line.startswith(("ATOM", "HETATM"))]
    pdb.write_text("".join(atoms[:-3]) + "END\n")


def spoil_system(trajectory: Path) -> None:
    system = trajectory.with_suffix(".system.xml")
    text = system.read_text()
    system.write_text(text.replace('<Particle mass="15.99943"/>', "", 1))


def spoil_trajectory(trajectory: Path) -> None:
    whole = trajectory.read_bytes()
    trajectory.write_bytes(whole[: len(whole) * 2 // 3])


def spoil_forces(trajectory: Path) -> None:
    path = trajectory.with_suffix(".forces.npy")
    forces = np.load(path)
    forces[5, 7, 1] = np.nan
    np.save(path, forces)


BAD: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no topology": (lambda t: without(t, ".pdb"), "", "no topology beside it"),
    "no forces": (
        lambda t: without(t, ".forces.npy", ".system.xml"),
        "",
        "give --forces FILE or --system FILE",
    ),
    "fewer atoms in the topology": (spoil_topology, "", "has 96 atoms, its topology"),
    "fewer atoms in the System": (spoil_system, "", "has 95 particles"),
    "unknown map": (lambda t: None, "--map oxygen", "did you mean 'oxygens'?"),
    "small box": (lambda t: None, "--cutoff 0.6", "more than half of the shortest box height"),
    "truncated": (spoil_trajectory, "", "the last good frame is 6"),
    "not a number": (spoil_forces, "", "frame 5"),
    "empty selection": (
        lambda t: None,
        '--map select:"name_ZZ"',
        "nothing matches the selection 'name ZZ'",
    ),
    "no frames": (lambda t: None, "--start 12", "--start"),
    "network option": (lambda t: None, '--network-options {"widht":3}', "widht"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_writes_nothing(deepcg: Run, water: Path, case: str):
    spoil, options, message = BAD[case]
    spoil(water)
    before = {path.name: path.stat().st_mtime_ns for path in water.parent.iterdir()}
    run = water.parent / "run"
    words = [word.replace("_", " ") for word in options.split()]
    status, _, err = deepcg(
        "fit", water, "-o", run, "--cutoff", 0.45, "--threads", 1, "--steps", 1, *words
    )
    assert (status, err.count("\n")) == (2, 1), err
    assert err.startswith("deepcg fit: ")
    assert message in err
    assert {path.name: path.stat().st_mtime_ns for path in water.parent.iterdir()} == before


def test_lists_may_be_given_in_parts():
    """``--also A --also B,C`` is not B and C alone."""
    seen = []
    command = ConfigCommand("fes", FesConfig, lambda config, *_: seen.append(config), defaults={})
    words = ["run", "--also", "a", "--also", "b,c", "--names", "one"]
    command.main(words, standalone_mode=False)
    command.main(["run", "--also", "a", "--names", "x,y"], standalone_mode=False)
    assert seen[0].also == (Path("a"), Path("b"), Path("c"))
    assert seen[0].names == ("one",)
    assert seen[1].names == ("x", "y")
    assert seen[1].reference == ()
