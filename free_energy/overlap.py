"""Whether runs under different biases overlap, so that MBAR tells their free energies.

The overlap matrix O (Klimovich, Shirts and Mobley, J. Comput.-Aided Mol. Des. 29, 397 (2015)) has
the probability that a frame of run i is one of run j; 1 minus its second eigenvalue is 0 where
runs fall apart into islands. What the frames on both sides of a cut have in common is

    S = sum_(i, j) N_i O_ij,  i on one side, j on the other,

the number of independent frames that are likely on both. It is what errors follow: the variance
of the free energy between two states is 1 / S - 1 / N_1 - 1 / N_2 in (kT)^2, and 1 - lambda_2 is
at most S (1 / N_1 + 1 / N_2). A small 1 - lambda_2 alone says little: a chain of many windows that
overlap well has one, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from free_energy.arrays import Floats, Integers

APART = 1.0
"""Shared independent frames below which runs do not overlap: an error of 1 kT or more, by one."""

FEW = 10.0
"""Shared independent frames below which the free energy is told with an error of 0.3 kT."""


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """How well runs overlap, and where least.

    Parameters
    ----------
    matrix
        (K, K), the overlap matrix; its rows sum to 1.
    gap
        1 minus its second eigenvalue; 1 of a single run.
    shared
        Independent frames that the two sides of the worst cut have in common; infinite of a
        single run.
    pair
        Numbers of the two runs that are nearest to one another across this cut.
    sides
        Numbers of the runs on either side of it.
    """

    matrix: Floats
    gap: float
    shared: float
    pair: tuple[int, int]
    sides: tuple[tuple[int, ...], tuple[int, ...]]

    def in_words(self, names: Sequence[str]) -> str:
        """Say which two runs are apart."""
        one, other = (names[k] for k in self.pair)
        several = max(len(side) for side in self.sides) > 1
        sides = (" | ".join(_listed(side, names) for side in self.sides)) if several else ""
        return (
            f"{one} and {other} share {self.shared:.2g} independent frames "
            f"(1 - second eigenvalue of the overlap matrix: {max(self.gap, 0.0):.1g}"
            f"{f'; the runs fall into {sides}' if sides else ''})"
        )


def overlap_of(probabilities: Floats, amounts: Floats, run: Integers) -> Overlap:
    """Return the overlap of runs.

    Parameters
    ----------
    probabilities
        (K, N), that each frame is of each run, by the mixture of all; columns sum to 1.
    amounts
        (N,), independent frames that each frame is worth.
    run
        (N,), of which run each frame is.
    """
    n = len(probabilities)
    sizes = np.bincount(run, amounts, n)
    shared = (probabilities * amounts) @ probabilities.T  # N_i O_ij, symmetric
    matrix = shared / sizes[:, None]
    if n == 1:
        return Overlap(matrix, 1.0, np.inf, (0, 0), ((0,), ()))
    alike = shared / np.sqrt(sizes[:, None] * sizes)  # symmetric, of the same eigenvalues
    gap = 1 - float(np.linalg.eigvalsh(alike)[-2])
    return Overlap(matrix, gap, *_worst_cut(shared))


def _worst_cut(
    shared: Floats,
) -> tuple[float, tuple[int, int], tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the least of what the sides of a cut share, the nearest pair across it, the sides.

    Cuts are those of the tree of strongest pairs, each at one of its pairs.
    """
    lengths = -np.log(np.maximum(shared, 1e-300))
    tree = minimum_spanning_tree(lengths - lengths.min() + 1).tocoo()
    found = []
    for k in range(tree.nnz):
        rest = tree.copy()
        rest.data = np.where(np.arange(tree.nnz) == k, 0.0, tree.data)
        rest.eliminate_zeros()
        side = connected_components(rest, directed=False)[1] == 0
        pair = sorted((int(tree.row[k]), int(tree.col[k])))
        found.append((float(shared[side][:, ~side].sum()), pair, side))
    amount, (one, other), side = min(found, key=lambda cut: cut[0])
    groups = (np.flatnonzero(part).tolist() for part in (side, ~side))
    first, second = (tuple(group) for group in groups)
    return amount, (one, other), (first, second)


def _listed(numbers: Sequence[int], names: Sequence[str]) -> str:
    shown = [names[k] for k in numbers[:4]]
    more = f" and {len(numbers) - 4} more" if len(numbers) > 4 else ""
    return ", ".join(shown) + more
