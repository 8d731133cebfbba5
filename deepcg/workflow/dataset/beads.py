"""From files to beads: the way that every job takes from a trajectory to coarse coordinates."""

from __future__ import annotations

import logging
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
from deepcg.forces.constraints import (
    Constraints,
    from_frames,
    from_system,
    from_water,
    maybe_held,
)
from deepcg.forces.cv_estimators import variable_estimator
from deepcg.forces.force_map import project
from deepcg.forces.force_series import ForceSizes
from deepcg.forces.mean_force_labels import are_labels, load_labels
from deepcg.mapping.beads import (
    AUTO,
    MAPPINGS,
    LinearMapping,
    Mapping,
    bead_topology,
    build_mapping,
    check_images,
    default_map,
)
from deepcg.mapping.collective_variables import BY_TOPOLOGY, KINDS, is_collective
from deepcg.runtime.arrays import Integers
from deepcg.runtime.errors import InputError, pick
from deepcg.runtime.progress import Progress, silent
from deepcg.trajectory.bias_weights import UNBIASED, weights_of_bias
from deepcg.trajectory.bonds import CHOICES
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.reader import (
    Trajectory,
    check_forces_available,
    first_resolution,
    iter_frames,
    iter_numbered_frames,
    open_trajectory,
)
from deepcg.trajectory.skipped_frames import SkippedFrames
from deepcg.trajectory.topology import MoleculeGraph
from deepcg.workflow.dataset.force_checks import (
    check_sample,
    check_series,
    warn_of_sample,
    watched,
)

_log = logging.getLogger(__name__)

SAMPLE_FRAMES = 200
"""Frames, spread over a trajectory, from which an estimator is built."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Where the atomistic data are, and how they become beads.

    Parameters
    ----------
    map
        Coarse coordinates; by default oxygens where all is water, elsewhere to be said.
        Beads: oxygens, com, heavy, solute, backbone-cb (a peptide's N, CA, CB, C) or
        select:"MDTRAJ SELECTION".
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
    bonds
        Bonds beside those of the topology: auto (where it evidently lacks some; refused where
        distances leave that open), guess (all atoms that are near enough) or none.
    box
        Box of all frames where the file tells none: X,Y,Z in nm, also with three angles in
        degrees, or topology for that of the topology file (CRYST1).
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
    skip_frames
        Frames to leave out, of each trajectory: numbers and ranges from 0, such as 0,5,100-200 or
        4000- for all from there on.
    also
        Further trajectories of the same system, to fit together with the first.
    bias
        COLVAR of PLUMED, or COLVAR:COLUMN, with the bias V in kJ/mol of each frame, which gets the
        weight exp(V/kT); by default the column metad.rbias, or the only one .bias. One for each
        trajectory, none for an unbiased one.
    trust
        Run the code of a PythonForce in the System: of files whose maker you trust.
    """

    map: str = AUTO
    topology: Path | None = None
    system: Path | None = None
    forces: Path | None = None
    units: str | None = None
    bonds: str = "auto"
    box: str | None = None
    estimator: str = "least-noise"
    constraints: str = "auto"
    start: int = 0
    stop: int | None = None
    stride: int = 1
    skip_frames: str | None = None
    also: tuple[Path, ...] = ()
    bias: tuple[str, ...] = ()
    trust: bool = False

    def __post_init__(self) -> None:
        known = dict.fromkeys((AUTO, *MAPPINGS, "select", *KINDS, *BY_TOPOLOGY))
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
        pick(dict.fromkeys(CHOICES), self.bonds, "choice of bonds")
        if self.stride < 1 or self.start < 0:
            raise InputError(f"start {self.start}, stride {self.stride}: use 0 or more, 1 or more")
        SkippedFrames.of(self.skip_frames)


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
    source = _open(trajectory, config, temperature)
    source.skipped.check(trajectory, source.n_frames)
    return source


def _open(trajectory: Path, config: DataConfig, temperature: float | None) -> Trajectory:
    source = open_trajectory(
        trajectory,
        topology=config.topology,
        system=config.system,
        forces=config.forces,
        units=config.units,
        bonds=config.bonds,
        box=config.box,
        trust=config.trust,
        skipped=SkippedFrames.of(config.skip_frames),
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
    sources = tuple(_open(path, config, temperature) for path in paths)
    longest = max(sources, key=lambda source: source.n_frames)
    longest.skipped.check(longest.trajectory, longest.n_frames)
    check_same_system(sources)
    return sources


def with_map(trajectory: Path, config: DataConfig) -> DataConfig:
    """Return a config that says its map: where it does not, that of labels, or the default of data.

    Raises
    ------
    InputError
        There is no default for it, or the files cannot be used.
    """
    if config.map != AUTO:
        return config
    if are_labels(trajectory):
        return replace(config, map=load_labels(trajectory).map)
    graph = open_data(trajectory, replace(config, bias=())).graph
    return replace(config, map=default_map(graph, trajectory))


def mapping_of(config: DataConfig, source: Trajectory) -> Mapping:
    """Return the mapping of a trajectory's atoms.

    Raises
    ------
    InputError
        There is no such map, or it is of sums over atoms that have no common image.
    """
    name = default_map(source.graph, source.trajectory) if config.map == AUTO else config.map
    mapping = build_mapping(name, source.topology)
    check_images(mapping, source.graph, name)
    return mapping


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
    if config.box is not None:
        raise InputError(
            f"forces of {source.trajectory} would be computed without the box {config.box!r}: "
            "give --forces FILE, or a trajectory that has its box"
        )
    beside = _is_writable(source.trajectory.parent)
    labels = label(
        source.trajectory,
        topology=config.topology,
        system=source.system,
        output=None if beside else folder,
        bonds=config.bonds,
        trust=config.trust,
        skip_frames=config.skip_frames,
        progress=progress,
    )
    own = replace(config, system=source.system, forces=labels.forces, also=(), bias=())
    return replace(_open(source.trajectory, own, None), weights=source.weights)


def map_positions(source: Trajectory, config: DataConfig, progress: Progress = silent) -> Beads:
    """Map positions alone: for comparisons."""
    mapping = mapping_of(config, source)
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
    mapping = mapping_of(config, first)
    sample, held = sample_and_held(sources, config, temperature)
    if config.estimator == "projected" and len(sample) < 2 and not held:
        _check_rigid_groups_are_known(first, config.constraints)
    estimate = ESTIMATORS[config.estimator](mapping, [sample], held, temperature)
    parts = [
        _joined(project(read_checked(source, config, progress), mapping, estimate), source, mapping)
        for source in sources
    ]
    topology = _bead_topology(mapping, first)
    lengths = tuple(len(part) for part in parts)
    return Beads(Frames.join(parts), mapping, topology, first, estimate, lengths=lengths)


def sample_and_held(
    sources: Sequence[Trajectory], config: DataConfig, temperature: float
) -> tuple[Frames, Constraints]:
    """Return frames of all trajectories, and the atoms held together; warn of their forces.

    Raises
    ------
    InputError
        Frames are damaged, or bonds never change that nothing holds.
    """
    samples = [sample_of(source, config) for source in sources]
    for source, sample in zip(sources, samples, strict=True):
        check_sample(source, sample, sampled_frames(source, config))
    joined = Frames.join(samples)
    held = constraints_of(sources[0], joined, config.constraints)
    for source, sample in zip(sources, samples, strict=True):
        first = int(used_frames(source, config)[0])
        warn_of_sample(source, sample, first, held, temperature)
    return joined, held


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
        known = _seen_or_doubtful(source, sample, seen)
    for group in seen:
        if not any(group <= other for other in known):
            atoms = ", ".join(str(source.topology.atom(i)) for i in sorted(group)[:4])
            way_out = "auto" if choice == "none" else "auto and the System that made the frames"
            raise InputError(
                f"the bonds between {atoms} never change in {source.trajectory}, but nothing "
                f"says that they are held: use --constraints {way_out}"
            )
    return known


def _check_rigid_groups_are_known(source: Trajectory, choice: str) -> None:
    if choice == "auto" and source.system is None and len(source.graph.bonds):
        raise InputError(
            f"'projected' needs to know what is rigid, and one frame of {source.trajectory} does "
            "not tell: give --system FILE or --constraints water or none, or use 'linear'"
        )


def _seen_or_doubtful(source: Trajectory, sample: Frames, seen: Constraints) -> Constraints:
    """Return the groups that are held or, where positions are coarse, may be."""
    step = first_resolution(source.recording)
    doubtful = maybe_held(source.graph, sample, step) if len(sample) > 1 else seen
    if doubtful != seen:
        _log.warning(
            "%s: positions are rounded to %g nm, which hides whether bonds are rigid: the atoms of "
            "%d groups that may be share one weight, as rigid ones must; --system FILE, or "
            "--constraints water or none, says what is held",
            source.trajectory,
            step,
            len(doubtful),
        )
    return doubtful


def sample_of(source: Trajectory, config: DataConfig) -> Frames:
    """Return up to ``SAMPLE_FRAMES`` frames, spread over all of those that are used.

    Raises
    ------
    InputError
        None are used.
    """
    some = sampled_frames(source, config).tolist()
    return Frames.join(next(iter_frames(source, chunk=1, start=k, stop=k + 1)) for k in some)


def sampled_frames(source: Trajectory, config: DataConfig) -> Integers:
    """Return the numbers (n,) of the frames of ``sample_of``."""
    used = used_frames(source, config)
    return used[:: max(1, len(used) // SAMPLE_FRAMES)][:SAMPLE_FRAMES]


def used_frames(source: Trajectory, config: DataConfig) -> Integers:
    """Return the numbers (n,) of the frames that are used.

    Raises
    ------
    InputError
        There are none.
    """
    stop = _stop(source, config)
    used = np.intersect1d(np.arange(config.start, stop, config.stride), source.kept)
    if not len(used):
        raise _none_left(source)
    return used


def read_used(
    source: Trajectory, config: DataConfig, progress: Progress, *, with_forces: bool
) -> Iterator[Frames]:
    """Yield the frames that are used, as ``deepcg.trajectory.reader.iter_frames`` does."""
    start, stop = config.start, _stop(source, config)
    parts = iter_numbered_frames(source, start=start, stop=stop, with_forces=with_forces)
    for number, part in parts:
        first = (start - number) % config.stride
        progress(number + len(part) - start, stop - start, "mapping")
        if first < len(part):
            yield part[first :: config.stride]


def read_checked(source: Trajectory, config: DataConfig, progress: Progress) -> Iterator[Frames]:
    """Yield the frames that are used, with forces; tell at the end what is wrong with some.

    Raises
    ------
    InputError
        Forces of a frame are of another size than those of all others; it is named.
    """
    sizes = ForceSizes()
    yield from watched(read_used(source, config, progress, with_forces=True), sizes)
    check_series(source, sizes, used_frames(source, config))


def _stop(source: Trajectory, config: DataConfig) -> int:
    return source.n_frames if config.stop is None else min(config.stop, source.n_frames)


def _none_left(source: Trajectory) -> InputError:
    options = "--start, --stop and --skip-frames" if source.skipped else "--start and --stop"
    return InputError(f"{source.trajectory} has {source.n_frames} frames: {options} leave none")


def _joined(parts: Iterable[Frames], source: Trajectory, mapping: Mapping) -> Frames:
    """Join the parts of one trajectory; weights get the mean 1, as only their ratios are known."""
    parts = list(parts)
    if not parts:
        raise _none_left(source)
    frames = Frames.join(parts)
    types = torch.as_tensor(frames.types, dtype=torch.long)
    box = None if _is_one_molecule(mapping, source.graph) else frames.box
    weights = None if frames.weights is None else frames.weights / frames.weights.mean()
    return Frames(frames.positions, box, frames.forces, types, weights)


def _is_one_molecule(mapping: Mapping, graph: MoleculeGraph) -> bool:
    """Whether two beads or more are all of one whole molecule: a lone bead knows no geometry."""
    if not isinstance(mapping, LinearMapping) or mapping.weights.shape[0] < 2:
        return False
    if mapping.molecules is None or np.isin(mapping.weights.indices, graph.through_box).any():
        return False
    return len(np.unique(mapping.molecules[mapping.weights.indices])) == 1


def _bead_topology(mapping: Mapping, source: Trajectory) -> mdtraj.Topology | None:
    return bead_topology(mapping, source.graph) if isinstance(mapping, LinearMapping) else None


def _is_writable(folder: Path) -> bool:
    """Whether files may be put there: a folder that is closed to its owner is closed to root."""
    return bool(folder.stat().st_mode & stat.S_IWUSR) and os.access(folder, os.W_OK)
