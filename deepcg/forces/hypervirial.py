"""Whether forces belong to positions: the hypervirial theorem of close pairs and of bonds.

For frames of a canonical ensemble and any field B of displacements that moves rigid groups as
wholes, <F . B> = -kT <div B> (Hirschfelder, J. Chem. Phys. 1960, 33, 1462). The right side knows
positions alone. With a field that moves two molecules apart where they are close, or a bond towards
its mean length, the ratio of the sides is 1 for forces, -1 for gradients, 0 for what has nothing to
do with the positions, and a factor of units where these are mixed up. No model is needed, and
nothing is assumed of who attracts whom: hydrogen bonds and ions obey it, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from deepcg.forces.constraints import Constraints
from deepcg.geometry.box import box_heights
from deepcg.geometry.neighbor_list import environments, find_pairs
from deepcg.runtime.arrays import Doubles, Integers
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.topology import MoleculeGraph
from deepcg.units import thermal_energy

FALSE_ALARMS = 1e-4
"""How often a ratio is judged that is right, by chance."""

FEWEST_PAIRS, FEWEST_BLOCKS, MOST_BLOCKS = 40, 8, 20

OPEN_CUTOFF = 0.6
"""nm, for neighbors where no box tells the density."""


@dataclass(frozen=True, slots=True)
class Balance:
    """The two sides of the theorem, in blocks of frames.

    Parameters
    ----------
    what
        Whose distances these are.
    measured, expected
        (n_blocks,), sums of F . B and of -kT div B, kJ/mol.
    """

    what: str
    measured: Doubles
    expected: Doubles

    @property
    def ratio(self) -> float:
        """Measured by expected: 1 for forces that belong to the positions."""
        return float(self.measured.sum() / self.expected.sum())

    def error(self, ratio: float) -> float:
        """Return the standard error of the ratio, were it ``ratio``."""
        apart = self.measured - ratio * self.expected
        n = len(apart)
        return float(np.sqrt(n) * apart.std(ddof=1) / abs(self.expected.sum()))

    def bounds(self) -> tuple[float, float]:
        """Return what the ratio is above and below, but for `FALSE_ALARMS`."""
        reach = float(stats.t.ppf(1 - FALSE_ALARMS / 2, len(self.measured) - 1))
        reach *= self.error(self.ratio)
        return self.ratio - reach, self.ratio + reach


def contact_balance(sample: Frames, graph: MoleculeGraph, temperature: float) -> Balance | None:
    """Return the balance of a field that moves molecules apart which are closest to one another.

    The field falls in a straight line to 0 at the median distance from the center of mass of a
    molecule to the nearest other one.

    Returns
    -------
    ``None`` where there are too few molecules or frames.
    """
    if sample.forces is None or len(graph.molecules) < 3:
        return None
    centers, forces = _molecules(sample, graph)
    cutoff = _reach(centers, sample.box)
    pairs = find_pairs(centers, sample.box, cutoff)
    near = environments(centers, pairs, 2 * cutoff)
    edge = float(near.distance.min(-1).values.median())
    if not 0 < edge < cutoff:
        return None
    f, i, slot = np.nonzero((near.mask & (near.distance < edge)).numpy())
    j = pairs.index.numpy()[f, i, slot]
    once = j > i
    f, i, j, slot = f[once], i[once], j[once], slot[once]
    apart = near.displacement.numpy()[f, i, slot].astype(float)
    r = np.linalg.norm(apart, axis=-1)
    push = ((forces[f, j] - forces[f, i]) * apart).sum(-1) / (2 * r)
    measured = (1 - r / edge) * push
    expected = thermal_energy(temperature) * (1 / edge - 2 * (1 - r / edge) / r)
    return _in_blocks("close molecules", sample, f, i, measured, expected)


def bond_balance(
    sample: Frames, graph: MoleculeGraph, held: Constraints, temperature: float
) -> Balance | None:
    """Return the balance of a field that moves bonds towards their mean lengths.

    Groups that are held together move as wholes; bonds inside of them do not count.

    Returns
    -------
    ``None`` where there are too few frames, or no bonds that vibrate.
    """
    if sample.forces is None or len(sample) < FEWEST_BLOCKS:
        return None
    group = np.arange(graph.n_atoms)
    for atoms in held:
        group[list(atoms)] = min(atoms)
    bonds = graph.bonds[(graph.numbers[graph.bonds] > 0).all(1)]
    bonds = bonds[group[bonds[:, 0]] != group[bonds[:, 1]]]
    if not len(bonds):
        return None
    forces = _sums(sample.forces, group, graph.n_atoms)
    positions = sample.positions.double().numpy()
    first, second = bonds.T
    apart = positions[:, second] - positions[:, first]
    r = np.linalg.norm(apart, axis=-1)
    push = ((forces[:, group[second]] - forces[:, group[first]]) * apart).sum(-1) / (2 * r)
    stretch, spread = r - r.mean(0), np.maximum(r.std(0), 1e-6)
    measured = -stretch / spread**2 * push  # all bonds count alike, whatever their stiffness
    expected = thermal_energy(temperature) * (1 + 2 * stretch / r) / spread**2
    f, k = (index.ravel() for index in np.indices(r.shape))
    size = spread[k] ** 2
    return _in_blocks("bonds", sample, f, k, measured.ravel() * size, expected.ravel() * size)


def _molecules(sample: Frames, graph: MoleculeGraph) -> tuple[torch.Tensor, Doubles]:
    """Return centers of mass (f, n_molecules, 3), nm, and the forces on molecules, kJ/mol/nm."""
    assert sample.forces is not None
    of, n = graph.molecule_index, len(graph.molecules)
    masses = torch.from_numpy(np.maximum(graph.masses, 1e-6))
    weighed = _sums(sample.positions.double() * masses[:, None], of, n)
    total = np.bincount(of, masses.numpy(), n)
    return torch.from_numpy(weighed / total[:, None]).float(), _sums(sample.forces, of, n)


def _sums(vectors: torch.Tensor, group: Integers, n: int) -> Doubles:
    """Return sums (f, n, 3) over the groups of vectors (f, n_atoms, 3)."""
    zeros = torch.zeros(len(vectors), n, 3, dtype=torch.float64)
    sums: Doubles = zeros.index_add(1, torch.from_numpy(group), vectors.double()).numpy()
    return sums


def _reach(centers: torch.Tensor, box: torch.Tensor | None) -> float:
    """Return a cutoff, nm, within which nearly all molecules have a neighbor."""
    if box is None:
        return OPEN_CUTOFF
    spacing = float((torch.linalg.det(box.double()) / centers.shape[1]).max() ** (1 / 3))
    return min(1.5 * spacing, 0.499 * float(box_heights(box).min()))


def _in_blocks(
    what: str,
    sample: Frames,
    frame: NDArray[np.int64],
    member: NDArray[np.int64],
    measured: Doubles,
    expected: Doubles,
) -> Balance | None:
    """Add up terms (n_terms,) in blocks of frames, or of frames and members where these are few."""
    n_frames = len(sample)
    if sample.weights is not None:
        weights = sample.weights.double().numpy()[frame] / float(sample.weights.mean())
        measured, expected = weights * measured, weights * expected
    parts = -(-MOST_BLOCKS // n_frames)
    cells = frame * parts + member % parts
    of_cell = np.array_split(np.arange(n_frames * parts), min(MOST_BLOCKS, n_frames * parts))
    block = np.repeat(np.arange(len(of_cell)), [len(cell) for cell in of_cell])[cells]
    found, right = (
        np.bincount(block, terms, len(of_cell)).astype(np.float64) for terms in (measured, expected)
    )
    if len(frame) < FEWEST_PAIRS or len(of_cell) < FEWEST_BLOCKS or not right.sum() > 0:
        return None
    return Balance(what, found, right)


def about_balance(balance: Balance, temperature: float) -> str | None:
    """Return what is wrong with forces whose balance is not 1; ``None`` where nothing is.

    Temperatures, K, or ensembles that are somewhat off are not remarked on: only signs, forces of
    less than half and of more than twice what they should be, by more than chance.
    """
    low, high = balance.bounds()
    found = f"{balance.ratio:.2g} +- {balance.error(balance.ratio):.1g} times what"
    expected = f"{found} the distances of {balance.what} at {temperature:g} K ask for"
    by_chance = f"; by chance once in {1 / FALSE_ALARMS:.0f} files"
    if high < 0 or (high < 0.5 and balance.ratio < -3 * balance.error(balance.ratio)):
        does = "pull close molecules" if balance.what != "bonds" else "stretch bonds that are long"
        does += " together" if balance.what != "bonds" else " already"
        return (
            f"forces {does}: they are {expected} ({by_chance[2:]}): have they the wrong sign "
            "(gradients instead of forces)?"
        )
    if high < 0.5 and low < 0:
        return (
            f"forces have nothing to do with positions: they are {expected}{by_chance}: do they "
            "belong to other frames, another order of atoms, or are they random?"
        )
    if high < 0.5 or low > 2:
        return (
            f"forces are {expected}{by_chance}: are units (--units) or the temperature "
            "(--temperature) wrong, are they of other frames, or is this no sample of equilibrium?"
        )
    return None
