"""Boxes in one form: the reduced lower triangular one of OpenMM."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def volumes(box: Floats) -> Floats:
    """Return the signed volumes (f,), nm^3, of boxes (f, 3, 3), NaN where a box is not finite."""
    a, b, c = np.moveaxis(np.asarray(box, np.float64), 1, 0)
    return np.asarray((np.cross(a, b) * c).sum(-1))


def reduced(box: Floats) -> tuple[Floats, Floats | None]:
    """Return boxes of the same lattices in reduced form, and the rotations that take vectors there.

    Parameters
    ----------
    box
        (f, 3, 3), nm, rows are box vectors of positive volume.

    Returns
    -------
    box
        (f, 3, 3) float64: a along x, b in the xy plane, |b_x| <= a_x / 2, |c_x| <= a_x / 2,
        |c_y| <= b_y / 2.
    rotation
        (f, 3, 3), to be applied as ``vectors @ rotation``; ``None`` where all boxes were lower
        triangular already (positions are then not touched).
    """
    box = np.asarray(box, np.float64)
    lower = np.tril(box)
    upright = (np.diagonal(box, axis1=1, axis2=2) > 0).all()
    if upright and np.abs(box - lower).max() <= 1e-6 * np.abs(box).max():
        return _shortened(lower), None
    lower = np.linalg.cholesky(box @ box.transpose(0, 2, 1))  # the same lengths and angles
    return _shortened(lower), np.linalg.inv(box) @ lower


def _shortened(box: Floats) -> Floats:
    a, b, c = np.moveaxis(box, 1, 0)  # each (f, 3)
    c = c - b * np.round(c[:, 1:2] / b[:, 1:2])
    c = c - a * np.round(c[:, :1] / a[:, :1])
    b = b - a * np.round(b[:, :1] / a[:, :1])
    return np.stack([a, b, c], axis=1)
