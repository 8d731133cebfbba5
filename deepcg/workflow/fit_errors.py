"""Errors of a model's structure that include the fit: of an ensemble, with their parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from deepcg.analysis.structure import Comparison, TrajectorySet
from deepcg.analysis.structure.curve import Curve, within
from deepcg.analysis.structure.local_order import local_structure
from deepcg.analysis.structure.observables import Observable
from deepcg.analysis.structure.radial import radial_distributions
from deepcg.analysis.structure.trajectory_set import FEWEST_FRAMES, Sample
from deepcg.analysis.surfaces.surface import edges_of
from deepcg.analysis.uncertainty.response import PIECES, TotalError, fit_variances, total_error
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.files import write_json
from deepcg.units import thermal_energy
from deepcg.workflow.fit.run_folder import fit_config_of
from deepcg.workflow.members import member_energies

MOST_FRAMES = 2000
"""Of the samples, evenly spaced, that members are evaluated on."""


def structure_errors(run: Path, comparison: Comparison) -> dict[str, TotalError]:
    """Return the error of each curve of the first model, by the observable, in its window.

    Empty where the run has one member, or its samples have too few frames.
    """
    thinned = _thinned(comparison.models[0].ensemble)
    frames = thinned.n_frames
    if frames < max(FEWEST_FRAMES, 4 * PIECES):
        return {}
    known = member_energies(run, [(one.positions, one.box) for one in thinned.replicas])
    if known is None:
        return {}
    kT = thermal_energy(fit_config_of(run).temperature)
    curves = _by_frame(thinned, comparison)
    found = {}
    for observable in comparison.observables:
        if observable.name not in curves:
            continue
        inside = within(observable.reference.x, observable.window)
        by_frame = curves[observable.name].blocks[:, inside]
        variances = fit_variances(
            by_frame, known.energies, known.sources, kT, resampled=known.resampled
        )
        if variances:
            found[observable.name] = total_error(observable.models[0].error[inside], variances)
    return found


def errors_in_words(observable: Observable, error: TotalError) -> str:
    """Say how large the error of a curve is, fit included."""
    return f"{observable.name}: error of the model's curve {error.in_words(observable.unit)}"


def write_errors(errors: Mapping[str, TotalError], path: Path) -> None:
    """Write the errors, with their parts, as JSON."""
    content = {
        name: {"total_rms": error.total, "parts_rms": dict(error.parts)}
        for name, error in errors.items()
    }
    write_json(path, content)


def _thinned(ensemble: TrajectorySet) -> TrajectorySet:
    every = max(1, math.ceil(ensemble.n_frames / MOST_FRAMES))
    return replace(ensemble, replicas=[frames[::every] for frames in ensemble.replicas])


def _by_frame(ensemble: TrajectorySet, comparison: Comparison) -> dict[str, Curve]:
    """Return the curves whose blocks are single frames."""
    blocks = [frames[k : k + 1] for frames in ensemble.replicas for k in range(len(frames))]
    sample = Sample(ensemble, blocks, 1.0)
    edges: Doubles = np.clip(edges_of(comparison.observables[0].reference.x), 0.0, None)
    found = [*radial_distributions(sample, edges), *local_structure(sample, comparison.cutoff)]
    return {curve.name: curve for curve in found}
