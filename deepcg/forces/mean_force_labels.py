"""Labels that are mean forces: averages over restrained runs, with their errors, in one file.

A label belongs to the mean coordinates of its run (see `deepcg.atomistic.restraints`). Its error
is that of the average over the run, from blocks: what moves too slowly to be seen within a run is
not in it.
Where the run starts from a frame in equilibrium, the slow motion starts from a fair draw, too, and
labels stay right on average. This noise can exceed that of the blocks: around held oxygens of
TIP3P at 300 K hydrogen bonds last for tens of ps, and means over 5 ps spread by 41 kJ/mol/nm
(median) where the blocks of one run say 14.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import eye_array

from deepcg.mapping.beads import LinearMapping
from deepcg.mapping.collective_variables import KINDS, CollectiveVariables, Variable
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import read_arrays, write_arrays
from free_energy import Estimate, block_average

_PERIODIC = 8  # blocks of what swings: as long as they can be


@dataclass(frozen=True, slots=True, eq=False)
class MeanForce:
    """One label: coordinates, force, pull of the springs, difference of both, all shaped (...).

    ``coordinates`` are the means over the run; the others have errors of blocks, and are in
    kJ/mol per unit of the coordinate. The difference has a mean of zero. Springs swing: blocks of
    few periods make the errors of their pull, and of the difference, too large.
    """

    coordinates: Doubles
    force: Estimate[Doubles]
    springs: Estimate[Doubles]
    difference: Estimate[Doubles]


def mean_force(
    displacements: Doubles, forces: Doubles, targets: Doubles, stiffness: Doubles
) -> MeanForce:
    """Return the label of a restrained run.

    Parameters
    ----------
    displacements
        (n, ...), of the coordinates from their targets, in the order of time; n >= 4.
    forces
        (n, ...), instantaneous forces on them without the springs.
    targets, stiffness
        Of the springs, (...); stiffness in kJ/mol per squared unit.
    """
    pull = stiffness * displacements
    return MeanForce(
        targets + displacements.mean(0),
        _mean(forces),
        _mean(pull, _PERIODIC),
        _mean(forces - pull, _PERIODIC),
    )


def _mean(series: Doubles, n_blocks: int | None = None) -> Estimate[Doubles]:
    """Return means (...) and errors over (n, ...), with blocks for each entry by itself."""
    columns = series.reshape(len(series), -1).T
    averages = [block_average(column, n_blocks=n_blocks) for column in columns]
    shape = series.shape[1:]
    return Estimate(
        np.array([a.value for a in averages]).reshape(shape),
        np.array([a.error for a in averages]).reshape(shape),
    )


@dataclass(frozen=True, slots=True, eq=False)
class MeanForceLabels:
    """n labels of the same coordinates, shaped (...), and what they were made from and how.

    Parameters
    ----------
    task
        Settings and hashes of files; labels of equal tasks are equal.
    system
        What the coordinates are: arrays by name, from `of_variables` or `of_beads`.
    coordinates, forces, errors
        (n, ...), means over the runs, kJ/mol per unit for forces and their standard errors.
    spring_forces, spring_errors
        (n, ...), the same from the pull of the springs.
    difference_errors
        (n, ...), standard errors of ``forces - spring_forces``.
    box
        (n, 3, 3), nm, or ``None``.
    """

    task: dict[str, Any]
    system: dict[str, NDArray[Any]]
    coordinates: Doubles
    forces: Doubles
    errors: Doubles
    spring_forces: Doubles
    spring_errors: Doubles
    difference_errors: Doubles
    box: Doubles | None

    def __len__(self) -> int:
        return len(self.coordinates)

    @property
    def map(self) -> str:
        """The name of the coordinates."""
        return str(self.task["map"])

    @property
    def temperature(self) -> float:
        """K."""
        return float(self.task["temperature"])

    @property
    def variables(self) -> CollectiveVariables:
        """The collective variables that the labels are of."""
        columns = (self.system[name] for name in ("names", "kinds", "atoms"))
        found = []
        for name, kind, atoms in zip(*columns, strict=True):
            made = KINDS[str(kind)]
            used = tuple(atoms[: made.n_atoms].tolist())
            found.append(Variable(str(name), used, made.function, made.period, made.unit))
        return CollectiveVariables(tuple(found), int(self.system["n_atoms"]))

    @property
    def mapping(self) -> LinearMapping:
        """The beads that the labels are of, as a mapping of themselves."""
        return LinearMapping(
            eye_array(len(self.system["types"])).tocsr(),
            torch.from_numpy(self.system["types"]),
            torch.from_numpy(self.system["masses"]),
            tuple(str(name) for name in self.system["type_names"]),
        )

    @property
    def disagreement(self) -> float:
        """Root mean square of (force - pull of the springs) in standard errors: 1 or less."""
        z = (self.forces - self.spring_forces) / self.difference_errors
        return float(np.sqrt(np.square(z).mean()))

    def describe(self) -> str:
        """Return how good the labels are, in words, for people."""
        error, spring = (np.sqrt(np.square(e).mean()) for e in (self.errors, self.spring_errors))
        size = np.sqrt(np.square(self.forces).mean())
        return (
            f"{len(self)} mean forces on {self.map}, rms {size:.4g}, standard error within runs "
            f"{error:.3g} rms ({spring:.3g} from the pull of the springs); the two ways differ by "
            f"{self.disagreement:.2f} standard errors rms"
        )

    def with_label(self, label: MeanForce, box: Doubles | None) -> MeanForceLabels:
        """Return the labels and one more, with its box (3, 3), nm."""

        def more(old: Doubles, new: Doubles) -> Doubles:
            return np.concatenate([old.reshape(-1, *new.shape), new[None]])

        boxes = None if box is None else box[None]
        if self.box is not None and boxes is not None:
            boxes = np.concatenate([self.box, boxes])
        return MeanForceLabels(
            self.task,
            self.system,
            more(self.coordinates, label.coordinates),
            more(self.forces, label.force.value),
            more(self.errors, label.force.error),
            more(self.spring_forces, label.springs.value),
            more(self.spring_errors, label.springs.error),
            more(self.difference_errors, label.difference.error),
            boxes,
        )

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        arrays = {name: getattr(self, name) for name in TABLES} | self.system
        if self.box is not None:
            arrays["box"] = self.box
        write_arrays(path, arrays | {"task": np.array(json.dumps(self.task))})


TABLES = ("coordinates", "forces", "errors", "spring_forces", "spring_errors", "difference_errors")


def no_labels(task: dict[str, Any], system: dict[str, NDArray[Any]]) -> MeanForceLabels:
    """Return no labels, arrays (0,), to which others can be added."""
    empty = np.empty(0)
    return MeanForceLabels(task, system, empty, empty, empty, empty, empty, empty, None)


def of_variables(variables: CollectiveVariables) -> dict[str, NDArray[Any]]:
    """Return what a file of labels says of d dihedrals, angles and distances.

    ``names`` and ``kinds`` (d,), ``atoms`` (d, 4), -1 behind those of a variable of fewer, and
    ``n_atoms`` (), how many there are in all.
    """
    kinds = {kind.function: name for name, kind in KINDS.items()}
    atoms = np.full((len(variables.variables), max(k.n_atoms for k in KINDS.values())), -1)
    for row, variable in zip(atoms, variables.variables, strict=True):
        row[: len(variable.atoms)] = variable.atoms
    return {
        "names": np.array(variables.names),
        "kinds": np.array([kinds[v.function] for v in variables.variables]),
        "atoms": atoms,
        "n_atoms": np.array(variables.n_atoms),
    }


def of_beads(mapping: LinearMapping) -> dict[str, NDArray[Any]]:
    """Return what a file of labels says of beads.

    ``types`` (n_beads,), ``type_names`` (n_types,) and ``masses`` (n_beads,), Da.
    """
    return {
        "types": mapping.types.numpy(),
        "type_names": np.array(mapping.type_names),
        "masses": mapping.masses.numpy(),
    }


def are_labels(path: Path) -> bool:
    """Return whether a file is one of labels."""
    if path.suffix != ".npz" or not is_zipfile(path):
        return False
    with ZipFile(path) as file:
        return {f"{name}.npy" for name in ("task", *TABLES)} <= set(file.namelist())


def load_labels(path: Path) -> MeanForceLabels:
    """Read a file of labels.

    Raises
    ------
    InputError
        It is not there, or not such a file.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        arrays = read_arrays(path)
        task = json.loads(str(arrays.pop("task")))
        tables = {name: arrays.pop(name) for name in TABLES}
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is not a file of deepcg label --restrain: {error}") from error
    box = arrays.pop("box", None)
    return MeanForceLabels(task, arrays, **tables, box=box)
