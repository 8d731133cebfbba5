"""Estimators of the instantaneous collective force (ICF) by name, and their quietest mixture.

Each gives the force on collective variables in single frames, as adaptive biasing force (ABF)
methods average it: F = b . f + kT div b, of a vector field b that changes one coordinate at unit
speed, and the blue-moon correction for what constraints do to the measure.

All have the mean force as their mean at given coordinates and differ in noise. So the difference of
any two has a mean of zero there, and whatever multiple of it is added: weights that sum to one
are as legal as a single estimator, and can cancel a good part of the noise (control variates).
Estimators are built once from a sample of frames and applied to every chunk of a trajectory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from deepcg.forces.constraints import Constraints, held_pairs
from deepcg.forces.force_map import forces_of
from deepcg.forces.inverse_gradient import InverseGradientForces, inverse_gradient_forces
from deepcg.forces.rigid_motions import RigidForce, rigid_forces
from deepcg.mapping.collective_variables import CollectiveVariables
from deepcg.runtime.arrays import Doubles, Integers
from deepcg.runtime.errors import InputError, pick
from deepcg.trajectory.frames import CVFrames, Frames
from deepcg.trajectory.topology import MoleculeGraph
from deepcg.units import thermal_energy

_NAMED = 5  # candidates in a description
_APART = 5.0  # standard errors by which means differ: chance does so once in a million times
_GAIN = 0.01  # of the mean square: what a further candidate must take away to be worth its time


class VariableForces(Protocol):
    """Forces of single frames on d collective variables."""

    @property
    def noise(self) -> Doubles:
        """(d,), root mean square of the force over the sample, kJ/mol per unit."""
        ...

    def __call__(self, atoms: Frames) -> Tensor:
        """Map frames of atoms, with forces, onto (n_frames, d), kJ/mol per unit."""
        ...

    def describe(self) -> str:
        """Return how the forces are made, and their noise, in lines for people."""
        ...


Build = Callable[
    [CollectiveVariables, Iterable[Frames], Constraints, MoleculeGraph, Doubles, float],
    VariableForces,
]
"""From variables, a sample of frames with forces, constraints, a molecule graph, masses (n_atoms,)
of the dynamics in Da, 0 for virtual sites (they matter where constraints are), and a temperature in
K."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One way to the force on one coordinate: a column of an estimator.

    ``noise`` is the rms of the force over the sample.
    """

    forces: RigidForce | InverseGradientForces
    column: int
    noise: float
    label: str


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Candidates with weights that sum to one; ``noise`` is the rms of their sum over the sample.

    The weights are from the sample: that they know some of the frames they are used on makes an
    error of a part in (frames / candidates) of the noise, far below its statistical error.
    """

    parts: tuple[Candidate, ...]
    weights: tuple[float, ...]
    noise: float


@dataclass(frozen=True, slots=True, eq=False)
class ChosenForces:
    """A mixture for each coordinate, and all its candidates, listed from the quietest."""

    variables: CollectiveVariables
    mixtures: tuple[Mixture, ...]
    candidates: tuple[tuple[Candidate, ...], ...]

    def __call__(self, atoms: Frames) -> Tensor:
        """Map frames of atoms onto (n_frames, d), kJ/mol per unit of the coordinate.

        Raises
        ------
        InputError
            The frames have no forces, or coordinates no derivatives in one of them.
        """
        used = {part.forces for mixture in self.mixtures for part in mixture.parts}
        computed = {forces: _columns(forces, atoms) for forces in used}
        sums = []
        for mixture in self.mixtures:
            pairs = zip(mixture.weights, mixture.parts, strict=True)
            terms = [weight * computed[part.forces][:, part.column] for weight, part in pairs]
            sums.append(torch.stack(terms).sum(0))
        return torch.stack(sums, dim=-1)

    @property
    def noise(self) -> Doubles:
        """(d,), root mean square of the force over the sample, kJ/mol per unit."""
        return np.array([mixture.noise for mixture in self.mixtures])

    def describe(self) -> str:
        """Return what was chosen for each coordinate and what there was; one line each."""
        rows = zip(self.variables.variables, self.mixtures, self.candidates, strict=True)
        return "\n".join(
            f"force on {variable.name}: {_mixed_in_words(mixture)} kJ/mol/{variable.unit} rms"
            + _others(some if len(mixture.parts) > 1 else some[1:])
            for variable, mixture, some in rows
        )


def project_variables(
    chunks: Iterable[Frames], variables: CollectiveVariables, estimate: VariableForces
) -> Iterator[CVFrames]:
    """Turn atomistic frames into frames of coordinates with forces, chunk by chunk."""
    for atoms in chunks:
        values = variables(atoms.positions, atoms.box)
        yield CVFrames(values, estimate(atoms), atoms.weights)


@dataclass(frozen=True, slots=True, eq=False)
class _Setting:
    """What an estimator is built from; ``pairs`` (c, 2) are held."""

    variables: CollectiveVariables
    sample: Frames
    constraints: Constraints
    pairs: Integers
    graph: MoleculeGraph
    masses: Doubles
    kT: float


_Way = Callable[[_Setting], list[list[Candidate] | InputError]]
"""Finds the candidates for each coordinate, or why there are none."""


def _rigid(setting: _Setting) -> list[list[Candidate] | InputError]:
    found: list[list[Candidate] | InputError] = []
    for index in range(len(setting.variables.variables)):
        try:
            forces = rigid_forces(
                setting.variables, index, setting.sample, setting.pairs, setting.graph, setting.kT
            )
        except InputError as error:
            found.append(error)
        else:
            found.append([_candidate(f, 0, setting, _rigid_label(f, setting)) for f in forces])
    return found


def _inverse_gradient(setting: _Setting) -> list[list[Candidate] | InputError]:
    return _of_metric(setting, (setting.masses > 0).astype(float), "inverse-gradient")


def _inverse_gradient_mass(setting: _Setting) -> list[list[Candidate] | InputError]:
    metric = np.divide(1, setting.masses, where=setting.masses > 0, out=0 * setting.masses)
    return _of_metric(setting, metric, "inverse-gradient-mass")


def _of_metric(
    setting: _Setting, metric: Doubles, label: str
) -> list[list[Candidate] | InputError]:
    d = len(setting.variables.variables)
    try:
        forces = inverse_gradient_forces(
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


def _using(*ways: _Way, mix: bool = False) -> Build:
    """Return the function that builds the quietest estimator of some ways, or mixes them."""

    def build(
        variables: CollectiveVariables,
        sample: Iterable[Frames],
        constraints: Constraints,
        graph: MoleculeGraph,
        masses: Doubles,
        temperature: float,
    ) -> ChosenForces:
        setting = _setting(variables, sample, constraints, graph, masses, temperature)
        found = zip(*(way(setting) for way in ways), strict=True)
        candidates = tuple(_quietest_first(some) for some in found)
        mixtures = tuple(_mixture(some if mix else some[:1], setting) for some in candidates)
        return ChosenForces(variables, mixtures, candidates)

    return build


VARIABLE_ESTIMATORS: dict[str, Build] = {
    "inverse-gradient": _using(_inverse_gradient),
    "inverse-gradient-mass": _using(_inverse_gradient_mass),
    "least-noise": _using(_rigid, _inverse_gradient, _inverse_gradient_mass, mix=True),
    "rotation": _using(_rigid),
}
"""``rotation``: rigid rotations and shifts (`deepcg.forces.rigid_motions`). ``inverse-gradient``
and ``inverse-gradient-mass``: gradients of the coordinates, with unit and with inverse masses as
the metric (`deepcg.forces.inverse_gradient`). Of several of a kind the quietest is taken for every
coordinate. ``least-noise``: the quietest mixture of all of these. They raise `InputError` where a
coordinate has no legal one, and say why."""

_RENAMED = {"general": "inverse-gradient", "general-mass": "inverse-gradient-mass"}
"""Names of before."""


def estimator_name(name: str) -> str:
    """Return the name of today of an estimator that files and commands may know by an older one."""
    return _RENAMED.get(name, name)


def variable_estimator(name: str) -> Build:
    """Return what builds the estimator of a name in `VARIABLE_ESTIMATORS`, or of an older one.

    Raises
    ------
    InputError
        There is none; the message has the choices.
    """
    return pick(VARIABLE_ESTIMATORS, estimator_name(name), "estimator of collective variables")


def _setting(
    variables: CollectiveVariables,
    sample: Iterable[Frames],
    constraints: Constraints,
    graph: MoleculeGraph,
    masses: Doubles,
    temperature: float,
) -> _Setting:
    frames = Frames.join(sample)
    forces_of(frames)
    n_atoms = {variables.n_atoms, frames.n_sites, graph.n_atoms, len(masses)}
    if len(n_atoms) > 1:
        raise ValueError(f"variables, sample, topology and masses are of {n_atoms} atoms")
    for atom in variables.atoms:
        if not masses[atom] > 0:
            raise InputError(
                f"the coordinates are of atom {atom} ({graph.topology.atom(atom)}), a virtual site "
                "without a mass: use the atoms that place it"
            )
    index = graph.molecule_index
    inside = np.isin(index, index[variables.atoms])
    near = frozenset(group for group in constraints if inside[list(group)].any())
    pairs = held_pairs(near, graph, frames)
    return _Setting(variables, frames, near, pairs, graph, masses, thermal_energy(temperature))


def _candidate(
    forces: RigidForce | InverseGradientForces, column: int, setting: _Setting, label: str
) -> Candidate:
    found = Candidate(forces, column, 0.0, label)
    noise = float(np.sqrt((_values(found, setting.sample) ** 2).mean()))
    return replace(found, noise=noise)


def _values(candidate: Candidate, frames: Frames) -> Doubles:
    column: Doubles = _columns(candidate.forces, frames)[:, candidate.column].double().numpy()
    return column


def _columns(forces: RigidForce | InverseGradientForces, atoms: Frames) -> Tensor:
    values = forces(atoms)
    return values if values.ndim == 2 else values[:, None]


def _quietest_first(found: tuple[list[Candidate] | InputError, ...]) -> tuple[Candidate, ...]:
    candidates = [c for some in found if not isinstance(some, InputError) for c in some]
    if not candidates:
        raise InputError("; ".join(dict.fromkeys(str(error) for error in found)))
    return tuple(sorted(candidates, key=lambda c: c.noise))


def _mixture(candidates: tuple[Candidate, ...], setting: _Setting) -> Mixture:
    """Return weights of least mean square over the sample, of as few candidates as matter.

    Begins with the quietest of those without a divergence, which hold at any temperature, or else
    of all. The one that helps most is added, as long as it takes away more than ``_GAIN`` of the
    mean square, and more than chance would: 4 in the number of frames. Candidates whose mean is
    another are left out: the frames are not what they were said to be.
    """
    first = next((k for k, c in enumerate(candidates) if isinstance(c.forces, RigidForce)), 0)
    table = np.stack([_values(c, setting.sample) for c in candidates])
    waves = _waves(setting.variables, setting.sample)
    others = [
        k for k in range(len(candidates)) if k != first and _agree(table[k] - table[first], waves)
    ]
    chosen, weights = [first], np.ones(1)
    left = float((table[first] ** 2).mean())
    threshold = max(_GAIN, 4 / table.shape[1])
    while others:
        trials = [_least_squares(table[[*chosen, k]]) for k in others]
        best = int(np.argmin([square for _, square in trials]))
        if trials[best][1] > (1 - threshold) * left:
            break
        chosen.append(others.pop(best))
        weights, left = trials[best]
    parts = tuple(candidates[k] for k in chosen)
    return Mixture(parts, tuple(weights.tolist()), float(np.sqrt(left)))


def _waves(variables: CollectiveVariables, sample: Frames) -> Doubles:
    """Return functions of the coordinates (m, n): a constant, and one or two of each."""
    columns = variables(sample.positions, sample.box).double().numpy().T
    waves = [np.ones(columns.shape[1])]
    for column, period in zip(columns, variables.periods, strict=True):
        if period is None:
            waves.append(column - column.mean())
        else:
            angle = 2 * np.pi * column / period
            waves += [np.cos(angle), np.sin(angle)]
    return np.stack(waves)


def _agree(difference: Doubles, waves: Doubles) -> bool:
    """Return whether the mean of the difference of two forces (n,) vanishes, times each wave."""
    products = difference * waves
    errors = products.std(1) / np.sqrt(products.shape[1])
    return bool((np.abs(products.mean(1)) <= _APART * errors).all())


def _least_squares(table: Doubles) -> tuple[Doubles, float]:
    """Return the weights (k,), of sum 1, whose sum of (k, n) has the least mean square, and that.

    Differences that are too small to tell from rounding get no weight.
    """
    apart = (table[1:] - table[0]).T
    weights = -np.linalg.lstsq(apart, table[0], rcond=1e-6)[0]
    return np.append(1 - weights.sum(), weights), float(((table[0] + apart @ weights) ** 2).mean())


def _rigid_label(forces: RigidForce, setting: _Setting) -> str:
    n, atom = len(forces.moved), setting.graph.topology.atom(forces.variable.atoms[forces.end])
    return f"rigid motion of {n} atom{'s' if n > 1 else ''} with {atom}"


def _others(candidates: tuple[Candidate, ...]) -> str:
    text = "".join(f"; {_in_words(c)}" for c in candidates[:_NAMED])
    rest = candidates[_NAMED:]
    return f"{text}; {len(rest)} more, up to {rest[-1].noise:.4g}" if rest else text


def _mixed_in_words(mixture: Mixture) -> str:
    if len(mixture.parts) == 1:
        return _in_words(mixture.parts[0])
    pairs = zip(mixture.weights, mixture.parts, strict=True)
    terms = " ".join(f"{weight:+.2f} {part.label}" for weight, part in pairs)
    return f"{terms.removeprefix('+')}: {mixture.noise:.4g}"


def _in_words(candidate: Candidate) -> str:
    return f"{candidate.label} {candidate.noise:.4g}"
