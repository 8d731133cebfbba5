"""Biases on (phi, psi): tables on the torus, as files, as OpenMM forces, as sums of hills.

A bias is a table (n, n) in kJ/mol, indexed [phi, psi], on n equally spaced angles from -pi to pi;
both ends are there, and the same. Between its points it is a periodic cubic spline.
"""

from __future__ import annotations

import copy
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray

from deepcg.atomistic.alanine.molecule import PHI, PSI
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import write_arrays
from deepcg.units import thermal_energy

BIAS_GROUP = 31
"""The force group of a bias; nothing else is in it."""

UNBIASED = frozenset(range(BIAS_GROUP))
"""The force groups of everything else."""

POINTS = 121
"""Points of a table that is made here: 3 degrees from one to the next."""

Table = Doubles

_TORUS = (-np.pi, np.pi, -np.pi, np.pi)


def axis(n_points: int) -> Doubles:
    """Return the angles (n_points,) of a table, rad."""
    return np.linspace(-np.pi, np.pi, n_points)


class BiasedSystem:
    """A copy of a System of alanine dipeptide with a bias, in a force group of its own."""

    def __init__(self, system: openmm.System, table: Table) -> None:
        n = len(table)
        self._function = openmm.Continuous2DFunction(n, n, _in_order(table), *_TORUS, True)
        energy = "bias(dihedral(p1, p2, p3, p4), dihedral(p2, p3, p4, p5))"
        self._force = openmm.CustomCompoundBondForce(5, energy)
        self._force.addTabulatedFunction("bias", self._function)
        self._force.addBond([*PHI, PSI[3]])
        self._force.setForceGroup(BIAS_GROUP)
        self._force.setName("Bias")
        self.system = copy.deepcopy(system)
        self.system.addForce(self._force)

    def update(self, table: Table, contexts: list[openmm.Context]) -> None:
        """Put another table of as many points in its place, in these Contexts too."""
        self._function.setFunctionParameters(len(table), len(table), _in_order(table), *_TORUS)
        for context in contexts:
            self._force.updateParametersInContext(context)


def bias_energy(context: openmm.Context) -> float:
    """Return the bias of a Context now, kJ/mol; 0 where it has none."""
    energy: float = context.getState(energy=True, groups={BIAS_GROUP}).getPotentialEnergy()._value
    return energy


def umbrella(at: tuple[float, float], spring: float) -> Table:
    """Return the bias of a window about (phi, psi) in rad: spring (2 - cos dphi - cos dpsi).

    Near the window it is a harmonic spring of that many kJ/mol/rad^2; it is smooth everywhere.
    """
    phi, psi = (1 - np.cos(axis(POINTS) - center) for center in at)
    return np.asarray(spring * (phi[:, None] + psi), np.float64)


def hill(at: tuple[float, float], height: float, width: float, n_points: int = POINTS) -> Table:
    """Return a hill about (phi, psi) in rad, a Gaussian of that width (rad) put on the torus."""
    phi, psi = (np.exp((np.cos(axis(n_points) - center) - 1) / width**2) for center in at)
    return np.asarray(height * phi[:, None] * psi, np.float64)


def tempered(height: float, bias: float, temperature: float, bias_factor: float) -> float:
    """Return the height of the next hill where the bias (kJ/mol) is already so high.

    Well-tempered metadynamics: Barducci, Bussi, Parrinello, PRL 100, 020603 (2008), eq. 2. The
    bias then tends to -(1 - 1 / ``bias_factor``) of the free energy.
    """
    return float(height * np.exp(-bias / ((bias_factor - 1) * thermal_energy(temperature))))


def read_table(path: Path) -> Table:
    """Return the table of a .npy, or that called ``bias`` or ``bias_grid`` of a .npz.

    Raises
    ------
    InputError
        There is no such table; it is not square, not finite or not periodic.
    """
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            table = loaded if isinstance(loaded, np.ndarray) else _named(path, loaded)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no .npy or .npz that can be read: {error}") from error
    return checked_table(path, table)


def checked_table(path: Path, table: NDArray[Any]) -> Table:
    """Return a table (n, n), kJ/mol, that was read from a file.

    Raises
    ------
    InputError
        It is not square, not finite or not periodic.
    """
    if table.ndim != 2 or len(table) != table.shape[1] or len(table) < 4:
        raise InputError(
            f"{path}: the bias has shape {table.shape}: give (n, n), kJ/mol, on n angles from "
            f"-pi to pi, indexed [phi, psi]"
        )
    if table.dtype.kind not in "fiu" or not np.isfinite(table).all():
        raise InputError(f"{path}: the bias is not finite everywhere: fill it in")
    table = table.astype(np.float64)
    ends = max(np.abs(table[0] - table[-1]).max(), np.abs(table[:, 0] - table[:, -1]).max())
    if ends > 1e-6 * max(1.0, np.abs(table).max()):
        raise InputError(
            f"{path}: the bias at -pi is not that at pi (by {ends:.3g} kJ/mol): give both ends of "
            f"the angles, and the same values there"
        )
    return _closed(table)


def write_table(path: Path, table: Table, temperature: float) -> None:
    """Write a table as .npz: ``phi`` and ``psi`` (rad), ``bias`` [phi, psi], ``temperature``."""
    angles = axis(len(table))
    write_arrays(
        path, {"phi": angles, "psi": angles, "bias": table, "temperature": np.array(temperature)}
    )


def _named(path: Path, arrays: np.lib.npyio.NpzFile) -> Doubles:
    for name in ("bias_grid", "bias"):
        if name in arrays:
            return np.asarray(arrays[name])
    raise InputError(f"{path} has no bias or bias_grid: it has {', '.join(sorted(arrays))}")


def _closed(table: Table) -> Table:
    """Return the table with both ends the same to the last bit, as OpenMM wants them."""
    table[-1], table[:, -1] = table[0], table[:, 0]
    return table


def _in_order(table: Table) -> list[float]:
    """Return the values as OpenMM wants them: phi changes fastest."""
    ordered: list[float] = _closed(table.copy()).ravel(order="F").tolist()
    return ordered
