"""The report of an ensemble's spread: figures, a file of numbers and a page that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcg.analysis.arrays import Floats
from deepcg.analysis.html import Picture, render, save_pictures
from deepcg.analysis.style import png
from deepcg.analysis.surfaces.comparison import (
    Barrier,
    Basin,
    barriers_json,
    barriers_of,
    basins_json,
    basins_of,
)
from deepcg.analysis.surfaces.ramachandran import AXES, BASINS, PATHS
from deepcg.analysis.uncertainty.calibration import Calibration
from deepcg.analysis.uncertainty.figures import (
    band_figure,
    calibration_figure,
    distribution_figure,
    map_figure,
    profile_figure,
    time_figure,
)
from deepcg.analysis.uncertainty.spread import BeadSpread, SurfaceDeviation
from deepcg.runtime.files import make_folder, write_arrays, write_json, write_whole
from deepcg.runtime.provenance import versions

_CAPTIONS = {
    "variance-map": "Spread of the members' mean forces over the plane, the free energy, and where "
    "the training data are.",
    "surface-band": "How far the members' free energies are apart: over the plane, and along each "
    "coordinate, the other integrated out.",
    "variance-profile": "The members' free energies; below, the spread of their mean forces and "
    "where the training data are.",
    "sigma-distribution": "Distribution of the spread over beads and frames, and its root mean "
    "square by bead type.",
    "sigma-time": "Spread in each frame, in the order of the frames.",
    "calibration": "True error against spread, component by component of the mean force.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """The spread against a reference: error (...), spread (...), in a unit, and what they say."""

    calibration: Calibration
    error: Floats
    spread: Floats
    unit: str
    reference: str


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What is known of the spread of an ensemble.

    Parameters
    ----------
    run
        Its name.
    members
        Number of members.
    resampled
        Whether they differ in their frames, too.
    surface, beads
        The spread over a plane, or of beads in each source of frames.
    checked
        The spread against a reference mean force.
    files
        What else was written, by its name.
    """

    run: str
    members: int
    resampled: bool
    surface: SurfaceDeviation | None = None
    beads: tuple[BeadSpread, ...] = ()
    checked: Checked | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def basins(self) -> tuple[Basin, ...]:
        """Of a surface over phi and psi, with the spread over members."""
        return basins_of(self.surface.landscape, BASINS) if self._is_backbone else ()  # type: ignore[union-attr]

    @property
    def barriers(self) -> tuple[Barrier, ...]:
        """Of a surface over phi and psi, with the spread over members."""
        return barriers_of(self.surface.landscape, BASINS, PATHS) if self._is_backbone else ()  # type: ignore[union-attr]

    @property
    def _is_backbone(self) -> bool:
        names = () if self.surface is None else self.surface.names
        return tuple(name.split()[0] for name in names) == AXES

    def lines(self) -> list[str]:
        """Return what there is to say."""
        surface = [] if self.surface is None else [self.surface.in_words()]
        return surface + [one.in_words() for one in self.beads]


def write_findings(found: Findings, output: Path) -> Path:
    """Write figures, variance.npz, variance.json and the page; return the path of the page."""
    make_folder(output)
    pictures = _pictures(found)
    save_pictures(pictures, output)
    write_json(output / "variance.json", as_json(found))
    if found.surface is not None:
        write_arrays(output / "variance.npz", _surface_arrays(found.surface))
    path = output / "report.html"
    write_whole(path, _page(found, pictures))
    return path


def as_json(found: Findings) -> dict[str, Any]:
    """Return all numbers but maps."""
    content: dict[str, Any] = {
        "run": found.run,
        "members": found.members,
        "resampled": found.resampled,
        "files": dict(found.files),
        "versions": versions(),
    }
    if found.surface is not None:
        content["surface"] = {
            "unit": found.surface.unit,
            "rms_with_frames": found.surface.inside,
            "rms_over_frames": found.surface.by_frames,
            "rms_without_frames": found.surface.outside,
            "rms_mean_force": found.surface.force,
            "basins": basins_json(found.basins),
            "barriers_kJ_mol": barriers_json(found.barriers),
        }
    if found.beads:
        content["beads"] = {one.name: _of_beads(one) for one in found.beads}
    if found.checked is not None:
        content["calibration"] = asdict(found.checked.calibration) | {
            "reference": found.checked.reference
        }
    return content


def _of_beads(one: BeadSpread) -> dict[str, Any]:
    quantiles = (0.05, 0.5, 0.95, 1.0)
    kinds = {
        name: {
            "rms": float(np.sqrt((one.of_type(k) ** 2).mean())),
            "quantiles": {str(q): float(np.quantile(one.of_type(k), q)) for q in quantiles},
        }
        for k, name in enumerate(one.type_names)
    }
    return {
        "unit": "kJ/mol/nm",
        "frames": len(one.sigma),
        "relative_to_rms_mean_force": one.relative,
        "types": kinds,
    }


def _surface_arrays(spread: SurfaceDeviation) -> dict[str, NDArray[Any]]:
    axes = dict(zip(spread.names, spread.grid.centers, strict=True))
    return {
        "names": np.array(spread.names),
        "units": np.array(spread.units),
        "sigma": spread.sigma,
        "sigma_unit": np.array(spread.unit),
        "U": spread.mean,
        "members": spread.energies,
        "frames": spread.frames,
        **axes,
    }


def _pictures(found: Findings) -> list[Picture]:
    figures = {}
    if found.surface is not None and len(found.surface.names) == 2:
        figures["variance-map"] = map_figure(found.surface)
        figures["surface-band"] = band_figure(found.surface)
    elif found.surface is not None:
        figures["variance-profile"] = profile_figure(found.surface)
    if found.beads:
        figures["sigma-distribution"] = distribution_figure(found.beads)
        figures["sigma-time"] = time_figure(found.beads)
    if found.checked is not None:
        checked = found.checked
        figures["calibration"] = calibration_figure(
            checked.error, checked.spread, checked.calibration.factor, checked.unit
        )
    return [Picture(name, _CAPTIONS[name], png(figure)) for name, figure in figures.items()]


def _page(found: Findings, pictures: Sequence[Picture]) -> str:
    checked = found.checked
    values = {
        "title": "Where the free energy is known",
        "lead": f"{found.run}, {found.members} members.",
        "lines": found.lines(),
        "drawn": " and in the frames they were fitted to" if found.resampled else "",
        "basins": found.basins,
        "barriers": found.barriers,
        "calibration": None if checked is None else checked.calibration,
        "reference": "" if checked is None else checked.reference,
        "pictures": pictures,
        "data": {**found.files, **versions()},
    }
    return render("uncertainty", values)
