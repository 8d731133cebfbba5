"""Springs that hold coarse coordinates, for OpenMM, and what forces mean where they pull.

The springs, k/2 (xi - xi0)^2, depend on the coordinates alone, so that configurations of the same
xi keep the relative weights that they have without springs: an instantaneous force has the mean
force F(xi) as its conditional mean here, too, and frames need no weights, as those of dynamics with
constrained xi do. The mean over a restrained run is that of F over the distribution of xi that the
springs leave, and since a density's derivative integrates to zero, it is the pull of the springs:

    <F_inst> = <F(xi)> = k <xi - xi0>.

About the mean m = <xi> this is F(m) + (kT / 2k) F''(m) + O(1 / k^2): a mean force belongs to the
mean coordinates, and is exact there for a harmonic U, however soft the springs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import openmm
import torch
from torch import Tensor

from deepcg.geometry.periodic import shortest
from deepcg.mapping.beads import LinearMapping
from deepcg.mapping.collective_variables import (
    CollectiveVariables,
    Variable,
    angle,
    dihedral,
    distance,
)
from deepcg.runtime.arrays import Doubles, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames

FEWEST_STEPS = 10
"""In a period of the fastest spring."""

LEFT = "left"
"""Parameter of springs that move: which part of their way is left, 1 at first."""


class Restraint(Protocol):
    """Springs on coarse coordinates, which are shaped (...) in a frame."""

    @property
    def stiffness(self) -> Doubles:
        """k, kJ/mol per squared unit of the coordinate; broadcasts to (...)."""
        ...

    def values(self, atoms: Frames) -> Doubles:
        """Return the coordinates of frames of atoms, (n, ...)."""
        ...

    def displacements(self, values: Doubles, targets: Doubles) -> Doubles:
        """Return values (n, ...) less targets (...), the shortest way around a period."""
        ...

    def forces(
        self, targets: Doubles, *, periodic: bool, away: Doubles | None = None
    ) -> list[openmm.Force]:
        """Return the springs to targets (...) for a System, in boxes or open boundaries.

        Springs that begin ``away`` (...) from there are at targets + `LEFT` away.
        """
        ...

    def frequency(self, atoms: Frames, masses: Doubles) -> float:
        """Return the highest angular frequency of the springs alone at the first frame, 1/ps.

        ``masses`` are those of the atoms (n_atoms,), Da, 0 for virtual sites.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Ends:
    """Where springs of beads end: x, y and z as expressions of parameters.

    ``values`` (n_beads, n_parameters) are those of the ``names``.
    """

    names: tuple[str, ...]
    places: tuple[str, ...]
    values: Doubles


def _ends(targets: Doubles, away: Doubles | None) -> _Ends:
    names = ("x0", "y0", "z0")
    if away is None:
        return _Ends(names, names, targets)
    steps = ("dx", "dy", "dz")
    places = tuple(f"{x}+{LEFT}*{d}" for x, d in zip(names, steps, strict=True))
    return _Ends(names + steps, places, np.concatenate([targets, away], axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class BeadRestraint:
    """Springs on the positions of beads; the same ``width``, nm, for all.

    It is the spread sqrt(kT / k) of each component of a position that has no other forces.
    """

    mapping: LinearMapping
    width: float
    kT: float

    @property
    def stiffness(self) -> Doubles:
        """K, kJ/mol/nm^2, ()."""
        return np.array(self.kT / self.width**2)

    def values(self, atoms: Frames) -> Doubles:
        """Return positions of beads, (n, n_beads, 3), nm."""
        return self.mapping(atoms.positions.double()).numpy()

    def displacements(self, values: Doubles, targets: Doubles) -> Doubles:
        """Return values (n, n_beads, 3) less targets (n_beads, 3)."""
        return values - targets

    def forces(
        self, targets: Doubles, *, periodic: bool, away: Doubles | None = None
    ) -> list[openmm.Force]:
        """Return springs to targets (n_beads, 3), nm: on beads of one atom, or on centroids."""
        alone = np.diff(self.mapping.weights.indptr) == 1
        ends, found = _ends(targets, away), []
        if alone.any():
            found.append(self._on_atoms(np.flatnonzero(alone), ends, periodic))
        if not alone.all():
            found.append(self._on_centroids(np.flatnonzero(~alone), ends, periodic))
        if away is not None:
            for force in found:
                force.addGlobalParameter(LEFT, 1.0)
        return found

    def _on_atoms(self, beads: Integers, ends: _Ends, periodic: bool) -> Any:
        weights, k = self.mapping.weights, float(self.stiffness)
        shape = "+".join(f"({x}-({place}))^2" for x, place in zip("xyz", ends.places, strict=True))
        shape = f"periodicdistance(x,y,z,{','.join(ends.places)})^2" if periodic else shape
        force = openmm.CustomExternalForce(f"{k / 2!r}*({shape})")
        for name in ends.names:
            force.addPerParticleParameter(name)
        for bead in beads:
            force.addParticle(int(weights.indices[weights.indptr[bead]]), ends.values[bead])
        return force

    def _on_centroids(self, beads: Integers, ends: _Ends, periodic: bool) -> Any:
        weights, k = self.mapping.weights, float(self.stiffness)
        shape = f"pointdistance(x1,y1,z1,{','.join(ends.places)})^2"
        force = openmm.CustomCentroidBondForce(1, f"{k / 2!r}*{shape}")
        for name in ends.names:
            force.addPerBondParameter(name)
        for bead in beads:
            row = slice(weights.indptr[bead], weights.indptr[bead + 1])
            group = force.addGroup(weights.indices[row].tolist(), weights.data[row].tolist())
            force.addBond([group], ends.values[bead])
        force.setUsesPeriodicBoundaryConditions(periodic)
        return force

    def frequency(self, atoms: Frames, masses: Doubles) -> float:
        """Return sqrt(k sum_a M_a^2 / m_a) of the lightest bead, 1/ps; masses (n_atoms,), Da."""
        del atoms
        weights = self.mapping.weights
        lightness = (weights**2) @ np.divide(1, masses, where=masses > 0, out=0 * masses)
        return math.sqrt(float(self.stiffness) * lightness.max())


@dataclass(frozen=True, slots=True, eq=False)
class CVRestraint:
    """Springs on collective variables, with a width (d,) for each, in its unit.

    It is the spread sqrt(kT / k) of a coordinate that has no other forces.

    Raises
    ------
    InputError
        A coordinate is none of those that OpenMM knows: dihedral, angle, distance.
    """

    variables: CollectiveVariables
    width: Doubles
    kT: float

    def __post_init__(self) -> None:
        for variable in self.variables.variables:
            if variable.function not in _OPENMM:
                raise InputError(
                    f"the coordinate {variable.name!r} cannot be restrained: "
                    "only dihedrals, angles and distances can"
                )

    @property
    def stiffness(self) -> Doubles:
        """K (d,), kJ/mol per squared unit."""
        stiffness: Doubles = self.kT / self.width**2
        return stiffness

    def values(self, atoms: Frames) -> Doubles:
        """Return values (n, d)."""
        return self.variables(atoms.positions.double(), atoms.box).numpy()

    def displacements(self, values: Doubles, targets: Doubles) -> Doubles:
        """Return values (n, d) less targets (d,), the shortest way around a period."""
        return shortest(values - targets, self.variables.periods)

    def forces(
        self, targets: Doubles, *, periodic: bool, away: Doubles | None = None
    ) -> list[openmm.Force]:
        """Return one force for each coordinate, to targets (d,) in its unit."""
        places = [repr(float(x)) for x in targets]
        if away is not None:
            places = [f"{x}+{LEFT}*({float(d)!r})" for x, d in zip(places, away, strict=True)]
        springs = zip(self.variables.variables, places, self.stiffness, strict=True)
        found = [self._on(variable, x, float(k), periodic) for variable, x, k in springs]
        if away is not None:
            for force in found:
                force.addGlobalParameter(LEFT, 1.0)
        return found

    def _on(self, variable: Variable, place: str, k: float, periodic: bool) -> Any:
        make, add, symbol = _OPENMM[variable.function]
        apart = f"{symbol}-({place})"
        if variable.period is not None:
            apart = f"{apart}-{variable.period!r}*floor(({apart})/{variable.period!r}+0.5)"
        force = make(f"{k / 2!r}*({apart})^2")
        getattr(force, add)(*variable.atoms)
        molecules = self.variables.molecules
        spans = molecules is not None and len(set(molecules[list(variable.atoms)].tolist())) > 1
        force.setUsesPeriodicBoundaryConditions(periodic and spans)
        return force

    def frequency(self, atoms: Frames, masses: Doubles) -> float:
        """Return the root of the largest eigenvalue of J M^-1 J^T K, J = dxi/dr, 1/ps.

        ``masses`` are those of the atoms (n_atoms,), Da.
        """
        box = None if atoms.box is None else atoms.box[:1]
        positions = atoms.positions[:1].double().requires_grad_()
        values = self.variables(positions, box)[0]
        rows = [torch.autograd.grad(v, positions, retain_graph=True)[0] for v in values]
        j = torch.stack(rows).flatten(1).numpy()
        lightness = np.divide(1, masses, where=masses > 0, out=0 * masses).repeat(3)
        root = np.sqrt(self.stiffness)
        metric = root[:, None] * ((j * lightness) @ j.T) * root
        return math.sqrt(float(np.linalg.eigvalsh(metric)[-1]))


def check_step(springs: Restraint, atoms: Frames, masses: Doubles, dt: float) -> None:
    """Refuse a step of ``dt`` ps that is too long for the springs on masses (n_atoms,), Da.

    Raises
    ------
    InputError
        Says which step would do.
    """
    period = 2 * math.pi / springs.frequency(atoms, masses)
    longest = period / FEWEST_STEPS
    if dt > longest:
        raise InputError(
            f"dt_fs is {1000 * dt:g}, but the springs swing with a period of {1000 * period:.3g} "
            f"fs: give at most {math.floor(1e5 * longest) / 100:g}, or a larger width"
        )


_OPENMM: dict[Callable[[Tensor], Tensor], tuple[Callable[[str], Any], str, str]] = {
    angle: (openmm.CustomAngleForce, "addAngle", "theta"),
    dihedral: (openmm.CustomTorsionForce, "addTorsion", "theta"),
    distance: (openmm.CustomBondForce, "addBond", "r"),
}
