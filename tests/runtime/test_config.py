from __future__ import annotations

import json
from dataclasses import dataclass, field
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pytest

from deepcg.networks import NETWORKS, SIZES, PairSpline
from deepcg.potentials.collective_variables import CVPotential
from deepcg.runtime.config import (
    flat_fields,
    from_flat,
    from_text,
    read_toml,
    to_flat,
    write_toml,
)
from deepcg.runtime.errors import InputError
from deepcg.workflow.fit.config import FitConfig


@dataclass(frozen=True, slots=True)
class Oven:
    """How to bake.

    Parameters
    ----------
    heat, time
        Temperature, K, and ``time``, s.
    fan
        Blow.
    """

    heat: float = 450.0
    time: int = 600
    fan: bool = False

    def __post_init__(self) -> None:
        if self.heat <= 0:
            raise InputError(f"heat is {self.heat:g}: give a positive number")


@dataclass(frozen=True, slots=True)
class Cake:
    """Bake a cake.

    Parameters
    ----------
    recipe
        A file.
    toppings
        In order.
    sizes
        Of the layers, cm.
    options
        For the
        brave.
    candles
        Their number; by default none.
    oven
        Where.
    """

    recipe: Path
    toppings: tuple[str, ...] = ()
    sizes: tuple[float, ...] = (20.0,)
    options: dict[str, Any] = field(default_factory=dict)
    candles: int | None = None
    color: str | None = "white"
    oven: Oven = field(default_factory=lambda: Oven(time=1200))


NAMES = ["recipe", "toppings", "sizes", "options", "candles", "color", "heat", "time", "fan"]
FULL = {"recipe": "a.txt", "toppings": ["x", "y"], "sizes": [1, 2.5], "time": 7, "fan": True}


def test_fields_of_inner_dataclasses_lie_among_the_others():
    found = flat_fields(Cake)
    assert [setting.name for setting in found] == NAMES
    assert [setting.group for setting in found][-4:] == ["", *["How to bake."] * 3]


def test_help_comes_from_docstrings_and_may_be_shared():
    found = {setting.name: setting for setting in flat_fields(Cake)}
    assert found["options"].help == "For the brave."
    assert found["heat"].help == found["time"].help == "Temperature, K, and time, s."
    assert (found["time"].leader, found["fan"].leader) == ("heat", "fan")
    assert found["color"].help == ""


def test_defaults_are_those_of_the_outer_config():
    found = {setting.name: setting.default for setting in flat_fields(Cake)}
    assert (found["time"], found["heat"], found["options"]) == (1200, 450.0, {})
    assert [setting.name for setting in flat_fields(Cake) if setting.required] == ["recipe"]


def test_the_same_name_twice_is_a_bug():
    @dataclass
    class Twice:
        heat: int = 1
        oven: Oven = field(default_factory=Oven)

    # annotations of a local class can only name what the module knows
    Twice.__annotations__.update(oven=Oven)
    with pytest.raises(TypeError, match="more than one field heat"):
        flat_fields(Twice)


def test_values_find_their_place():
    cake = from_flat(Cake, FULL)
    oven = Oven(time=7, fan=True)
    assert cake == Cake(Path("a.txt"), ("x", "y"), (1.0, 2.5), {}, None, "white", oven)
    assert list(to_flat(cake)) == NAMES
    assert from_flat(Cake, {"recipe": "a.txt", "fan": True}).oven == Oven(time=1200, fan=True)


def test_a_config_can_be_written_and_read(tmp_path: Path):
    path = tmp_path / "cake.toml"
    options = {"a": 1, "deep": {"b": [1, 2]}}
    for color in ("red", None):
        cake = Cake(Path("a.txt"), ("x",), options=options, color=color, oven=Oven(fan=True))
        write_toml(path, cake)
        assert read_toml(path, Cake) == cake
    assert "candles" not in path.read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["cake.toml"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tiem": 3}, "there is no setting 'tiem'; did you mean 'time'?"),
        ({"time": "long"}, "time is 'long': give a whole number"),
        ({"time": 1.5}, "time is 1.5: give a whole number"),
        ({"time": True}, "time is true: give a whole number"),
        ({"heat": False}, "heat is false: give a number"),
        ({"fan": 1}, "fan is 1: give true or false"),
        ({"recipe": 3}, "recipe is 3: give a path"),
        ({"candles": "many"}, "candles is 'many': give a whole number or none"),
        ({"toppings": "x"}, "toppings is 'x': give a list"),
        ({"toppings": [1]}, "toppings is 1: give a text"),
        ({"options": [1]}, "options is [1]: give a table of options"),
        ({"heat": -3}, "heat is -3: give a positive number"),
        ({}, "recipe is missing"),
    ],
)
def test_what_does_not_fit_is_named(values: dict[str, Any], message: str):
    complete = {} if not values else {"recipe": "a.txt", **values}
    with pytest.raises(InputError) as caught:
        from_flat(Cake, complete)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "reason"),
    [("time = ", "is not a TOML file"), ("tiem = 3", "did you mean 'time'"), (None, "cannot be")],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str | None, reason: str):
    path = tmp_path / "cake.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        read_toml(path, Cake)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", int, 3),
        ("3", float, 3.0),
        ("1e-3", float, 0.001),
        ("3", str, "3"),
        ("none", int | None, None),
        ("none", str, "none"),
        ("4", int | None, 4),
        ("1,2", tuple[int, ...], [1, 2]),
        ("1,b", tuple[int, ...], [1, "b"]),
        ('{"a": [1]}', dict[str, Any], {"a": [1]}),
        ("{a", dict[str, Any], "{a"),
        ("many", int, "many"),
        ("a.b", Path, "a.b"),
    ],
)
def test_text_becomes_what_a_file_would_hold(text: str, kind: Any, value: Any):
    found = from_text(text, kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("name", [*NETWORKS, "collective variables"])
def test_the_help_tells_the_options_of_networks(name: str) -> None:
    kind = NETWORKS.get(name, CVPotential)
    options = {
        option: parameter.default
        for option, parameter in signature(kind).parameters.items()
        if parameter.default is not Parameter.empty
    } | SIZES.get(name, {"small": {}})["small"]
    told = next(s.help for s in flat_fields(FitConfig) if s.name == "network_options")
    told = told.partition(f"{name}: ")[2].partition(";")[0].rstrip(".")
    assert told == ", ".join(f"{k} {json.dumps(v)}" for k, v in options.items())


def test_the_help_tells_of_a_network_that_is_registered_later(monkeypatch: pytest.MonkeyPatch):
    class Toy(PairSpline):
        def __init__(self, cutoff: float, n_types: int, *, sweets: int = 3) -> None:
            super().__init__(cutoff, n_types)

    monkeypatch.setitem(NETWORKS, "toy", Toy)
    monkeypatch.setitem(SIZES, "toy", {"small": {}, "giant": {"sweets": 99}})
    told = {s.name: s.help for s in flat_fields(FitConfig)}
    assert told["network"] == "Kind of network: deeppot-se, deeppot-se-l, pair-spline, toy."
    assert told["network_size"].endswith("; toy: small, giant.")
    assert "; toy: sweets 3; " in told["network_options"]
