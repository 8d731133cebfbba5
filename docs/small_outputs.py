"""Make the pictures in the outputs of notebooks small: fewer colors, no more pixels than are seen.

python docs/small_outputs.py notebooks/01_water.ipynb
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import nbformat
from PIL import Image

WIDEST = 1000  # pixels
COLORS = 32


def small(picture: bytes) -> bytes:
    """Return a PNG with a palette, no wider than `WIDEST`."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)), Image.LANCZOS)
    image = image.quantize(COLORS, dither=Image.Dither.NONE)
    file = io.BytesIO()
    image.save(file, "png", optimize=True)
    return min(file.getvalue(), picture, key=len)


def main(paths: list[str]) -> None:
    """Rewrite notebooks."""
    for path in map(Path, paths):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            bundles = [out["data"] for out in cell.get("outputs", []) if "data" in out]
            for data in [*bundles, *cell.get("attachments", {}).values()]:
                if "image/png" in data:
                    picture = base64.b64decode(data["image/png"])
                    data["image/png"] = base64.b64encode(small(picture)).decode()
            cell.get("metadata", {}).pop("execution", None)
        nbformat.write(notebook, path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
