"""The report of an ensemble's spread: figures, a file of numbers and a page that opens offline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepcg.analysis.html import Picture, estimate_text, fragment, render, save_pictures
from deepcg.analysis.style import draw
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
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.files import make_folder, write_arrays, write_json, write_whole
from deepcg.runtime.provenance import versions

_CAPTIONS = {
    "variance-map": "Spread of the members' mean forces over the plane: where the data end. "
    "Standard error of the free energy that noise and number of the frames leave: where it is less "
    "well known among the data. The free energy, and where the training data are.",
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
    error: Doubles
    spread: Doubles
    unit: str
    reference: str

    def in_words(self) -> str:
        """Say what the spread is worth."""
        return f"against {self.reference}: {self.calibration.in_words(self.unit)}"

    def figure(self) -> Figure:
        """Return the size of the error against the spread."""
        return calibration_figure(self.error, self.spread, self.calibration.factor, self.unit)


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

    @property
    def figures(self) -> dict[str, Callable[[], Figure]]:
        """What can be drawn, by the name of its file."""
        found: dict[str, Callable[[], Figure]] = {}
        if self.surface is not None and len(self.surface.names) == 2:
            found["variance-map"] = partial(map_figure, self.surface)
            found["surface-band"] = partial(band_figure, self.surface)
        elif self.surface is not None:
            found["variance-profile"] = partial(profile_figure, self.surface)
        if self.beads:
            found["sigma-distribution"] = partial(distribution_figure, self.beads)
            found["sigma-time"] = partial(time_figure, self.beads)
        if self.checked is not None:
            found["calibration"] = self.checked.figure
        return found

    def plot(self, name: str | None = None) -> Figure:
        """Return one of ``figures``, by default the map or the distribution of Sigma.

        Raises
        ------
        InputError
            There is no such figure.
        """
        return draw(self.figures, name)

    def _repr_html_(self) -> str:
        """Return how large the model deviation is, and what it is worth, for notebooks."""
        checked = [] if self.checked is None else [self.checked.in_words()]
        rows = [(b.name, estimate_text(b.energy)) for b in self.basins]
        table = [("free energy of a region", "kJ/mol, ± model deviation"), *rows]
        title = f"Model deviation of {self.members} members, {self.run}"
        return fragment(title, self.lines() + checked, *([table] if rows else []))


def write_findings(found: Findings, output: Path, formats: Iterable[str] = ("png",)) -> Path:
    """Write figures, variance.npz, variance.json and the page; return the path of the page."""
    make_folder(output)
    pictures = [Picture(name, _CAPTIONS[name], figure()) for name, figure in found.figures.items()]
    save_pictures(pictures, output, formats)
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
            "data_error_kJ_mol": _data_error(found.surface),
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


def _data_error(spread: SurfaceDeviation) -> dict[str, float] | None:
    """Return the error of U that data leave, in the bins that are seen, kJ/mol."""
    known = spread.data_error[spread.seen & np.isfinite(spread.data_error)]
    if not known.size:
        return None
    return {"rms": float(np.sqrt((known**2).mean())), "largest": float(known.max())}


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
    return {
        "names": np.array(spread.names),
        "units": np.array(spread.units),
        "sigma": spread.sigma,
        "sigma_unit": np.array(spread.unit),
        "data_error": spread.data_error,
        "U": spread.mean,
        "members": spread.energies,
        "frames": spread.frames,
        **spread.axes,
    }


def _page(found: Findings, pictures: Sequence[Picture]) -> str:
    checked = found.checked
    values = {
        "title": "Where the free energy is known",
        "lead": f"{found.run}, {found.members} members.",
        "lines": found.lines(),
        "places": ""
        if found.surface is None
        else ": see the error that noise and number of frames leave",
        "drawn": " and in the frames they were fitted to" if found.resampled else "",
        "basins": found.basins,
        "barriers": found.barriers,
        "checked": checked,
        "pictures": pictures,
        "data": {**found.files, **versions()},
    }
    return render("uncertainty", values)
