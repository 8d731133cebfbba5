"""A chain of five atoms with two torsions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def five_atoms(angles: Floats) -> Floats:
    """Return five atoms (n, 5, 3), nm, with these dihedrals (n, 2)."""
    x = np.zeros((len(angles), 5, 3))
    x[:, 1], x[:, 2] = [0.15, 0, 0], [0.2, 0.14, 0]
    for k, angle in enumerate(angles.T):
        a, b, c = (x[:, k + i] for i in range(3))
        along = (c - b) / np.linalg.norm(c - b, axis=1, keepdims=True)
        normal = np.cross(b - a, along)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        side = np.cross(normal, along)
        out = np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * normal
        x[:, k + 3] = c + 0.05 * along + 0.14 * out
    return x
