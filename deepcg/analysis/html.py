"""Pages that open offline, and what notebooks show: templates, pictures, numbers with errors."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from deepcg.analysis.style import SUBSCRIPT, drawn, png
from deepcg.runtime.files import write_bytes
from free_energy import Estimate


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    name: str
    caption: str
    figure: Figure

    @cached_property
    def uri(self) -> str:
        """The image as text, so that the page needs no other file."""
        return "data:image/png;base64," + b64encode(png(self.figure)).decode()


def save_pictures(pictures: Iterable[Picture], folder: Path, formats: Iterable[str]) -> None:
    """Write each in these formats under its name."""
    save_figures({picture.name: picture.figure for picture in pictures}, folder, formats)


def save_figures(figures: Mapping[str, Figure], folder: Path, formats: Iterable[str]) -> None:
    """Write each in these formats under its name."""
    formats = tuple(formats)
    for name, figure in figures.items():
        for ending in formats:
            write_bytes(folder / f"{name}.{ending}", drawn(figure, ending))


def render(name: str, values: Mapping[str, Any]) -> str:
    """Return the page of a template with these values; all pages have the style of the report."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(sub=_subscripts, estimate=estimate_text, number=_number)
    report = _template("structure")
    style = report[report.index("<style>") + 7 : report.index("</style>")]
    return environment.from_string(_template(name)).render({"style": style, **values})


def fragment(title: str, lines: Iterable[str], *tables: Sequence[Sequence[str]]) -> str:
    """Return what a notebook shows of a result.

    Parameters
    ----------
    lines
        Sentences.
    tables
        Rows of cells, the head first; the first cell of a row is its name.
    """
    return render("result", {"title": title, "lines": list(lines), "tables": tables})


def estimate_text(estimate: Estimate[float] | None) -> str:
    """Return value ± error, the error to two digits and the value to the same decimals."""
    if estimate is None or not math.isfinite(estimate.value):
        return "n/a"
    if not estimate.error > 0 or not math.isfinite(estimate.error):
        return f"{estimate.value:.4g}"
    decimals = max(0, 1 - math.floor(math.log10(estimate.error)))
    return f"{estimate.value:.{decimals}f} ± {estimate.error:.{decimals}f}"


def _template(name: str) -> str:
    return (files("deepcg") / "analysis" / "templates" / f"{name}.html.j2").read_text("utf-8")


def _subscripts(text: str) -> Markup:
    return Markup(SUBSCRIPT.sub(r"\1<sub>\2</sub>", str(escape(text))))


def _number(value: float | None) -> str:
    if value is None:
        return "n/a"
    return f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}"
