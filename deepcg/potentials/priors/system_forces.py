"""Which forces of an OpenMM System are no physics of its molecules: biases and restraints.

Told by what a force acts on. A force field acts on atoms that are bonded, or on all pairs; it does
not know where in space a molecule is. What acts on collective variables, on places in space, or
between atoms that the System takes for not bonded is a bias as a rule; a second potential on a
bond, an angle or a torsion that has one may be.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import openmm

from deepcg.runtime.errors import InputError, nearest

WITHOUT_ENERGY = (
    openmm.AndersenThermostat,
    openmm.CMMotionRemover,
    openmm.MonteCarloAnisotropicBarostat,
    openmm.MonteCarloBarostat,
    openmm.MonteCarloFlexibleBarostat,
    openmm.MonteCarloMembraneBarostat,
)
"""Forces of a System that are none: thermostats, barostats and the like."""

COLLECTIVE = {
    "CustomCVForce": "a function of collective variables, as in metadynamics",
    "CustomCentroidBondForce": "it acts on centers of groups of atoms, as restraints do",
    "OrientationRestraintForce": "it holds an orientation",
    "RGForce": "it is a radius of gyration",
    "RMSDForce": "it is a distance from given positions",
    "PlumedForce": "it is of PLUMED",
}
"""Kinds that are biases, by the names of their classes: not all versions of OpenMM have all."""

ANY_FUNCTION = {"ATMForce", "PythonForce", "TorchForce"}
"""Kinds that may be anything."""

NAMED_SO = re.compile(
    r"restrain|restraint|bias|metad|umbrella|steer|plumed|wall|posre|boresch|flat.?bottom|anchor",
    re.IGNORECASE,
)

_FIELD = re.compile(r"Harmonic|Periodic|RBTorsion|CMAP|Nonbonded|GB|GayBerne|Amoeba|Hippo|Drude")
"""Kinds that force fields are made of."""

_OF_ONE = ("CustomAngleForce", "CustomBondForce", "CustomTorsionForce")
"""Kinds whose terms are of one coordinate each, as those of force fields without cross terms."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A force that is no physics of the molecules, or may be none.

    ``number`` counts the forces of the System from 0; ``sure`` tells a bias from what may be one.
    """

    number: int
    name: str
    group: int
    reason: str
    sure: bool

    def __str__(self) -> str:
        doubt = "" if self.sure else "may be a bias: "
        return f"{self.name} (group {self.group}; {doubt}{self.reason})"


def suspects(system: openmm.System) -> list[Suspect]:
    """Return the forces that are, or may be, biases; in the order of the System."""
    forces = system.getForces()
    if sum(not isinstance(force, WITHOUT_ENERGY) for force in forces) < 2:
        return []  # whatever it is, it is the potential
    bonding = _Bonding(system)
    found = []
    for number, force in enumerate(forces):
        reason = None if isinstance(force, WITHOUT_ENERGY) else _reason(force, bonding)
        if reason is not None:
            found.append(Suspect(number, force.getName(), force.getForceGroup(), *reason))
    return found


def without_bias(
    system: openmm.System, leave_out: Sequence[str], keep: Sequence[str], source: object
) -> openmm.System:
    """Return the System less the forces to ``leave_out``, a copy where there are any.

    Forces are called by name, kind or group (a number). Suspects to ``keep`` stay.

    Raises
    ------
    InputError
        There is no such force; a suspect is neither left out nor kept (all such are named).
    """
    forces = system.getForces()
    for name in (*leave_out, *keep):
        if not any(_is_called(force, name) for force in forces):
            have = sorted({force.getName() for force in forces})
            raise InputError(
                f"{source} has no force {name!r}{nearest(name, have)}: it has {', '.join(have)}"
            )
    out = {k for k, f in enumerate(forces) if any(_is_called(f, name) for name in leave_out)}
    kept = {k for k, f in enumerate(forces) if any(_is_called(f, name) for name in keep)}
    if both := out & kept:
        name = forces[min(both)].getName()
        raise InputError(f"forces_without and forces_with both name {name}: give it to one of them")
    left = [suspect for suspect in suspects(system) if suspect.number not in out | kept]
    if left:
        names = ",".join(dict.fromkeys(suspect.name for suspect in left))
        what = "a force that is" if len(left) == 1 else "forces that are"
        raise InputError(
            f"{source} holds {what} not of the force field: {'; '.join(map(str, left))}. Forces "
            f"for fits are those without a bias: give deepcg label --forces-without {names} to "
            f"leave it out, or --forces-with {names} if it is physics"
        )
    if not out:
        return system
    bare = copy.deepcopy(system)
    for number in sorted(out, reverse=True):
        bare.removeForce(number)
    return bare


def _is_called(force: openmm.Force, name: str) -> bool:
    group = name.removeprefix("group").strip(" :=")
    if group.isdecimal():
        return bool(force.getForceGroup() == int(group))
    return name in (force.getName(), type(force).__name__)


def _reason(force: openmm.Force, bonding: _Bonding) -> tuple[str, bool] | None:
    """Return why a force may be a bias, and whether that is sure; ``None`` for physics."""
    kind, name = type(force).__name__, force.getName()
    if kind in COLLECTIVE:
        return COLLECTIVE[kind], True
    if NAMED_SO.search(name) and name != kind:
        return "its name says so", True
    if kind == "CustomExternalForce" and bonding.field:
        return "it depends on places in space: a restraint, a wall or a field", True
    if kind in ANY_FUNCTION or not hasattr(openmm, kind):
        return ("what it computes is not known", False) if bonding.field else None
    terms = list(_terms(force))
    apart = []
    if bonding.close or (bonding.known and kind.startswith("Custom")):
        apart = [atoms for atoms in terms if not bonding.are_near(atoms)]
    if apart:
        atoms = ", ".join(map(str, apart[0]))
        which = f"{len(apart)} of {len(terms)} terms, such as that of the atoms {atoms}"
        # maps of two torsions are of five atoms; without exceptions nothing tells what is bonded
        alone = len(apart) == len(terms) and len(apart[0]) < 5 and bool(bonding.close)
        return f"{which}, act on atoms that are not bonded to each other", alone
    if kind in _OF_ONE and (again := [a for a in terms if bonding.has_potential(a)]):
        atoms = ", ".join(map(str, again[0]))
        return f"the force field has a potential for the atoms {atoms} already", False
    return None


class _Bonding:
    """Which atoms of a System are bonded, as its own bonds and exceptions tell."""

    def __init__(self, system: openmm.System) -> None:
        forces = system.getForces()
        self.field: bool = any(_FIELD.search(type(force).__name__) for force in forces)
        self.close: set[tuple[int, int]] = set(_exceptions(forces))
        pairwise = (openmm.NonbondedForce, openmm.CustomNonbondedForce)
        self.known: bool = any(isinstance(force, pairwise) for force in forces)
        self.bonds: set[tuple[int, int]] = set()
        self.angles: set[tuple[int, ...]] = set()
        self.turned: set[tuple[int, int]] = set()
        for k in range(system.getNumConstraints()):
            i, j, _ = system.getConstraintParameters(k)
            self.bonds.add(_pair(i, j))
        for force in forces:
            kind = type(force).__name__
            for atoms in _terms(force):
                if kind == "HarmonicBondForce" and (not self.close or _pair(*atoms) in self.close):
                    self.bonds.add(_pair(*atoms))
                if kind == "HarmonicAngleForce":
                    self.angles.add(_ordered(atoms))
                if kind in ("PeriodicTorsionForce", "RBTorsionForce"):
                    self.turned.add(_pair(atoms[1], atoms[2]))
        self.neighbors: dict[int, set[int]] = {}
        for i, j in self.bonds:
            self.neighbors.setdefault(i, set()).add(j)
            self.neighbors.setdefault(j, set()).add(i)

    def are_near(self, atoms: Sequence[int]) -> bool:
        """Whether all pairs of the atoms are exceptions, or three bonds or fewer apart."""
        return all(
            _pair(i, j) in self.close or j in self._within(i, 3) for i, j in combinations(atoms, 2)
        )

    def has_potential(self, atoms: Sequence[int]) -> bool:
        """Whether the force field has a bond, an angle or torsions for the same coordinate."""
        if len(atoms) == 2:
            return _pair(*atoms) in self.bonds
        if len(atoms) == 3:
            return _ordered(atoms) in self.angles
        if len(atoms) != 4:
            return False
        along = all(_pair(i, j) in self.bonds for i, j in pairwise(atoms))
        return along and _pair(atoms[1], atoms[2]) in self.turned

    def _within(self, atom: int, steps: int) -> set[int]:
        reached = edge = {atom}
        for _ in range(steps):
            edge = {j for i in edge for j in self.neighbors.get(i, ())} - reached
            reached = reached | edge
        return reached


def _exceptions(forces: Sequence[openmm.Force]) -> Iterator[tuple[int, int]]:
    for force in forces:
        if isinstance(force, openmm.NonbondedForce):
            for k in range(force.getNumExceptions()):
                yield _pair(*force.getExceptionParameters(k)[:2])
        elif isinstance(force, openmm.CustomNonbondedForce):
            for k in range(force.getNumExclusions()):
                yield _pair(*force.getExclusionParticles(k))


def _terms(force: openmm.Force) -> Iterator[tuple[int, ...]]:
    """Yield the atoms of each term of a force of bonds, angles, torsions or the like."""
    read: dict[str, tuple[str, int]] = {
        "HarmonicBondForce": ("Bond", 2),
        "CustomBondForce": ("Bond", 2),
        "HarmonicAngleForce": ("Angle", 3),
        "CustomAngleForce": ("Angle", 3),
        "PeriodicTorsionForce": ("Torsion", 4),
        "RBTorsionForce": ("Torsion", 4),
        "CustomTorsionForce": ("Torsion", 4),
        "CustomCompoundBondForce": ("Bond", 0),
    }
    what, n = read.get(type(force).__name__, ("", 0))
    if not what:
        return
    get: Callable[[int], list[Any]] = getattr(force, f"get{what}Parameters")
    for k in range(getattr(force, f"getNum{what}s")()):
        values = get(k)
        yield tuple(values[:n]) if n else tuple(values[0])


def _pair(i: int, j: int) -> tuple[int, int]:
    return (i, j) if i < j else (j, i)


def _ordered(atoms: Sequence[int]) -> tuple[int, ...]:
    return min(tuple(atoms), tuple(reversed(atoms)))
