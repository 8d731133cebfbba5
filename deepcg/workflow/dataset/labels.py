"""Fits to a file of mean forces (``deepcg label --restrain``) in place of a trajectory."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import mdtraj
import torch

from deepcg.forces.mean_force_labels import MeanForceLabels, load_labels
from deepcg.runtime.errors import InputError
from deepcg.runtime.provenance import file_hash
from deepcg.trajectory.frames import CVFrames, Frames
from deepcg.workflow.dataset.beads import Beads, DataConfig
from deepcg.workflow.dataset.collective_variables import MappedVariables

_OF_TRAJECTORIES = (
    "topology",
    "system",
    "forces",
    "units",
    "bonds",
    "estimator",
    "constraints",
    "also",
    "bias",
    "skip_frames",
)


def beads_of_labels(path: Path, config: DataConfig, temperature: float) -> Beads:
    """Return the beads of a file of labels, with mean forces and their errors.

    Raises
    ------
    InputError
        The file is not of labels of these beads at this temperature; a setting is of use for
        trajectories only; no labels are left.
    """
    labels = _load(path, config, temperature)
    mapping, some = labels.mapping, slice(config.start, config.stop, config.stride)
    box = None if labels.box is None else torch.from_numpy(labels.box[some])
    positions, forces, errors = (
        torch.from_numpy(table[some])
        for table in (labels.coordinates, labels.forces, labels.errors)
    )
    _check_some(path, len(positions))
    beads = Frames(positions.float(), None if box is None else box.float(), forces, mapping.types)
    pdb = path.with_suffix(".pdb")
    topology = mdtraj.load_topology(str(pdb)) if pdb.is_file() else None
    return Beads(beads, mapping, topology, None, labels, errors)


def variables_of_labels(path: Path, config: DataConfig, temperature: float) -> MappedVariables:
    """Return the collective variables of a file of labels, with mean forces and their errors.

    Raises
    ------
    InputError
        As ``beads_of_labels``.
    """
    labels = _load(path, config, temperature)
    some = slice(config.start, config.stop, config.stride)
    values, forces, errors = (
        torch.from_numpy(table[some])
        for table in (labels.coordinates, labels.forces, labels.errors)
    )
    _check_some(path, len(values))
    frames = CVFrames(values, forces, errors=errors)
    hashes = {str(path): {"labels": file_hash(path)}}
    return MappedVariables((frames,), labels.variables, hashes, labels)


def _load(path: Path, config: DataConfig, temperature: float) -> MeanForceLabels:
    labels = load_labels(path)
    if labels.map != config.map:
        raise InputError(f'{path} has labels of other coordinates: give --map "{labels.map}"')
    if labels.temperature != temperature:
        raise InputError(
            f"{path} has labels at {labels.temperature:g} K, not {temperature:g} K: give "
            f"--temperature {labels.temperature:g}"
        )
    defaults = {field.name: field.default for field in fields(DataConfig)}
    for name in _OF_TRAJECTORIES:
        if getattr(config, name) != defaults[name]:
            raise InputError(
                f"{name} is a setting for trajectories, and {path} has labels: leave it out"
            )
    return labels


def _check_some(path: Path, n: int) -> None:
    if n == 0:
        raise InputError(f"{path}: --start and --stop leave no labels")
