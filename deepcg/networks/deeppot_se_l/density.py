"""The density of neighbors on splines and spherical harmonics, and its power spectrum.

Every quantity has a plain PyTorch definition, ``reference_...``, which serves all devices, and a
compiled CPU loop (``density_loops.py``) that autograd can differentiate as often as force matching
needs: once in the displacements, and then in whatever multiplies the result.
``tests/networks/test_density.py`` holds one against the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deepcg.compute.loops import divisor, run_loop
from deepcg.compute.onednn import apply
from deepcg.networks.base import switch
from deepcg.networks.deeppot_se_l import density_loops
from deepcg.networks.deeppot_se_l.density_loops import S3, S3_8, S5, S5_8, S15, S35, S35_8, Basis

Density = Callable[[Tensor, Tensor, Basis, int], Tensor]
"""From displacements, types of neighbors, a basis and the number of types to densities."""


def harmonics(u: Tensor, l_max: int) -> Tensor:
    """Return real spherical harmonics of unit vectors (..., 3) as (..., (l_max + 1)^2).

    Normalised such that sum_m Y_lm(a) Y_lm(b) = P_l(a.b): l = 0 and 1 are (1, x, y, z).
    """
    x, y, z = u.unbind(-1)
    rows = [torch.ones_like(x), x, y, z]
    if l_max >= 2:
        rows += [S3 * x * y, S3 * y * z, (3 * z**2 - 1) / 2, S3 * x * z, S3 / 2 * (x**2 - y**2)]
    if l_max >= 3:
        q = 5 * z**2 - 1
        rows += [S5_8 * y * (3 * x**2 - y**2), S15 * x * y * z, S3_8 * y * q]
        rows += [z * (5 * z**2 - 3) / 2, S3_8 * x * q]
        rows += [S15 / 2 * z * (x**2 - y**2), S5_8 * x * (x**2 - 3 * y**2)]
    if l_max >= 4:
        q, p = 7 * z**2 - 1, 7 * z**2 - 3
        rows += [S35 / 2 * x * y * (x**2 - y**2), S35_8 * y * z * (3 * x**2 - y**2)]
        rows += [S5 / 2 * x * y * q, S5_8 * y * z * p, (35 * z**4 - 30 * z**2 + 3) / 8]
        rows += [S5_8 * x * z * p, S5 / 4 * (x**2 - y**2) * q, S35_8 * x * z * (x**2 - 3 * y**2)]
        rows += [S35 / 8 * (x**4 - 6 * x**2 * y**2 + y**4)]
    return torch.stack(rows[: (l_max + 1) ** 2], dim=-1)


def splines(r: Tensor, basis: Basis) -> Tensor:
    """Return the switched B-splines (..., n_splines) of distances (...), nm."""
    return splines_at(r, torch.arange(basis.n_splines, device=r.device), basis)


def splines_at(r: Tensor, which: Tensor, basis: Basis) -> Tensor:
    """Return some of the switched B-splines (..., k) of distances (...), nm.

    ``which`` (..., k), or (k,) of all, holds their numbers.
    """
    centers = basis.first + basis.spacing * which.to(r)
    x = ((r[..., None] - centers) / basis.spacing).abs()
    b = torch.where(x < 1, (4 - 6 * x**2 + 3 * x**3) / 6, (2 - x).clamp(min=0) ** 3 / 6)
    return b * switch(r, basis.switch_on, basis.cutoff)[..., None]


def reference_density(
    displacement: Tensor, neighbor_types: Tensor, basis: Basis, n_types: int
) -> Tensor:
    """Return sum_j B_k(r_ij) Y_c(r_ij / |r_ij|) over neighbors j of each type.

    (n_frames, n_beads, n_harmonics, n_types * n_splines), the types one after the other;
    ``neighbor_types`` (n_frames, n_beads, width) holds the types of the neighbors, -1 in padding.
    """
    r = displacement.norm(dim=-1)
    y = harmonics(displacement / r[..., None], basis.l_max)
    of_type = torch.nn.functional.one_hot((neighbor_types + 1).long(), n_types + 1)[..., 1:].to(r)
    radial = (of_type[..., None] * splines(r, basis)[..., None, :]).flatten(-2)
    return torch.einsum("fijc,fijk->fick", y, radial)


def reference_power_spectrum(a: Tensor, l_max: int, n_axis: int) -> Tensor:
    """Return D_lnm = sum_m' A_lm'n A_lm'm, (n, l_max + 1, n_axis, n_channels), n < n_axis."""
    parts = a.split([2 * l + 1 for l in range(l_max + 1)], dim=1)
    return torch.stack([p[:, :, :n_axis].mT @ p for p in parts], dim=1)


def density(displacement: Tensor, neighbor_types: Tensor, basis: Basis, n_types: int) -> Tensor:
    """Return ``reference_density`` (n_frames, n_beads, n_harmonics, n_types * n_splines).

    On the CPU, by a compiled loop; displacements are (n_frames, n_beads, width, 3), nm.
    """
    return apply(_Density, displacement, neighbor_types.to(torch.int32), basis, n_types)


def power_spectrum(a: Tensor, l_max: int, n_axis: int) -> Tensor:
    """Return the power spectrum (n, l_max + 1, n_axis, n_channels) of densities of n beads.

    It is ``reference_power_spectrum``, on the CPU, by a compiled loop.
    """
    return apply(_PowerSpectrum, a, l_max, n_axis)


class _Density(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, d: Tensor, neighbor_types: Tensor, basis: Basis, n_types: int) -> Tensor:
        ctx.save_for_backward(d, neighbor_types)
        ctx.basis = basis
        shape = (*d.shape[:2], basis.n_harmonics, n_types * basis.n_splines)
        rho = d.new_empty(shape)
        run_loop(density_loops.density, d, neighbor_types, basis.numbers, basis.n_harmonics, rho)
        return rho

    @staticmethod
    def backward(ctx: Any, q: Tensor) -> tuple[Tensor, None, None, None]:
        return apply(_DensityGradient, *ctx.saved_tensors, q, ctx.basis), None, None, None


class _DensityGradient(torch.autograd.Function):
    """g_ij = sum_kc q_ikc d(B_k Y_c)/d(r_ij): linear in q, the way back to q by autograd.

    Its dependence on the displacements is not followed, since force matching differentiates
    forces in the parameters only: whoever asks for it gets NaN. ``reference_density`` gives
    Hessians.
    """

    @staticmethod
    def forward(ctx: Any, d: Tensor, neighbor_types: Tensor, q: Tensor, basis: Basis) -> Tensor:
        ctx.save_for_backward(d, neighbor_types, q)
        ctx.basis = basis
        return pair_gradients_of(d, neighbor_types, q, basis)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None, Tensor, None]:
        d, neighbor_types, q = ctx.saved_tensors
        along = torch.empty_like(q, memory_format=torch.contiguous_format)
        numbers, n = ctx.basis.numbers, ctx.basis.n_harmonics
        run_loop(density_loops.directional, d, neighbor_types, numbers, n, v, along)
        return d.new_full((), torch.nan).expand_as(d), None, along, None


class _PowerSpectrum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, l_max: int, n_axis: int) -> Tensor:
        ctx.save_for_backward(a)
        ctx.sizes = l_max, n_axis
        return polarized(a, a, l_max, n_axis)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return apply(_PowerSpectrumGradient, *ctx.saved_tensors, g, *ctx.sizes), None, None


class _PowerSpectrumGradient(torch.autograd.Function):
    """The gradient of sum(g D(A, A)) in A: linear in either of A and g."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, g: Tensor, l_max: int, n_axis: int) -> Tensor:
        ctx.save_for_backward(a, g)
        ctx.sizes = l_max, n_axis
        return contracted(a, g, l_max, n_axis)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor, None, None]:
        a, g = ctx.saved_tensors
        return contracted(v, g, *ctx.sizes), 2 * polarized(a, v, *ctx.sizes), None, None


def pair_gradients_of(
    displacement: Tensor, neighbor_types: Tensor, q: Tensor, basis: Basis
) -> Tensor:
    """Return sum_kc q_ikc d(B_k Y_c)/d(r_ij), shaped as the displacements, detached."""
    gradients = torch.empty_like(displacement, memory_format=torch.contiguous_format)
    given = neighbor_types.to(torch.int32), basis.numbers, basis.n_harmonics, q
    run_loop(density_loops.gradient, displacement, *given, gradients)
    return gradients


def polarized(a: Tensor, b: Tensor, l_max: int, n_axis: int) -> Tensor:
    """Return (D(a, b) + D(b, a)) / 2."""
    d = a.new_empty(len(a), l_max + 1, n_axis, a.shape[2])
    run_loop(density_loops.spectrum(divisor(a.shape[2])), a, b, d)
    return d


def contracted(a: Tensor, g: Tensor, l_max: int, n_axis: int) -> Tensor:
    """Return the gradient of sum(g D(a, a)) in a."""
    out = torch.empty_like(a)
    run_loop(density_loops.contraction(divisor(a.shape[2])), a, g, out)
    return out
