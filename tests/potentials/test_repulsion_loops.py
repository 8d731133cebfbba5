"""The compiled repulsion is its definition, and its pair gradients the definition's gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from deepcg.geometry.neighbor_list import neighbors
from deepcg.potentials.priors import Repulsion


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_the_loop_is_the_definition_and_its_gradient(dtype: torch.dtype, limit: float):
    generator = torch.Generator().manual_seed(1)
    positions = torch.rand(2, 30, 3, generator=generator, dtype=torch.float64).to(dtype)
    types = torch.arange(30) % 2
    near = neighbors(positions, torch.eye(3, dtype=dtype).expand(2, 3, 3), 0.45)
    i = torch.arange(10)
    nearest = near.index[0, i, near.distance[0, i].argmin(1)]
    excluded = torch.stack([nearest, i], dim=1)  # pairs that would meet
    onset = torch.tensor([[0.35, 0.30], [0.30, 0.25]], dtype=dtype)
    repulsion = Repulsion(onset, 2.5, width=0.1, excluded=excluded)
    d = near.displacement.clone().requires_grad_()
    wanted = repulsion(replace(near, displacement=d), types)
    (gradient,) = torch.autograd.grad(wanted.sum(), d)
    assert gradient.any()
    loop = repulsion.fast_path(d).energies_and_pair_gradients
    assert loop is not None
    for one, exact in zip(loop(near, types), (wanted.detach(), gradient), strict=True):
        torch.testing.assert_close(one, exact, rtol=0, atol=limit * float(exact.abs().max()))
