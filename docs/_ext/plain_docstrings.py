"""Docstrings are plain text: their stars and bars are no markup, their indented lines formulas."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

SECTION = re.compile(r"^-{3,}$")
RULER = re.compile(r"^=+( +=+)+$")
NAME = re.compile(r"(?<![`:\w])`([A-Za-z_][\w.]*)`(?!`)")
ATTRIBUTES: dict[str, list[str]] = {}
"""Docstrings of attributes on their way through napoleon, by the attribute's name."""


def plain(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Make reStructuredText of a docstring, in place."""
    del app, options
    module = sys.modules.get(_module_of(name, obj))
    end = next((k for k, line in enumerate(lines) if SECTION.match(line)), len(lines) + 1) - 1
    made: list[str] = []
    table: list[str] = []
    for k, line in enumerate(lines):
        before = lines[k - 1] if k else ""
        if table or RULER.match(line):
            if line.strip():
                table.append(line)
            else:
                made += [*_listed(table, module), ""]
                table = []
            continue
        is_formula = line.startswith("    ") and k < end
        if is_formula and not before.strip():
            made += ["::", ""]
        made.append(line if is_formula else NAME.sub(lambda m: _linked(m[1], module), _safe(line)))
    lines[:] = made + _listed(table, module)
    if what in ("data", "attribute"):
        ATTRIBUTES[name] = made


def restored(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Undo what napoleon did to an attribute: it takes the words before a colon for its type."""
    del app, what, obj, options
    lines[:] = ATTRIBUTES.pop(name, lines)


def unlisted(
    app: Sphinx, env: object, node: nodes.Element, contnode: nodes.Element
) -> nodes.Element | None:
    """Leave type variables, aliases and private classes in signatures without a link."""
    del app, env
    home, _, last = node.get("reftarget", "").rpartition(".")
    found = getattr(sys.modules.get(home), last, None)
    is_listed = inspect.isclass(found) and not last.startswith("_")
    return contnode if found is not None and not is_listed else None


def _listed(table: list[str], module: Any) -> list[str]:
    """Return a simple table as a list table, whose cells need no width when names become links."""
    if not table:
        return []
    spans = [match.span() for match in re.finditer("=+", table[0])]
    spans[-1] = (spans[-1][0], max(map(len, table)))
    rulers = [k for k, line in enumerate(table) if RULER.match(line)]
    rows: list[list[str]] = []
    for line in (line for line in table if not RULER.match(line)):
        cells = [line[start:end].strip() for start, end in spans]
        if cells[0] or not rows:
            rows.append(cells)
        else:  # a row goes on
            rows[-1] = [f"{old} {new}".strip() for old, new in zip(rows[-1], cells, strict=True)]
    made = ["", ".. list-table::", f"   :header-rows: {int(len(rulers) > 2)}", ""]
    for row in rows:
        marks = ["   * - ", *["     - "] * (len(row) - 1)]
        safe = [NAME.sub(lambda m: _linked(m[1], module), _safe(cell)) for cell in row]
        made += [mark + cell for mark, cell in zip(marks, safe, strict=True)]
    return made


def _safe(line: str) -> str:
    """Escape what stands outside of backticks."""
    if SECTION.match(line):
        return line
    parts = re.split(r"(``.+?``|`[^`]+`)", line)
    parts[::2] = [re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def _linked(name: str, module: Any) -> str:
    """Return a reference to a class or function of ours, or the name as code."""
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None and name.startswith(("deepcg.", "sampling.", "free_energy.")):
        home, _, last = name.rpartition(".")
        found = sys.modules.get(name) or getattr(sys.modules.get(home), last, None)
    if inspect.ismodule(found):
        return f":py:mod:`~{found.__name__}`"
    if inspect.isclass(found) or inspect.isfunction(found):
        home = f"{found.__module__}.{found.__qualname__}"
        kind = "class" if inspect.isclass(found) else "func"
        if home.startswith(("deepcg.", "sampling.", "free_energy.")):
            return f":py:{kind}:`~{home}`"
    return f"``{name}``"


def _module_of(name: str, obj: object) -> str:
    if inspect.ismodule(obj):
        return obj.__name__
    owner = getattr(obj, "__module__", None)
    if isinstance(owner, str):
        return owner
    while name and name not in sys.modules:
        name = name.rpartition(".")[0]
    return name


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen to autodoc before and after napoleon does."""
    app.connect("autodoc-process-docstring", plain, priority=400)
    app.connect("autodoc-process-docstring", restored, priority=600)
    app.connect("missing-reference", unlisted)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
