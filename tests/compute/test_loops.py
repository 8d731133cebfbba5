"""Compiled loops say what they compute, and are compiled anew when one of their files changes."""

from __future__ import annotations

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    *sorted(set((ROOT / "deepcg").rglob("*_loops.py"))),
    ROOT / "deepcg" / "compute" / "simd.py",
    ROOT / "deepcg" / "geometry" / "cell_list.py",
]


def docstring(path: Path) -> str:
    found = ast.get_docstring(ast.parse(path.read_text()))
    assert found is not None
    return found


def exists(name: str) -> bool:
    """Return whether a dotted name is a module, or something in one."""
    module, rest = name, []
    while True:
        try:
            found = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            rest.insert(0, last)
    for one in rest:
        if not hasattr(found, one):
            return False
        found = getattr(found, one)
    return True


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_loops_open_with_their_symbols_and_what_defines_them(path: Path):
    text = docstring(path)
    assert re.search(r"^=+(  =+)+$", text, re.MULTILINE), "no table of symbols"
    assert "name here" in text
    for name in re.findall(r"``(deepcg(?:\.\w+)+)``", text):
        assert exists(name), name
    tests = re.findall(r"``(tests/[\w/]+\.py)::(\w+)``", text)
    assert tests, "no test that ties the loops to a definition"
    for file, name in tests:
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"


OUTER = """
from deepcg.compute.loops import compiled
from constants_of_a_loop import FACTOR
from inner_of_a_loop import value

@compiled(parallel=False)
def outer(x):
    return FACTOR * value(x)
"""
INNER = """
from numba import njit

@njit
def value(x):
    return x + {added}
"""


def outer(folder: Path, factor: int, added: int) -> int:
    """Return what a loop makes of 1 with numbers from two other files, in a new process's place."""
    (folder / "outer_loop.py").write_text(OUTER)
    (folder / "constants_of_a_loop.py").write_text(f"FACTOR = {factor}")
    (folder / "inner_of_a_loop.py").write_text(INNER.format(added=added))
    importlib.invalidate_caches()
    for name in ("outer_loop", "constants_of_a_loop", "inner_of_a_loop"):
        sys.modules.pop(name, None)
    module = importlib.import_module("outer_loop")
    result: int = module.outer(1)
    hits = sum(module.outer.stats.cache_hits.values())
    assert hits == (folder / f"{factor} {added}").exists()  # compiled once for each
    (folder / f"{factor} {added}").touch()
    return result


def test_a_loop_is_compiled_anew_when_what_it_calls_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files change within a second
    assert outer(tmp_path, 1, 1) == 2
    assert outer(tmp_path, 1, 1) == 2
    assert outer(tmp_path, 1, 2) == 3
    assert outer(tmp_path, 5, 2) == 15
