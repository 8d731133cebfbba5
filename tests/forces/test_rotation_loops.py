"""The compiled control variates are what the generator of rotations makes of pair functions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from deepcg.forces.rotation_loops import rotated_pairs
from deepcg.networks.deeppot_se_l.density import splines
from deepcg.networks.deeppot_se_l.density_loops import Basis

F64, KT, FIRST, SPACING, N_SPLINES = torch.float64, 2.5, 0.1, 0.05, 6
BEADS = torch.tensor([[0.0, 0.0, 0.0], [0.25, 0.05, 0.1]], dtype=F64)
ARMS = torch.tensor([[0.06, -0.05, 0.03], [-0.02, 0.07, 0.05]], dtype=F64)
TORQUES = torch.tensor([[3.0, -2.0, 1.0], [-1.0, 4.0, 2.0]], dtype=F64)


def pair_functions(arms: Tensor, here: int) -> Tensor:
    """Return phi = B_k(|d|) e (splines, 3, 3) about a bead: e is the way to the other, the arms."""
    there = 1 - here
    base = BEADS[there] - BEADS[here]
    d = base + arms[there] - arms[here]
    # the definition names their centers, two spacings after they begin; its switch is 1 so near
    first, end = FIRST + 2 * SPACING, FIRST + 30 * SPACING
    basis = Basis(0, 30, first, end, end - SPACING)
    b = splines(d.norm()[None], basis)[0, :N_SPLINES]
    return b[:, None, None] * torch.stack([base, arms[here], arms[there]])


def turned(arms: Tensor, molecule: int, angle: Tensor) -> Tensor:
    """Return the arms with those of a molecule turned by a vector of angles (3,)."""
    x, y, z = angle
    none = torch.zeros((), dtype=F64)
    rows = [torch.stack(row) for row in ((none, -z, y), (z, none, -x), (-y, x, none))]
    parts = [*arms]
    parts[molecule] = torch.linalg.matrix_exp(torch.stack(rows)) @ arms[molecule]
    return torch.stack(parts)


def variates(here: int) -> Tensor:
    """Return tau . L phi + kT L^2 phi (splines, 3, 3), of both molecules, by finite rotations."""
    h, total = 1e-4, torch.zeros(N_SPLINES, 3, 3, dtype=F64)
    before = pair_functions(ARMS, here)
    for molecule in range(2):
        for k, axis in enumerate(torch.eye(3, dtype=F64)):
            low, high = (
                pair_functions(turned(ARMS, molecule, s * h * axis), here) for s in (-1, 1)
            )
            total += TORQUES[molecule, k] * (high - low) / (2 * h)
            total += KT * (high - 2 * before + low) / h**2
    return total


def test_variates_are_those_of_the_generator():
    index, columns = np.array([[1], [0]]), np.array([[0]])
    near = (BEADS[index[:, 0]] - BEADS)[:, None].numpy()
    out = np.zeros((2, 3 * N_SPLINES, 3))
    rotated_pairs(
        near,
        index,
        np.ones(2, np.int64),
        ARMS[:, None].numpy(),
        TORQUES.numpy(),
        np.zeros((2, 1), np.int64),
        np.ones(1, np.bool_),
        columns,
        FIRST,
        SPACING,
        N_SPLINES,
        KT,
        out,
    )
    for here in range(2):
        wanted = variates(here).transpose(0, 1).reshape(3 * N_SPLINES, 3).numpy()
        assert np.abs(wanted).max() > 1
        # a truncation of h^2 / 12 times fourth derivatives: some (h / spacing)^2 of the value
        assert_allclose(out[here], wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
