"""The report of free-energy surfaces: figures, a file of numbers and a page that opens offline."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure

from deepcg.figures import png
from deepcg.files import write_bytes, write_json, write_whole
from deepcg.folders import make_folder
from deepcg.landscape import Landscape
from deepcg.landscape_comparison import (
    LEVEL,
    Barrier,
    Basin,
    Distance,
    Regions,
    barriers_of,
    basins_of,
)
from deepcg.landscape_figures import profiles_figure, surfaces_figure
from deepcg.ramachandran import SYMBOLS
from deepcg.report import Picture, estimate_text, versions
from free_energy import Estimate, lowest_point, region_of_bins

TOP = 40.0
"""The highest colour of surfaces, kJ/mol."""


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """Surfaces on one grid, the first of them the reference, and how far the others are from it.

    Parameters
    ----------
    halves
        How far the two halves of each ensemble of frames are apart.
    regions, paths
        Named parts of the plane, and between which of them barriers are told.
    """

    landscapes: tuple[Landscape, ...]
    distances: tuple[Distance, ...]
    halves: tuple[Distance, ...]
    regions: Regions
    paths: tuple[tuple[str, str], ...]

    @property
    def basins(self) -> tuple[tuple[Basin, ...], ...]:
        """Of each surface."""
        return tuple(basins_of(one, self.regions) for one in self.landscapes)

    @property
    def barriers(self) -> tuple[tuple[Barrier, ...], ...]:
        """Of each surface."""
        return tuple(barriers_of(one, self.regions, self.paths) for one in self.landscapes)

    def figures(self) -> dict[str, Figure]:
        """Return the figures by the name of their file."""
        return {
            "surfaces": surfaces_figure(self.landscapes, LEVEL, top=TOP, marks=self._marks()),
            "profiles": profiles_figure(self.landscapes, top=TOP),
        }

    def _marks(self) -> dict[str, tuple[float, float]]:
        """Return where the symbols of regions are written: at the lowest point of the first."""
        first = self.landscapes[0]
        places = region_of_bins(self.regions, first.grid)
        marks = {}
        for k, name in enumerate(self.regions):
            inside = places == k
            if np.isfinite(first.value[inside]).any():
                x, y = lowest_point(first.value, first.grid, inside)
                marks[SYMBOLS[name]] = (float(x), float(y))
        return marks


def write_study(study: Study, output: Path) -> Path:
    """Write the surfaces, figures, numbers and the page; return the path of the page."""
    pictures = [
        Picture(name, _CAPTIONS[name], png(figure)) for name, figure in study.figures().items()
    ]
    page = _page(study, pictures)
    make_folder(output)
    for one in study.landscapes:
        one.save(output / f"{_file_name(one.name)}.fes.npz")
    study.landscapes[-1 if len(study.landscapes) == 1 else 1].save(output / "fes.npz")
    for picture in pictures:
        write_bytes(output / f"{picture.name}.png", picture.data)
    write_json(output / "fes.json", as_json(study))
    path = output / "report.html"
    write_whole(path, page)
    return path


def as_json(study: Study) -> dict[str, Any]:
    """Return all numbers but the surfaces; what is not finite becomes ``None``."""
    return {
        "level_kJ_mol": LEVEL,
        "surfaces": [
            {
                "name": one.name,
                "source": one.source,
                "frames": one.frames,
                "independent_frames": _finite(one.independent),
                "basins": {
                    basin.name: {
                        "population": _pair(basin.population),
                        "energy_kJ_mol": _pair(basin.energy),
                    }
                    for basin in basins
                },
                "barriers_kJ_mol": {
                    f"{b.start} -> {b.end}": {"forth": _pair(b.forth), "back": _pair(b.back)}
                    for b in barriers
                },
            }
            for one, basins, barriers in zip(
                study.landscapes, study.basins, study.barriers, strict=True
            )
        ],
        "distances_from_the_first": {one.model: _distance(one) for one in study.distances},
        "distances_of_halves": {one.model: _distance(one) for one in study.halves},
        "versions": versions(),
    }


def _distance(one: Distance) -> dict[str, Any]:
    return {
        "rms_kJ_mol": _pair(one.rms),
        "expected_from_errors_kJ_mol": _finite(one.expected),
        "beyond_errors_kJ_mol": _finite(one.excess),
        "bins": one.bins,
        "basin_differences_kJ_mol": {k: _pair(v) for k, v in one.basins.items()},
        "metrics": {
            m.name: {
                "unit": m.unit,
                "value": _finite(m.value),
                "floor": _finite(m.floor.value),
                "floor_scatter": _finite(m.floor.error),
            }
            for m in one.metrics
        },
    }


_CAPTIONS = {
    "surfaces": "Free energies with one scale; below, differences from the first and the "
    "standard errors. Grey: not sampled.",
    "profiles": "Free energy of each coordinate, the other integrated out, with bands of one "
    "standard error.",
}


def _page(study: Study, pictures: list[Picture]) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(estimate=estimate_text)
    style = (files("deepcg") / "report.html.j2").read_text("utf-8")
    template = environment.from_string((files("deepcg") / "fes.html.j2").read_text("utf-8"))
    return template.render(
        title="Free-energy surfaces",
        style=style[style.index("<style>") + 7 : style.index("</style>")],
        study=study,
        basins=study.basins,
        barriers=study.barriers,
        pictures=pictures,
        level=f"{LEVEL:g}",
        versions=versions(),
    )


def _pair(estimate: Estimate[float]) -> dict[str, float | None]:
    return {"value": _finite(estimate.value), "error": _finite(estimate.error)}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _file_name(name: str) -> str:
    return re.sub(r"[^\w-]+", "-", name).strip("-")
