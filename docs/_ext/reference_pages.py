"""A page for each room of the package, from its docstrings."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from sphinx.application import Sphinx
from written import write_pages

import deepcg

ROOT = Path(__file__).parents[2]
PACKAGES = ("sampling", "free_energy")


def rooms() -> dict[str, list[Path]]:
    """Return the modules of every room by the room's name, the package itself first."""
    inside = sorted(p for p in (ROOT / "deepcg").iterdir() if _is_room(p))
    places = [*inside, *(ROOT / name for name in PACKAGES)]
    return {_dotted(place): _modules(place) for place in places}


def page(room: str, modules: list[Path]) -> str:
    """Return the page of a room."""
    lines = [_title(f"``{room}``", "="), ""]
    for path in modules:
        name = _dotted(path)
        if name != room:
            lines += [_title(f"``{name}``", "-"), ""]
        lines += [f".. automodule:: {name}"]
        if path.name != "__init__.py":
            lines += ["   :members:"]
        lines += [""]
    return "\n".join(lines)


def names() -> str:
    """Return a list of what the package offers, each with the first line of its docstring."""
    lines = []
    for name in sorted(deepcg.__all__, key=str.lower):
        found = getattr(deepcg, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            kind = "class" if inspect.isclass(found) else "func"
            home = f"{found.__module__}.{found.__qualname__}"
            said = inspect.getdoc(found).partition("\n\n")[0].replace("\n", " ")
            shown = re.sub(r"([*_|$<>\\])", r"\\\1", said).replace("``", "`")
            lines += [f"{{py:{kind}}}`deepcg.{name} <{home}>`", f": {shown}", ""]
        elif isinstance(found, dict):
            lines += [f"`deepcg.{name}`", f": A registry: {', '.join(sorted(found))}.", ""]
    return "\n".join(lines)


def _is_room(path: Path) -> bool:
    if path.is_dir():
        return (path / "__init__.py").is_file()
    return path.suffix == ".py" and not path.name.startswith("__")


def _modules(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    found = sorted(place.rglob("*.py"))
    return sorted(found, key=lambda p: (p.parent.parts, p.name != "__init__.py", p.name))


def _dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _title(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}"


def write(app: Sphinx) -> None:
    """Write the pages of all rooms."""
    pages = {f"{room}.rst": page(room, modules) for room, modules in rooms().items()}
    pages["names.txt"] = names()
    write_pages(Path(app.srcdir) / "reference", pages)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write before sources are looked for."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
