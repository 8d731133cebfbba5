"""Every public function says what it returns, and in which shape arrays pass."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("deepcg", "sampling", "free_energy")

ARRAYS = re.compile(r"Tensor|Array|Doubles|Floats|Integers|Booleans")
SHAPE = re.compile(r"\((?:[^(),]+,[^()]*|\.\.\.|\*\w+)?\)|\bshape")
"""``(n_frames, 3)``, ``(*grid)``, ``()``; or words: shaped as something, of any shape."""

TERMS = {
    "force matching": ("training/trainer.py", None),
    "force-matching": ("training/loss.py", None),
    "potential of mean force": ("training/trainer.py", None),
    "minimum image": ("geometry/box.py", "minimum_image"),
    "minimum-image convention": ("geometry/box.py", None),
    "power spectrum": ("networks/deeppot_se_l/density.py", "power_spectrum"),
    "bispectrum": ("networks/deeppot_se_l/bispectrum.py", "bispectrum"),
    "model deviation": ("potentials/ensemble.py", None),
    "instantaneous collective force": ("forces/inverse_gradient.py", None),
}
"""Of each term of the field the module that implements it, and the function, if there is one."""


def functions(body: list[ast.stmt], *, autograd: bool = False) -> list[ast.FunctionDef]:
    """Return the public ones, not those in functions nor those that only autograd calls."""
    found = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.startswith("_"):
            continue
        if isinstance(node, ast.FunctionDef):
            if not (autograd and node.name in ("forward", "backward")):
                found.append(node)
        elif isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base) for base in node.bases]
            found += functions(node.body, autograd="torch.autograd.Function" in bases)
    return found


def public() -> dict[str, ast.FunctionDef]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": node
        for path in paths
        for node in functions(ast.parse(path.read_text()).body)
    }


def passes_arrays(node: ast.FunctionDef) -> bool:
    arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    hints = [node.returns, *(argument.annotation for argument in arguments)]
    return any(ARRAYS.search(ast.unparse(hint)) for hint in hints if hint is not None)


def doc(node: ast.AsyncFunctionDef | ast.FunctionDef | ast.ClassDef | ast.Module | None) -> str:
    return (ast.get_docstring(node) if node is not None else None) or ""


def test_public_functions_say_what_they_return() -> None:
    nodes = public()
    silent = [name for name, node in nodes.items() if not doc(node)]
    assert len(nodes) > 500
    assert len(silent) <= 0.1 * len(nodes), silent


def test_functions_that_pass_arrays_tell_their_shapes() -> None:
    nodes = {name: node for name, node in public().items() if passes_arrays(node)}
    silent = [name for name, node in nodes.items() if not SHAPE.search(doc(node))]
    assert len(nodes) > 300
    assert len(silent) <= 0.1 * len(nodes), silent


@pytest.mark.parametrize("term", TERMS)
def test_docstrings_use_the_terms_of_the_field(term: str) -> None:
    file, function = TERMS[term]
    module = ast.parse((ROOT / "deepcg" / file).read_text())
    nodes = {node.name: node for node in functions(module.body)}
    text = doc(module) if function is None else doc(nodes[function])
    assert term in " ".join(text.split()).lower()
