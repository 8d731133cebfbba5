"""Force maps: the force on a bead from the forces on atoms, whose conditional mean is -dU/dR.

Here U is the potential of mean force (PMF) of the beads. To fit it to these instantaneous forces is
force matching, or multiscale coarse graining (MS-CG).
For R = M r any constant W with W M^T = 1 gives one, F = W f; atoms joined by constraints must
share one weight (Ciccotti, Kapral, Vanden-Eijnden, ChemPhysChem 6, 1809 (2005); Kraemer et al.,
J. Phys. Chem. Lett. 14, 3970 (2023)). All have the same mean and differ in noise. An estimator is
built once from a sample of frames and then applied to every frame, so that a long trajectory can
stream through it.

Forces on virtual sites are taken to be spread over the atoms that place them already, as OpenMM
and GROMACS do; what a file still lists on the sites themselves is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.linalg import null_space
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from deepcg.forces.constraints import Constraints
from deepcg.mapping.beads import LinearMapping, Mapping, weighted_sums
from deepcg.runtime.arrays import Booleans, Floats, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames

_CHUNK = 2**22  # forces converted to float64 at a time


class ForceEstimator(Protocol):
    """Bead forces of single frames."""

    @property
    def noise(self) -> float:
        """Root mean square of a bead force per component over the sample, kJ/mol/nm."""
        ...

    def __call__(self, atoms: Frames) -> Tensor:
        """Map frames of atoms, with forces, onto (n_frames, n_beads, 3), kJ/mol/nm."""
        ...

    def describe(self) -> str:
        """Return how the force is made, and its noise, in lines for people."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class BlockForces:
    """The weights of equivalent blocks: molecules that beads or constraints join.

    Parameters
    ----------
    atoms, beads
        (n_blocks, n), indices in the system.
    weights
        (n_beads of a block, n_atoms of a block).
    noise
        rms force on a bead per component, kJ/mol/nm: weights found on every second frame of
        the sample are tried on the others, and the other way round.
    mapped_noise
        That of the weights of `projected_map` without regard to constraints.
    atom_names
        (n_atoms of a block,).
    """

    atoms: Integers
    beads: Integers
    weights: Floats
    noise: float
    mapped_noise: float
    atom_names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LinearForceMap:
    """F = W f, with W sparse (n_beads, n_atoms), and the blocks that W was made of."""

    weights: csr_array
    blocks: tuple[BlockForces, ...]

    def __call__(self, atoms: Frames) -> Tensor:
        """Map frames of atoms onto (n_frames, n_beads, 3), kJ/mol/nm.

        Raises
        ------
        InputError
            If the frames have no forces.
        """
        return weighted_sums(self.weights, forces_of(atoms))

    @property
    def noise(self) -> float:
        """Root mean square of a bead force per component over the sample, kJ/mol/nm."""
        return _pooled([(b.noise, b.beads.size) for b in self.blocks])

    @property
    def mapped_noise(self) -> float:
        """What `noise` would be with the least weights, without regard to constraints."""
        return _pooled([(b.mapped_noise, b.beads.size) for b in self.blocks])

    def describe(self) -> str:
        """Return the noise and, of small blocks, the weights; one line per kind of block."""
        return "\n".join(_describe(block) for block in self.blocks)


def least_noise_map(
    mapping: Mapping, sample: Iterable[Frames], constraints: Constraints
) -> LinearForceMap:
    """Return the W of least <|W f|^2> over the sample: that of least noise, as all share a mean.

    Weights are zero beyond a bead's own block. The covariance of the forces is pooled over
    equivalent blocks and the three directions; with m atoms and N samples of them, m / N of
    their mean variance is added to its diagonal, which is what N samples leave uncertain: few
    samples draw W towards that of `projected_map`.

    Raises
    ------
    InputError
        Not a linear mapping; no forces, or not finite ones; no legal weights exist.
    """
    return _build(mapping, sample, constraints, _least_noise_weights)


def projected_map(
    mapping: Mapping, sample: Iterable[Frames], constraints: Constraints
) -> LinearForceMap:
    """Return W = (M M^T)^-1 M, the least weights of all; the sample only tells their noise.

    Raises
    ------
    InputError
        As `least_noise_map`; atoms joined by constraints would have unequal weights.
    """
    return _build(mapping, sample, constraints, _projected_weights)


def project(
    chunks: Iterable[Frames], mapping: Mapping, estimate: ForceEstimator
) -> Iterator[Frames]:
    """Map atomistic frames onto frames of beads, chunk by chunk."""
    for atoms in chunks:
        yield Frames(
            mapping(atoms.positions), atoms.box, estimate(atoms), mapping.types, atoms.weights
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Kind:
    """Equivalent blocks of m atoms in g groups, with k beads.

    atoms (n_blocks, m) and beads (n_blocks, k), indices in the system; mapping (k, m), the block
    of M; share (m, g), 1 where the atom is in the group, no column where it holds virtual sites
    alone; real (m,), false for virtual sites; names (m,).
    """

    atoms: Integers
    beads: Integers
    mapping: Floats
    share: Floats
    real: Booleans
    names: tuple[str, ...]


_Weigh = Callable[[_Kind, Floats, int], Floats]


def _build(
    mapping: Mapping, sample: Iterable[Frames], constraints: Constraints, weigh: _Weigh
) -> LinearForceMap:
    if not isinstance(mapping, LinearMapping):
        raise InputError(
            f"the mapping {type(mapping).__name__} is not linear in the atoms: "
            "linear force estimators need a LinearMapping"
        )
    kinds = _kinds(mapping, constraints)
    halves = _second_moments(kinds, sample, mapping.weights.shape[1])
    blocks = tuple(
        _block(kind, of_kind, weigh) for kind, of_kind in zip(kinds, halves, strict=True)
    )
    return LinearForceMap(_assembled(blocks, mapping.weights.shape), blocks)


def _least_noise_weights(kind: _Kind, moment: Floats, n_samples: int) -> Floats:
    a = kind.mapping @ kind.share  # (k, g)
    if np.linalg.matrix_rank(a) < len(a):
        raise InputError(_no_weights(kind))
    start, free = np.linalg.pinv(a).T, null_space(a)  # legal weights: start - x free^T, any x
    ridge = np.trace(moment) / n_samples
    c = kind.share.T @ (moment + ridge * np.eye(len(moment))) @ kind.share  # (g, g)
    x = np.linalg.solve(free.T @ c @ free, free.T @ c @ start.T).T  # (k, g - k)
    weights: Floats = (start - x @ free.T) @ kind.share.T
    return weights


def _projected_weights(kind: _Kind, moment: Floats, n_samples: int) -> Floats:
    del moment, n_samples
    if np.linalg.matrix_rank(kind.mapping) < len(kind.mapping):
        raise InputError(_no_weights(kind))
    weights: Floats = np.linalg.pinv(kind.mapping).T
    shared = weights @ kind.share @ np.linalg.pinv(kind.share)
    wrong = np.abs(weights - shared) > 1e-9
    if wrong.any():
        raise InputError(_unequal(kind, weights, *(int(i) for i in np.argwhere(wrong)[0])))
    return weights


def _block(kind: _Kind, halves: tuple[_Moment, _Moment], weigh: _Weigh) -> BlockForces:
    whole, least = halves[0] + halves[1], np.linalg.pinv(kind.mapping).T
    weights = weigh(kind, whole.mean, whole.n) * kind.real  # others have them on their atoms
    if halves[1].n:
        pairs = (halves, halves[::-1])
        squares = [_square(weigh(kind, a.mean, a.n) * kind.real, b) for a, b in pairs]
        square = sum(squares) / whole.n
    else:
        square = _square(weights, whole) / whole.n
    mapped = _square(least, whole) / whole.n
    return BlockForces(
        kind.atoms, kind.beads, weights, float(square**0.5), float(mapped**0.5), kind.names
    )


def _square(weights: Floats, moment: _Moment) -> float:
    """Return the sum over the sample of the mean square force on the beads."""
    return float(np.einsum("ba,ac,bc->b", weights, moment.sum, weights).mean())


def _pooled(noises: list[tuple[float, int]]) -> float:
    squares = sum(noise**2 * count for noise, count in noises)
    return float(np.sqrt(squares / sum(count for _, count in noises)))


def _assembled(blocks: tuple[BlockForces, ...], shape: tuple[int, int]) -> csr_array:
    rows, columns, data = [], [], []
    for block in blocks:
        bead, atom = np.nonzero(block.weights)
        rows.append(block.beads[:, bead].ravel())
        columns.append(block.atoms[:, atom].ravel())
        data.append(np.tile(block.weights[bead, atom], len(block.atoms)))
    entries = (np.concatenate(data), (np.concatenate(rows), np.concatenate(columns)))
    return csr_array(coo_array(entries, shape=shape))


@dataclass(frozen=True, slots=True, eq=False)
class _Moment:
    """The sum of f_a f_b (m, m) over n samples: frames, equivalent blocks and directions."""

    sum: Floats
    n: int

    def __add__(self, other: _Moment) -> _Moment:
        return _Moment(self.sum + other.sum, self.n + other.n)

    @property
    def mean(self) -> Floats:
        return self.sum / self.n


def _second_moments(
    kinds: list[_Kind], sample: Iterable[Frames], n_atoms: int
) -> list[tuple[_Moment, _Moment]]:
    """Return the moments of every kind over frames of even and of odd number."""
    halves = [[_Moment(np.zeros((kind.atoms.shape[1],) * 2), 0)] * 2 for kind in kinds]
    number = 0
    for frames in sample:
        forces = forces_of(frames)
        if forces.shape[1] != n_atoms:
            raise InputError(
                f"the sample has {forces.shape[1]} atoms, but the mapping is of {n_atoms}"
            )
        for part in forces.split(max(1, _CHUNK // (3 * n_atoms))):
            parity = (number + np.arange(len(part))) % 2
            number += len(part)
            for kind, moments in zip(kinds, halves, strict=True):
                f = part.double().numpy()[:, kind.atoms] * kind.real[:, None]  # (f, n, m, 3)
                for odd in (0, 1):
                    some = np.moveaxis(f[parity == odd], 2, -1).reshape(-1, kind.atoms.shape[1])
                    moments[odd] += _Moment(some.T @ some, len(some))
    if number == 0:
        raise InputError("the sample that force weights are built from has no frames")
    for kind, moments in zip(kinds, halves, strict=True):
        if not all(0 < np.trace(moment.sum) < np.inf for moment in moments if moment.n):
            raise InputError(
                f"the forces on {_named(kind, range(len(kind.names)))} are all zero or not finite"
            )
    return [(even, odd) for even, odd in halves]


def forces_of(frames: Frames) -> Tensor:
    """Return forces (n_frames, n_sites, 3), kJ/mol/nm, or say what to do where there are none."""
    if frames.forces is None:
        raise InputError(
            "these frames have no forces: bead forces need those on atoms; "
            "name a file of forces, or a System to compute them from"
        )
    return frames.forces


def _kinds(mapping: LinearMapping, constraints: Constraints) -> list[_Kind]:
    """Split the system into blocks, with no bead and no constraint between two, and sort them."""
    leader = _leaders(mapping.weights.shape[1], constraints)
    names = mapping.atom_names or tuple(f"atom {i}" for i in range(len(leader)))
    blocks: dict[object, list[tuple[Integers, Integers]]] = {}
    for atoms, beads in _blocks(mapping, leader):
        key = (
            tuple(names[i] for i in atoms),
            tuple(np.searchsorted(atoms, leader[atoms]).tolist()),
            tuple(_row(mapping.weights, bead, atoms) for bead in beads),
        )
        blocks.setdefault(key, []).append((atoms, beads))
    return [_kind(mapping, leader, names, members) for members in blocks.values()]


def _row(weights: csr_array, bead: int, atoms: Integers) -> tuple[object, ...]:
    """Return a row of M by the places of its atoms in their block."""
    row = slice(weights.indptr[bead], weights.indptr[bead + 1])
    places = np.searchsorted(atoms, weights.indices[row])
    return tuple(sorted(zip(places.tolist(), weights.data[row].round(12).tolist(), strict=True)))


def _kind(
    mapping: LinearMapping,
    leader: Integers,
    names: tuple[str, ...],
    members: list[tuple[Integers, Integers]],
) -> _Kind:
    atoms, beads = members[0]
    real = np.ones(len(atoms), dtype=bool)
    if mapping.virtual is not None:
        real = ~mapping.virtual[atoms]
    share = (leader[atoms][:, None] == np.unique(leader[atoms])).astype(float)
    return _Kind(
        np.array([a for a, _ in members]),
        np.array([b for _, b in members]),
        mapping.weights[beads][:, atoms].toarray(),
        share[:, share[real].any(axis=0)],
        real,
        tuple(names[i] for i in atoms),
    )


def _leaders(n_atoms: int, constraints: Constraints) -> Integers:
    """Return the first atom of every atom's group (n_atoms,); free atoms lead themselves."""
    leader = np.arange(n_atoms)
    for group in constraints:
        if max(group) >= n_atoms:
            raise InputError(
                f"the constraints hold atom {max(group)}, but the mapping is of {n_atoms} atoms: "
                "the System belongs to another topology"
            )
        leader[list(group)] = min(group)
    return leader


def _blocks(mapping: LinearMapping, leader: Integers) -> Iterator[tuple[Integers, Integers]]:
    """Yield the atoms and beads, ascending, of every block that has beads."""
    n_beads, n_atoms = mapping.weights.shape
    molecules = np.zeros(n_atoms, np.int64) if mapping.molecules is None else mapping.molecules
    bead, atom = mapping.weights.nonzero()
    # nodes of a graph: atoms, then beads, then molecules
    ends = np.concatenate([n_atoms + bead, leader, n_atoms + n_beads + molecules])
    starts = np.concatenate([atom, np.arange(n_atoms), np.arange(n_atoms)])
    size = n_atoms + n_beads + int(molecules.max()) + 1
    graph = coo_array((np.ones(len(ends)), (starts, ends)), shape=(size, size))
    label = connected_components(graph, directed=False)[1][: n_atoms + n_beads]
    order = np.argsort(label, kind="stable")
    for nodes in np.split(order, np.cumsum(np.bincount(label))[:-1]):
        n = np.searchsorted(nodes, n_atoms)
        if n < len(nodes):
            yield nodes[:n], nodes[n:] - n_atoms


def _no_weights(kind: _Kind) -> str:
    if np.linalg.matrix_rank(kind.mapping) < len(kind.mapping):
        return (
            f"the beads {_listed(kind.beads[0])} are not independent: "
            "some are fixed by the others; leave them out"
        )
    crowded = (np.abs(kind.mapping) @ kind.share > 0).sum(axis=0)
    atoms = np.flatnonzero(kind.share[:, crowded.argmax()])
    return (
        f"no force exists for each of the beads {_listed(kind.beads[0])}: constraints join "
        f"{_named(kind, atoms)}, so that their beads cannot move one by one; "
        "put one bead on such a group ('oxygens' or 'com' for rigid water)"
    )


def _unequal(kind: _Kind, weights: Floats, bead: int, atom: int) -> str:
    group = kind.share[:, kind.share[atom].argmax()] if kind.share[atom].any() else kind.share[atom]
    atoms = np.flatnonzero(group) if group.any() else [atom]
    values = ", ".join(f"{weights[bead, i]:.3g}" for i in atoms)
    return (
        f"'projected' would weight {_named(kind, atoms)} by {values} in the force on bead "
        f"{kind.beads[0, bead]}, but constraints join these atoms, or may, and the "
        "constraint forces between them, which no file holds, would be missing: use 'linear' or "
        "'least-noise'"
    )


def _named(kind: _Kind, atoms: Iterable[int]) -> str:
    atoms = list(atoms)
    some = ", ".join(f"{kind.atoms[0, i]} ({kind.names[i]})" for i in atoms[:6])
    return f"atoms {some}" + (", ..." if len(atoms) > 6 else "")


def _listed(numbers: Integers) -> str:
    return ", ".join(str(n) for n in numbers[:6]) + (", ..." if len(numbers) > 6 else "")


def _describe(block: BlockForces) -> str:
    n_beads, n_atoms = block.weights.shape
    residues = "-".join(dict.fromkeys(name.split()[0] for name in block.atom_names))
    text = (
        f"{len(block.atoms)} x {residues} (atoms: {n_atoms}, beads: {n_beads}): rms bead force "
        f"{block.noise:.4g} kJ/mol/nm per component ({block.mapped_noise:.4g} with least weights)"
    )
    if n_atoms > 6 or n_beads > 2:
        return text
    names = [name.split()[-1] for name in block.atom_names]
    rows = (
        " + ".join(f"{w:.3g} {name}" for w, name in zip(row, names, strict=True))
        for row in block.weights
    )
    return f"{text}; weights {'; '.join(rows)}"
