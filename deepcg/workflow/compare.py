"""``deepcg compare``: the samples of models against the microscopic trajectory."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepcg.analysis.structure import (
    Agreement,
    Comparison,
    Scalar,
    TrajectorySet,
    compare_structures,
    model_pressure,
)
from deepcg.analysis.structure.report import TrainingSummary, write_report
from deepcg.analysis.structure.stein_checks import SteinChecks, check
from deepcg.analysis.style import check_formats
from deepcg.atomistic.pressure import molecular_pressures
from deepcg.atomistic.system import read_system
from deepcg.dynamics.samples import read_samples, trajectories_in
from deepcg.potentials.model_file import load_model
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import check_place
from deepcg.runtime.progress import Progress, silent
from deepcg.runtime.provenance import file_hash
from deepcg.training.quality import quality_from_json
from deepcg.trajectory.formats import time_note
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.reader import Trajectory, iter_frames
from deepcg.units import thermal_energy
from deepcg.workflow.dataset.beads import DataConfig, map_positions, open_data, used_frames
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.fit.run_folder import fit_config_of
from deepcg.workflow.fit.vouched_files import config_with_data_of
from deepcg.workflow.fit_errors import errors_in_words, structure_errors, write_errors
from free_energy import Estimate, block_average

PRESSURE_FRAMES = 256
"""Of the microscopic trajectory, evenly spaced: two energies each."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CompareConfig:
    """Compare the samples of a model with the microscopic trajectory that it was fitted to.

    Parameters
    ----------
    run
        Folder with a fit and its samples.
    also
        Other such folders, of the same beads, to show beside it (a baseline, say).
    reference
        Microscopic trajectory; by default the one that the model was fitted to.
    skip_frames
        Frames of the reference to leave out: numbers and ranges from 0, such as 0,5,100-200; by
        default those that the fit left out of the same file.
    bonds
        Bonds of the reference beside those of its topology: auto, guess or none, as of deepcg fit;
        by default as the model was fitted.
    frame_ps
        Time between frames of the reference, ps; by default what its file says.
    cutoff
        Edge of the first shell, nm; by default the first minimum of the reference's g(r).
    name
        What to call the model in legends; by default after its network.
    output
        Folder for the report; by default RUN/report.
    trust
        Open the files that RUN/config.toml names outside of its folder although they are not those
        of RUN/run.json: of runs whose maker you trust.
    figures
        Formats of the files of figures: png, svg, pdf.
    """

    run: Path
    also: tuple[Path, ...] = ()
    reference: Path | None = None
    skip_frames: str | None = None
    bonds: str | None = None
    frame_ps: float | None = None
    cutoff: float | None = None
    name: str | None = None
    output: Path | None = None
    trust: bool = False
    figures: tuple[str, ...] = ("png",)

    def __post_init__(self) -> None:
        check_formats(self.figures)


def compare(
    config: CompareConfig,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Write report.html, report.json and figures; tell a verdict per observable.

    Raises
    ------
    InputError
        If there are no samples, or the reference is not where it was.
    """
    if config.frame_ps is not None and not config.frame_ps > 0:
        raise InputError(f"frame_ps is {config.frame_ps}: it must be positive")
    output = config.run / "report" if config.output is None else config.output
    check_place(output)
    own = config.reference is None
    fitted = (
        config_with_data_of(config.run, trust=config.trust) if own else fit_config_of(config.run)
    )
    models = [
        samples_of(run, config.name if run == config.run else None)
        for run in (config.run, *config.also)
    ]
    source, data = _open_reference(config, fitted)
    reference = _reference(source, data, config.frame_ps, models[0].type_names, progress)
    pressures = _pressures((config.run, *config.also), source, models)
    comparison = compare_structures(reference, models, cutoff=config.cutoff, further=[pressures])
    checks = {
        ensemble.name: _checked(run, reference)
        for run, ensemble in zip((config.run, *config.also), models, strict=True)
    }
    write_report(
        comparison,
        output,
        checks=checks,
        training=training_of(config.run),
        provenance=_provenance(config.run),
        formats=config.figures,
    )
    for observable in comparison.observables:
        for agreement in observable.agreements:
            tell(_of_model(agreement, len(models)))
    for line in (*comparison.motion_in_words(), *comparison.summaries):
        tell(line)
    for name, checked in checks.items():
        tell(f"{name}: {checked.verdict}")
    errors = structure_errors(config.run, comparison)
    if errors:
        write_errors(errors, output / "errors.json")
    for observable in comparison.observables:
        if observable.name in errors:
            tell(errors_in_words(observable, errors[observable.name]))
    tell(f"report: {output / 'report.html'}")
    return comparison


def _of_model(agreement: Agreement, n_models: int) -> str:
    """Return a verdict, with the name of the model where there are several."""
    return agreement.verdict if n_models == 1 else f"{agreement.model}: {agreement.verdict}"


def samples_of(run: Path, name: str | None = None) -> TrajectorySet:
    """Return the samples in a run folder.

    Raises
    ------
    InputError
        If there are none, the run that writes them has not ended, or the model is not of beads.
    """
    model = load_model(run)
    folder = run / "samples"
    if not all((folder / name).is_file() for name in ("summary.json", "sample.json")):
        raise InputError(f"{run} has no finished samples: run 'deepcg sample {run}' first")
    if (folder / "bias.npz").is_file():
        raise InputError(f"the samples in {folder} are biased: weigh them with 'deepcg fes {run}'")
    summary = json.loads((folder / "summary.json").read_text())
    if json.loads((folder / "sample.json").read_text())["model"] != file_hash(run / "model.pt"):
        raise InputError(f"the samples in {folder} are of another model than {run / 'model.pt'}")
    types = model.potential.types
    replicas = [Frames(*read_samples(path), None, types) for path in trajectories_in(folder)]
    return TrajectorySet(
        name or f"CG, {model.architecture.network}",
        replicas,
        float(summary["interval_ps"]),
        f"{run.name}/samples",
        model.type_names,
        float(summary["ns_per_day"]),
    )


def training_of(run: Path) -> TrainingSummary | None:
    """Return what the fit in a run folder left behind, for the report."""
    results, metrics = run / "run.json", run / "metrics.jsonl"
    if not (results.is_file() and metrics.is_file()):
        return None
    quality = quality_from_json(json.loads(results.read_text())["quality"])
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return TrainingSummary(lines, quality.noise_floor, quality.table(), quality.in_words())


def _open_reference(config: CompareConfig, fitted: FitConfig) -> tuple[Trajectory, DataConfig]:
    """Return the microscopic trajectory, and how its frames are used."""
    path = config.reference or fitted.trajectory
    if not path.exists():
        raise InputError(f"the reference {path} is not there: give --reference FILE")
    bonds = config.bonds or fitted.data.bonds
    data = replace(fitted.data, forces=None, bonds=bonds)
    if config.reference is not None:  # another file: what belongs to it is beside it
        data = DataConfig(
            map=fitted.data.map, units=fitted.data.units, bonds=bonds, box=fitted.data.box
        )
    if config.skip_frames is not None:
        data = replace(data, skip_frames=config.skip_frames)
    return open_data(path, data, fitted.temperature), data


def _reference(
    source: Trajectory,
    data: DataConfig,
    frame_ps: float | None,
    type_names: tuple[str, ...],
    progress: Progress,
) -> TrajectorySet:
    path = source.trajectory
    beads = map_positions(source, data, progress)
    note = time_note(source.recording)
    if note is not None:
        _log.warning("%s: %s", path, note)
    step = source.frame_time if frame_ps is None else frame_ps
    if step is not None and len(np.unique(np.diff(used_frames(source, data)))) > 1:
        _log.warning(
            "%s: --skip-frames %s leaves gaps in time: nothing is said about the dynamics of the "
            "reference",
            path,
            data.skip_frames,
        )
        step = None
    return TrajectorySet(
        "microscopic",
        [beads.frames],
        None if step is None else step * data.stride,
        path.name,
        type_names,
        _microscopic_speed(path),
    )


def _pressures(runs: Sequence[Path], source: Trajectory, models: Sequence[TrajectorySet]) -> Scalar:
    """Return the pressure of the microscopic model and of every other, where it can be known."""
    loaded = [load_model(run) for run in runs]
    own = tuple(
        model_pressure(model.potential, ensemble, model.temperature)
        for model, ensemble in zip(loaded, models, strict=True)
    )
    microscopic = _microscopic_pressure(source, loaded[0].temperature)
    return Scalar("pressure", "bar", microscopic, own, (None,) * len(own))


def _microscopic_pressure(source: Trajectory, temperature: float) -> Estimate[float] | None:
    """Return the pressure, bar, of up to 256 frames; ``None`` where the System is not known."""
    if source.system is None or source.atoms is not None:
        return None
    system = read_system(source.system, trust=source.trust)
    if not system.usesPeriodicBoundaryConditions():
        return None
    step = -(-source.n_frames // PRESSURE_FRAMES)
    series = []
    for frames in iter_frames(source, chunk=step, with_forces=False):
        if frames.box is None:
            return None
        places = frames.positions[:1].double().numpy(), frames.box[:1].double().numpy()
        series.append(molecular_pressures(system, *places, source.graph.molecules, temperature))
    mean = block_average(np.concatenate(series))
    return Estimate(float(mean.value), float(mean.error))


def _checked(run: Path, reference: TrajectorySet) -> SteinChecks:
    model = load_model(run)
    kT = thermal_energy(model.temperature)
    return check(model.potential, reference.replicas[0], kT, model.type_names)


def _microscopic_speed(trajectory: Path) -> float | None:
    """Return ns/day from the log beside a trajectory, if there is one."""
    log = trajectory.with_suffix(".log.csv")
    if not log.is_file():
        return None
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    column = next((name for name in (rows[0] if rows else {}) if "ns_day" in name), None)
    return None if column is None else float(np.median([float(row[column]) for row in rows]))


def _provenance(run: Path) -> dict[str, dict[str, str]]:
    tables: dict[str, dict[str, Any]] = {}
    if (run / "run.json").is_file():
        saved = json.loads((run / "run.json").read_text())
        tables["Data"] = {"trajectory": saved["trajectory"], **saved["hashes"]}
        tables["Fit"] = {k: saved[k] for k in ("frames", "parameters", "seed", "estimator")}
    tables["Model"] = {"model.pt": file_hash(run / "model.pt")}
    return {name: {k: str(v) for k, v in table.items()} for name, table in tables.items()}
