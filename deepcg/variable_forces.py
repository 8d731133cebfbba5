"""The estimators of forces on collective variables by name, and the choice of the quietest.

All have the mean force as their mean and differ in noise. They are built once from a sample of
frames and applied to every chunk of a trajectory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import mdtraj
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepcg.collective import CollectiveVariables, VariableFrames
from deepcg.constraints import Constraints, held_pairs
from deepcg.errors import InputError
from deepcg.force_estimators import forces_of
from deepcg.frames import Frames
from deepcg.general_forces import GeneralForces, general_forces
from deepcg.mapping import molecule_index
from deepcg.rigid_motions import RigidForce, rigid_forces
from deepcg.units import thermal_energy

Floats = NDArray[np.float64]

_NAMED = 5  # candidates that were not chosen, in a description


class VariableForces(Protocol):
    """Forces of single frames on d collective variables."""

    @property
    def noise(self) -> Floats:
        """(d,), root mean square of the force over the sample, kJ/mol per unit."""
        ...

    def __call__(self, atoms: Frames) -> Tensor:
        """Map frames of atoms, with forces, onto (n_frames, d), kJ/mol per unit."""
        ...

    def describe(self) -> str:
        """Return how the forces are made, and their noise, in lines for people."""
        ...


Build = Callable[
    [CollectiveVariables, Iterable[Frames], Constraints, mdtraj.Topology, Floats, float],
    VariableForces,
]
"""From variables, a sample of frames with forces, constraints, a topology, masses (n_atoms,) of the
dynamics in Da, 0 for virtual sites (they matter where constraints are), and a temperature in K."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One way to the force on one coordinate: a column of an estimator.

    ``noise`` is the rms of the force over the sample.
    """

    forces: RigidForce | GeneralForces
    column: int
    noise: float
    label: str


@dataclass(frozen=True, slots=True, eq=False)
class ChosenForces:
    """The quietest of the candidates for each coordinate, which are listed from the quietest."""

    variables: CollectiveVariables
    candidates: tuple[tuple[Candidate, ...], ...]

    def __call__(self, atoms: Frames) -> Tensor:
        """Map frames of atoms onto (n_frames, d), kJ/mol per unit of the coordinate.

        Raises
        ------
        InputError
            The frames have no forces, or coordinates no derivatives in one of them.
        """
        chosen = [some[0] for some in self.candidates]
        computed = {forces: _columns(forces, atoms) for forces in {c.forces for c in chosen}}
        return torch.stack([computed[c.forces][:, c.column] for c in chosen], dim=-1)

    @property
    def noise(self) -> Floats:
        """(d,), root mean square of the force over the sample, kJ/mol per unit."""
        return np.array([some[0].noise for some in self.candidates])

    def describe(self) -> str:
        """Return what was chosen for each coordinate and what else there was; one line each."""
        return "\n".join(
            f"force on {variable.name}: {_in_words(some[0])} kJ/mol/{variable.unit} rms"
            + _others(some[1:])
            for variable, some in zip(self.variables.variables, self.candidates, strict=True)
        )


def project_variables(
    chunks: Iterable[Frames], variables: CollectiveVariables, estimate: VariableForces
) -> Iterator[VariableFrames]:
    """Turn atomistic frames into frames of coordinates with forces, chunk by chunk."""
    for atoms in chunks:
        values = variables(atoms.positions, atoms.box)
        yield VariableFrames(values, estimate(atoms), atoms.weights)


@dataclass(frozen=True, slots=True, eq=False)
class _Setting:
    """What an estimator is built from; ``pairs`` (c, 2) are held."""

    variables: CollectiveVariables
    sample: Frames
    constraints: Constraints
    pairs: NDArray[np.int64]
    topology: mdtraj.Topology
    masses: Floats
    kT: float


_Way = Callable[[_Setting], list[list[Candidate] | InputError]]
"""Finds the candidates for each coordinate, or why there are none."""


def _rigid(setting: _Setting) -> list[list[Candidate] | InputError]:
    found: list[list[Candidate] | InputError] = []
    for index in range(len(setting.variables.variables)):
        try:
            forces = rigid_forces(
                setting.variables,
                index,
                setting.sample,
                setting.pairs,
                setting.topology,
                setting.kT,
            )
        except InputError as error:
            found.append(error)
        else:
            found.append([_candidate(f, 0, setting, _rigid_label(f, setting)) for f in forces])
    return found


def _general(setting: _Setting) -> list[list[Candidate] | InputError]:
    return _of_metric(setting, (setting.masses > 0).astype(float), "general")


def _general_mass(setting: _Setting) -> list[list[Candidate] | InputError]:
    metric = np.divide(1, setting.masses, where=setting.masses > 0, out=0 * setting.masses)
    return _of_metric(setting, metric, "general-mass")


def _of_metric(setting: _Setting, metric: Floats, label: str) -> list[list[Candidate] | InputError]:
    d = len(setting.variables.variables)
    try:
        forces = general_forces(
            setting.variables,
            setting.sample,
            setting.constraints,
            setting.pairs,
            setting.masses,
            metric,
            setting.kT,
        )
        return [[_candidate(forces, column, setting, label)] for column in range(d)]
    except InputError as error:
        return [error] * d


def _using(*ways: _Way) -> Build:
    """Return the function that builds the quietest estimator of some ways."""

    def build(
        variables: CollectiveVariables,
        sample: Iterable[Frames],
        constraints: Constraints,
        topology: mdtraj.Topology,
        masses: Floats,
        temperature: float,
    ) -> ChosenForces:
        setting = _setting(variables, sample, constraints, topology, masses, temperature)
        found = zip(*(way(setting) for way in ways), strict=True)
        return ChosenForces(variables, tuple(_quietest_first(some) for some in found))

    return build


VARIABLE_ESTIMATORS: dict[str, Build] = {
    "general": _using(_general),
    "general-mass": _using(_general_mass),
    "least-noise": _using(_rigid, _general, _general_mass),
    "rotation": _using(_rigid),
}
"""``rotation``: rigid rotations and shifts (`deepcg.rigid_motions`). ``general`` and
``general-mass``: gradients of the coordinates, with unit and with inverse masses as the metric
(`deepcg.general_forces`). ``least-noise``: of these the quietest for every coordinate. They raise
`InputError` where a coordinate has no legal one, and say why."""


def _setting(
    variables: CollectiveVariables,
    sample: Iterable[Frames],
    constraints: Constraints,
    topology: mdtraj.Topology,
    masses: Floats,
    temperature: float,
) -> _Setting:
    frames = Frames.join(sample)
    forces_of(frames)
    n_atoms = {variables.n_atoms, frames.n_sites, topology.n_atoms, len(masses)}
    if len(n_atoms) > 1:
        raise ValueError(f"variables, sample, topology and masses are of {n_atoms} atoms")
    for atom in variables.atoms:
        if not masses[atom] > 0:
            raise InputError(
                f"the coordinates are of atom {atom} ({topology.atom(atom)}), a virtual site "
                "without a mass: use the atoms that place it"
            )
    index = molecule_index(topology)
    inside = np.isin(index, index[variables.atoms])
    near = frozenset(group for group in constraints if inside[list(group)].any())
    pairs = held_pairs(near, topology, frames)
    return _Setting(variables, frames, near, pairs, topology, masses, thermal_energy(temperature))


def _candidate(
    forces: RigidForce | GeneralForces, column: int, setting: _Setting, label: str
) -> Candidate:
    values = _columns(forces, setting.sample)[:, column]
    return Candidate(forces, column, float(values.double().square().mean().sqrt()), label)


def _columns(forces: RigidForce | GeneralForces, atoms: Frames) -> Tensor:
    values = forces(atoms)
    return values if values.ndim == 2 else values[:, None]


def _quietest_first(found: tuple[list[Candidate] | InputError, ...]) -> tuple[Candidate, ...]:
    candidates = [c for some in found if not isinstance(some, InputError) for c in some]
    if not candidates:
        raise InputError("; ".join(dict.fromkeys(str(error) for error in found)))
    return tuple(sorted(candidates, key=lambda c: c.noise))


def _rigid_label(forces: RigidForce, setting: _Setting) -> str:
    n, atom = len(forces.moved), setting.topology.atom(forces.variable.atoms[forces.end])
    return f"rigid motion of {n} atom{'s' if n > 1 else ''} with {atom}"


def _others(candidates: tuple[Candidate, ...]) -> str:
    text = "".join(f"; {_in_words(c)}" for c in candidates[:_NAMED])
    rest = candidates[_NAMED:]
    return f"{text}; {len(rest)} more, up to {rest[-1].noise:.4g}" if rest else text


def _in_words(candidate: Candidate) -> str:
    return f"{candidate.label} {candidate.noise:.4g}"
