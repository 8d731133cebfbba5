"""The bispectrum of the density of neighbors: rotation invariants of three factors.

B_abc = sum_m1m2m3 G A_l1m1a A_l2m2b A_l3m3c with the Gaunt coefficients G of real harmonics: a
bead and three neighbors, which the power spectrum, a bead and two, cannot tell (Bartok, Kondor
and Csanyi, Phys. Rev. B 87, 184115 (2013)). Mirror images are not told apart: l1 + l2 + l3 is
even. As in ``density.py`` there is a plain PyTorch definition, ``reference_bispectrum``, and a
compiled CPU loop (``bispectrum_loops.py``) that can be differentiated as often as force matching
needs; ``tests/networks/test_bispectrum.py`` holds one against the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepcg.compute.loops import run_loop
from deepcg.compute.onednn import apply
from deepcg.networks.deeppot_se_l.bispectrum_loops import adjoint, products
from deepcg.networks.deeppot_se_l.density import harmonics

COUPLINGS = ((1, 1, 2), (2, 2, 2), (1, 2, 3), (2, 3, 3))
"""The l of the three factors. (l, l, 0) are products of what the power spectrum has."""

Coupling = tuple[int, int, int]


def gaunt(coupling: Coupling) -> Tensor:
    """Return the integrals of three real harmonics over all directions, scaled to unit norm.

    (2 l1 + 1, 2 l2 + 1, 2 l3 + 1), float64, by a quadrature that is exact for them.
    """
    n = sum(coupling) + 1
    z, weight = np.polynomial.legendre.leggauss(n)
    angle = np.pi * np.arange(2 * n) / n
    across = np.sqrt(1 - z**2)[:, None]
    u = np.stack(
        np.broadcast_arrays(across * np.cos(angle), across * np.sin(angle), z[:, None]), axis=-1
    )
    y = harmonics(torch.from_numpy(u), max(coupling))
    factors = [y[..., l * l : (l + 1) ** 2] for l in coupling]
    table = torch.einsum("zpa,zpb,zpc,z->abc", *factors, torch.from_numpy(weight))
    table[table.abs() < 1e-12] = 0
    scaled: Tensor = table / table.norm()
    return scaled


@dataclass(frozen=True, slots=True, eq=False)
class Products:
    """Which components and channels are multiplied: see ``bispectrum_loops.products``."""

    couplings: tuple[Coupling, ...]
    ends: NDArray[np.int64]
    terms: NDArray[np.int64]
    factors: NDArray[np.float64]
    columns: NDArray[np.int64]

    @property
    def n_columns(self) -> int:
        """Number of invariants."""
        return int(self.columns.max(initial=-1)) + 1


@cache
def products_of(l_max: int, n_channels: int) -> Products:
    """Return all products of ``COUPLINGS`` up to ``l_max`` that differ from one another."""
    couplings = tuple(c for c in COUPLINGS if max(c) <= l_max)
    ends, terms, factors = [0], [], []
    columns = np.full((len(couplings), *(n_channels,) * 3), -1)
    seen: set[object] = set()
    for number, coupling in enumerate(couplings):
        table = gaunt(coupling).numpy()
        places = np.argwhere(table)
        terms.append(places + [l * l for l in coupling])
        factors.append(table[tuple(places.T)])
        ends.append(ends[-1] + len(places))
        for channels in np.ndindex(*(n_channels,) * 3):
            key = (number, *sorted(zip(coupling, channels, strict=True)))
            if key not in seen:
                columns[(number, *channels)] = len(seen)
                seen.add(key)
    return Products(
        couplings,
        np.array(ends),
        np.concatenate([*terms, np.empty((0, 3), np.int64)]),
        np.concatenate([*factors, np.empty(0)]),
        columns,
    )


def reference_bispectrum(a: Tensor, l_max: int) -> Tensor:
    """Return the invariants (beads, columns) of densities a (beads, (l_max + 1)^2, channels)."""
    which = products_of(l_max, a.shape[2])
    out = a.new_empty(len(a), which.n_columns)
    for coupling, columns in zip(which.couplings, which.columns, strict=True):
        x, y, z = (a[:, l * l : (l + 1) ** 2] for l in coupling)
        every = torch.einsum("bpi,bqj,brk,pqr->bijk", x, y, z, gaunt(coupling).to(a))
        chosen = torch.from_numpy(columns).to(a.device)
        out[:, chosen[chosen >= 0]] = every[:, chosen >= 0]
    return out


def bispectrum(a: Tensor, l_max: int) -> Tensor:
    """Return the bispectrum (beads, columns) of densities a (beads, (l_max + 1)^2, channels).

    It is ``reference_bispectrum``, on the CPU, by a compiled loop.
    """
    return apply(_Bispectrum, a, products_of(l_max, a.shape[2]))


class _Bispectrum(torch.autograd.Function):
    """T(a, a, a) of the trilinear form T."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, which: Products) -> Tensor:
        ctx.save_for_backward(a)
        ctx.which = which
        return threefold(a, a, a, which)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return apply(_BispectrumGradient, *ctx.saved_tensors, g, ctx.which), None


class _BispectrumGradient(torch.autograd.Function):
    """The gradient of sum(g T(a, a, a)) in a."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, g: Tensor, which: Products) -> Tensor:
        ctx.save_for_backward(a, g)
        ctx.which = which
        return threefold_adjoint(g, a, a, which)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor, None]:
        a, g = ctx.saved_tensors
        curved = threefold_adjoint(g, a, v, ctx.which) + threefold_adjoint(g, v, a, ctx.which)
        along = threefold(v, a, a, ctx.which)
        along += threefold(a, v, a, ctx.which) + threefold(a, a, v, ctx.which)
        return curved, along, None


def threefold(x: Tensor, y: Tensor, z: Tensor, which: Products) -> Tensor:
    """Return T(x, y, z) (beads, columns) of densities (beads, components, channels)."""
    out = x.new_zeros(len(x), which.n_columns)
    run_loop(products, x, y, z, tables(which, x), out)
    return out


def threefold_adjoint(g: Tensor, x: Tensor, y: Tensor, which: Products) -> Tensor:
    """Return the gradient of sum(g T) in one factor, the others x and y, shaped as these."""
    out = torch.zeros_like(x, memory_format=torch.contiguous_format)
    run_loop(adjoint, g, x, y, tables(which, x), out)
    return out


def tables(which: Products, like: Tensor) -> tuple[NDArray[Any], ...]:
    """Return what loops need to know of products, in the dtype of ``like``, of any shape.

    ``ends`` (couplings + 1,), ``terms`` (terms, 3), ``factors`` (terms,) and ``columns``
    (couplings, channels, channels, channels).
    """
    factors = torch.from_numpy(which.factors).to(like.dtype).numpy()
    return which.ends, which.terms, factors, which.columns
