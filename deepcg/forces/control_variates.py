"""Bead forces with less noise: what the turning of single-bead molecules explains is taken out.

Turning a molecule about its bead moves no bead. Let L be the generator of such rotations of
molecule m (L = sum_a (r_a - R) x grad_a) and tau its torque. For any function phi of the atoms,
integration by parts over the orientation gives a quantity of zero mean at fixed beads,

    C = sum_m (tau_m . L_m phi + kT L_m^2 phi),    <C | R> = 0,

a control variate: F - sum_k c_k C_k has the mean of F, whatever the constants c, and the least
noise where they solve a linear regression (zero-variance estimators: Assaraf and Caffarel, Phys.
Rev. Lett. 83, 4682 (1999); Mira, Solgi and Imparato, Stat. Comput. 23, 653 (2013)). Constraints
inside a molecule do not matter: a rotation keeps them, and the measure of orientations is uniform.

phi is a sum over pairs of sites on near beads, B_k(d) e: B-splines B_k of their distance d,
directions e the vector between the beads and the arms from bead to site. Any factor that depends
on the beads alone, such as a cutoff, leaves the mean at zero. The coefficients come from the
sample that the estimator is built from, of two halves each tested on the other; p of them, fitted
to N forces, take about p / N of the noise of these forces too much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import solve
from torch import Tensor

from deepcg.compute.threads import use_torch_threads
from deepcg.forces.force_map import LinearForceMap, forces_of
from deepcg.forces.rotation_loops import rotated_pairs
from deepcg.geometry.box import box_heights
from deepcg.geometry.neighbor_list import Neighbors, neighbors
from deepcg.mapping.beads import LinearMapping
from deepcg.runtime.arrays import Booleans, Floats, Integers
from deepcg.trajectory.frames import Frames

CUTOFF = 0.65
"""Beads farther apart than this, nm, do not turn for one another: longer gains nothing."""

FIRST = 0.13
"""Distance of sites, nm, from which on the splines are complete: hydrogen bonds have 0.16."""

SPACING = 0.045
"""Between splines, nm: finer ones gain less than 1 % for water."""

N_SPLINES = 14
"""They end at 0.67 nm, beyond the cutoff."""

RIDGES = tuple(10.0**k for k in range(-6, 3))
"""Tried on one half of the sample after the other: what to add to the scaled moments."""

MAX_SITES = 6
"""Molecules of more atoms are left alone: pairs of pairs of sites would be too many."""

_CHUNK = 16  # frames whose neighbors are held at a time


@dataclass(frozen=True, slots=True, eq=False)
class Rotors:
    """Which beads carry molecules that may turn, and the sites that turn with them.

    Parameters
    ----------
    atoms
        (n_beads, n_sites), atoms of the bead's molecule; -1 where it has fewer.
    kinds
        (n_beads, n_sites), the kind of site; -1 where there is none. A bead that is no rotor
        has one site, itself.
    turns
        (n_beads,), whether the bead is a rotor.
    moves
        (n_kinds,), whether a rotation moves the site: not where it is the bead itself.
    """

    atoms: Integers
    kinds: Integers
    turns: Booleans
    moves: Booleans

    def columns(self, n_splines: int) -> tuple[Integers, int]:
        """Return the first columns (n_kinds, n_kinds) of ordered pairs, and how many there are.

        A pair that no rotation moves has none, -1.
        """
        first = np.full((len(self.moves),) * 2, -1)
        total = 0
        for a, b in np.ndindex(*first.shape):
            if self.moves[a] or self.moves[b]:
                first[a, b] = total
                total += n_splines * (1 + int(self.moves[a]) + int(self.moves[b]))
        return first, total


@dataclass(frozen=True, slots=True, eq=False)
class ControlledForces:
    """F = W f - sum_k c_k C_k.

    ``noise`` is the rms force on a bead per component over the sample, kJ/mol/nm.
    """

    linear: LinearForceMap
    mapping: LinearMapping
    rotors: Rotors
    thermal_energy: float
    coefficients: Floats
    noise: float

    def __call__(self, atoms: Frames) -> Tensor:
        """Map frames of atoms onto (n_frames, n_beads, 3), kJ/mol/nm.

        Raises
        ------
        InputError
            If the frames have no forces.
        """
        forces = self.linear(atoms)
        turned = np.empty(forces.shape)
        for k, variates in enumerate(self._variates(atoms)):
            turned[k] = np.einsum("npx,p->nx", variates, self.coefficients)
        return forces - torch.from_numpy(turned).to(forces)

    def _variates(self, atoms: Frames) -> Iterator[Floats]:
        return control_variates(atoms, self.rotors, self.mapping, self.thermal_energy)

    def describe(self) -> str:
        """Return what each part does to the noise, one line per kind of block and one more."""
        n, before = int(self.rotors.turns.sum()), self.linear.noise
        removed = 1 - (self.noise / before) ** 2
        return (
            f"{self.linear.describe()}\nrotations of {n} molecules explain {100 * removed:.1f} % "
            f"of the force variance as noise: rms bead force {self.noise:.4g} kJ/mol/nm"
        )


def with_rotations(
    linear: LinearForceMap, mapping: LinearMapping, sample: Iterable[Frames], thermal_energy: float
) -> ControlledForces | LinearForceMap:
    """Return the estimator with the best coefficients over the sample.

    That is ``linear`` itself where no bead carries a molecule of 2 to 6 atoms by itself, or
    where the box leaves no room for neighbors.

    Parameters
    ----------
    thermal_energy
        kT of the data, kJ/mol. A wrong one gives a wrong mean force.
    """
    sample = list(sample)
    rotors = rotors_of(linear, mapping, sample)
    if rotors is None or sum(len(part) for part in sample) < 2:
        return linear
    halves = _moments(linear, mapping, rotors, sample, thermal_energy)
    left = [sum(h.left(o.solve(ridge)) for h, o in (halves, halves[::-1])) for ridge in RIDGES]
    best = int(np.argmin(left))
    n = sum(half.n for half in halves)
    if not left[best] < sum(half.square for half in halves):
        return linear
    noise = float(np.sqrt(left[best] / n))
    coefficients = (halves[0] + halves[1]).solve(RIDGES[best])
    return ControlledForces(linear, mapping, rotors, thermal_energy, coefficients, noise)


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """Sums over n forces F with their variates C: C C^T, C F and F^2."""

    gram: Floats
    right: Floats
    square: float
    n: int

    def __add__(self, other: _Moments) -> _Moments:
        return _Moments(
            self.gram + other.gram,
            self.right + other.right,
            self.square + other.square,
            self.n + other.n,
        )

    def solve(self, ridge: float) -> Floats:
        """Return the coefficients that leave the least noise."""
        scale = np.sqrt(np.diag(self.gram))
        scale = np.where(scale > 1e-6 * scale.max(), scale, np.inf)  # splines that nobody visits
        scaled = self.gram / np.outer(scale, scale) + ridge * np.eye(len(scale))
        coefficients: Floats = solve(scaled, self.right / scale, assume_a="pos") / scale
        return coefficients

    def left(self, coefficients: Floats) -> float:
        """Return the sum of (F - c C)^2."""
        explained = 2 * coefficients @ self.right - coefficients @ self.gram @ coefficients
        return float(self.square - explained)


def _moments(
    linear: LinearForceMap,
    mapping: LinearMapping,
    rotors: Rotors,
    sample: list[Frames],
    thermal_energy: float,
) -> tuple[_Moments, _Moments]:
    """Return the sums over frames of even and of odd number."""
    size = rotors.columns(N_SPLINES)[1]
    zero = _Moments(np.zeros((size, size)), np.zeros(size), 0.0, 0)
    halves, number = [zero, zero], 0
    for part in sample:
        forces = linear(part).double().numpy()
        many = control_variates(part, rotors, mapping, thermal_energy)
        for force, variates in zip(forces, many, strict=True):
            c, f = variates.transpose(0, 2, 1).reshape(force.size, -1), force.ravel()
            halves[number % 2] += _Moments(c.T @ c, c.T @ f, float(f @ f), f.size)
            number += 1
    return halves[0], halves[1]


def rotors_of(
    linear: LinearForceMap, mapping: LinearMapping, sample: list[Frames]
) -> Rotors | None:
    """Find the beads that carry a molecule of their own; ``None`` where there are none.

    A block has one bead and no constraint to other blocks: it may be turned about its bead.
    """
    n_beads = mapping.weights.shape[0]
    atoms = np.full((n_beads, MAX_SITES), -1)
    kinds = np.full((n_beads, MAX_SITES), -1)
    turns = np.zeros(n_beads, dtype=bool)
    virtual = mapping.virtual
    names: dict[object, int] = {}
    for number, block in enumerate(linear.blocks):
        real = np.ones(block.atoms.shape[1], bool) if virtual is None else ~virtual[block.atoms[0]]
        if block.beads.shape[1] == 1 and 2 <= real.sum() <= MAX_SITES:
            beads, m = block.beads[:, 0], int(real.sum())
            labels = [name for name, is_real in zip(block.atom_names, real, strict=True) if is_real]
            atoms[beads, :m] = block.atoms[:, real]
            kinds[beads, :m] = [names.setdefault((number, name), len(names)) for name in labels]
            turns[beads] = True
        else:
            for k, bead in enumerate(block.beads.T):
                kinds[bead, 0] = names.setdefault((number, k), len(names))
    if not turns.any():
        return None
    width = int((kinds >= 0).sum(1).max())
    rotors = Rotors(atoms[:, :width], kinds[:, :width], turns, np.ones(len(names), dtype=bool))
    reach = np.zeros(len(names))
    for part in sample:
        arms = np.linalg.norm(_arms(part, mapping(part.positions), rotors), axis=-1).max(0)
        np.maximum.at(reach, rotors.kinds[rotors.kinds >= 0], arms[rotors.kinds >= 0])
    return replace(rotors, moves=reach > 1e-6)


def control_variates(
    atoms: Frames, rotors: Rotors, beads: LinearMapping, thermal_energy: float
) -> Iterator[Floats]:
    """Yield the variates (n_beads, n_variates, 3), kJ/mol/nm times those of a spline, of frames."""
    use_torch_threads()
    columns, total = rotors.columns(N_SPLINES)
    for first in range(0, len(atoms), _CHUNK):
        part = atoms[first : first + _CHUNK]
        centers = beads(part.positions)
        near = _near(centers, part.box)
        arms = _arms(part, centers, rotors)
        torques = _torques(part, rotors, arms)
        for k in range(len(part)):
            out = np.zeros((len(rotors.turns), total, 3))
            rotated_pairs(
                near.displacement[k].double().numpy(),
                near.index[k].numpy(),
                near.count[k].numpy(),
                arms[k],
                torques[k],
                rotors.kinds,
                rotors.moves,
                columns,
                FIRST - 3 * SPACING,
                SPACING,
                N_SPLINES,
                thermal_energy,
                out,
            )
            yield out


def _near(centers: Tensor, box: Tensor | None) -> Neighbors:
    room = CUTOFF if box is None else 0.4999 * float(box_heights(box).min())
    return neighbors(centers, box, min(CUTOFF, room))


def _arms(atoms: Frames, centers: Tensor, rotors: Rotors) -> Floats:
    """Return the vectors from beads to their sites (n_frames, n_beads, n_sites, 3), nm."""
    arms = atoms.positions[:, rotors.atoms].double() - centers[:, :, None].double()
    real: Floats = arms.numpy() * ((rotors.atoms >= 0) & rotors.turns[:, None])[..., None]
    return real


def _torques(atoms: Frames, rotors: Rotors, arms: Floats) -> Floats:
    """Return the torques about the beads (n_frames, n_beads, 3), kJ/mol."""
    forces = forces_of(atoms)[:, rotors.atoms].double().numpy()
    torques: Floats = np.cross(arms, forces).sum(2)  # arms are 0 where there is no site
    return torques
