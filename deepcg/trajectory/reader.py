"""Reading trajectories: which files belong together, whether they agree, and their frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import mdtraj
import numpy as np
import torch
from torch import Tensor

from deepcg.geometry.box import cell_in_words, reduced, volumes
from deepcg.runtime.arrays import Floats, Integers
from deepcg.runtime.errors import InputError, pick
from deepcg.runtime.provenance import file_hash
from deepcg.trajectory.bonds import CHOICES, Bonding, completed
from deepcg.trajectory.consistency import (
    check_elements,
    check_finite,
    check_forces,
    check_held,
    check_not_positions,
    check_same_origin,
    check_same_place,
    check_system,
    particle_masses,
)
from deepcg.trajectory.formats import (
    FIXED_UNITS,
    FRAMES,
    Block,
    NpyFile,
    TrajectoryFile,
    contents_of,
    ending_of,
    in_units,
    open_forces,
    open_positions,
    symbols_of,
    time_note,
)
from deepcg.trajectory.frame_weights import weights_beside
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.given_box import warn_of_a_missing_box, with_box
from deepcg.trajectory.precision import resolution
from deepcg.trajectory.sanity_checks import Bonds, Repeats, check_sizes
from deepcg.trajectory.skipped_frames import SkippedFrames
from deepcg.trajectory.topology import (
    MoleculeGraph,
    formula,
    guessed_topology,
    make_whole,
    with_isotopes,
)
from deepcg.trajectory.topology_file import load_topology
from deepcg.units import ANGSTROM

MMCIF = (".cif", ".cif.gz", ".mmcif", ".mmcif.gz", ".pdbx", ".pdbx.gz")
OWN_TOPOLOGY = (".pdb", ".pdb.gz", ".h5", ".hdf5", ".gro", ".lh5", *MMCIF)
TOPOLOGIES = (".pdb", ".cif", ".gro", ".prmtop", ".parm7", ".psf", ".mol2", ".h5")


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """A trajectory and what belongs to it; see `open_trajectory`.

    Parameters
    ----------
    trajectory
        The file (or DeePMD folder) with the positions.
    graph
        Elements, bonds and molecules of the atoms of the trajectory.
    system
        XML file of the OpenMM System, ``None`` if there is none.
    forces
        The file with the forces, the trajectory itself if it has them; ``None`` where forces have
        yet to be computed.
    n_frames
        Number of frames.
    atoms
        Indices, among the particles of the System, of the atoms that the trajectory has;
        ``None`` where it has all of them.
    recording, force_recording
        The opened files; ``force_recording`` is ``None`` where forces are missing or come with
        the positions.
    weights
        Those of the frames (n_frames,) that files beside the trajectory tell, if they do; a .npz
        has its own.
    trust
        Whether code in the System may be run.
    skipped
        Frames that are left out wherever frames are read; numbers count them nevertheless.
    """

    trajectory: Path
    graph: MoleculeGraph
    system: Path | None
    forces: Path | None
    n_frames: int
    atoms: Integers | None
    recording: TrajectoryFile
    force_recording: TrajectoryFile | None
    weights: Floats | None
    trust: bool = False
    skipped: SkippedFrames = field(default_factory=SkippedFrames)

    @property
    def kept(self) -> Integers:
        """Numbers of the frames that are not left out."""
        return np.flatnonzero(self.skipped.kept(0, self.n_frames))

    @property
    def topology(self) -> mdtraj.Topology:
        """Names, elements and bonds of the atoms."""
        return self.graph.topology

    @property
    def n_atoms(self) -> int:
        """Number of atoms in a frame."""
        return self.recording.n_atoms

    @property
    def frame_time(self) -> float | None:
        """Time from frame to frame in ps, ``None`` where the file does not say."""
        return self.recording.frame_time

    @property
    def hash(self) -> dict[str, str]:
        """Provenance of each file (see `deepcg.runtime.provenance.file_hash`)."""
        files = {"trajectory": self.trajectory, "system": self.system, "forces": self.forces}
        return {what: file_hash(path) for what, path in files.items() if path is not None}

    def describe(self) -> dict[str, object]:
        """Return what there is to tell about the files, as plain values."""
        first = next(iter_frames(self, chunk=1))
        return {
            "trajectory": str(self.trajectory),
            "system": None if self.system is None else str(self.system),
            "forces": None if self.forces is None else str(self.forces),
            "frames": self.n_frames,
            **({"frames left out": self.n_frames - len(self.kept)} if self.skipped else {}),
            "frame_time_ps": self.frame_time or time_note(self.recording),
            "atoms": self.n_atoms,
            "molecules": _composition(self.graph),
            "box_nm": None if first.box is None else first.box[0].tolist(),
            "cell": None if first.box is None else cell_in_words(first.box[0].double().numpy()),
            "weighted": first.weights is not None,
            "hash": self.hash,
        }


def open_trajectory(
    trajectory: str | Path,
    *,
    topology: str | Path | None = None,
    system: str | Path | None = None,
    forces: str | Path | None = None,
    units: str | None = None,
    bonds: str = "auto",
    box: str | None = None,
    trust: bool = False,
    skipped: SkippedFrames | None = None,
) -> Trajectory:
    """Open a trajectory, find what belongs to it and check that it fits together.

    What is not named is looked for beside the trajectory: ``X.pdb`` (or another topology),
    ``X.system.xml``, ``X.forces.npy`` for a trajectory ``X.dcd``. Bonds that the topology
    evidently lacks are completed from the first frame. A topology of a whole system also serves
    for a trajectory of all its atoms but water and ions.

    Parameters
    ----------
    trajectory
        Anything that MDTraj reads; .npz, .trr, extended XYZ, LAMMPS dump or a DeePMD folder may
        hold forces too.
    forces
        The file with the forces; ``FILE:NAME`` takes those of one name, where a file has several.
    units
        ``"LENGTH,ENERGY"`` of files that do not fix theirs.
    bonds
        One of `deepcg.trajectory.bonds.CHOICES`.
    box
        The box of all frames: ``"topology"`` for that of the topology file, or numbers (see
        `deepcg.trajectory.given_box.parse_box`).
    trust
        Whether code in the System may be run, once it is read.
    skipped
        Frames to leave out; ``None`` for none.

    Raises
    ------
    InputError
        A file is missing, cannot be read, is truncated, or does not agree with the others, or
        bonds are unsure.
    """
    path = Path(trajectory)
    pick(dict.fromkeys(CHOICES), bonds, "choice of bonds")
    if not path.exists():
        raise InputError(f"there is no trajectory {path}")
    forces, force_name = _with_name(forces)
    force_path = _named_or_beside(path, forces, (".forces.npy",), "forces")
    _check_units_are_used(path, force_path, units)
    topology_path = _topology_path(path, topology)
    inside = None if force_path is None or force_path.resolve() != path.resolve() else force_name
    system_path = _named_or_beside(path, system, (".system.xml",), "System")
    masses = None if system_path is None else particle_masses(system_path)
    full = None if topology_path is None else MoleculeGraph(load_topology(topology_path, masses))
    recording = _open_trajectory(path, None if full is None else full.topology, units, inside)
    if box is not None:
        recording = with_box(recording, box, topology_path)
    atoms, known = _trajectory_atoms(recording, full, topology_path)
    skipped = skipped or SkippedFrames()
    first = int(np.argmax(skipped.kept(0, recording.n_frames)))
    complete = _complete(recording, known, topology_path, bonds, first)
    _check_box(recording, complete, topology_path, first)
    if system_path is not None:
        check_system(system_path, complete if atoms is None or full is None else full)
        if atoms is None:
            whole = _first_whole(recording, complete, first)
            check_held(system_path, whole, path, first_resolution(recording, first))
    complete = with_isotopes(complete, symbols_of(recording))
    own = (forces is None or inside is not None) and recording.has_forces
    force_recording = None
    if force_path is not None and not own:
        force_recording = open_forces(force_path, units=units, force_name=force_name)
        check_forces(force_recording, recording, complete.numbers)
        check_not_positions(force_recording, recording)
        check_same_origin(force_recording, path, system_path)
    return Trajectory(
        path,
        complete,
        system_path,
        path if own else force_path,
        recording.n_frames,
        atoms,
        recording,
        force_recording,
        None if ending_of(path) == ".npz" else weights_beside(path, recording.n_frames),
        trust,
        skipped,
    )


def iter_frames(
    source: Trajectory,
    *,
    chunk: int = 500,
    start: int = 0,
    stop: int | None = None,
    with_forces: bool = True,
) -> Iterator[Frames]:
    """Yield frames ``start`` to ``stop``, at most ``chunk`` at a time, in float32.

    Molecules are whole, boxes reduced (positions and forces are rotated with a box that was not
    lower triangular), ``types`` are atomic numbers. Forces are there if the source has them and
    ``with_forces`` is true.

    Raises
    ------
    InputError
        Positions, forces or a box are not usable; the message names the frame.
    """
    numbered = iter_numbered_frames(
        source, chunk=chunk, start=start, stop=stop, with_forces=with_forces
    )
    for _, frames in numbered:
        yield frames


def iter_numbered_frames(
    source: Trajectory,
    *,
    chunk: int = 500,
    start: int = 0,
    stop: int | None = None,
    with_forces: bool = True,
) -> Iterator[tuple[int, Frames]]:
    """Yield the number of a frame, and frames from it on without a gap, as ``iter_frames`` does.

    Raises
    ------
    InputError
        As ``iter_frames``.
    """
    stop = source.n_frames if stop is None else min(stop, source.n_frames)
    tree, bonded, repeats = source.graph.spanning_tree, Bonds(source.graph), Repeats()
    types = torch.tensor(source.graph.numbers)
    pairs = _paired(source, chunk, start, stop, with_forces)
    boxed: bool | None = None
    for first, block, apart in _kept(pairs, source.skipped):
        block, rotated = _upright(source.trajectory, first, block)
        boxed = _check_box_is_always_there(source.trajectory, first, block, boxed)
        check_finite(source.trajectory, "positions", first, block.positions)
        forces = block.forces if with_forces else None
        if apart is not None and source.force_recording is not None:
            files = source.trajectory, source.force_recording
            forces = _matching_forces(*files, first, block, apart, rotated=rotated)
        check_finite(source.forces, "forces", first, forces)
        there = _present(block.positions)
        check_sizes(source.trajectory, first, there, block.box)
        repeats.check(source.trajectory, first, there)
        positions = make_whole(there, block.box, tree)
        bonded.check(source.trajectory, first, positions, block.box)
        weights = block.weights
        if weights is None and source.weights is not None:
            weights = source.weights[first : first + len(positions)]
        yield (
            first,
            Frames(
                _tensor(positions),
                None if block.box is None else _tensor(block.box),
                None if forces is None else _tensor(forces),
                types,
                None if weights is None else _tensor(weights),
            ),
        )


def check_forces_available(source: Trajectory) -> None:
    """Refuse a source that has neither forces nor a System to compute them from.

    Raises
    ------
    InputError
        The message names the files looked for and the options.
    """
    if source.forces is None and source.system is None:
        stem, holds = _stem(source.trajectory), contents_of(source.recording)
        raise InputError(
            f"{source.trajectory} has no forces{f' (it has {holds})' if holds else ''}, "
            f"and there is neither {stem}.forces.npy nor "
            f"{stem}.system.xml: give --forces FILE or --system FILE (an OpenMM System)"
        )


def _stem(trajectory: Path) -> Path:
    if trajectory.is_dir():
        return trajectory
    plain = trajectory.with_suffix("") if trajectory.suffix == ".gz" else trajectory
    return plain.with_suffix("")


def _with_name(forces: str | Path | None) -> tuple[str | Path | None, str | None]:
    """Return the file of FILE:NAME and the name, ``None`` where there is none."""
    if forces is None or Path(forces).exists():
        return forces, None
    file, _, name = str(forces).rpartition(":")
    return (Path(file), name) if file and Path(file).exists() else (forces, None)


def _named_or_beside(
    trajectory: Path, named: str | Path | None, endings: tuple[str, ...], what: str
) -> Path | None:
    if named is not None:
        if not Path(named).exists():
            raise InputError(f"there is no file {named} (given for the {what})")
        return Path(named)
    stem = _stem(trajectory)
    beside = (stem.with_name(stem.name + ending) for ending in endings)
    return next((path for path in beside if path.exists()), None)


def _check_units_are_used(trajectory: Path, forces: Path | None, units: str | None) -> None:
    files = [trajectory] if forces is None else [trajectory, forces]
    if units is not None and not any(in_units(file) for file in files):
        raise InputError(
            f"units {units!r} were given, but {trajectory} and its forces are of "
            f"kinds that fix their units: leave out --units"
        )


def _topology_path(trajectory: Path, named: str | Path | None) -> Path | None:
    if named is None and ending_of(trajectory) in OWN_TOPOLOGY:
        return trajectory
    return _named_or_beside(trajectory, named, TOPOLOGIES, "topology")


def _open_trajectory(
    path: Path, topology: mdtraj.Topology | None, units: str | None, force_name: str | None
) -> TrajectoryFile:
    needs_topology = ending_of(path) in FRAMES and ending_of(path) not in FIXED_UNITS
    if topology is None and not in_units(path) and needs_topology:
        raise _no_topology(path)
    recording = open_positions(
        path, units=units if in_units(path) else None, topology=topology, force_name=force_name
    )
    if not recording.has_positions:
        holds = contents_of(recording)
        raise InputError(
            f"{path} has no positions{f' (it has {holds})' if holds else ''}: give it as --forces, "
            f"beside a trajectory"
        )
    return recording


def _no_topology(path: Path) -> InputError:
    return InputError(
        f"{path} does not say what its atoms are and there is no topology beside it "
        f"({path.stem}.pdb): give --topology FILE"
    )


def _trajectory_atoms(
    recording: TrajectoryFile, full: MoleculeGraph | None, path: Path | None
) -> tuple[Integers | None, MoleculeGraph | None]:
    """Return which atoms of the topology the trajectory has, and their graph."""
    if full is None:
        if recording.numbers is None:
            raise _no_topology(recording.path)
        return None, None
    if recording.n_atoms == full.n_atoms:
        check_elements(recording, full.numbers, "the topology")
        return None, full
    solute = np.array(
        [
            a.index
            for r in full.topology.residues
            if r.n_atoms > 1 and not r.is_water
            for a in r.atoms
        ],
        np.int64,
    )
    if recording.n_atoms != len(solute):
        raise InputError(
            f"{recording.path} has {recording.n_atoms} atoms, its topology {path} "
            f"{full.n_atoms} ({len(solute)} without water and ions): "
            f"give --topology FILE"
        )
    part = MoleculeGraph(full.topology.subset(solute))
    check_elements(recording, part.numbers, "the solute of the topology")
    return solute, part


def _complete(
    recording: TrajectoryFile,
    known: MoleculeGraph | None,
    topology: Path | None,
    bonds: str,
    first: int,
) -> MoleculeGraph:
    """Return the graph with all bonds, from the frame ``first`` where it lacks some."""
    block, _ = _upright(recording.path, first, next(recording.blocks(1, first, first + 1)))
    check_finite(recording.path, "positions", first, block.positions)
    check_sizes(recording.path, first, _present(block.positions), block.box)
    positions = _present(block.positions)[0]
    box = None if block.box is None else block.box[0]
    named = known is not None
    if known is None:
        if recording.numbers is None:
            raise _no_topology(recording.path)
        bonded = bonds != "none"
        known = MoleculeGraph(guessed_topology(recording.numbers, positions, box, bonded=bonded))
    bonding = completed(known, positions, box, bonds, named=named)
    if bonds != "none":
        Bonds(bonding.graph).check_hydrogens(recording.path, positions)
    check_sure(bonding, topology or recording.path)
    return bonding.graph


def check_sure(bonding: Bonding, place: Path | str) -> None:
    """Refuse bonds that are unsure.

    Raises
    ------
    InputError
        Names the first that are, and the ways out.
    """
    if not bonding.doubts:
        return
    first, *others = bonding.doubts
    more = f" ({len(others)} more such)" if others else ""
    raise InputError(
        f"{place}: bonds are unsure: {first}{more}; give a topology that tells them (CONECT of a "
        ".pdb, .psf, .prmtop), or --bonds guess (all that are near enough) or none (no others)"
    )


def _check_box(
    recording: TrajectoryFile, graph: MoleculeGraph, topology: Path | None, first: int
) -> None:
    block, _ = _upright(recording.path, first, next(recording.blocks(1, first, first + 1)))
    if block.box is None:
        positions = _present(block.positions)[0]
        warn_of_a_missing_box(recording.path, graph, positions, topology)


def _first_whole(recording: TrajectoryFile, graph: MoleculeGraph, first: int) -> Floats:
    """Return the frame ``first`` (n_atoms, 3), nm, with its molecules whole."""
    block, _ = _upright(recording.path, first, next(recording.blocks(1, first, first + 1)))
    whole: Floats = make_whole(_present(block.positions), block.box, graph.spanning_tree)[0]
    return whole


def first_resolution(recording: TrajectoryFile, frame: int = 0) -> float:
    """Return what the positions of a frame were rounded to, nm, 0 if to nothing."""
    return resolution(_present(next(recording.blocks(1, frame, frame + 1)).positions))


def _labelled(forces: TrajectoryFile | None) -> bool:
    return isinstance(forces, NpyFile) and forces.note is not None


def _paired(
    source: Trajectory, chunk: int, start: int, stop: int, with_forces: bool
) -> Iterator[tuple[int, Block, Block | None]]:
    """Yield the index of the first frame, positions, and forces of another file (if there is)."""
    blocks = source.recording.blocks(chunk, start, stop)
    firsts = range(start, stop, chunk)
    if source.force_recording is None or not with_forces:
        for first, block in zip(firsts, blocks, strict=True):
            yield first, block, None
    else:
        yield from zip(
            firsts, blocks, source.force_recording.blocks(chunk, start, stop), strict=True
        )


def _kept(
    pairs: Iterator[tuple[int, Block, Block | None]], skipped: SkippedFrames
) -> Iterator[tuple[int, Block, Block | None]]:
    """Yield the parts of blocks between frames that are left out."""
    for first, block, apart in pairs:
        if not skipped:
            yield first, block, apart
            continue
        length = len(_present(block.positions))
        for some in skipped.runs(first, length):
            yield first + some.start, block[some], None if apart is None else apart[some]


def _upright(path: Path, first: int, block: Block) -> tuple[Block, bool]:
    """Return a block with its boxes reduced, and whether its vectors had to be rotated."""
    if block.box is None or _is_placeholder(path, first, block.box):
        return replace(block, box=None), False
    with np.errstate(invalid="ignore", over="ignore"):
        size = volumes(block.box)
        flat = size < 1e-3 * np.linalg.norm(block.box, axis=-1).prod(-1)
    bad = np.flatnonzero(~((size > 0) & np.isfinite(size)) | flat)
    if len(bad):
        raise InputError(
            f"{path}: the box of frame {first + bad[0]} has volume {size[bad[0]]:.4g} nm^3"
        )
    box, rotation = reduced(block.box)
    if rotation is None:
        return Block(block.positions, box, block.forces, block.weights), False

    def turned(vectors: Floats | None) -> Floats | None:
        return None if vectors is None else vectors @ rotation

    return Block(turned(block.positions), box, turned(block.forces), block.weights), True


def _check_box_is_always_there(path: Path, first: int, block: Block, before: bool | None) -> bool:
    """Return whether a block has boxes; refuse one that is unlike those before."""
    here = block.box is not None
    if before is not None and here != before:
        raise InputError(
            f"{path}: frame {first} has {'a' if here else 'no'} box, unlike those before it"
        )
    return here


def _is_placeholder(path: Path, first: int, box: Floats) -> bool:
    """Whether boxes (f, 3, 3), nm, say that there is none: zeros, or cubes of 1 A.

    Raises
    ------
    InputError
        Some frames have a box and some do not.
    """
    cubes = np.abs(box - ANGSTROM * np.eye(3)).max((1, 2)) < 1e-6
    empty = cubes | ~box.any((1, 2))
    if empty.all() or not empty.any():
        return bool(empty.all())
    with_box, without = int(empty.argmin()), int(empty.argmax())
    raise InputError(
        f"{path}: frame {first + with_box} has a box, frame {first + without} has none: its volume "
        f"is {volumes(box)[without]:.4g} nm^3"
    )


def _matching_forces(
    trajectory: Path, file: TrajectoryFile, first: int, block: Block, apart: Block, *, rotated: bool
) -> Floats | None:
    """Return forces from another file, in the axes of the positions.

    Where that file has positions too, they must be those of the trajectory.
    """
    if rotated and apart.box is None and not _labelled(file):
        raise InputError(
            f"the box of {trajectory} is not lower triangular and {file.path} has no "
            f"box: the axes of its forces are not known"
        )
    apart, _ = _upright(file.path, first, apart)
    if apart.positions is not None:
        here = _present(block.positions)
        check_same_place(trajectory, file.path, first, here, block.box, apart.positions)
    return apart.forces


def _present(positions: Floats | None) -> Floats:
    if positions is None:
        raise ValueError("a trajectory was opened that has no positions")
    return positions


def _tensor(values: Floats) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))


def _composition(graph: MoleculeGraph) -> dict[str, int]:
    """Return how many molecules there are of each formula, such as ``{"H2O": 216}``."""
    atoms = graph.topology.atoms
    symbols = np.array([a.element.symbol if a.element else "VS" for a in atoms])
    real = graph.numbers > 0
    return dict(Counter(formula(symbols[m[real[m]]].tolist()) for m in graph.molecules))
