"""Bonds from distances: which atoms are close enough, and which pairs leave that open."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from scipy.sparse import coo_array, csr_array

from deepcg.runtime.arrays import Booleans, Doubles, Floats, Integers
from deepcg.units import ANGSTROM

STRETCH = 1.3
"""A bond of heavy atoms may be this much longer than the sum of covalent radii."""

STRETCH_HYDROGEN = 1.5
"""That of hydrogen, which has one bond at all times: 0.145 nm for O-H, above any vibration."""

DOUBTFUL = (1.25, 1.45)
"""Heavy atoms this far apart, in sums of covalent radii, may be bonded or not: bonds at 300 K are
below 1.15, but for F2 with 1.25, and atoms that are not bonded touch at 1.5 and more."""

FIRM = 1.2
"""Below this a bond is one, whatever else is near."""

NOBLE_GASES = (2, 10, 18, 36, 54, 86)
HALOGENS = (9, 17, 35, 53, 85)

NONMETALS = (1, *NOBLE_GASES, *HALOGENS, 5, 6, 7, 8, 14, 15, 16, 32, 33, 34, 51, 52)
"""With the half-metals that make networks and molecules: B, Si, Ge, As, Sb, Te."""


@dataclass(frozen=True, slots=True, eq=False)
class Contacts:
    """Pairs of atoms that are bonded by their distance, and pairs that may be.

    Parameters
    ----------
    bonds
        (n, 2), the first of each pair is the smaller.
    ratios
        (n,) their lengths in sums of covalent radii.
    doubtful
        (m, 2) pairs of heavy atoms in the range ``DOUBTFUL`` that no chain of three bonds or
        fewer joins; those below ``STRETCH`` are among the bonds as well.
    through_box
        Atoms that are bonded to two images of one atom, or to an image of themselves.
    """

    bonds: Integers
    ratios: Doubles
    doubtful: Integers
    through_box: Integers


def is_metal(numbers: Integers) -> Booleans:
    """Return which elements (n,) are metals: no distance tells what is bonded to these."""
    metal: Booleans = (numbers > 0) & ~np.isin(numbers, NONMETALS)
    return metal


def guess_bonds(numbers: Integers, positions: Floats, box: Floats | None) -> Integers:
    """Return the pairs (n_bonds, 2) that are close enough to be bonded; see `contacts`."""
    return contacts(numbers, positions, box).bonds


def contacts(numbers: Integers, positions: Floats, box: Floats | None) -> Contacts:
    """Return which atoms are bonded by their distances to nearest images, in any box.

    Two atoms are bonded when they are closer than ``STRETCH`` times the sum of their covalent
    radii (those of ASE). A hydrogen is bonded to its nearest neighbor only. Metals, noble gases
    and virtual sites are not bonded; nor are atoms that only seem to be, since both are bonded to
    a third (silicon across the oxygen of quartz).

    ASE searches, and not `deepcg.geometry.neighbor_list`: that has one cutoff for all elements and
    refuses boxes narrower than twice of it, such as the cells of crystals.

    Parameters
    ----------
    numbers
        (n_atoms,) atomic numbers.
    positions
        (n_atoms, 3), nm.
    box
        (3, 3), nm, or ``None``.
    """
    first, second, distance, images = _pairs(numbers, positions, box)
    usual = (covalent_radii[numbers[first]] + covalent_radii[numbers[second]]) * ANGSTROM
    ratio = distance / usual
    hydrogen = (numbers[first] == 1) | (numbers[second] == 1)
    nearest = np.full(len(numbers), np.inf)
    np.minimum.at(nearest, first, distance)
    np.minimum.at(nearest, second, distance)
    reach = np.where(numbers == 1, nearest + 1e-7, np.inf)
    close = ratio < np.where(hydrogen, STRETCH_HYDROGEN, STRETCH)
    bonded = close & (distance <= reach[first]) & (distance <= reach[second])
    firm = _graph(first, second, bonded & (hydrogen | (ratio < FIRM)), len(numbers))
    bonded &= hydrogen | (ratio < FIRM) | ~_joined(firm @ firm, first, second)
    sure = _graph(first, second, bonded & (hydrogen | (ratio < DOUBTFUL[0])), len(numbers))
    two = sure @ sure
    open_ = ~hydrogen & (ratio >= DOUBTFUL[0]) & (ratio < DOUBTFUL[1])
    open_ &= ~_joined(sure + two + two @ sure, first, second)
    own = first == second
    pair = np.stack([first, second], axis=1)
    several = bonded & (own | (images > 1))
    return Contacts(
        pair[bonded & ~own], ratio[bonded & ~own], pair[open_ & ~own], np.unique(pair[several])
    )


def _pairs(
    numbers: Integers, positions: Floats, box: Floats | None
) -> tuple[Integers, Integers, Doubles, Integers]:
    """Return near pairs i <= j once each: i, j, their least distance, nm, and how many images."""
    radii = max(STRETCH_HYDROGEN, DOUBTFUL[1]) * covalent_radii[numbers]
    bare = (numbers == 0) | np.isin(numbers, NOBLE_GASES) | is_metal(numbers)
    kept = np.flatnonzero(~bare)
    # in A, for ASE's cell lists have bins of 3 length units or more
    cell = None if box is None else box / ANGSTROM
    atoms = Atoms(numbers[kept], positions[kept] / ANGSTROM, cell=cell, pbc=box is not None)
    first, second, distance = neighbor_list("ijd", atoms, radii[kept])
    once = first <= second  # every pair is listed both ways, an atom's own images too
    first, second, distance = kept[first[once]], kept[second[once]], distance[once] * ANGSTROM
    order = np.lexsort((distance, second, first))
    first, second, distance = first[order], second[order], distance[order]
    new = np.ones(len(first), bool)
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    nearest = np.repeat(distance[new], np.diff(np.append(np.flatnonzero(new), len(new))))
    # as near as the nearest: a pair's second image is another bond only then
    images = np.add.reduceat(distance < 1.1 * nearest, np.flatnonzero(new)) if len(new) else new
    return (
        first[new].astype(np.int64),
        second[new].astype(np.int64),
        distance[new],
        np.asarray(images, np.int64),
    )


def _graph(first: Integers, second: Integers, chosen: Booleans, n_atoms: int) -> csr_array:
    i, j = first[chosen], second[chosen]
    ones = np.ones(2 * len(i), np.int32)
    ends = np.concatenate([i, j]), np.concatenate([j, i])
    return coo_array((ones, ends), shape=(n_atoms, n_atoms)).tocsr()


def _joined(graph: csr_array, first: Integers, second: Integers) -> Booleans:
    if not len(first):
        return np.zeros(0, bool)
    joined: Booleans = np.asarray(graph[first, second]).ravel() > 0
    return joined
