"""``deepcg fes``: free-energy surfaces beside one another, their differences and their errors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deepcg.analysis.style import check_formats
from deepcg.analysis.surfaces.comparison import Distance, distance, distance_of_halves, metrics_of
from deepcg.analysis.surfaces.estimates import CVSamples, free_energy_surface_of
from deepcg.analysis.surfaces.joined import apart_in_words
from deepcg.analysis.surfaces.ramachandran import AXES, BASINS, PATHS
from deepcg.analysis.surfaces.report import Study, write_study
from deepcg.analysis.surfaces.surface import FreeEnergySurface
from deepcg.analysis.surfaces.surface_metrics import metrics_of_surfaces
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import check_place
from deepcg.runtime.progress import Progress, silent
from deepcg.trajectory.bias_weights import UNBIASED
from deepcg.workflow.fes.counting import map_counted
from deepcg.workflow.fes.sources import (
    Coordinates,
    any_free_energy_surface,
    default_grid,
    is_surface_run,
    microscopic,
    trajectories,
)
from free_energy import Rectangle

_log = logging.getLogger(__name__)

BINS = 36
"""Of each coordinate."""

FEWEST_FRAMES = 200
"""Of which halves are compared."""


@dataclass(frozen=True, slots=True)
class FesConfig:
    """Free-energy surfaces of two coordinates: microscopic, coarse-grained, and how they differ.

    Parameters
    ----------
    run
        Folder of a fit: of beads with samples, or of collective variables; or a trajectory, or a
        fes.npz.
    also
        Others to show beside it.
    reference
        Trajectories of the microscopic model, taken together, or its fes.npz; by default the
        frames that RUN was fitted to.
    cv
        The two coordinates: dihedrals (phi and psi), or such as
        "dihedral:4,6,8,14;dihedral:6,8,14,16". Where RUN is of beads, numbers count these, from 0,
        in its samples and in the microscopic frames; @4 is atom 4. Elsewhere they count atoms.
    topology
        Topology of trajectories that are given here; by default that beside each, TRAJ.pdb.
    skip_frames
        Frames of trajectories that are given here to leave out: numbers and ranges from 0, such as
        0,5,100-200.
    bonds
        Bonds of trajectories beside those of their topology: auto, guess or none, as of deepcg
        fit; by default as RUN was fitted.
    temperature
        Temperature of trajectories that are given here, K.
    bias
        COLVAR of PLUMED, or COLVAR:COLUMN, with the bias V in kJ/mol of each frame, which gets the
        weight exp(V/kT). One for each trajectory that is given here, in the order of RUN, the
        others and the reference; none for an unbiased one.
    bins
        Bins of each coordinate.
    names
        What to call RUN and the others in figures, in their order; by default after their maps.
    output
        Folder for fes.npz, figures and report.html; by default RUN/fes.
    trust
        Open the files that RUN/config.toml names outside of its folder although they are not those
        of RUN/run.json: of runs whose maker you trust.
    figures
        Formats of the files of figures: png, svg, pdf.
    """

    run: Path
    also: tuple[Path, ...] = ()
    reference: tuple[Path, ...] = ()
    cv: str = "dihedrals"
    topology: Path | None = None
    skip_frames: str | None = None
    bonds: str | None = None
    temperature: float = 300.0
    bias: tuple[str, ...] = ()
    bins: int = BINS
    names: tuple[str, ...] = ()
    output: Path | None = None
    trust: bool = False
    figures: tuple[str, ...] = ("png",)

    def __post_init__(self) -> None:
        check_formats(self.figures)
        if self.bins < 4:
            raise InputError(f"bins is {self.bins}: give at least 4")
        if len(self.names) > 1 + len(self.also):
            raise InputError(
                f"{len(self.names)} names for {1 + len(self.also)} surfaces: the reference has its "
                f"own"
            )


def fes(
    config: FesConfig, progress: Progress = silent, tell: Callable[[str], None] = lambda line: None
) -> Study:
    """Write fes.npz, one file per surface, figures, fes.json and report.html; tell the distances.

    Raises
    ------
    InputError
        There are no samples, or the surfaces are not of the same coordinates and bins.
    """
    output = config.output or _default_output(config.run)
    check_place(output)
    given = Coordinates(
        config.cv,
        config.topology,
        config.temperature,
        biases=_biases(config),
        skip_frames=config.skip_frames,
        bonds=config.bonds,
        beads=map_counted(config.cv, (config.run, *config.also)),
        trust=config.trust,
    )
    reference = _reference(config, given, progress)
    grid = None if reference is None else reference[0].grid
    landscapes: list[FreeEnergySurface] = [] if reference is None else [reference[0]]
    frames: list[CVSamples | None] = [] if reference is None else [reference[1]]
    for k, path in enumerate((config.run, *config.also)):
        landscape, sampled = any_free_energy_surface(path, given, grid, config.bins, progress)
        if k < len(config.names):
            landscape = replace(landscape, name=config.names[k])
        landscapes.append(landscape)
        frames.append(sampled)
        grid = landscape.grid if grid is None else grid
    _check_alike(landscapes)
    _check_common(landscapes, frames)
    regions = BASINS if _are_backbone(landscapes[0]) else {}
    landscapes = _told_apart(landscapes)
    study = Study(
        tuple(landscapes),
        _distances(landscapes, frames, regions),
        _halves(landscapes, frames, regions),
        regions,
        PATHS if regions else (),
        tuple(_apart(landscapes, frames, regions)),
    )
    for line in study.apart:
        _log.warning("%s", line)
    write_study(study, output, config.figures)
    for line in study.lines():
        tell(line)
    tell(f"report: {output / 'report.html'}")
    return study


def _biases(config: FesConfig) -> dict[Path, str]:
    """Return the bias of each trajectory that is given, by its path."""
    paths = (config.run, *config.also, *config.reference)
    given = [path for path in paths if not (_is_run(path) or path.name.endswith("fes.npz"))]
    if config.bias and len(config.bias) != len(given):
        names = ", ".join(path.name for path in given)
        raise InputError(
            f"{len(config.bias)} biases for {len(given)} trajectories ({names}): give one for "
            f"each, {UNBIASED} for one without"
        )
    return dict(zip(given, config.bias, strict=False))


def _is_run(path: Path) -> bool:
    return (path / "config.toml").is_file()


def _reference(
    config: FesConfig, given: Coordinates, progress: Progress
) -> tuple[FreeEnergySurface, CVSamples | None] | None:
    """Return the first surface: the one given, that of the data of a run, or none."""
    paths = config.reference
    if len(paths) == 1 and paths[0].name.endswith("fes.npz"):
        return any_free_energy_surface(paths[0], given, None, config.bins, progress)
    if paths:
        sampled = replace(trajectories(paths, given, progress), name="microscopic")
    elif (config.run / "config.toml").is_file():
        sampled = microscopic(config.run, given, progress)
    else:
        return None
    bins = config.bins
    if is_surface_run(config.run) or any(is_surface_run(one) for one in config.also):
        bins = _bins_of_surfaces(config, given)
    return free_energy_surface_of(sampled, default_grid(sampled, bins)), sampled


def _bins_of_surfaces(config: FesConfig, given: Coordinates) -> int:
    """Return the number of bins of the fitted surfaces, which have their own."""
    for path in (config.run, *config.also):
        if is_surface_run(path):
            n = any_free_energy_surface(path, given, None, config.bins)[0].grid.shape[0]
            if config.bins not in (n, BINS):
                raise InputError(f"{path} has a surface of {n} bins, not {config.bins}")
            return n
    return config.bins


def _check_alike(landscapes: list[FreeEnergySurface]) -> None:
    first = landscapes[0]
    for other in landscapes[1:]:
        same = other.grid.shape == first.grid.shape and all(
            np.allclose(a, b, atol=1e-6)
            for a, b in zip(first.grid.edges, other.grid.edges, strict=True)
        )
        if not same:
            raise InputError(
                f"{other.source} has bins of {other.grid.shape} over {', '.join(other.names)}, "
                f"{first.source} of {first.grid.shape} over {', '.join(first.names)}: make both "
                f"with the same --cv and --bins"
            )


def _check_common(landscapes: list[FreeEnergySurface], frames: list[CVSamples | None]) -> None:
    """Refuse surfaces that know no bin, or none that the first one knows as well.

    Raises
    ------
    InputError
        Tells where the frames of both are.
    """
    first = landscapes[0]
    for other, sampled in zip(landscapes, frames, strict=True):
        if (np.isfinite(other.value) & np.isfinite(first.value)).any():
            continue
        apart = [
            f"{name} is {_range(first, frames[0], k)} {unit} in {first.source} and "
            f"{_range(other, sampled, k)} {unit} in {other.source}"
            for k, (name, unit) in enumerate(zip(first.names, first.units, strict=True))
        ]
        raise InputError(
            f"the surfaces of {first.name} and {other.name} have no bin in common: "
            f"{'; '.join(apart)}; are these the same coordinates?"
        )


def _range(landscape: FreeEnergySurface, sampled: CVSamples | None, k: int) -> str:
    """Return from where to where a coordinate goes, by its frames or by the bins that are known."""
    if sampled is not None:
        values = sampled.values[:, k]
        return f"{values.min():.4g} to {values.max():.4g}"
    known = np.isfinite(landscape.value).any(axis=1 - k)
    edges = landscape.grid.edges[k]
    seen = [*edges[:-1][known], *edges[1:][known]]
    return f"{min(seen):.4g} to {max(seen):.4g}" if seen else "nowhere"


def _distances(
    landscapes: list[FreeEnergySurface],
    frames: list[CVSamples | None],
    regions: dict[str, Rectangle],
) -> tuple[Distance, ...]:
    found = []
    for landscape, sampled in zip(landscapes[1:], frames[1:], strict=True):
        if frames[0] is not None and sampled is not None:
            metrics = metrics_of(sampled, frames[0])
        else:
            metrics = metrics_of_surfaces(landscape, landscapes[0])
        found.append(distance(landscape, landscapes[0], regions, metrics))
    return tuple(found)


def _halves(
    landscapes: list[FreeEnergySurface],
    frames: list[CVSamples | None],
    regions: dict[str, Rectangle],
) -> tuple[Distance, ...]:
    return tuple(
        distance_of_halves(replace(sampled, name=landscape.name), landscape.grid, regions)
        for landscape, sampled in zip(landscapes, frames, strict=True)
        if sampled is not None and len(sampled.values) >= FEWEST_FRAMES
    )


def _apart(
    landscapes: list[FreeEnergySurface],
    frames: list[CVSamples | None],
    regions: dict[str, Rectangle],
) -> Iterator[str]:
    """Yield what is to be said of surfaces with regions that no data join."""
    for landscape, sampled in zip(landscapes, frames, strict=True):
        named = None if sampled is None else replace(sampled, name=landscape.name)
        if named is not None and (line := apart_in_words(named, regions)):
            yield line


def _told_apart(landscapes: list[FreeEnergySurface]) -> list[FreeEnergySurface]:
    """Return surfaces without two of one name."""
    named: list[FreeEnergySurface] = []
    for one in landscapes:
        used = {other.name for other in named}
        name, k = one.name, 2
        while name in used:
            name, k = f"{one.name} ({k})", k + 1
        named.append(replace(one, name=name))
    return named


def _are_backbone(landscape: FreeEnergySurface) -> bool:
    return tuple(name.split()[0] for name in landscape.names) == AXES


def _default_output(run: Path) -> Path:
    return run / "fes" if run.is_dir() else run.parent / f"{run.stem}-fes"
