"""The notebooks as pages, as they are stored; pictures pasted into their text become files."""

from __future__ import annotations

import base64
from pathlib import Path

import nbformat
from sphinx.application import Sphinx

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def write(app: Sphinx) -> None:
    """Copy the notebooks to where pages are."""
    folder = Path(app.srcdir) / "notebooks"
    folder.mkdir(exist_ok=True)
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            for name, data in cell.pop("attachments", {}).items():
                picture = f"{path.stem}-{name}"
                (folder / picture).write_bytes(base64.b64decode(data["image/png"]))
                cell.source = cell.source.replace(f"attachment:{name}", picture)
        text = nbformat.writes(notebook)
        place = folder / path.name
        if not place.exists() or place.read_text(encoding="utf-8") != text:
            place.write_text(text, encoding="utf-8")


def link(app: Sphinx, name: str, source: list[str]) -> None:
    """Let links to the notebooks in the repository lead to their pages."""
    del app, name
    source[0] = source[0].replace("](../../notebooks/", "](../notebooks/")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write before sources are looked for."""
    app.connect("builder-inited", write)
    app.connect("source-read", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
