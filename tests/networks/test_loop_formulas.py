"""Formulas that compiled loops share are those of the definitions, slopes included."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from deepcg.compute.formula_loops import cross, cubic_b_splines, dot
from deepcg.compute.simd import LANES, load, put
from deepcg.networks import neighbor_loops
from deepcg.networks.base import switch
from deepcg.networks.deeppot_se_l.density import splines
from deepcg.networks.deeppot_se_l.density_loops import Basis

F64 = torch.float64


@njit
def switch_of_vectors(x, out):
    w, slope = neighbor_loops.switch(load(x, 0, LANES), 0.5)
    put(out, 0, w, slope, w)


def test_the_switch_and_its_slope_are_those_of_the_definition():
    start, cutoff = 0.3, 0.8  # a width of 0.5
    x = torch.linspace(0, 1, LANES, dtype=F64)
    r = (start + (cutoff - start) * x).requires_grad_()
    wanted = switch(r, start, cutoff)
    (slope,) = torch.autograd.grad(wanted.sum(), r)
    found = np.array([neighbor_loops.switch(one, 0.5) for one in x.tolist()])
    together = np.zeros(3 * LANES)
    switch_of_vectors(x.numpy(), together)
    for w, dw in (found.T, together.reshape(3, LANES)[:2]):
        np.testing.assert_allclose(w, wanted.detach(), rtol=0, atol=1e-14)
        np.testing.assert_allclose(dw, slope, rtol=0, atol=1e-13)


def derivatives(r: Tensor, basis: Basis, k: int) -> list[Tensor]:
    """Return a spline and its two derivatives at r (n,)."""
    found = [splines(r, basis)[:, k]]
    for _ in range(2):
        (slope,) = torch.autograd.grad(found[-1].sum(), r, create_graph=True)
        found.append(slope)
    return [one.detach() for one in found]


def test_b_splines_and_slopes_are_those_of_the_definition():
    """Of four knots in a row: where the switch is 1, its definition is that of the splines."""
    basis = Basis(0, 8, 1.0, 7.0, 6.5)  # of spacing 1: r is the distance in spacings
    t = torch.linspace(0.01, 0.99, 9, dtype=F64)
    found = np.array([cubic_b_splines(one) for one in t.tolist()])  # (t, derivative, spline)
    for m in range(4):
        wanted = derivatives((3 + t).requires_grad_(), basis, m + 1)
        for k in range(3):
            np.testing.assert_allclose(found[:, k, m], wanted[k], rtol=0, atol=1e-13)


def test_products_of_vectors_are_numpys():
    a, b = np.array([0.3, -1.2, 0.7]), np.array([2.0, 0.4, -0.9])
    np.testing.assert_allclose(cross(a, b), np.cross(a, b), rtol=1e-14)
    np.testing.assert_allclose(dot(a, b), a @ b, rtol=1e-14)
