"""Boxes in one form, the reduced lower triangular one of OpenMM; heights and minimum images in it.

By the minimum-image convention two sites are as far apart as the nearest of their periodic images
are. Rounding finds that image where it is nearer than half of the shortest height of the box, which
is all that a cutoff sees. Here are the forms for PyTorch (`box_heights`, `lattice_shift`) and NumPy
(`heights`, `minimum_image`); compiled loops have theirs in `deepcg.geometry.cell_list`, on vectors
of the processor. Tests compare each with the others.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deepcg.runtime.arrays import Doubles, Floats


def volumes(box: Floats) -> Floats:
    """Return the signed volumes (f,), nm^3, of boxes (f, 3, 3), NaN where a box is not finite."""
    a, b, c = np.moveaxis(np.asarray(box, np.float64), 1, 0)
    return np.asarray((np.cross(a, b) * c).sum(-1))


def cell_in_words(box: Doubles) -> str:
    """Return the lengths, the angles alpha, beta, gamma and the volume of a box (3, 3), nm."""
    a, b, c = box
    lengths = np.linalg.norm(box, axis=1)
    cosines = [u @ v / np.linalg.norm(u) / np.linalg.norm(v) for u, v in ((b, c), (a, c), (a, b))]
    return (
        f"{' x '.join(f'{x:.4f}' for x in lengths)} nm, "
        f"{' '.join(f'{x:.2f}' for x in np.degrees(np.arccos(cosines)))} deg, "
        f"{abs(np.linalg.det(box)):.3f} nm^3"
    )


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


def box_heights(box: Tensor) -> Tensor:
    """Return the distances (..., 3), nm, between opposite faces of boxes (..., 3, 3), float64."""
    between: Tensor = 1 / torch.linalg.inv(box.double()).norm(dim=-2)
    return between


def heights(box: Floats) -> Doubles:
    """Return the distances (..., 3), nm, between opposite faces of boxes (..., 3, 3)."""
    between: Doubles = 1 / np.linalg.norm(np.linalg.inv(box), axis=-2)
    return between


def lattice_shift(displacement: Tensor, box: Tensor) -> Tensor:
    """Return the lattice vectors to add to displacements (n_frames, ..., 3) for the minimum image.

    ``box`` (n_frames, 3, 3), nm, is in reduced form; the image is the nearest one for those
    displacements that it brings to less than half of the shortest box height.
    """
    shift = torch.zeros_like(displacement)
    for k in (2, 1, 0):
        vector = box[:, k].reshape(-1, *[1] * (displacement.ndim - 2), 3)
        along = (displacement + shift)[..., k : k + 1] / vector[..., k : k + 1]
        shift = shift - vector * along.round()
    return shift


def minimum_image(vectors: Floats, box: Floats) -> Doubles:
    """Return the minimum images of vectors (..., n, 3), nm, in boxes (..., 3, 3), as above."""
    fractions = vectors @ np.linalg.inv(box)
    nearest: Doubles = (fractions - np.rint(fractions)) @ box
    return nearest


def _shortened(box: Floats) -> Floats:
    a, b, c = np.moveaxis(box, 1, 0)  # each (f, 3)
    c = c - b * np.round(c[:, 1:2] / b[:, 1:2])
    c = c - a * np.round(c[:, :1] / a[:, :1])
    b = b - a * np.round(b[:, :1] / a[:, :1])
    return np.stack([a, b, c], axis=1)
