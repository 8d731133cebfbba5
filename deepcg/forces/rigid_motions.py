"""Instantaneous collective forces on dihedrals, angles and distances, by rigid motions of atoms.

A field b that turns or shifts a group of atoms and changes one coordinate at unit speed needs no
other derivative: F = b . f + kT div b is the torque on the group, or the force on it along the
distance, and a term of the coordinate alone. Where b is of rigid bodies on both sides of every
constraint, it changes neither the constraints nor the factor (det Z)^1/2 that they leave behind
(see `deepcg.forces.inverse_gradient`), and nothing is to be added.

The first end of a coordinate can be moved as well as the last, and the group is a choice too: all
of them have one mean and differ in noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order
from torch import Tensor

from deepcg.forces.force_map import forces_of
from deepcg.mapping.collective_variables import (
    KINDS,
    CollectiveVariables,
    Variable,
    angle,
    dihedral,
    distance,
)
from deepcg.runtime.arrays import Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.topology import MoleculeGraph

_UNCHANGED = 1e-5  # of the speed at which another coordinate may seem to change, by rounding
_CHECKED = 20  # frames of the sample


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """How the last of a coordinate's atoms moves as the coordinate grows at unit speed.

    ``velocity`` (n, 3) of that atom; angular velocity ``turn`` (n, 3) of the group; ``divergence``
    (n,) of the field.
    """

    velocity: Tensor
    turn: Tensor
    divergence: Tensor


def _around_bond(points: Tensor) -> Motion:
    """Turn the last atom of a dihedral about the axis of the middle two."""
    axis = torch.nn.functional.normalize(points[:, 2] - points[:, 1], dim=-1)
    arm = points[:, 3] - points[:, 2]
    return Motion(torch.linalg.cross(axis, arm), axis, torch.zeros_like(axis[:, 0]))


def _in_plane(points: Tensor) -> Motion:
    """Turn the last atom of an angle about the normal of their plane: div b = cot(angle)."""
    one, arm = points[:, 0] - points[:, 1], points[:, 2] - points[:, 1]
    normal = torch.linalg.cross(one, arm)
    sine = normal.norm(dim=-1)
    turn = normal / sine[:, None]
    return Motion(torch.linalg.cross(turn, arm), turn, (one * arm).sum(-1) / sine)


def _along(points: Tensor) -> Motion:
    """Shift the second atom away from the first: div b = 2 / r."""
    arm = points[:, 1] - points[:, 0]
    r = arm.norm(dim=-1)
    return Motion(arm / r[:, None], torch.zeros_like(arm), 2 / r)


@dataclass(frozen=True, slots=True)
class _Form:
    """``axis``: how many atoms before the last one lie on the axis, and so may turn with it."""

    motion: Callable[[Tensor], Motion]
    axis: int


FORMS: dict[Callable[[Tensor], Tensor], _Form] = {
    dihedral: _Form(_around_bond, 2),
    angle: _Form(_in_plane, 0),
    distance: _Form(_along, 0),
}
"""The functions of coordinates that have a closed form."""


@dataclass(frozen=True, slots=True, eq=False)
class RigidForce:
    """The force on one coordinate, by a rigid motion of atoms.

    Parameters
    ----------
    variables
        All coordinates.
    index
        The number of this one.
    end
        The place, 0 or -1, of the atom that moves among those of the coordinate.
    moved
        (s,), the atoms that move with it.
    kT
        kJ/mol.
    """

    variables: CollectiveVariables
    index: int
    end: int
    moved: Integers
    kT: float

    @property
    def variable(self) -> Variable:
        """The coordinate."""
        return self.variables.variables[self.index]

    def __call__(self, frames: Frames) -> Tensor:
        """Return F (n,), kJ/mol per unit of the coordinate."""
        motion = self.motion(frames)
        f = forces_of(frames).index_select(1, self._moved)  # (n, s, 3)
        moments = self._arms(frames).mT @ f  # (n, 3, 3): what is not symmetric is the torque
        torque = torch.stack(
            [moments[:, k - 2, k - 1] - moments[:, k - 1, k - 2] for k in range(3)], -1
        )
        work = motion.velocity * f.sum(1) + motion.turn * torque
        force: Tensor = work.sum(-1) + self.kT * motion.divergence
        return force

    def motion(self, frames: Frames) -> Motion:
        """Return the motion of the group."""
        points = self.variables.points_of(self.variable, frames.positions, frames.box)
        return FORMS[self.variable.function].motion(points if self.end else points.flip(1))

    def field(self, frames: Frames) -> Tensor:
        """Return b (n, n_atoms, 3), the velocities of all atoms."""
        motion, arms = self.motion(frames), self._arms(frames)
        b = torch.zeros_like(frames.positions)
        b[:, self.moved] = motion.velocity[:, None] + torch.linalg.cross(
            motion.turn[:, None].expand_as(arms), arms
        )
        return b

    def _arms(self, frames: Frames) -> Tensor:
        last = self.variable.atoms[self.end]
        return frames.positions.index_select(1, self._moved) - frames.positions[:, last, None]

    @property
    def _moved(self) -> Tensor:
        return torch.from_numpy(self.moved)


def rigid_forces(
    variables: CollectiveVariables,
    index: int,
    sample: Frames,
    pairs: Integers,
    graph: MoleculeGraph,
    kT: float,
) -> list[RigidForce]:
    """Return the legal rigid motions of either end of a coordinate, those of whole sides first.

    A group is legal if the coordinate's other atoms stay or lie on the axis, if no held pair of
    ``pairs`` (c, 2) changes or turns against another one, and if the other coordinates stay.

    Raises
    ------
    InputError
        There is none; the message has the reason for the first.
    """
    variable = variables.variables[index]
    if variable.function not in FORMS:
        raise InputError(f"{variable.name} has no closed form: only {', '.join(KINDS)} have one")
    motions = [
        RigidForce(variables, index, end, moved, kT)
        for end, moved in _groups(variable, pairs, graph)
    ]
    reasons = [_conflict(motion, pairs, sample) for motion in motions]
    legal = [motion for motion, reason in zip(motions, reasons, strict=True) if not reason]
    if not legal:
        why = reasons[0] if reasons else "its ends are joined on two ways"
        raise InputError(f"{variable.name} has no legal rigid motion: {why}")
    return legal


def _groups(
    variable: Variable, pairs: Integers, graph: MoleculeGraph
) -> Iterator[tuple[int, Integers]]:
    """Yield an end, and atoms that could move with it: the sides of bonds, or a rigid group."""
    real = graph.numbers > 0
    n_axis = FORMS[variable.function].axis
    for end, atoms in ((-1, variable.atoms), (0, variable.atoms[::-1])):
        fixed, axis = atoms[: -1 - n_axis], atoms[-1 - n_axis : -1]
        seen = set()
        sides = _sides(graph.bonds, atoms[-1], (*axis, *fixed[::-1])[0], graph.n_atoms)
        loose = pairs[~np.isin(pairs, axis).any(1)]
        for side in (*sides, _part(loose, atoms[-1], graph.n_atoms)):
            moved = np.setdiff1d(side[real[side]], axis)
            key = moved.tobytes()
            if not np.isin(fixed, moved).any() and key not in seen:
                seen.add(key)
                yield end, moved


def _sides(links: Integers, atom: int, other: int, n_atoms: int) -> Iterator[Integers]:
    """Yield the part of a molecule with ``atom`` as each bond on the way to ``other`` is cut.

    The largest comes first. It is the whole molecule where the other atom is in another.
    """
    graph = _graph(links, n_atoms)
    before = breadth_first_order(graph, other, directed=False)[1]  # towards the other atom
    if before[atom] < 0:
        yield _part(links, atom, n_atoms)
        return
    way = [atom]
    while way[-1] != other:
        way.append(int(before[way[-1]]))
    for cut in [*pairwise(way)][::-1]:
        yield _part(links[~np.isin(links, cut).all(1)], atom, n_atoms)


def _part(links: Integers, atom: int, n_atoms: int) -> Integers:
    """Return the atoms that links (b, 2) join with one, and itself."""
    part = breadth_first_order(_graph(links, n_atoms), atom, directed=False)[0]
    return np.sort(part).astype(np.int64)


def _graph(links: Integers, n_atoms: int) -> csr_array:
    ones = np.ones(len(links))
    return coo_array((ones, (links[:, 0], links[:, 1])), shape=(n_atoms, n_atoms)).tocsr()


def _conflict(force: RigidForce, pairs: Integers, sample: Frames) -> str:
    """Return why a motion is not legal, or nothing."""
    atoms = force.variable.atoms if force.end else force.variable.atoms[::-1]
    axis = np.array(atoms[-1 - FORMS[force.variable.function].axis : -1], np.int64)
    body = np.concatenate([force.moved, axis])
    touched = pairs[np.isin(pairs, force.moved).any(1)]
    hinges = np.intersect1d(touched, axis)
    touched = pairs[np.isin(pairs, np.concatenate([force.moved, hinges])).any(1)]
    broken = touched[~np.isin(touched, body).all(1)]
    if len(broken):
        return f"a constraint joins the atoms {broken[0, 0]} and {broken[0, 1]} across it"
    names = force.variables.names
    wanted = torch.eye(len(names), dtype=torch.float64)[force.index]
    off = (_speeds(force, sample) - wanted).abs().amax(0)
    if not float(off.max()) < _UNCHANGED:
        return f"moving atom {atoms[-1]} with its side changes {names[int(off.argmax())]} too"
    return ""


def _speeds(force: RigidForce, sample: Frames) -> Tensor:
    """Return how fast every coordinate changes (n, d)."""
    frames = sample[:_CHECKED].to("cpu", torch.float64)
    b, positions = force.field(frames), frames.positions.clone().requires_grad_()
    values = force.variables(positions, frames.box).sum(0)
    gradients = [torch.autograd.grad(v, positions, retain_graph=True)[0] for v in values]
    return torch.stack([(b * gradient).sum((1, 2)) for gradient in gradients], dim=-1)
