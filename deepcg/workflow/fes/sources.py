"""Where free-energy surfaces come from: run folders, samples, trajectories, files of surfaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import mdtraj
import numpy as np
import torch

from deepcg.analysis.surfaces.estimates import (
    CVSamples,
    free_energy_surface_of,
    periods_span_a_turn,
)
from deepcg.analysis.surfaces.mbar_weights import bias_at
from deepcg.analysis.surfaces.member_errors import with_fit_error
from deepcg.analysis.surfaces.surface import FreeEnergySurface, edges_of, load_free_energy_surface
from deepcg.atomistic.alanine.torsion_bias import checked_table
from deepcg.dynamics.samples import read_samples, trajectories_in
from deepcg.geometry.periodic import shortest
from deepcg.mapping.collective_variables import CollectiveVariables, build_variables
from deepcg.potentials.model_file import CVModel, load_any
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import read_arrays
from deepcg.runtime.progress import Progress, silent
from deepcg.trajectory.bias_weights import UNBIASED
from deepcg.trajectory.frames import CVFrames
from deepcg.trajectory.reader import Trajectory
from deepcg.units import thermal_energy
from deepcg.workflow.dataset.beads import DataConfig, map_positions, open_all, read_used
from deepcg.workflow.dataset.collective_variables import map_sources
from deepcg.workflow.fes.counting import Counting, labels_as_given, sites_in
from deepcg.workflow.fit.run_folder import fit_config_of
from deepcg.workflow.fit.vouched_files import config_with_data_of
from deepcg.workflow.members import member_energies
from free_energy import Grid, Replicates
from free_energy.mbar import mbar_weights

ROUNDING = 1e-2
"""kT, by which a bias in a file in single precision may differ from its table."""


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Which coordinates, and what the trajectories have where no run says it.

    ``beads`` is the map whose beads the numbers in ``cv`` count; ``None``: they count atoms.
    """

    cv: str
    topology: Path | None
    temperature: float
    biases: Mapping[Path, str] = field(default_factory=dict)
    skip_frames: str | None = None
    bonds: str | None = None
    beads: str | None = None
    trust: bool = False


def microscopic(run: Path, given: Coordinates, progress: Progress = silent) -> CVSamples:
    """Return the frames that a run was fitted to, with forces on the coordinates.

    Raises
    ------
    InputError
        They are gone, or not those that the run was fitted to, and are not trusted.
    """
    config = config_with_data_of(run, trust=given.trust)
    bonds = given.bonds or config.data.bonds
    data = replace(config.data, map=given.cv, estimator="least-noise", bonds=bonds)
    paths = (config.trajectory, *data.also)
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}, which {run} was fitted to, is gone: give --reference")
    return _frames(paths, data, given.beads, config.temperature, "microscopic", run, progress)


def trajectories(
    paths: tuple[Path, ...], given: Coordinates, progress: Progress = silent
) -> CVSamples:
    """Return the frames of trajectories, with forces if they are beside all of them."""
    biases = tuple(given.biases.get(path, UNBIASED) for path in paths)
    data = DataConfig(
        map=given.cv,
        topology=given.topology,
        also=paths[1:],
        bias=biases if given.biases else (),
        skip_frames=given.skip_frames,
        bonds=given.bonds or "auto",
    )
    name, folder = paths[0].stem, paths[0].parent
    return _frames(paths, data, given.beads, given.temperature, name, folder, progress)


def samples(run: Path, cv: str, name: str | None = None, *, trust: bool = False) -> CVSamples:
    """Return the frames of a model's samples, with weights where they were biased.

    Numbers in ``cv`` count beads; ``@3`` is the bead on atom 3.

    Raises
    ------
    InputError
        There are none, they are not whole, or the beads do not have the coordinates.
    """
    folder = run / "samples"
    topology_file, files = folder / "topology.pdb", trajectories_in(folder)
    if not topology_file.is_file() or not files:
        raise InputError(f"{run} has no samples: make them with 'deepcg sample {run}'")
    if not (folder / "summary.json").is_file():
        raise InputError(f"the samples of {run} are not complete: give 'deepcg sample' --resume")
    counted = Counting.of_run(run, trust=trust).on_beads(cv) if "@" in cv else cv
    beads = mdtraj.load_topology(str(topology_file))
    variables = build_variables(counted, beads, of_beads=True)
    values = [_values_of(variables, *read_samples(file)) for file in files]
    weights = _weights_of(folder, [len(part) for part in values])
    frames = tuple(
        CVFrames(part.double(), None, weight) for part, weight in zip(values, weights, strict=True)
    )
    config = fit_config_of(run)
    return CVSamples(
        name or f"CG, {config.data.map}",
        labels_as_given(variables.names, cv, counted),
        variables.units,
        variables.periods,
        frames,
        config.temperature,
        f"{run.name}/samples",
        on_one_scale=_under_springs(folder),
    )


def fitted(run: Path, name: str | None = None) -> FreeEnergySurface:
    """Return U of a run on collective variables, as its surface.npz has it.

    Raises
    ------
    InputError
        The file is not there, or of an older version.
    """
    path = run / "surface.npz"
    config = fit_config_of(run)
    try:
        file = read_arrays(path)
        names = tuple(str(key) for key in file["names"])
        periods = tuple(None if np.isnan(p) else float(p) for p in file["periods"])
        members = file["members"].astype(float)
        edges = tuple(edges_of(file[key]) for key in names)
        n, energy = len(members), file["U"].astype(float)
        return FreeEnergySurface(
            name or "U from the mean force",
            names,
            tuple(str(unit) for unit in file["units"]),
            Grid(edges, periods),
            Replicates(energy, members, float(np.sqrt(n / (n - 1))) if n > 1 else 1.0),
            config.temperature,
            f"{run.name}/surface.npz",
            int(file["frames"].sum()),
            parts=_part_of_training(energy, file.get("starts")),
        )
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} has no surface to compare ({error}): fit {run} anew") from error


def _part_of_training(energy: Doubles, starts: Doubles | None) -> dict[str, Replicates]:
    """Return the fits to all frames, U (*grid) and others (n, *grid); files of old have none."""
    if starts is None or not len(starts):
        return {}
    alike = np.concatenate([energy[None], starts.astype(float)])
    return {"training": Replicates(energy, alike, float(np.sqrt(len(alike) / (len(alike) - 1))))}


def is_surface_run(path: Path) -> bool:
    """Return whether a path is a run on collective variables."""
    model = path / "model.pt"
    return model.is_file() and isinstance(load_any(model), CVModel)


def any_free_energy_surface(
    path: Path, given: Coordinates, grid: Grid | None, n_bins: int, progress: Progress = silent
) -> tuple[FreeEnergySurface, CVSamples | None]:
    """Return the surface of a run folder, of a file of a surface or of a trajectory.

    Parameters
    ----------
    grid
        For frames, which have none of their own; ``None``: ``n_bins`` of each coordinate.
    """
    if path.is_dir() and is_surface_run(path):
        return fitted(path), None
    is_run = path.is_dir() and (path / "config.toml").is_file()
    if is_run:
        sampled = samples(path, given.cv, trust=given.trust)
    elif path.name.endswith("fes.npz"):
        return load_free_energy_surface(path), None
    else:
        sampled = trajectories((path,), given, progress)
    if grid is not None:
        _check_inside(sampled, grid)
    landscape = free_energy_surface_of(sampled, grid or default_grid(sampled, n_bins))
    return (_with_members(landscape, sampled, path) if is_run else landscape), sampled


def _with_members(landscape: FreeEnergySurface, sampled: CVSamples, run: Path) -> FreeEnergySurface:
    """Return the surface of samples with the error of the fit, if the run is an ensemble."""
    known = member_energies(run, [read_samples(file) for file in trajectories_in(run / "samples")])
    if known is None:
        return landscape
    return with_fit_error(
        landscape, sampled, known.energies, known.sources, resampled=known.resampled
    )


def _check_inside(sampled: CVSamples, grid: Grid) -> None:
    """Refuse frames of which none is where the bins of the first surface are."""
    inside = np.ones(len(sampled.values), bool)
    for column, edges, period in zip(sampled.values.T, grid.edges, grid.periods, strict=True):
        inside &= (period is not None) | ((column >= edges[0]) & (column <= edges[-1]))
    if inside.any():
        return
    apart = [
        f"{name} is {edges[0]:.4g} to {edges[-1]:.4g} {unit} there and "
        f"{column.min():.4g} to {column.max():.4g} {unit} here"
        for name, unit, edges, column in zip(
            sampled.names, sampled.units, grid.edges, sampled.values.T, strict=True
        )
    ]
    raise InputError(
        f"{sampled.source} has no frame in the bins of the first surface: {'; '.join(apart)}; are "
        "these the same coordinates?"
    )


def default_grid(sampled: CVSamples, n_bins: int) -> Grid:
    """Return bins over whole periods, or over what the frames span."""
    edges = []
    for column, period in zip(sampled.values.T, sampled.periods, strict=True):
        low, high = (column.min(), column.max()) if period is None else (-period / 2, period / 2)
        edges.append(np.linspace(low, high, n_bins + 1))
    return Grid(tuple(edges), sampled.periods)


def _frames(
    paths: tuple[Path, ...],
    data: DataConfig,
    beads: str | None,
    temperature: float,
    name: str,
    folder: Path,
    progress: Progress,
) -> CVSamples:
    data, given = replace(data, also=paths[1:]), data.map
    sources = open_all(paths[0], data, temperature)
    counting = Counting.of(beads, sources[0]) if beads is not None and sites_in(given) else None
    counted = given if counting is None else counting.on_atoms(given)
    if counting is not None and counted is None:
        counted = counting.on_beads(given)
        variables, trajectories = _of_beads(sources, data, counting.map, counted, progress)
    else:
        data = replace(data, map=counted or given)
        variables, trajectories = _of_atoms(sources, data, temperature, folder, progress)
    names = labels_as_given(variables.names, given, counted or given)
    source = ", ".join(dict.fromkeys(path.name for path in paths))
    whole = CVSamples(
        name, names, variables.units, variables.periods, trajectories, temperature, source
    )
    return _on_one_scale(whole, [_bias_table(path) for path in paths])


def _of_atoms(
    sources: Sequence[Trajectory],
    data: DataConfig,
    temperature: float,
    folder: Path,
    progress: Progress,
) -> tuple[CollectiveVariables, tuple[CVFrames, ...]]:
    """Return coordinates of atoms and their frames, with forces where these are in files."""
    through_box = sources[0].graph.through_box
    variables = build_variables(data.map, sources[0].topology, through_box=through_box)
    _check_two(variables, data.map)
    if all(_has_forces(source) for source in sources):
        return variables, map_sources(sources, data, temperature, folder, progress).trajectories
    return variables, tuple(_values(source, data, variables, progress) for source in sources)


def _of_beads(
    sources: Sequence[Trajectory], data: DataConfig, beads: str, counted: str, progress: Progress
) -> tuple[CollectiveVariables, tuple[CVFrames, ...]]:
    """Return coordinates of beads that are means over atoms, and their frames without forces."""
    mapped = [map_positions(source, replace(data, map=beads), progress) for source in sources]
    variables = build_variables(counted, mapped[0].topology, of_beads=True)
    _check_two(variables, counted)
    return variables, tuple(
        CVFrames(_values_of(variables, one.frames.positions, one.frames.box), None, weights)
        for one in mapped
        for weights in (one.frames.weights,)
    )


def _check_two(variables: CollectiveVariables, name: str) -> None:
    if len(variables.names) != 2:
        raise InputError(
            f"{name!r} are {len(variables.names)} coordinates ({', '.join(variables.names)}): "
            f"a surface has two, give --cv"
        )


def _values_of(
    variables: CollectiveVariables, positions: torch.Tensor, box: torch.Tensor | None
) -> torch.Tensor:
    """Return the values (n, d), in double precision, of frames (n, n_sites, 3), nm."""
    return variables(positions.double(), None if box is None else box.double())


def _bias_table(path: Path) -> Doubles | None:
    """Return the table of a bias that is beside frames, as ``simulate alanine`` writes it."""
    if path.suffix != ".npz":
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return checked_table(path, arrays["bias_grid"]) if "bias_grid" in arrays else None


def _on_one_scale(sampled: CVSamples, tables: list[Doubles | None]) -> CVSamples:
    """Return frames whose weights are comparable, if the tables are those of their coordinates."""
    known = tuple(table for table in tables if table is not None)
    if not periods_span_a_turn(sampled.periods):
        return sampled
    kT = thermal_energy(sampled.temperature)
    pairs = zip(sampled.trajectories, known, strict=False)
    if len(known) < len(tables) or not all(_explains(table, part, kT) for part, table in pairs):
        return sampled
    sampled = replace(sampled, tables=known)
    try:
        weigh, _ = sampled.weighting()
    except ValueError as error:
        raise InputError(f"the biases of {sampled.source} cannot be undone: {error}") from error
    ends = np.cumsum([len(part) for part in sampled.trajectories])
    weights = np.split(weigh(np.ones(ends[-1])), ends[:-1])
    parts = [
        replace(part, weights=torch.from_numpy(weight))
        for part, weight in zip(sampled.trajectories, weights, strict=True)
    ]
    return replace(sampled, trajectories=tuple(parts))


def _explains(table: Doubles, frames: CVFrames, kT: float) -> bool:
    """Return whether a bias at the values of frames is what their weights undo."""
    if frames.weights is None:
        return False
    found = np.log(frames.weights.numpy()) - bias_at(table, frames.values.double().numpy()) / kT
    return bool(found.std() < ROUNDING)


def _has_forces(source: Trajectory) -> bool:
    """Return whether forces are in a file already: none are computed for a surface."""
    return source.forces is not None


def _values(
    source: Trajectory, data: DataConfig, variables: CollectiveVariables, progress: Progress
) -> CVFrames:
    chunks = read_used(source, data, progress, with_forces=False)
    parts = [
        CVFrames(variables(atoms.positions, atoms.box).double(), None, atoms.weights)
        for atoms in chunks
    ]
    if not parts:
        raise InputError(f"{source.trajectory}: --start and --stop leave no frames")
    return CVFrames.join(parts)


def _under_springs(folder: Path) -> bool:
    """Return whether the samples in a folder are of umbrella sampling."""
    return (folder / "bias.npz").is_file() and "centres" in read_arrays(folder / "bias.npz")


def _weights_of(folder: Path, lengths: list[int]) -> list[torch.Tensor | None]:
    """Return the weights of the frames of each replica: none where there was no bias."""
    path = folder / "values.npz"
    if not path.is_file():
        return [None] * len(lengths)
    saved = read_arrays(path)
    bias, values = saved["bias"].astype(float), saved["values"].astype(float)
    periods = saved["periods"]
    if bias.shape != (len(lengths), lengths[0]):
        raise InputError(
            f"{path} is of {bias.shape} replicas and frames, the trajectories are of "
            f"{(len(lengths), lengths[0])}: give 'deepcg sample' --resume"
        )
    saved = read_arrays(folder / "bias.npz")
    kT = thermal_energy(float(saved["temperature"]))
    windows = {key: saved[key].astype(float) for key in ("centres", "springs") if key in saved}
    if windows:
        flat = _umbrella_weights(values, periods, windows["centres"], windows["springs"], kT)
    else:
        flat = np.exp((bias - bias.max()) / kT).ravel()
    flat = flat / flat.mean()
    return list(torch.from_numpy(flat.reshape(bias.shape)))


def _umbrella_weights(
    values: Doubles, periods: Doubles, centers: Doubles, springs: Doubles, kT: float
) -> Doubles:
    """Return the weights (n_replicas * n_frames,) of frames under springs: MBAR."""
    n_replicas, n_frames, d = values.shape
    apart = values.reshape(1, -1, d) - centers[:, None]
    apart = shortest(apart, [None if np.isnan(period) else period for period in periods])
    constants = np.broadcast_to(springs, (n_replicas, d))
    bias = 0.5 * (constants[:, None] * apart**2).sum(-1) / kT
    places = [", ".join(f"{x:.3g}" for x in center) for center in centers]
    names = [f"the window at {place} (replica {k + 1})" for k, place in enumerate(places)]
    try:
        return mbar_weights(bias, [n_frames] * n_replicas, names=names)
    except ValueError as error:
        raise InputError(f"the springs of the samples cannot be undone: {error}") from error
