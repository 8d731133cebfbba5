"""Distances, angles, dihedral angles and signed volumes of many terms at once.

Vectors are taken apart into components: with each contiguous, derivatives cost half of what those
of `torch.linalg.cross` do.
"""

from __future__ import annotations

import torch
from torch import Tensor

Points = list[Tensor]
"""Positions (3, ...), nm, of the first, second ... bead of terms: (3, n_terms, n_frames)."""

Vector = tuple[Tensor, Tensor, Tensor]
"""Components x, y and z, each (...)."""


def length(points: Points) -> Tensor:
    """Return the distance (...) of two beads, nm."""
    return _norm(_between(points[0], points[1]))


def angle(points: Points, *, least: float = 1e-18) -> Tensor:
    """Return the angle (...) at the second of three beads, rad.

    A straight angle has no direction to grow in. With a ``least`` square of the cross product,
    nm^4, its derivative is 0 there, which energies need; with 0 it is not finite.
    """
    one, other = _between(points[1], points[0]), _between(points[1], points[2])
    normal = _cross(one, other)
    return torch.atan2(_dot(normal, normal).clamp(min=least).sqrt(), _dot(one, other))


def dihedral(points: Points) -> Tensor:
    """Return the dihedral angle (...) of four beads as IUPAC has it, -pi to pi, rad."""
    first, middle, last = (_between(points[i], points[i + 1]) for i in range(3))
    near, far = _cross(first, middle), _cross(middle, last)
    return torch.atan2(_norm(middle) * _dot(first, far), _dot(near, far))


def signed_volume(points: Points) -> Tensor:
    """Return a . (b x c) (...), nm^3, of the vectors from the first of four beads to the others."""
    a, b, c = (_between(points[0], point) for point in points[1:])
    return _dot(a, _cross(b, c))


def points_of(positions: Tensor, atoms: Tensor) -> Points:
    """Return the positions (3, n_terms, n_frames) of each bead of terms (n_terms, m).

    From ``positions`` (n_frames, n_beads, 3), nm.
    """
    # frames last: what is gathered for a term are then rows of memory
    x = positions.permute(2, 1, 0).contiguous()
    return [x.index_select(1, beads) for beads in atoms.unbind(1)]


def _between(start: Tensor, end: Tensor) -> Vector:
    x, y, z = (end - start).unbind()
    return x, y, z


def _cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def _dot(a: Vector, b: Vector) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _norm(a: Vector) -> Tensor:
    return _dot(a, a).sqrt()
