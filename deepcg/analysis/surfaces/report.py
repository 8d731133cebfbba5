"""The report of free-energy surfaces: figures, a file of numbers and a page that opens offline."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deepcg.analysis.html import Picture, estimate_text, fragment, render, save_pictures
from deepcg.analysis.style import draw
from deepcg.analysis.surfaces.comparison import (
    LEVEL,
    Barrier,
    Basin,
    Distance,
    ErrorParts,
    Regions,
    barriers_json,
    barriers_of,
    basins_json,
    basins_of,
    error_parts_of,
    pair_json,
)
from deepcg.analysis.surfaces.figures import profiles_figure, surfaces_figure
from deepcg.analysis.surfaces.ramachandran import SYMBOLS
from deepcg.analysis.surfaces.surface import FreeEnergySurface
from deepcg.analysis.verdicts import EXPLAINED
from deepcg.runtime.files import make_folder, write_json, write_whole
from deepcg.runtime.provenance import versions
from free_energy import lowest_point, region_of_bins

TOP = 40.0
"""The highest color of surfaces, kJ/mol."""


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """Surfaces on one grid, the first of them the reference, and how far the others are from it.

    Parameters
    ----------
    halves
        How far the two halves of each ensemble of frames are apart.
    regions, paths
        Named parts of the plane, and between which of them barriers are told.
    apart
        Sentences on surfaces with regions that no data join.
    """

    landscapes: tuple[FreeEnergySurface, ...]
    distances: tuple[Distance, ...]
    halves: tuple[Distance, ...]
    regions: Regions
    paths: tuple[tuple[str, str], ...]
    apart: tuple[str, ...] = ()

    @property
    def basins(self) -> tuple[tuple[Basin, ...], ...]:
        """Of each surface."""
        return tuple(basins_of(one, self.regions) for one in self.landscapes)

    @property
    def errors(self) -> tuple[ErrorParts, ...]:
        """Of surfaces whose error has known parts."""
        found = (error_parts_of(one, self.regions) for one in self.landscapes)
        return tuple(one for one in found if one is not None)

    def lines(self) -> list[str]:
        """Return what there is to say."""
        apart = [one.in_words() for one in (*self.distances, *self.halves)]
        return [*apart, *self.apart, *(one.in_words() for one in self.errors)]

    @property
    def barriers(self) -> tuple[tuple[Barrier, ...], ...]:
        """Of each surface."""
        return tuple(barriers_of(one, self.regions, self.paths) for one in self.landscapes)

    @property
    def figures(self) -> dict[str, Callable[[], Figure]]:
        """What can be drawn, by the name of its file."""
        return {
            "surfaces": lambda: surfaces_figure(
                self.landscapes, LEVEL, top=TOP, marks=self._marks()
            ),
            "profiles": lambda: profiles_figure(self.landscapes, top=TOP),
        }

    def plot(self, name: str | None = None) -> Figure:
        """Return one of ``figures``, by default the surfaces.

        Raises
        ------
        InputError
            There is no such figure.
        """
        return draw(self.figures, name)

    def _repr_html_(self) -> str:
        """Return the distances, and the free energies of regions, for notebooks."""
        names = [one.name for one in self.landscapes]
        lines = self.lines()
        energies = [
            (f"{of_region[0].name} (kJ/mol)", *(estimate_text(b.energy) for b in of_region))
            for of_region in zip(*self.basins, strict=True)
        ]
        frames = ("frames", *(str(one.frames) for one in self.landscapes))
        title = f"Free-energy surfaces of {', '.join(self.landscapes[0].names)}"
        return fragment(title, lines, [("surface", *names), *energies, frames])

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


def write_study(study: Study, output: Path, formats: Iterable[str] = ("png",)) -> Path:
    """Write the surfaces, figures, numbers and the page; return the path of the page."""
    pictures = [Picture(name, _CAPTIONS[name], figure()) for name, figure in study.figures.items()]
    page = _page(study, pictures)
    make_folder(output)
    for one in study.landscapes:
        one.save(output / f"{_file_name(one.name)}.fes.npz")
    study.landscapes[-1 if len(study.landscapes) == 1 else 1].save(output / "fes.npz")
    save_pictures(pictures, output, formats)
    write_json(output / "fes.json", as_json(study))
    path = output / "report.html"
    write_whole(path, page)
    return path


def as_json(study: Study) -> dict[str, Any]:
    """Return all numbers but the surfaces."""
    return {
        "level_kJ_mol": LEVEL,
        "surfaces": [
            {
                "name": one.name,
                "source": one.source,
                "frames": one.frames,
                "independent_frames": one.independent,
                "basins": basins_json(basins),
                "barriers_kJ_mol": barriers_json(barriers),
            }
            for one, basins, barriers in zip(
                study.landscapes, study.basins, study.barriers, strict=True
            )
        ],
        "distances_from_the_first": {one.model: _distance(one) for one in study.distances},
        "distances_of_halves": {one.model: _distance(one) for one in study.halves},
        "regions_apart": list(study.apart),
        "errors_and_their_parts": {
            one.model: {
                "total_kJ_mol": one.total,
                "parts_kJ_mol": dict(one.parts),
                "basins_kJ_mol": {k: dict(v) for k, v in one.basins.items()},
            }
            for one in study.errors
        },
        "versions": versions(),
    }


def _distance(one: Distance) -> dict[str, Any]:
    return {
        "rms_kJ_mol": pair_json(one.rms),
        "expected_from_errors_kJ_mol": one.expected,
        "beyond_errors_kJ_mol": one.excess,
        "bins": one.bins,
        **one.tested.as_json(),
        "largest_at": one.place,
        "basin_differences_kJ_mol": {
            k: {**pair_json(v), **one.basins_tested[k].as_json()} for k, v in one.basins.items()
        },
        "metrics": {
            m.name: {
                "unit": m.unit,
                "value": m.value,
                "floor": m.floor.value,
                "floor_scatter": m.floor.error,
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
    values = {
        "title": "Free-energy surfaces",
        "study": study,
        "basins": study.basins,
        "barriers": study.barriers,
        "pictures": pictures,
        "level": f"{LEVEL:g}",
        "explained": EXPLAINED,
        "versions": versions(),
    }
    return render("surfaces", values)


def _file_name(name: str) -> str:
    return re.sub(r"[^\w-]+", "-", name).strip("-")
