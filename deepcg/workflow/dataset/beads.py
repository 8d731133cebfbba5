"""From files to beads: the way that every job takes from a trajectory to coarse coordinates."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import mdtraj
import numpy as np
import torch
from torch import Tensor

from deepcg.atomistic.labels import label
from deepcg.atomistic.system import read_system
from deepcg.forces.bead_estimators import ESTIMATORS
from deepcg.forces.constraints import Constraints, from_frames, from_system, from_water
from deepcg.forces.cv_estimators import variable_estimator
from deepcg.forces.force_map import project
from deepcg.mapping.beads import MAPPINGS, LinearMapping, Mapping, bead_topology, build_mapping
from deepcg.mapping.collective_variables import BY_TOPOLOGY, KINDS, is_collective
from deepcg.runtime.errors import InputError, pick
from deepcg.runtime.progress import Progress, silent
from deepcg.trajectory.bias_weights import UNBIASED, weights_of_bias
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.reader import (
    Trajectory,
    check_forces_available,
    iter_frames,
    open_trajectory,
)
from deepcg.trajectory.sanity_checks import warn_of_forces

SAMPLE_FRAMES = 200
"""Frames, spread over a trajectory, from which an estimator is built."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Where the atomistic data are, and how they become beads.

    Parameters
    ----------
    map
        Coarse coordinates. Beads: oxygens, com, heavy, solute, backbone-cb (a peptide's N, CA,
        CB, C) or select:"MDTRAJ SELECTION".
        Collective variables: dihedrals (phi and psi of every residue) or a list such as
        "dihedral:4,6,8,14;distance:3,7" with atoms counted from 0; also angle.
    topology
        Topology file; by default that beside the trajectory, TRAJ.pdb.
    system
        OpenMM System; by default that beside the trajectory, TRAJ.system.xml, if there is one.
    forces
        File with the forces on the atoms; by default those in the trajectory, or beside it in
        TRAJ.forces.npy, or else computed from the System.
    units
        Units of files that do not fix theirs, such as "A,kcal/mol"; by default nm,kJ/mol.
    estimator
        How forces on atoms become forces on beads: least-noise (with control variates from the
        rotations of molecules), linear (the best constant weights) or projected. On collective
        variables: least-noise (the quietest of those that are legal), rotation,
        inverse-gradient or inverse-gradient-mass.
    constraints
        Which atoms are held together: auto (from the System, or from bonds that never
        change in the data), water (all water molecules are rigid) or none.
    start, stop, stride
        Frames to use: from ``start`` up to but not including ``stop`` (by default the end), every
        ``stride``-th.
    also
        Further trajectories of the same system, to fit together with the first.
    bias
        COLVAR of PLUMED, or COLVAR:COLUMN, with the bias V in kJ/mol of each frame, which gets the
        weight exp(V/kT); by default the column metad.rbias, or the only one .bias. One for each
        trajectory, none for an unbiased one.
    trust
        Run the code of a PythonForce in the System: of files whose maker you trust.
    """

    map: str = "oxygens"
    topology: Path | None = None
    system: Path | None = None
    forces: Path | None = None
    units: str | None = None
    estimator: str = "least-noise"
    constraints: str = "auto"
    start: int = 0
    stop: int | None = None
    stride: int = 1
    also: tuple[Path, ...] = ()
    bias: tuple[str, ...] = ()
    trust: bool = False

    def __post_init__(self) -> None:
        known = dict.fromkeys((*MAPPINGS, "select", *KINDS, *BY_TOPOLOGY))
        pick(known, self.map.partition(":")[0].strip(), "map")
        if is_collective(self.map):
            variable_estimator(self.estimator)
        else:
            pick(ESTIMATORS, self.estimator, "estimator")
        if self.also and self.forces is not None:
            raise InputError(
                f"{self.forces} cannot have the forces of several trajectories: put those of "
                f"each beside it, as TRAJ.forces.npy"
            )
        if self.bias and len(self.bias) != 1 + len(self.also):
            raise InputError(
                f"{len(self.bias)} biases for {1 + len(self.also)} trajectories: give one for "
                f"each, {UNBIASED} for one without"
            )
        pick(dict.fromkeys(("auto", "water", "none")), self.constraints, "choice of constraints")
        if self.stride < 1 or self.start < 0:
            raise InputError(f"start {self.start}, stride {self.stride}: use 0 or more, 1 or more")


class Described(Protocol):
    """What made forces, and can tell how."""

    def describe(self) -> str:
        """Return how, and with what noise, in lines for people."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Beads:
    """Mapped frames with instantaneous forces, and how they came about.

    Beads of a single molecule, which is whole, have no box: the images of its solvent's box are
    none of its own. ``topology`` is that of the beads; ``estimate`` is ``None`` where no forces
    were asked for. ``source`` is ``None`` where the forces are mean forces from labels, (n_frames,
    n_beads, 3) standard ``errors`` of which are known; it is the first of several, with
    ``lengths`` frames each (empty: all are of one).
    """

    frames: Frames
    mapping: Mapping
    topology: mdtraj.Topology | None
    source: Trajectory | None
    estimate: Described | None
    errors: Tensor | None = None
    lengths: tuple[int, ...] = ()


def open_data(trajectory: Path, config: DataConfig, temperature: float | None = None) -> Trajectory:
    """Open a trajectory and what belongs to it; weights of a bias need the temperature, K.

    Raises
    ------
    InputError
        A file cannot be used, or the frames of a biased run have weights already.
    """
    source = open_trajectory(
        trajectory,
        topology=config.topology,
        system=config.system,
        forces=config.forces,
        units=config.units,
        trust=config.trust,
    )
    bias = _bias_of(trajectory, config)
    if bias is None:
        return source
    if temperature is None:
        raise ValueError("the weights of a bias need a temperature")
    if next(iter_frames(source, stop=1, with_forces=False)).weights is not None:
        raise InputError(
            f"{trajectory} has weights of its own, or a bias beside it: leave out --bias"
        )
    return replace(source, weights=weights_of_bias(bias, source.recording, temperature))


def _bias_of(trajectory: Path, config: DataConfig) -> str | None:
    """Return the file of the bias of a trajectory: of the first, or of one of ``also``."""
    if not config.bias:
        return None
    number = 1 + config.also.index(trajectory) if trajectory in config.also else 0
    bias = config.bias[number]
    return None if bias == UNBIASED else bias


def open_all(trajectory: Path, config: DataConfig, temperature: float) -> tuple[Trajectory, ...]:
    """Open a trajectory and those to go with it, once each: they are handed on from here.

    Raises
    ------
    InputError
        A file cannot be used, or one has other atoms than the first.
    """
    paths = (trajectory, *config.also)
    sources = tuple(open_data(path, config, temperature) for path in paths)
    check_same_system(sources)
    return sources


def labelled(
    source: Trajectory, config: DataConfig, folder: Path, progress: Progress = silent
) -> Trajectory:
    """Return a trajectory with forces, computed from its System if it has none.

    Computed forces are kept beside the trajectory if that folder can be written, else in
    ``folder``; only then are the files opened again.

    Raises
    ------
    InputError
        If there are neither forces nor a System.
    """
    if source.forces is not None:
        return source
    check_forces_available(source)
    beside = _is_writable(source.trajectory.parent)
    labels = label(
        source.trajectory,
        topology=config.topology,
        system=source.system,
        output=None if beside else folder,
        trust=config.trust,
        progress=progress,
    )
    own = replace(config, system=source.system, forces=labels.forces, also=(), bias=())
    return replace(open_data(source.trajectory, own), weights=source.weights)


def map_positions(source: Trajectory, config: DataConfig, progress: Progress = silent) -> Beads:
    """Map positions alone: for comparisons."""
    mapping = build_mapping(config.map, source.topology)
    parts = (
        Frames(mapping(part.positions), part.box, None, mapping.types, part.weights)
        for part in read_used(source, config, progress, with_forces=False)
    )
    frames = _joined(parts, source, mapping)
    return Beads(frames, mapping, _bead_topology(mapping, source), source, None)


def map_forces(
    sources: Sequence[Trajectory],
    config: DataConfig,
    temperature: float,
    progress: Progress = silent,
) -> Beads:
    """Map positions and forces of data at a temperature, K: of one trajectory or of several.

    Raises
    ------
    InputError
        If the estimator is not legal for the constraints, trajectories have other atoms than the
        first, or no frames are left.
    """
    check_same_system(sources)
    first = sources[0]
    mapping = build_mapping(config.map, first.topology)
    sample = Frames.join(sample_of(source, config) for source in sources)
    if sample.forces is not None:
        warn_of_forces(first.forces or first.trajectory, sample.forces.numpy(), first.graph)
    held = constraints_of(first, sample, config.constraints)
    estimate = ESTIMATORS[config.estimator](mapping, [sample], held, temperature)
    parts = [
        _joined(
            project(read_used(source, config, progress, with_forces=True), mapping, estimate),
            source,
            mapping,
        )
        for source in sources
    ]
    topology = _bead_topology(mapping, first)
    lengths = tuple(len(part) for part in parts)
    return Beads(Frames.join(parts), mapping, topology, first, estimate, lengths=lengths)


def check_same_system(sources: Sequence[Trajectory]) -> None:
    """Refuse to put trajectories of different atoms together.

    Raises
    ------
    InputError
        Names the trajectory that has others than the first.
    """
    first = sources[0].graph.numbers
    for source in sources[1:]:
        if not np.array_equal(source.graph.numbers, first):
            raise InputError(
                f"{source.trajectory} has other atoms than {sources[0].trajectory}: "
                f"only trajectories of one system are fitted together"
            )


def constraints_of(source: Trajectory, sample: Frames, choice: str) -> Constraints:
    """Return the groups of atoms that are held together.

    Raises
    ------
    InputError
        If bonds never change in the data that no constraint accounts for.
    """
    seen = from_frames(source.graph, sample) if len(sample) > 1 else frozenset()
    if choice == "none":
        known: Constraints = frozenset()
    elif choice == "water":
        known = from_water(source.graph)
    elif source.system is not None and source.atoms is None:
        known = from_system(read_system(source.system, trust=source.trust))
    else:
        known = seen
    for group in seen:
        if not any(group <= other for other in known):
            atoms = ", ".join(str(source.topology.atom(i)) for i in sorted(group)[:4])
            way_out = "auto" if choice == "none" else "auto and the System that made the frames"
            raise InputError(
                f"the bonds between {atoms} never change in {source.trajectory}, but nothing "
                f"says that they are held: use --constraints {way_out}"
            )
    return known


def sample_of(source: Trajectory, config: DataConfig) -> Frames:
    """Return up to ``SAMPLE_FRAMES`` frames, spread over all of those that are used.

    Raises
    ------
    InputError
        None are used.
    """
    used = used_frames(source, config)
    some = used[:: max(1, len(used) // SAMPLE_FRAMES)][:SAMPLE_FRAMES]
    return Frames.join(next(iter_frames(source, chunk=1, start=k, stop=k + 1)) for k in some)


def used_frames(source: Trajectory, config: DataConfig) -> range:
    """Return the numbers of the frames that are used.

    Raises
    ------
    InputError
        There are none.
    """
    stop = source.n_frames if config.stop is None else min(config.stop, source.n_frames)
    used = range(config.start, stop, config.stride)
    if not used:
        raise InputError(
            f"{source.trajectory} has {source.n_frames} frames: --start and --stop leave none"
        )
    return used


def read_used(
    source: Trajectory, config: DataConfig, progress: Progress, *, with_forces: bool
) -> Iterator[Frames]:
    """Yield the frames that are used, as ``deepcg.trajectory.reader.iter_frames`` does."""
    stop = source.n_frames if config.stop is None else min(config.stop, source.n_frames)
    done = config.start
    for part in iter_frames(source, start=config.start, stop=stop, with_forces=with_forces):
        first = -(done - config.start) % config.stride
        done += len(part)
        progress(done - config.start, stop - config.start, "mapping")
        if first < len(part):
            yield part[first :: config.stride]


def _joined(parts: Iterable[Frames], source: Trajectory, mapping: Mapping) -> Frames:
    """Join the parts of one trajectory; weights get the mean 1, as only their ratios are known."""
    parts = list(parts)
    if not parts:
        raise InputError(
            f"{source.trajectory} has {source.n_frames} frames: --start and --stop leave none"
        )
    frames = Frames.join(parts)
    types = torch.as_tensor(frames.types, dtype=torch.long)
    box = None if _is_one_molecule(mapping) else frames.box
    weights = None if frames.weights is None else frames.weights / frames.weights.mean()
    return Frames(frames.positions, box, frames.forces, types, weights)


def _is_one_molecule(mapping: Mapping) -> bool:
    """Whether two beads or more are all of one molecule: a lone bead knows no geometry."""
    if not isinstance(mapping, LinearMapping) or mapping.weights.shape[0] < 2:
        return False
    if mapping.molecules is None:
        return False
    return len(np.unique(mapping.molecules[mapping.weights.indices])) == 1


def _bead_topology(mapping: Mapping, source: Trajectory) -> mdtraj.Topology | None:
    return bead_topology(mapping, source.graph) if isinstance(mapping, LinearMapping) else None


def _is_writable(folder: Path) -> bool:
    """Whether files may be put there: a folder that is closed to its owner is closed to root."""
    return bool(folder.stat().st_mode & stat.S_IWUSR) and os.access(folder, os.W_OK)
