"""Configs as flat tables: what the command line and the TOML files know of nested dataclasses."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import docstring_parser
import tomli_w

from deepcg.runtime.errors import InputError, nearest
from deepcg.runtime.files import write_whole

Config = TypeVar("Config")

SAID_EACH_TIME = "trust"
"""The setting that no file can give: it would be that of a stranger, too."""

RENAMED = {
    "against": "reference",
    "closest": "min_distance",
    "drop_bad": "drop_blown_up",
    "each": "frames_per_query",
    "edge": "box_length",
    "high": "trust_high",
    "low": "trust_low",
    "most_spread": "max_deviation",
    "on": "cv",
    "places": "queries",
    "spring": "force_constant",
    "until": "stop_fraction",
}
"""Settings by the names that they once had: run folders and scripts know them by these."""

_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    dict: "a table of options",
    tuple: "a list",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """A field of a config or of a dataclass inside it.

    Parameters
    ----------
    name
        Its name, the only one in the whole config.
    kind
        Its type.
    default
        ``dataclasses.MISSING`` where there is none.
    help
        Its entry in the docstring, on one line.
    leader
        The first of the names that share the entry.
    group
        The summary of the dataclass that holds it; empty for the config itself.
    """

    name: str
    kind: Any
    default: Any
    help: str
    leader: str
    group: str

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is MISSING

    @property
    def plain_kind(self) -> Any:
        """The type without ``None`` and without what is inside of a tuple or dict."""
        kind = _without_none(self.kind)
        return get_origin(kind) or kind


def flat_fields(cls: type, group: str = "", defaults: object = None) -> tuple[Setting, ...]:
    """Return the settings of a config, those of dataclasses inside it in their place.

    What registries hold now ends the help of the settings that the class variable ``LISTS`` names.

    Raises
    ------
    TypeError
        Two settings have the same name.
    """
    kinds = get_type_hints(cls)
    texts, lists = _docstring(cls)[1], getattr(cls, "LISTS", {})
    found: list[Setting] = []
    for name, default in _defaults(cls, defaults).items():
        if is_dataclass(kinds[name]):
            title = _docstring(kinds[name])[0]
            found += flat_fields(kinds[name], title, None if default is MISSING else default)
        else:
            text, leader = texts.get(name, ("", name))
            if name in lists:
                text = f"{text.rstrip('.')}: {lists[name]()}."
            found.append(Setting(name, kinds[name], default, text, leader, group))
    twice = [name for name, count in Counter(s.name for s in found).items() if count > 1]
    if twice:
        raise TypeError(f"{cls.__name__} has more than one field {', '.join(twice)}")
    return tuple(found)


def summary(cls: type) -> str:
    """Return the first sentence of a dataclass's docstring."""
    return _docstring(cls)[0]


def from_flat(cls: type[Config], values: Mapping[str, Any]) -> Config:
    """Return the config with these values by name, the defaults elsewhere.

    Raises
    ------
    InputError
        A name is unknown, a value has the wrong type or range, one that has no default is missing.
    """
    return _build(cls, _checked(cls, values), None)


def renamed(values: Mapping[str, Any], names: Container[str]) -> dict[str, Any]:
    """Return values by the ``names`` of today, where they have the names of `RENAMED`.

    Raises
    ------
    InputError
        A value has both names.
    """
    old = {k: RENAMED[k] for k in values if k not in names and RENAMED.get(k) in names}
    for name, today in old.items():
        if today in values:
            raise InputError(f"{name} is an old name of {today}: give {today} alone")
    return {old.get(name, name): value for name, value in values.items()}


def to_flat(config: object) -> dict[str, Any]:
    """Return the values of a config by name, in the order of the fields."""
    flat: dict[str, Any] = {}
    for name in _defaults(type(config), config):
        value = getattr(config, name)
        flat.update(to_flat(value) if is_dataclass(value) else {name: value})
    return flat


def read_values(path: Path, cls: type) -> dict[str, Any]:
    """Return the values that a TOML file gives, by name, for a config of class ``cls``.

    Raises
    ------
    InputError
        The file is not there or not TOML; a name is unknown; a value has the wrong type; it asks
        for trust.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not a TOML file: {error}") from error
    if values.get(SAID_EACH_TIME):
        raise InputError(f"{path} asks for {SAID_EACH_TIME}: only --{SAID_EACH_TIME} gives it")
    try:
        return _checked(cls, values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_toml(path: Path, cls: type[Config]) -> Config:
    """Return the config of a TOML file; raises as ``read_values`` and ``from_flat``."""
    return from_flat(cls, read_values(path, cls))


def write_toml(path: Path, config: object) -> None:
    """Write a config such that ``read_toml`` returns it again; ``None`` is left out."""
    defaults = {setting.name: setting.default for setting in flat_fields(type(config))}
    values = {
        name: "none" if value is None else plain(value)
        for name, value in to_flat(config).items()
        if value is not None or defaults[name] is not None
    }
    write_whole(path, tomli_w.dumps(values))


def from_text(text: str, kind: Any) -> Any:
    """Return what a TOML file would hold for a value from the command line.

    Tuples are separated by commas, dicts are JSON, ``none`` is ``None`` where that is legal.
    Text that does not fit stays text, for ``from_flat`` to refuse.
    """
    plain = _without_none(kind)
    if plain != kind and text == "none":
        return None
    if get_origin(plain) is tuple:
        return [from_text(part, get_args(plain)[0]) for part in text.split(",")]
    readers: dict[Any, Any] = {int: int, float: float, dict: json.loads, bool: _truth}
    try:
        return readers.get(get_origin(plain) or plain, str)(text)
    except ValueError:
        return text


def _docstring(cls: type) -> tuple[str, dict[str, tuple[str, str]]]:
    """Return the summary, and by name the text and the first name of its entry."""
    parsed = docstring_parser.parse(cls.__doc__ or "", docstring_parser.DocstringStyle.NUMPYDOC)
    entries = {}
    for entry in parsed.params:
        names = entry.arg_name.split(", ")
        text = " ".join((entry.description or "").replace("``", "").split())
        entries.update({name: (text, names[0]) for name in names})
    return " ".join((parsed.short_description or "").split()), entries


def _defaults(cls: Any, instance: object) -> dict[str, Any]:
    """Return the defaults of all fields, or the values of an instance."""
    defaults: dict[str, Any] = {}
    for field in fields(cls):
        if instance is not None:
            defaults[field.name] = getattr(instance, field.name)
        elif field.default_factory is not MISSING:
            defaults[field.name] = field.default_factory()
        else:
            defaults[field.name] = field.default
    return defaults


def _build(cls: type[Config], values: Mapping[str, Any], defaults: object) -> Config:
    kinds = get_type_hints(cls)
    given: dict[str, Any] = {}
    for name, default in _defaults(cls, defaults).items():
        if is_dataclass(kinds[name]):
            inner = None if default is MISSING else default
            given[name] = _build(kinds[name], values, inner)
        else:
            given[name] = values.get(name, default)
        if given[name] is MISSING:
            raise InputError(f"{name} is missing")
    return cls(**given)


def _checked(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {setting.name: setting.kind for setting in flat_fields(cls)}
    values = renamed(values, kinds)
    for name in values:
        if name not in kinds:
            raise InputError(f"there is no setting {name!r}{nearest(name, kinds)}")
    return {name: _converted(name, value, kinds[name]) for name, value in values.items()}


def _converted(name: str, value: Any, kind: Any) -> Any:
    plain = _without_none(kind)
    if plain != kind and (value is None or value == "none"):
        return None
    origin = get_origin(plain) or plain
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_converted(name, item, get_args(plain)[0]) for item in value)
    if origin is float and type(value) is int:
        return float(value)
    if origin is Path and isinstance(value, str | Path):
        return Path(value)
    if type(value) is not origin:
        either = " or none" if plain != kind else ""
        raise InputError(f"{name} is {_shown(value)}: give {_NAMES[origin]}{either}")
    return value


def _without_none(kind: Any) -> Any:
    """Return X for X | None."""
    if not isinstance(kind, UnionType):
        return kind
    (plain,) = (part for part in get_args(kind) if part is not NoneType)
    return plain


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _truth(text: str) -> bool:
    truths = {"true": True, "yes": True, "false": False, "no": False}
    if text.lower() not in truths:
        raise ValueError(text)
    return truths[text.lower()]


def plain(value: Any) -> Any:
    """Return a value as TOML knows it: paths as texts, tuples as lists, and what is in these."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return {k: plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value
