"""Instantaneous collective forces (ICF) of any coordinates, by their inverse gradients.

The mean of an ICF at given coordinates is the mean force; adaptive biasing force (ABF) methods
average it. It is the work of a vector field b on the forces, and the divergence kT div b.

With rows J of gradients of the coordinates and of the constraints that touch them, and a diagonal
metric A, the fields b = A J^T (J A J^T)^-1 change one coordinate each, and no constraint. At a
point of configuration space

    F = b . f + kT div b + kT/2 b . grad ln det Z,   Z = grad sigma M^-1 grad sigma^T,

with the forces f = -grad V on the atoms, has the mean force -dU/dxi as its mean at given
coordinates, for any A (Ciccotti, Kapral, Vanden-Eijnden, ChemPhysChem 6, 1809 (2005)). The last
term is there because dynamics with constraints sigma samples exp(-V/kT) (det Z)^1/2 delta(sigma):
the constrained momenta leave that factor (the blue-moon correction). Since b . grad sigma = 0
around the manifold too, not only on it, div is the plain divergence over all touched atoms.

All derivatives follow from J and the second derivatives H_k of the rows, which are automatic. With
a = A J^T, W = (J A J^T)^-1, b_i = sum_j W_ij a_j, and grad W = -W (grad J A J^T) W,

    div b_i = sum_k W_ik [tr(A H_k) - sum_j b_j . H_k a_j] - sum_k b_k . H_k b_i
    b_i . grad ln det Z = 2 sum_k b_i . H_k c_k,   c = M^-1 grad sigma^T Z^-1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.linalg import qr
from torch import Tensor
from torch.func import grad, jacrev, vmap

from deepcg.forces.constraints import Constraints
from deepcg.forces.force_map import forces_of
from deepcg.mapping.collective_variables import CollectiveVariables, distance
from deepcg.runtime.arrays import Doubles, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames

_BATCH = 2**20  # numbers in the largest array of a batch
_SINGULAR = 1e-6  # of the smallest eigenvalue of J A J^T, rows scaled to length 1


@dataclass(frozen=True, slots=True, eq=False)
class InverseGradientForces:
    """The estimator for given coordinates and constraints.

    Parameters
    ----------
    variables
        The d coordinates.
    pairs
        (c, 2), independent pairs of atoms whose distance is held, of all groups of joined atoms
        that the coordinates touch.
    metric
        (n_atoms,), the diagonal of A per atom.
    masses
        (n_atoms,), Da, of the dynamics; they matter only where there are pairs.
    kT
        kJ/mol.
    """

    variables: CollectiveVariables
    pairs: Integers
    metric: Doubles
    masses: Doubles
    kT: float

    @property
    def atoms(self) -> Integers:
        """(m,), the atoms that move, ascending."""
        return np.unique(np.concatenate([self.variables.atoms, self.pairs.ravel()]))

    def __call__(self, frames: Frames) -> Tensor:
        """Return F (n, d), kJ/mol per unit of the coordinate.

        Raises
        ------
        InputError
            The frames have no forces; the coordinates have no derivatives there, or their
            gradients depend on one another.
        """
        forces_of(frames)
        rows = [len(v.atoms) for v in self.variables.variables] + [2] * len(self.pairs)
        size = max(1, _BATCH // max(3 * len(rows) * len(self.atoms), 9 * max(rows) ** 2))
        parts = [self._batch(frames[k : k + size]) for k in range(0, len(frames), size)]
        return torch.cat(parts)

    def _batch(self, frames: Frames) -> Tensor:
        rows, d = self.rows(frames), len(self.variables.variables)
        metric = _per_component(self.metric[self.atoms]).to(frames.positions)
        gradients = dense(rows, len(self.atoms))
        a = gradients * metric
        w = _inverse(gradients @ a.mT)
        b = w @ a  # (n, p, 3m)
        entropy = _divergences(rows, metric, a, w, b)
        if len(self.pairs):
            masses = _per_component(self.masses[self.atoms]).to(metric)
            entropy = entropy + _manifold(rows[d:], gradients[:, d:], masses, b)
        work = (b @ forces_of(frames)[:, self.atoms].reshape(len(frames), -1, 1))[..., 0]
        result = (work + self.kT * entropy)[:, :d]
        if not result.isfinite().all():
            raise InputError(
                f"{', '.join(self.variables.names)}: not differentiable, or not independent, in "
                "some frame (three atoms in a line?): use other coordinates"
            )
        return result

    def rows(self, frames: Frames) -> list[Row]:
        """Return the derivatives of the coordinates and then of the constraints."""
        points = self.variables.points(frames.positions, frames.box)
        functions = [v.function for v in self.variables.variables] + [distance] * len(self.pairs)
        atoms = [np.array(v.atoms) for v in self.variables.variables] + list(self.pairs)
        points += [frames.positions[:, pair] for pair in self.pairs]
        rows: dict[int, Row] = {}
        for kind in {(function, len(a)) for function, a in zip(functions, atoms, strict=True)}:
            # in one call: what a call costs by itself is that of hundreds of frames
            alike = [k for k, a in enumerate(atoms) if (functions[k], len(a)) == kind]
            gradients, hessians = _derivatives(kind[0], torch.stack([points[k] for k in alike]))
            for k, gradient, hessian in zip(alike, gradients, hessians, strict=True):
                columns = np.add.outer(3 * np.searchsorted(self.atoms, atoms[k]), np.arange(3))
                rows[k] = Row(torch.from_numpy(columns.ravel()), gradient, hessian)
        return [rows[k] for k in range(len(atoms))]


def inverse_gradient_forces(
    variables: CollectiveVariables,
    sample: Frames,
    constraints: Constraints,
    pairs: Integers,
    masses: Doubles,
    metric: Doubles,
    kT: float,
) -> InverseGradientForces:
    """Return the estimator with those of the held ``pairs`` that couple to the coordinates.

    ``pairs`` (c, 2) are atoms; ``masses``, Da, and ``metric`` (n_atoms,); kT in kJ/mol.

    Raises
    ------
    InputError
        The coordinates depend on one another, or constraints hold them.
    """
    touched = set(variables.atoms.tolist())
    near = {atom for group in constraints if touched & group for atom in group}
    pairs = pairs[[int(i) in near for i, _ in pairs]]
    free = InverseGradientForces(variables, np.empty((0, 2), np.int64), metric, masses, kT)
    _check_independent(free, sample, "they depend on one another: leave some out")
    if not len(pairs):
        return free
    held = InverseGradientForces(variables, pairs, metric, masses, kT)
    gradients = dense(held.rows(sample[:1]), len(held.atoms))[0, len(variables.variables) :]
    held = replace(held, pairs=pairs[_independent(gradients)])
    _check_independent(held, sample, "constraints hold them, in part or whole: choose others")
    return held


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Derivatives of a coordinate or constraint: (n, x) and (n, x, x), in ``columns`` (x,)."""

    columns: Tensor
    gradient: Tensor
    hessian: Tensor


def dense(rows: list[Row], n_atoms: int) -> Tensor:
    """Return the gradients (n, p, 3 n_atoms) of the rows."""
    first = rows[0].gradient
    gradients = first.new_zeros(len(first), len(rows), 3 * n_atoms)
    for k, row in enumerate(rows):
        gradients[:, k, row.columns] = row.gradient
    return gradients


def _derivatives(function: Callable[[Tensor], Tensor], points: Tensor) -> tuple[Tensor, Tensor]:
    """Return gradients (r, n, 3m) and second derivatives (r, n, 3m, 3m) at points (r, n, m, 3)."""

    def twice(x: Tensor) -> tuple[Tensor, Tensor]:
        gradient = grad(function)(x)
        return gradient, gradient

    shape, size = points.shape[:2], 3 * points.shape[2]
    # frames last: every component is contiguous then, which halves the time
    by_frame = vmap(jacrev(twice, has_aux=True), in_dims=-1)
    hessian, gradient = by_frame(points.flatten(0, 1).movedim(0, -1).contiguous())
    return gradient.reshape(*shape, size), hessian.reshape(*shape, size, size)


def _divergences(rows: list[Row], metric: Tensor, a: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """Return div b (n, p); a and b (n, p, 3m), w (n, p, p), metric (3m,)."""
    spreads, total = [], torch.zeros_like(b[:, :, 0])
    for k, row in enumerate(rows):
        hb = b[:, :, row.columns] @ row.hessian  # (n, p, x)
        trace = (row.hessian.diagonal(dim1=1, dim2=2) * metric[row.columns]).sum(-1)
        spreads.append(trace - (hb * a[:, :, row.columns]).sum((1, 2)))
        total = total - (hb * b[:, k : k + 1, row.columns]).sum(-1)
    return total + (w @ torch.stack(spreads, -1)[:, :, None])[..., 0]


def _manifold(rows: list[Row], gradients: Tensor, masses: Tensor, b: Tensor) -> Tensor:
    """Return b . grad ln det Z / 2 (n, p) of constraints with gradients (n, c, 3m)."""
    m = gradients / masses
    c = _inverse(gradients @ m.mT) @ m  # (n, c, 3m)
    total = torch.zeros_like(b[:, :, 0])
    for k, row in enumerate(rows):
        hc = row.hessian @ c[:, k, row.columns, None]  # (n, x, 1)
        total = total + (b[:, :, row.columns] @ hc)[..., 0]
    return total


def _check_independent(estimate: InverseGradientForces, sample: Frames, otherwise: str) -> None:
    gradients = dense(estimate.rows(sample), len(estimate.atoms)).double()
    lengths = gradients.norm(dim=-1, keepdim=True)
    unit = gradients / lengths
    names = ", ".join(estimate.variables.names)
    if not (unit.isfinite().all() and (lengths > 0).all()):
        raise InputError(f"{names}: a coordinate has no gradient in some frame: choose another")
    if float(torch.linalg.eigvalsh(unit @ unit.mT).min()) < _SINGULAR:
        raise InputError(f"the mean force on {names} is not defined, for {otherwise}")


def _independent(gradients: Tensor) -> Integers:
    """Return as many rows of (c, 3m) as span all of them."""
    _, r, order = qr(gradients.T.numpy(), mode="economic", pivoting=True)
    rank = int((np.abs(np.diag(r)) > 1e-4 * np.abs(r[0, 0])).sum())
    return np.sort(order[:rank])


def _inverse(matrices: Tensor) -> Tensor:
    """Return inverses (n, p, p), not finite where there is none."""
    inverse, info = torch.linalg.inv_ex(matrices)
    return torch.where(info[:, None, None] == 0, inverse, torch.nan)


def _per_component(values: Doubles) -> Tensor:
    return torch.from_numpy(np.repeat(values, 3))
