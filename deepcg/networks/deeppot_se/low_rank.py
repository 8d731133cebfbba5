"""Few functions of s of which all channels of embedding nets are sums.

Channels are many, but all are smooth functions of the one variable s, of which few are independent
to a given accuracy: G(s) = V h(s). The descriptor of DeepPot-SE is then V (H^T H) V_<^T, where
H = sum_j R_j h(s_j), and V can be taken into the weights of the fitting nets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepcg.networks.deeppot_se.descriptor import Products
from deepcg.networks.deeppot_se.tables import derivatives
from deepcg.networks.layers import Perceptron

POINTS = 2048
"""Values of s at which nets are looked at."""

FIRST = "layers.0.weight"
"""Of a fitting net, unless its first layer adds its input."""


@dataclass(frozen=True, slots=True, eq=False)
class Reduced:
    """A DeepPot-SE of fewer channels, h(s), which gives the same energies.

    Parameters
    ----------
    basis
        V (channels, k), orthonormal, in double precision: h(s) = V^T G(s).
    products
        Those of the columns of H.
    fitting
        Nets from these, not to be trained.
    error
        The largest error of V h over the largest G, or of its slope over the largest dG/ds.
    """

    basis: Tensor
    products: Products
    fitting: nn.ModuleList
    error: float


@torch.no_grad()
def reduced(
    embeddings: Sequence[nn.Module],
    fitting: Sequence[nn.Module],
    axis: int,
    ends: tuple[float, float],
    accuracy: float,
) -> Reduced | None:
    """Return embedding nets' channels and fitting nets reduced, for s between two ends.

    ``None`` where the reduced fitting nets would have no fewer inputs, or where these are added to
    the outputs of their first layers.

    Parameters
    ----------
    embeddings
        In double precision.
    axis
        Columns of V_<.
    accuracy
        The largest ``error`` allowed.
    """
    widths = widths_of(fitting[0])
    if FIRST not in fitting[0].state_dict():
        return None
    basis, error = basis_of(embeddings, *ends, accuracy)
    channels, k = basis.shape
    while len(Products(k, k, True)) in (widths[0], widths[0] / 2):  # it would add its input
        basis, k = torch.nn.functional.pad(basis, (0, 1)), k + 1
    products = Products(k, k, True)
    if len(products) >= channels * axis:
        return None
    nets = nn.ModuleList(Perceptron(len(products), widths, residual=True) for _ in fitting)
    for mine, its in zip(nets, fitting, strict=True):
        state = its.state_dict()
        mine.to(state[FIRST])
        state[FIRST] = weight_in_basis(state[FIRST], basis, axis)
        mine.load_state_dict(state)
    return Reduced(basis, products, nets.requires_grad_(False), error)


def widths_of(net: nn.Module) -> list[int]:
    """Return the widths of the hidden layers of a fitting net."""
    return [m.out_features for m in net.modules() if isinstance(m, nn.Linear)][:-1]


@torch.no_grad()
def basis_of(
    nets: Sequence[nn.Module], low: float, high: float, accuracy: float
) -> tuple[Tensor, float]:
    """Return an orthonormal basis V (channels, k) of the nets' G(s), and its error.

    The error is the largest of V V^T G - G over the largest G, or that of its slope over the
    largest dG/ds if this is larger. Directions are taken in the order of their singular values,
    as few as will do.

    Parameters
    ----------
    nets
        In double precision, all of one width.
    low, high
        The range of s.
    accuracy
        The largest error.
    """
    s = torch.linspace(low, high, POINTS, dtype=torch.float64)
    values = [derivatives(net, s)[:2] for net in nets]
    scale = torch.stack(values).abs().amax(dim=(0, 2, 3)).clamp(min=1e-300)[:, None, None]
    rows = torch.cat([(one / scale).flatten(0, 1) for one in values])
    _, _, directions = torch.linalg.svd(rows, full_matrices=False)
    along = rows @ directions.T
    for k in range(1, len(directions) + 1):
        basis = directions[:k].T
        error = float((rows - along[:, :k] @ basis.T).abs().max())
        if error <= accuracy:
            break
    return basis, error


@torch.no_grad()
def weight_in_basis(weight: Tensor, basis: Tensor, axis: int) -> Tensor:
    """Return weights that make of H^T H what ``weight`` makes of V (H^T H) V_<^T.

    They are (n, k (k + 1) / 2): H^T H is symmetric, and given by its lower triangle.

    Parameters
    ----------
    weight
        (n, channels * axis), of the first layer of a fitting net.
    basis
        V (channels, k); V_< are its first rows, as many as ``axis``.
    """
    parts = weight.double().view(-1, len(basis), axis)
    square = torch.einsum("nab,ap,bq->npq", parts, basis, basis[:axis])
    both = square + square.mT - torch.diag_embed(square.diagonal(dim1=1, dim2=2))
    first, second = torch.tril_indices(basis.shape[1], basis.shape[1])
    return both[:, first, second]
