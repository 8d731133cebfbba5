"""From files to collective variables: the way of a fit from trajectories to U's own coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deepcg.atomistic.system import read_system
from deepcg.forces.cv_estimators import VariableForces, project_variables, variable_estimator
from deepcg.mapping.collective_variables import CollectiveVariables, build_variables
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import InputError
from deepcg.runtime.progress import Progress, silent
from deepcg.trajectory.frames import CVFrames
from deepcg.trajectory.reader import Trajectory
from deepcg.workflow.dataset.beads import (
    DataConfig,
    Described,
    labelled,
    open_all,
    read_checked,
    sample_and_held,
)


@dataclass(frozen=True, slots=True, eq=False)
class MappedVariables:
    """Frames in collective variables with instantaneous forces, and how they came about.

    Frames of biased runs have weights, whose mean is 1 in each trajectory: only ratios within one
    are known. ``hashes`` tell which files they came from.
    """

    trajectories: tuple[CVFrames, ...]
    variables: CollectiveVariables
    hashes: Mapping[str, Mapping[str, str]]
    estimate: Described

    @property
    def n_frames(self) -> int:
        """Number of frames of all trajectories."""
        return sum(len(frames) for frames in self.trajectories)


def map_variables(
    trajectory: Path,
    config: DataConfig,
    temperature: float,
    folder: Path,
    progress: Progress = silent,
) -> MappedVariables:
    """Map all trajectories; forces that have to be computed are kept as ``labelled`` does.

    What is wrong with the files or the coordinates is found before time is spent on forces.

    Raises
    ------
    InputError
        A file cannot be used, the estimator is not legal, or no frames are left.
    """
    sources = open_all(trajectory, config, temperature)
    return map_sources(sources, config, temperature, folder, progress)


def map_sources(
    sources: Sequence[Trajectory],
    config: DataConfig,
    temperature: float,
    folder: Path,
    progress: Progress = silent,
) -> MappedVariables:
    """Map trajectories that are opened already; see ``map_variables``.

    Raises
    ------
    InputError
        As there.
    """
    variables = build_variables(
        config.map, sources[0].topology, through_box=sources[0].graph.through_box
    )
    sources = [labelled(source, config, folder, progress) for source in sources]
    sample, held = sample_and_held(sources, config, temperature)
    estimate = variable_estimator(config.estimator)(
        variables, [sample], held, sources[0].graph, masses_of(sources[0]), temperature
    )
    mapped = tuple(_mapped(source, config, variables, estimate, progress) for source in sources)
    hashes = {str(source.trajectory): source.hash for source in sources}
    return MappedVariables(mapped, variables, hashes, estimate)


def masses_of(source: Trajectory) -> Doubles:
    """Return the masses (n_atoms,), Da: those of the System, or else of the elements."""
    if source.system is None:
        return source.graph.masses
    system = read_system(source.system, trust=source.trust)
    atoms = range(source.n_atoms) if source.atoms is None else source.atoms.tolist()
    return np.array([system.getParticleMass(i)._value for i in atoms], dtype=float)


def _mapped(
    source: Trajectory,
    config: DataConfig,
    variables: CollectiveVariables,
    estimate: VariableForces,
    progress: Progress,
) -> CVFrames:
    """Return the frames of one trajectory, in double precision, weights of mean 1."""
    chunks = read_checked(source, config, progress)
    parts = list(project_variables(chunks, variables, estimate))
    if not parts:
        raise InputError(f"{source.trajectory}: --start and --stop leave no frames")
    frames = CVFrames.join(parts).to("cpu", torch.float64)
    _check_finite(source, frames, variables)
    if frames.weights is None:
        return frames
    return CVFrames(frames.values, frames.forces, frames.weights / frames.weights.mean())


def _check_finite(source: Trajectory, frames: CVFrames, variables: CollectiveVariables) -> None:
    assert frames.forces is not None
    for what, table in (("value", frames.values), ("force", frames.forces)):
        wrong = torch.nonzero(~torch.isfinite(table))
        if len(wrong):
            frame, k = wrong[0].tolist()
            raise InputError(
                f"the {what} of {variables.names[k]} is not finite in frame {frame} of those used "
                f"of {source.trajectory}: the coordinate has no direction there; leave it out"
            )
