"""Restrained dynamics that answer: mean forces where nobody has been."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from deepcg.atomistic.restraints import BeadRestraint, Restraint
from deepcg.atomistic.system import seed_of
from deepcg.forces.mean_force_labels import TABLES, MeanForce, MeanForceLabels, load_labels
from deepcg.geometry.box import lattice_shift
from deepcg.geometry.periodic import shortest
from deepcg.mapping.beads import LinearMapping
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import InputError
from deepcg.runtime.progress import Progress, silent
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.reader import Trajectory, iter_frames
from deepcg.units import thermal_energy
from deepcg.workflow.dataset.beads import open_data
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.label.restrain import Files, Restraints, begin, prepare
from deepcg.workflow.label.restrain_config import RestrainConfig
from deepcg.workflow.learn.acquisition import Answer
from deepcg.workflow.learn.config import LearnConfig
from deepcg.workflow.learn.exploration import Range
from free_energy import Estimate

HELD = 10.0
"""Widths of the springs: what is farther from its place, on average over a run, is not there."""

LIQUID_STARTS = 20
"""Frames of a liquid among which the nearest is looked for."""

_OTHER = 1e6  # nm^2: beads of other types do not change places


class Starts(Protocol):
    """Frames of atoms from which places are reached."""

    def nearest(self, query: Doubles) -> tuple[Frames, Doubles]:
        """Return the nearest frame, and the place (...) in the pose in which it is nearest."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class RestrainedDynamics:
    """An oracle: labels of restrained dynamics, one by one.

    The file ``mean-forces.labels.npz`` of a round has those that could be held at their places, and
    ``asked.labels.npz`` all, from which an interrupted round goes on.
    """

    restraints: Restraints
    config: RestrainConfig
    starts: Starts
    shape: tuple[int, ...]  # of a configuration

    def __call__(
        self, queries: Tensor, folder: Path, progress: Progress = silent
    ) -> Answer[MeanForceLabels]:
        """Return mean forces at places (n, d); those that cannot be held have none."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "asked.labels.npz"
        labels = begin(path, self.restraints.none)
        for k in range(len(labels), len(queries)):
            progress(k, len(queries), "restrained dynamics")
            labels = self._with_label(labels, queries[k], seed_of(self.config.seed, folder.name, k))
            labels.save(path)
        progress(len(queries), len(queries), "restrained dynamics")
        held = np.array([np.isfinite(force).all() for force in labels.forces], dtype=bool)
        found = _some(labels, held)
        if len(found):
            found.save(_labels_in(folder))
        return Answer(queries, held, found if len(found) else None)

    def recall(self, saved: Mapping[str, NDArray[Any]], folder: Path) -> MeanForceLabels | None:
        """Return the labels of a round, forces (n, ...) in kJ/mol per unit."""
        del saved
        path = _labels_in(folder)
        return load_labels(path) if path.is_file() else None

    def _with_label(self, labels: MeanForceLabels, query: Tensor, seed: int) -> MeanForceLabels:
        """Return labels and one more, without numbers where the place could not be held."""
        restraints, springs = self.restraints, self.restraints.coordinates.springs
        start, target = self.starts.nearest(query.double().numpy().reshape(self.shape))
        try:
            label = restraints.hold(start, target, seed)
        except InputError:  # the dynamics broke down
            label = _nothing(target)
        off = np.abs(springs.displacements(label.coordinates[None], target)[0])
        width = np.sqrt(thermal_energy(self.config.temperature) / springs.stiffness)
        if not (off < HELD * width).all():
            label = _nothing(target)
        return labels.with_label(label, None if start.box is None else start.box[0].numpy())


def restrained_dynamics(
    config: LearnConfig, fitted: FitConfig, box: Range | None
) -> RestrainedDynamics:
    """Return the oracle that holds the coordinates of a fit; ``box`` is of collective variables.

    Raises
    ------
    InputError
        The pool has no System or not all atoms, or its coordinates cannot be held.
    """
    how = config.hold.restraints(fitted, config.seed)
    topology = config.pool_topology or fitted.data.topology
    system = config.pool_system or fitted.data.system
    files = Files(config.pool[0], None, topology, system, bonds=fitted.data.bonds)
    restraints = prepare(files, how, config.hold.platform, config.threads)
    steering = max(1, round(config.hold.steer_ps / restraints.run.dt))
    task = restraints.none.task | {"steer_ps": config.hold.steer_ps}
    restraints = replace(
        restraints,
        run=replace(restraints.run, steering=steering),
        none=replace(restraints.none, task=task),
    )
    data = replace(fitted.data, topology=topology, system=system, forces=None, also=(), bias=())
    sources = [open_data(path, data) for path in config.pool]
    springs = restraints.coordinates.springs
    starts, shape = _starts(sources, springs, box)
    return RestrainedDynamics(restraints, how, starts, shape)


def _starts(
    sources: list[Trajectory], springs: Restraint, box: Range | None
) -> tuple[Starts, tuple[int, ...]]:
    stored = _Stored(sources, springs)
    if not isinstance(springs, BeadRestraint):
        assert box is not None
        return _OfVariables(stored, box), (len(box.periods),)
    molecules = _molecules(springs.mapping)
    if len(set(molecules)) == 1:
        return _OfMolecule(stored), stored.values.shape[1:]
    if len(set(molecules)) < len(molecules):
        raise InputError(
            "restrained dynamics answer for one molecule, or for molecules of one bead each, not "
            "for several of several beads"
        )
    return _OfLiquid(stored, springs.mapping.types.numpy()), stored.values.shape[1:]


def _molecules(mapping: LinearMapping) -> list[int]:
    """Return the number of the molecule of each bead."""
    if mapping.molecules is None:
        return [0] * mapping.weights.shape[0]
    rows = np.split(mapping.weights.indices, mapping.weights.indptr[1:-1])
    return [int(mapping.molecules[row[0]]) for row in rows]


class _Stored:
    """Frames of trajectories, with their coordinates (n_frames, ...) at hand."""

    def __init__(self, sources: list[Trajectory], springs: Restraint) -> None:
        self.sources = sources
        self.values = np.concatenate(
            [
                springs.values(part)
                for source in sources
                for part in iter_frames(source, with_forces=False)
            ]
        )

    def frame(self, number: int) -> Frames:
        """Return one frame of all of them."""
        for source in self.sources:
            if number < len(source.kept):
                kept = int(source.kept[number])
                return next(iter_frames(source, chunk=1, start=kept, stop=kept + 1))
            number -= len(source.kept)
        raise IndexError(number)


@dataclass(frozen=True, slots=True, eq=False)
class _OfVariables:
    stored: _Stored
    box: Range

    def nearest(self, query: Doubles) -> tuple[Frames, Doubles]:
        apart = shortest(self.stored.values - query, self.box.periods)
        number = int(np.square(apart / self.box.lengths.double().numpy()).sum(1).argmin())
        return self.stored.frame(number), query


@dataclass(frozen=True, slots=True, eq=False)
class _OfMolecule:
    """Places are turned and shifted onto a frame: this leaves the molecule's solvent in its box."""

    stored: _Stored

    def nearest(self, query: Doubles) -> tuple[Frames, Doubles]:
        number, turned = onto_molecule(self.stored.values, query)
        return self.stored.frame(number), turned


@dataclass(frozen=True, slots=True, eq=False)
class _OfLiquid:
    """Molecules of one bead each: those of a kind change places, and are where their images are."""

    stored: _Stored
    types: NDArray[np.int64]

    def nearest(self, query: Doubles) -> tuple[Frames, Doubles]:
        n = len(self.stored.values)
        candidates = np.unique(np.linspace(0, n - 1, LIQUID_STARTS).astype(int))
        ways = []
        for number in candidates:
            box = self.stored.frame(int(number)).box
            here = self.stored.values[number]
            ways.append(onto_liquid(here, query, self.types, None if box is None else box[0]))
        best = int(np.argmin([cost for cost, _ in ways]))
        return self.stored.frame(int(candidates[best])), ways[best][1]


def onto_molecule(frames: Doubles, query: Doubles) -> tuple[int, Doubles]:
    """Return which of the frames (n, b, 3) is nearest to a place (b, 3), and that turned onto it.

    By least squares (Kabsch), without reflections.
    """
    middles = frames.mean(1, keepdims=True)
    there, here = frames - middles, query - query.mean(0)
    u, s, vt = np.linalg.svd(here.T @ there)
    sign = np.sign(np.linalg.det(u @ vt))  # a mirror image is another place
    overlap = s[:, 0] + s[:, 1] + sign * s[:, 2]
    number = int((np.square(there).sum((1, 2)) - 2 * overlap).argmin())
    turn = (u[number] * [1, 1, sign[number]]) @ vt[number]
    return number, here @ turn + middles[number]


def onto_liquid(
    frame: Doubles, query: Doubles, types: NDArray[np.int64], box: Tensor | None
) -> tuple[float, Doubles]:
    """Return the sum of squared ways from a frame (b, 3) to a place, and where each bead goes.

    Beads of one type are alike: each goes to another's place, or to an image of it in the box
    (3, 3), so that the sum, nm^2, is the least.
    """
    apart = torch.from_numpy(query[None] - frame[:, None])  # (from, to, 3)
    if box is not None:
        boxes = box.to(apart).expand(len(apart), 3, 3)
        apart = apart + lattice_shift(apart, boxes)
    squares = apart.square().sum(-1).numpy()
    squares[types[:, None] != types] = _OTHER
    rows, columns = linear_sum_assignment(squares)
    return float(squares[rows, columns].sum()), frame + apart[rows, columns].numpy()


def _nothing(target: Doubles) -> MeanForce:
    """Return a label without numbers."""
    none = np.full_like(target, np.nan)
    unknown = Estimate(none, none)
    return MeanForce(none, unknown, unknown, unknown)


def _some(labels: MeanForceLabels, chosen: NDArray[np.bool_]) -> MeanForceLabels:
    tables = {name: getattr(labels, name)[chosen] for name in TABLES}
    return replace(labels, **tables, box=None if labels.box is None else labels.box[chosen])


def _labels_in(folder: Path) -> Path:
    return folder / "mean-forces.labels.npz"
