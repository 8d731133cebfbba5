"""Whether files agree: the same atoms in the same order, the same frames, usable numbers.

Every function returns nothing, or raises an `InputError` that says where they differ.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from deepcg.geometry.box import minimum_image
from deepcg.runtime.arrays import Doubles, Floats, Integers
from deepcg.runtime.errors import InputError
from deepcg.runtime.provenance import file_hash
from deepcg.trajectory.element_masses import (
    HEAVIEST_HYDROGEN,
    STANDARD,
    elements_of,
    excess_of,
    fits,
)
from deepcg.trajectory.element_names import SITE
from deepcg.trajectory.formats import NpyFile, TrajectoryFile, contents_of
from deepcg.trajectory.precision import resolution, spread_of_distances
from deepcg.trajectory.topology import MoleculeGraph

_log = logging.getLogger(__name__)

SAME_PLACE = 0.005  # nm, or two steps of coarser positions; .xtc rounds to 0.001 nm as a rule
FEWEST = 3  # atoms
ALIKE = 0.9999  # correlation
HELD = 0.001  # nm, root mean square: rounding makes 0.0004, bonds of hydrogen swing by 0.0023


def check_elements(recording: TrajectoryFile, numbers: Integers, whose: str) -> None:
    """Check the elements of a recording, where it knows them, against ``numbers`` (n_atoms,)."""
    if recording.numbers is None or np.array_equal(recording.numbers, numbers):
        return
    atom = int(np.flatnonzero(recording.numbers != numbers)[0])
    raise InputError(
        f"atom {atom} is element {recording.numbers[atom]} in {recording.path} but "
        f"{numbers[atom]} in {whose}: the atoms are in another order"
    )


def check_system(path: Path, graph: MoleculeGraph) -> None:
    """Check the number of particles, and that their masses are those of the elements.

    Masses may have been moved from atoms to their hydrogens; mass 0 is a virtual or frozen one.
    Masses that are no element's are told, for they may be scaled on purpose.
    """
    masses = particle_masses(path)
    if len(masses) != graph.n_atoms:
        raise InputError(
            f"the System {path} has {len(masses)} particles, the topology "
            f"{graph.n_atoms} atoms: give --system FILE"
        )
    odd = _odd_masses(graph, masses)
    for atom, likely in odd:
        if likely is not None:
            raise InputError(
                f"atom {atom} is {graph.topology.atom(atom)} in the topology but has mass "
                f"{masses[atom]} Da in the System {path}{likely}: "
                f"the atoms are in another order, or these are other molecules"
            )
    if odd:
        atom = odd[0][0]
        _log.warning(
            "%s: the mass of %s, %g Da, is that of no element (so are %d of %d atoms)",
            path,
            graph.topology.atom(atom),
            masses[atom],
            len(odd),
            graph.n_atoms,
        )


def _odd_masses(graph: MoleculeGraph, masses: Doubles) -> list[tuple[int, str | None]]:
    """Return atoms whose masses (n_atoms,), Da, are not their elements', and whose they are.

    That is ``None`` for masses of no element.
    """
    symbols = [a.element.symbol if a.element else SITE for a in graph.topology.atoms]
    light = (graph.numbers == 1) & (masses < HEAVIEST_HYDROGEN)
    excess = excess_of(masses, light, graph.bonds)
    free = np.setdiff1d(np.flatnonzero(light & (masses > 1.1)), graph.bonds)
    known: dict[tuple[str, float, float], str | None] = {}
    odd = []
    for atom, key in enumerate(zip(symbols, masses.round(4), excess.round(4), strict=True)):
        if key not in known:
            known[key] = None if key[1] == 0 or fits(*key) else _whose(*key, sure=not len(free))
        if known[key] is not None:
            odd.append((atom, known[key] or None))
    return odd


def _whose(symbol: str, mass: float, excess: float, *, sure: bool) -> str | None:
    """Return whose mass it is, nothing where it is nobody's, ``None`` where that is not known."""
    if symbol in ("H", "D") and mass > HEAVIEST_HYDROGEN:
        return " (hydrogen has 1 to 4)"
    if symbol not in ("H", "D") and mass < 1.5:
        return f" ({symbol} has {STANDARD[symbol]:.4g})"
    if not sure:  # which hydrogens took mass, and from which atoms
        return None
    found = [s for s in (*elements_of(mass), *elements_of(mass + excess)) if s != symbol]
    return f", that of {found[0]}" if found else ""


def particle_masses(path: Path) -> Doubles:
    """Return the masses (n_particles,), Da, of an OpenMM System without building it.

    Raises
    ------
    InputError
        The file is no System.
    """
    masses: list[float] = []
    try:
        events = ElementTree.iterparse(path, events=("start", "end"))
        if next(events)[1].tag != "System":
            raise InputError(f"{path} is no OpenMM System (its XML does not begin with <System>)")
        for event, element in events:
            if event == "end" and element.tag == "Particle":
                masses.append(float(element.attrib["mass"]))
            if event == "end" and element.tag == "Particles":
                break  # those of the forces come later
    except (ElementTree.ParseError, KeyError, ValueError, StopIteration) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as an OpenMM System: {error}") from error
    return np.array(masses)


def check_held(path: Path, positions: Floats, trajectory: Path, step: float = 0.0) -> None:
    """Check a frame (n_atoms, 3), nm, of whole molecules against the constraints of a System.

    ``step`` is what the positions were rounded to, nm.
    """
    pairs, lengths = _constraints(path)
    if not len(pairs):
        return
    if pairs.min() < 0 or pairs.max() >= len(positions):
        raise InputError(f"the System {path} has constraints of particles that it does not have")
    apart = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=-1)
    off = np.abs(apart - lengths)
    most = max(HELD, 1.5 * spread_of_distances(step))
    if np.sqrt(np.square(off).mean()) < most and off.max() < max(SAME_PLACE, 2 * step):
        return
    worst = int(off.argmax())
    a, b = pairs[worst]
    raise InputError(
        f"the System {path} holds atoms {a} and {b} at {lengths[worst]:.4f} nm, but in the first "
        f"frame of {trajectory} they are {apart[worst]:.4f} nm apart: give the System that made "
        "the frames with --system"
    )


def check_forces(forces: TrajectoryFile, trajectory: TrajectoryFile, numbers: Integers) -> None:
    """Check that a file of forces is for the frames of a trajectory, of elements (n_atoms,)."""
    if not forces.has_forces:
        holds = contents_of(forces)
        raise InputError(f"{forces.path} has no forces{f': it has {holds}' if holds else ''}")
    if forces.n_atoms != trajectory.n_atoms:
        raise InputError(
            f"{forces.path} has forces on {forces.n_atoms} atoms, {trajectory.path} "
            f"has {trajectory.n_atoms} atoms"
        )
    if forces.n_frames != trajectory.n_frames:
        raise InputError(
            f"{forces.path} has forces for {forces.n_frames} frames, "
            f"{trajectory.path} has {trajectory.n_frames} frames: remove it or give --forces FILE"
        )
    check_elements(forces, numbers, "the topology")


def check_not_positions(forces: TrajectoryFile, trajectory: TrajectoryFile) -> None:
    """Check that the first frame's forces are not its positions, in whatever unit."""
    numbers = next(forces.blocks(1, 0, 1)).forces
    positions = next(trajectory.blocks(1, 0, 1)).positions
    if numbers is None or positions is None or positions.shape[1] < FEWEST:
        return
    f, x = numbers.ravel().astype(np.float64), positions.ravel().astype(np.float64)
    if not (np.isfinite(f).all() and f.std() > 0 and x.std() > 0):
        return
    if np.corrcoef(f, x)[0, 1] > ALIKE:
        raise InputError(
            f"{forces.path} has the positions of {trajectory.path}, no forces: give --forces FILE"
        )


def check_same_origin(forces: TrajectoryFile, trajectory: Path, system: Path | None) -> None:
    """Check that labels were computed from these positions and this System, where they say so."""
    note = forces.note if isinstance(forces, NpyFile) else None
    if not note:
        return
    if system is not None and "system_sha256" in note:
        with system.open("rb") as file:
            if note["system_sha256"] != hashlib.file_digest(file, "sha256").hexdigest():
                raise _another_origin(forces, f"System than {system}")
    if "trajectory_hash" in note and note["trajectory_hash"] != file_hash(trajectory):
        raise _another_origin(forces, f"trajectory than {trajectory}")


def check_same_place(
    trajectory: Path,
    forces: Path,
    first: int,
    positions: Floats,
    box: Floats | None,
    there: Floats,
) -> None:
    """Check that two files have the same positions, up to box vectors and one common shift.

    ``positions`` and ``there`` (f, n_atoms, 3) and ``box`` (f, 3, 3), nm, of frames that begin with
    frame ``first``.
    """
    apart = positions - there
    apart = apart.astype(np.float64) - apart[:, :1]
    if box is not None:
        apart = minimum_image(apart, box)
    near = max(SAME_PLACE, 2.5 * max(resolution(positions), resolution(there)))
    far = np.argwhere(~(np.abs(apart).max(-1) < near))
    if len(far):
        frame, atom = far[0]
        raise InputError(
            f"atom {atom} of frame {first + frame} is not in the same place in "
            f"{forces} and {trajectory}: these forces belong to other "
            f"frames or another order of atoms"
        )


def check_finite(path: Path | None, what: str, first: int, values: Floats | None) -> None:
    """Check positions or forces (f, n_atoms, 3) of frames that begin with frame ``first``."""
    if values is None or np.isfinite(values).all():
        return
    frame, atom, _ = np.argwhere(~np.isfinite(values))[0]
    raise InputError(
        f"{path}: the {what} of atom {atom} in frame {first + frame} (from 0) are "
        f"{values[frame, atom]}: --skip-frames {first + frame} leaves the frame out"
    )


def _constraints(path: Path) -> tuple[Integers, Floats]:
    """Return the pairs (n, 2) that an OpenMM System holds and their distances (n,), nm."""
    pairs, lengths = [], []
    try:
        for _, element in ElementTree.iterparse(path):
            if element.tag == "Constraint":
                pairs.append((int(element.attrib["p1"]), int(element.attrib["p2"])))
                lengths.append(float(element.attrib["d"]))
            if element.tag in ("Constraints", "Forces"):
                break  # those of the forces come later
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be read as an OpenMM System: {error}") from error
    return np.array(pairs, np.int64).reshape(-1, 2), np.array(lengths)


def _another_origin(forces: TrajectoryFile, what: str) -> InputError:
    return InputError(
        f"{forces.path} was computed from another {what}: remove it, or give --forces FILE"
    )
