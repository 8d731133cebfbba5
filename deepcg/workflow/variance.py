"""``deepcg variance``: where an ensemble knows the free energy, and where it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mdtraj
import numpy as np
import torch

from deepcg.analysis.style import check_formats
from deepcg.analysis.uncertainty.calibration import calibrate
from deepcg.analysis.uncertainty.report import Checked, Findings, write_findings
from deepcg.analysis.uncertainty.spread import BeadSpread, SurfaceDeviation, surface_spread
from deepcg.compute.device import device_of
from deepcg.dynamics.samples import read_samples, trajectories_in
from deepcg.forces.mean_force_labels import are_labels, load_labels
from deepcg.geometry.neighbor_list import find_pairs
from deepcg.potentials.ensemble import (
    EnsemblePotential,
    SurfaceEnsemble,
    load_members,
    model_deviation,
)
from deepcg.potentials.model_file import CVModel, Model
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import check_place, make_folder, read_arrays, replacing
from deepcg.runtime.progress import Progress, silent
from deepcg.trajectory.frames import Frames
from deepcg.units import thermal_energy
from deepcg.workflow.dataset.beads import map_positions, open_data
from deepcg.workflow.fes.sources import fitted
from deepcg.workflow.fit.run_folder import fit_config_of
from deepcg.workflow.fit.vouched_files import config_with_data_of
from free_energy import Estimate

CHUNK = 25
"""Frames of beads that are evaluated at a time."""


@dataclass(frozen=True, slots=True)
class VarianceConfig:
    """Where an ensemble knows the free energy: the model deviation of its members.

    Parameters
    ----------
    run
        Folder of a fit with two members or more (deepcg fit --ensemble 4).
    frames
        How many frames of each source are evaluated, for beads.
    largest
        How many frames of largest spread are written, for beads.
    reference
        A reference for the mean force, to tell how large errors are for a spread: labels of deepcg
        label --restrain, or, for collective variables, a run on frames that this one has not seen,
        whose mean forces in bins are taken.
    output
        Folder for report.html, figures and numbers; by default RUN/variance.
    trust
        Open the files that RUN/config.toml names outside of its folder although they are not those
        of RUN/run.json: of runs whose maker you trust.
    figures
        Formats of the files of figures: png, svg, pdf.
    threads
        CPU threads; by default all cores.
    """

    run: Path
    frames: int = 400
    largest: int = 10
    reference: Path | None = None
    output: Path | None = None
    trust: bool = False
    figures: tuple[str, ...] = ("png",)
    threads: int | None = None

    def __post_init__(self) -> None:
        check_formats(self.figures)
        for name in ("frames", "largest"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give 1 or more")


def variance(
    config: VarianceConfig,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> Findings:
    """Write a map or a distribution of the spread, with figures; tell how large it is.

    Raises
    ------
    InputError
        The run has a single member, or data of it are gone.
    """
    device_of("cpu", config.threads)
    output = config.output or config.run / "variance"
    check_place(output)
    members = load_members(config.run)
    if len(members) < 2:
        raise InputError(
            f"{config.run} has one member, and no spread: add some by 'deepcg fit --ensemble 4 "
            f"--resume' with the settings in {config.run / 'config.toml'}"
        )
    surfaces = [model for model in members if isinstance(model, CVModel)]
    if surfaces:
        found = _of_surfaces(config, surfaces)
    else:
        beads = [model for model in members if isinstance(model, Model)]
        found = _of_beads(config, beads, output, progress)
    page = write_findings(found, output, config.figures)
    for line in found.lines():
        tell(line)
    if found.checked is not None:
        tell(found.checked.in_words())
    tell(f"report: {page}")
    return found


def spread_of_surfaces(run: Path, models: Sequence[CVModel]) -> SurfaceDeviation:
    """Return the spread of a run on one or two collective variables over its bins.

    Raises
    ------
    InputError
        There are more coordinates, or no surface was written.
    """
    known = fitted(run)
    saved = read_arrays(run / "surface.npz")
    return surface_spread(
        [model.potential for model in models],
        known.grid,
        saved["frames"],
        mean_force=Estimate(saved["mean_force"], saved["mean_force_error"]),
        names=known.names,
        units=known.units,
        kT=thermal_energy(known.temperature),
        temperature=known.temperature,
        source=known.source,
    )


def _of_surfaces(config: VarianceConfig, models: Sequence[CVModel]) -> Findings:
    if len(models[0].names) > 2:
        raise InputError(
            f"{config.run} is of {len(models[0].names)} coordinates: a map has two at most"
        )
    spread = spread_of_surfaces(config.run, models)
    checked = None if config.reference is None else _check_surfaces(models, config.reference)
    return Findings(
        config.run.name,
        len(models),
        fit_config_of(config.run).members.resample,
        surface=spread,
        checked=checked,
    )


def _check_surfaces(models: Sequence[CVModel], path: Path) -> Checked:
    """Compare the mean of the members with mean forces that were not used to fit them."""
    if are_labels(path):
        labels = load_labels(path)
        values, forces, errors = labels.coordinates, labels.forces, labels.errors
        what = f"{len(values)} mean forces of restrained dynamics in {path.name}"
    else:
        values, forces, errors = _bin_forces(path, models[0].names)
        what = f"mean forces in {len(values)} bins of {path.name}"
    ensemble = SurfaceEnsemble([model.potential for model in models])
    points = torch.as_tensor(values).to(models[0].potential.center)
    spread = ensemble.deviations(points).double().detach().numpy()
    error = ensemble.forces(points)[1].double().detach().numpy() - forces
    unit = f"kJ/mol/{models[0].units[0]}"
    return Checked(calibrate(error, spread, errors), error, spread, unit, what)


def _bin_forces(run: Path, names: tuple[str, ...]) -> tuple[Doubles, Doubles, Doubles]:
    """Return centers (n, d), mean forces (n, d) and their errors in bins with enough frames."""
    known = fitted(run)
    if known.names != names:
        raise InputError(f"{run} is of {', '.join(known.names)}, not of {', '.join(names)}")
    saved = read_arrays(run / "surface.npz")
    force, error = saved["mean_force"], saved["mean_force_error"]
    enough = (saved["frames"] >= 10) & np.isfinite(force + error).all(-1)
    centers = np.stack(np.meshgrid(*known.grid.centers, indexing="ij"), -1)
    return centers[enough], force[enough], error[enough]


def _of_beads(
    config: VarianceConfig, models: Sequence[Model], output: Path, progress: Progress
) -> Findings:
    ensemble = EnsemblePotential([model.potential.requires_grad_(False) for model in models])
    sources = {"microscopic frames": _microscopic(config)}
    own = _own_samples(config)
    if own is not None:
        sources["own samples"] = own
    topology = mdtraj.load_topology(str(config.run / "beads.pdb"))
    make_folder(output)
    spreads, written = [], {}
    for name, (frames, source) in sources.items():
        told: Progress = lambda done, total, what, name=name: progress(done, total, name)  # type: ignore[misc]
        spread = _spread_in(frames, ensemble, models[0], name, source, told)
        spreads.append(spread)
        stem = f"largest-{name.split()[0]}"
        _write_largest(output / stem, frames, spread, topology, config.largest)
        written[f"{stem}.dcd, {stem}.pdb"] = (
            f"{min(config.largest, len(frames))} frames of largest spread of the {name}, the "
            f"largest first; in the PDB file, of the first alone, Sigma is in the B-factors, in "
            f"percent of the rms mean force"
        )
    return Findings(
        config.run.name,
        len(models),
        fit_config_of(config.run).members.resample,
        beads=tuple(spreads),
        checked=None if config.reference is None else _check_beads(ensemble, config.reference),
        files=written,
    )


def _microscopic(config: VarianceConfig) -> tuple[Frames, str]:
    fitted_to = config_with_data_of(config.run, trust=config.trust)
    path = fitted_to.trajectory
    if not path.exists():
        raise InputError(f"{path}, which {config.run} was fitted to, is gone")
    if are_labels(path):
        labels = load_labels(path)
        box = None if labels.box is None else torch.from_numpy(labels.box).float()
        positions = torch.from_numpy(labels.coordinates).float()
        return Frames(positions, box, None, labels.mapping.types), path.name
    data = replace(fitted_to.data, forces=None)
    beads = map_positions(open_data(path, data, fitted_to.temperature), data)
    return _some(beads.frames, config.frames), path.name


def _own_samples(config: VarianceConfig) -> tuple[Frames, str] | None:
    """Return frames of the samples in the run folder, if there are any."""
    files = trajectories_in(config.run / "samples")
    if not files:
        return None
    each = max(1, config.frames // len(files))
    parts = []
    for path in files:
        positions, box = read_samples(path)
        types = torch.zeros(positions.shape[1], dtype=torch.long)
        parts.append(_some(Frames(positions, box, None, types), each))
    return Frames.join(parts), f"{config.run.name}/samples"


def _some(frames: Frames, n: int) -> Frames:
    chosen = torch.linspace(0, len(frames) - 1, min(n, len(frames))).round().long()
    return frames[chosen]


def _spread_in(
    frames: Frames,
    ensemble: EnsemblePotential,
    model: Model,
    name: str,
    source: str,
    progress: Progress,
) -> BeadSpread:
    like = next(ensemble.parameters())
    spreads, means = [], []
    for start in range(0, len(frames), CHUNK):
        part = frames[start : start + CHUNK].to(like.device, like.dtype)
        pairs = find_pairs(part.positions, part.box, ensemble.cutoff).with_types(ensemble.types)
        forces = ensemble.member_forces(part.positions, pairs)[1].double()
        spreads.append(model_deviation(forces.std(0)).cpu().numpy())
        means.append(forces.mean(0).norm(dim=-1).cpu().numpy())
        progress(min(start + CHUNK, len(frames)), len(frames), name)
    return BeadSpread(
        name,
        np.concatenate(spreads),
        np.concatenate(means),
        model.potential.types.cpu().numpy(),
        model.type_names,
        source,
    )


def _write_largest(
    stem: Path, frames: Frames, spread: BeadSpread, topology: mdtraj.Topology, n: int
) -> None:
    worst = spread.largest(n)
    some = frames[torch.from_numpy(worst)]
    trajectory = mdtraj.Trajectory(some.positions.cpu().numpy(), topology)
    if some.box is not None:
        trajectory.unitcell_vectors = some.box.cpu().numpy()
    with replacing(stem.with_suffix(".dcd")) as part:
        trajectory.save_dcd(str(part))
    # the column of B-factors has room for less than 100
    factors = np.minimum(100 * spread.sigma[worst[0]] / spread.rms_force, 99.99)
    with replacing(stem.with_suffix(".pdb")) as part:
        trajectory[0].save_pdb(str(part), bfactors=factors)


def _check_beads(ensemble: EnsemblePotential, path: Path) -> Checked:
    if not are_labels(path):
        raise InputError(f"{path} has no labels: a reference for beads is of 'label --restrain'")
    labels = load_labels(path)
    like = next(ensemble.parameters())
    positions = torch.from_numpy(labels.coordinates).to(like)
    box = None if labels.box is None else torch.from_numpy(labels.box).to(like)
    pairs = find_pairs(positions, box, ensemble.cutoff).with_types(ensemble.types)
    forces = ensemble.member_forces(positions, pairs)[1].double().numpy()
    error, spread = forces.mean(0) - labels.forces, forces.std(0, ddof=1)
    what = f"{len(positions)} mean forces of restrained dynamics in {path.name}"
    return Checked(calibrate(error, spread, labels.errors), error, spread, "kJ/mol/nm", what)
