"""Whether frames can be what they are said to be: sizes that no atoms have, frames that repeat.

Files do not tell when bits flip, units are mixed up or pieces overlap; atoms do. Every check
returns nothing, or raises an `InputError` that says where and what the cause may be.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import mdtraj
import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from deepcg.geometry.box import minimum_image, volumes
from deepcg.runtime.arrays import Floats, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.skipped_frames import numbers_in_words
from deepcg.trajectory.topology import MoleculeGraph
from deepcg.units import ANGSTROM

_log = logging.getLogger(__name__)

FARTHEST = 1e5
"""nm; float32 resolves 0.008 nm there."""

DENSEST = 1000.0
"""Atoms per nm^3: water has 100, diamond 176."""

STRETCHED = (0.3, 3.0)
"""How long bonds may be, in sums of covalent radii: 2.5 from one C-alpha to the next."""

USUAL_FORCE = 700.0
"""kJ/mol/nm, root mean square of a component: 590 in TIP3P, 780 in ab initio water, 850 in
alanine dipeptide."""

USUAL_WITHIN = 3.0

_UNITS = "Give --units, or convert the file if its format has fixed ones"

FACTORS = {
    "kJ/mol/A": 10.0,
    "kcal/mol/nm": 4.184,
    "kcal/mol/A": 41.84,
    "kcal/mol/A, divided by 10 once more": 418.4,
    "eV/A": 9648.533,
    "hartree/bohr": 49614.75,
}
"""How many kJ/mol/nm there are in a unit."""


class Bonds:
    """Bonds with the lengths that they have as a rule: sums of covalent radii, nm."""

    def __init__(self, graph: MoleculeGraph) -> None:
        numbers, pairs = graph.numbers, graph.bonds
        hydrogens = (numbers[pairs] == 1).all(1)  # some files hold rigid water so
        self.pairs: Integers = pairs[(numbers[pairs] > 0).all(1) & ~hydrogens]
        self.usual: Floats = covalent_radii[numbers[self.pairs]].sum(1) * ANGSTROM
        self.graph = graph
        self.free: Integers = np.setdiff1d(np.flatnonzero(numbers == 1), pairs)

    def check(self, path: Path, first: int, positions: Floats, box: Floats | None = None) -> None:
        """Check frames (f, n_atoms, 3), nm, of whole molecules that begin with ``first``.

        Molecules that reach themselves through the ``box`` (f, 3, 3), nm, are not whole in any
        image: theirs are bonds of nearest images.
        """
        if not len(self.pairs):
            return
        i, j = self.pairs.T
        ratio = np.linalg.norm(positions[:, i] - positions[:, j], axis=-1) / self.usual
        across = np.isin(i, self.graph.through_box)
        if box is not None and across.any():
            steps = minimum_image(positions[:, j[across]] - positions[:, i[across]], box)
            ratio[:, across] = np.linalg.norm(steps, axis=-1) / self.usual[across]
        bad = np.argwhere(~((ratio > STRETCHED[0]) & (ratio < STRETCHED[1])))
        if not len(bad):
            return
        frame, bond = bad[0]
        a, b = (self.graph.topology.atom(int(k)) for k in self.pairs[bond])
        length = ratio[frame, bond] * self.usual[bond]
        raise InputError(
            f"{path}: the bond {a} to {b} is {length:.3g} nm long in frame {first + frame}, "
            f"{_gap(a, b) or _why(float(np.median(ratio[frame])))}"
        )

    def check_hydrogens(self, path: Path, positions: Floats) -> None:
        """Check that hydrogens of the first frame (n_atoms, 3), nm, are bonded to something."""
        n_hydrogens = int((self.graph.numbers == 1).sum())
        if len(positions) < 2 or 10 * len(self.free) <= n_hydrogens:
            return
        apart = np.linalg.norm(positions - positions[self.free[0]], axis=-1)
        nearest = np.partition(apart, 1)[1]
        alone = self.graph.topology.atom(int(self.free[0]))
        raise InputError(
            f"{path}: {len(self.free)} of {n_hydrogens} hydrogens are bonded to nothing; to "
            f"{alone} the nearest atom is {nearest:.3g} nm away: "
            "is an atom missing, are these lengths in A (give --units), or the atoms in another "
            "order? --bonds none takes them as they are"
        )


def check_sizes(path: Path, first: int, positions: Floats, box: Floats | None) -> None:
    """Check that positions (f, n, 3), nm, and boxes (f, 3, 3), nm, are of a size that can be."""
    far = np.argwhere(~(np.abs(positions) < FARTHEST))
    if len(far):
        frame, atom, _ = far[0]
        raise InputError(
            f"{path}: atom {atom} in frame {first + frame} (from 0) is at "
            f"{positions[frame, atom].tolist()} nm: the frame is damaged; --skip-frames "
            f"{first + frame} leaves it out"
        )
    if box is None:
        return
    density = positions.shape[1] / volumes(box)
    bad = np.flatnonzero(~((density < DENSEST) & (np.abs(box).max((1, 2)) < FARTHEST)))
    if len(bad):
        raise InputError(
            f"{path}: the box of frame {first + bad[0]} has {density[bad[0]]:.3g} atoms per nm^3 "
            "(water has 100): it is damaged, or its lengths are not in the file's units"
        )


class Repeats:
    """Finds frames that repeat the one before, or the first: pieces joined with an overlap."""

    def __init__(self) -> None:
        self.start: Floats | None = None
        self.last: Floats | None = None

    def check(self, path: Path, first: int, positions: Floats) -> None:
        """Check frames (f, n, 3), numbered from ``first`` on, that follow those checked before."""
        found = [
            (first + k, name) for k, frame in enumerate(positions) if (name := self._as(frame))
        ]
        if found:
            numbers = numbers_in_words(np.array([number for number, _ in found]))
            raise InputError(
                f"{path}: frame {found[0][0]} repeats {found[0][1]}: are pieces of a run joined "
                f"with an overlap? --skip-frames {numbers} leaves out what repeats"
            )

    def _as(self, frame: Floats) -> str | None:
        """Return which frame, of those to compare with, is the same as one (n, 3), if any is."""
        start, last = self.start, self.last
        self.start, self.last = frame if start is None else start, frame
        if start is None or last is None or not len(frame):
            return None
        for other, name in ((last, "the one before"), (start, "the first")):
            if frame[0, 0] == other[0, 0] and np.array_equal(frame, other):
                return name
        return None


def warn_of_forces(path: Path, forces: NDArray[np.float32], graph: MoleculeGraph) -> bool:
    """Warn of forces (f, n_atoms, 3), kJ/mol/nm, of a size that bonded atoms do not have.

    The size is that of most frames: one that is damaged does not count.

    Returns
    -------
    Whether there is something to warn of.
    """
    real = graph.numbers > 0
    if not len(graph.bonds) or not real.any():
        return False
    squares = np.square(forces[:, real], dtype=np.float64).mean((1, 2))
    size = float(np.sqrt(np.median(squares)))
    if size == 0:
        _log.warning("%s: all forces are 0%s", path, " in most frames" if squares.any() else "")
        return True
    off = math.log(USUAL_FORCE / size)
    if abs(off) < math.log(USUAL_WITHIN):
        return False
    likely = min(FACTORS, key=lambda name: abs(abs(off) - math.log(FACTORS[name])))
    cause = f"as if they were in {likely}" if off > 0 else f"as if kJ/mol/nm were read as {likely}"
    _log.warning(
        "%s: forces are %.3g kJ/mol/nm (root mean square); atoms have 200 to 2000 as a rule. It is "
        "%s, a factor of %g: see --units",
        path,
        size,
        cause,
        FACTORS[likely],
    )
    return True


def _gap(a: mdtraj.core.topology.Atom, b: mdtraj.core.topology.Atom) -> str:
    """Return what is missing where a bond joins residues whose numbers do not follow each other."""
    first, last = sorted((a.residue.resSeq, b.residue.resSeq))
    if last - first < 2 or a.residue.chain.index != b.residue.chain.index:
        return ""
    if (a.name, b.name) not in (("C", "N"), ("O3'", "P")):
        return ""
    return (
        f"and the topology has nothing of residues {first + 1} to {last - 1} between: put TER "
        "where the chain is broken, or model what is missing"
    )


def _why(median: float) -> str:
    """Return the likely cause of bad bonds from the median of length / usual length."""
    if 5 < median < 20:
        return f"and all bonds are about 10 times too long: are these lengths in A? {_UNITS}"
    if 0.05 < median < 0.2:
        return f"and all bonds are about 10 times too short: are these lengths in nm? {_UNITS}"
    return (
        "too long or too short: the topology has its atoms in another order, a molecule is broken "
        "and there is no box, or the frame is damaged"
    )
