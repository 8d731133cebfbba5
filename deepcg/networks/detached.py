"""Forces of a network without autograd, for sampling: the loops of training, one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deepcg.networks import loops
from deepcg.networks.bispectrum import products_of, threefold, threefold_adjoint
from deepcg.networks.density import contracted, polarised, run_loop
from deepcg.networks.loops import Basis

Fitting = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """How the densities about beads become the inputs of their fitting nets, by type of bead.

    ``mix`` (types, splines of all types, channels); ``offset`` (types, channels), taken off l = 0;
    ``mean`` and ``scale`` (types, inputs); ``axis``: columns of A_l<; ``triples``: columns in
    products of three.
    """

    basis: Basis
    axis: int
    triples: int
    mix: Tensor
    offset: Tensor
    mean: Tensor
    scale: Tensor


@torch.no_grad()
def energy_and_pulls(
    displacement: Tensor,
    species: Tensor,
    types: Tensor,
    columns: Columns,
    fittings: list[Fitting],
) -> tuple[Tensor, Tensor]:
    """Return bead energies (n_frames, n_beads), kJ/mol, and dU/dr_ij, shaped as ``displacement``.

    Parameters
    ----------
    displacement, species
        (n_frames, n_beads, width, 3), nm, and (n_frames, n_beads, width), -1 in padding.
    types
        (n_beads,).
    fittings
        From inputs (n, inputs) to energies (n,), for each type.
    """
    f, n = displacement.shape[:2]
    basis, species = columns.basis, species.to(torch.int32)
    rho = displacement.new_empty(f, n, basis.n_harmonics, columns.mix.shape[1])
    run_loop(loops.density(basis), displacement, species, rho)
    order = torch.argsort(types, stable=True)
    counts = (f * torch.bincount(types, minlength=len(fittings))).tolist()
    # beads of a type are rows of memory from here on: (beads * frames, ...)
    rows = rho.transpose(0, 1).index_select(0, order).flatten(0, 1)
    a = _mixed(rows, counts, columns)
    inputs = _inputs(a, counts, columns)
    energies, slopes = _fitted(inputs, counts, fittings)
    back = _slopes_of_mixed(a, slopes, counts, columns)
    parts = zip(back.split(counts), columns.mix, strict=True)
    pulls = torch.cat([part @ mix.T for part, mix in parts])
    place = torch.argsort(order)
    pulls = pulls.view(n, f, *rho.shape[2:]).index_select(0, place).transpose(0, 1)
    pull = torch.empty_like(displacement, memory_format=torch.contiguous_format)
    run_loop(loops.gradient(basis), displacement, species, pulls, pull)
    return energies.view(n, f)[place].T, pull


def _mixed(rows: Tensor, counts: list[int], columns: Columns) -> Tensor:
    """Return A (beads, harmonics, channels) of densities sorted by type."""
    parts = zip(rows.split(counts), columns.mix, columns.offset, strict=True)
    mixed = []
    for part, mix, offset in parts:
        a = part @ mix
        a[:, 0] -= offset
        mixed.append(a)
    return torch.cat(mixed)


def _inputs(a: Tensor, counts: list[int], columns: Columns) -> Tensor:
    """Return the inputs (beads, inputs) of fitting nets."""
    l_max = columns.basis.l_max
    parts = [a[:, 0], polarised(a, a, l_max, columns.axis).flatten(1)]
    if columns.triples:
        some = a[:, :, : columns.triples]
        parts.append(threefold(some, some, some, products_of(l_max, columns.triples)))
    inputs = torch.cat(parts, dim=1)
    for part, mean, scale in zip(inputs.split(counts), columns.mean, columns.scale, strict=True):
        part.sub_(mean).mul_(scale)
    return inputs


def _slopes_of_mixed(a: Tensor, slopes: Tensor, counts: list[int], columns: Columns) -> Tensor:
    """Return the slopes of the energy in A from those in the inputs, which are overwritten."""
    for part, scale in zip(slopes.split(counts), columns.scale, strict=True):
        part.mul_(scale)
    l_max, channels = columns.basis.l_max, a.shape[2]
    before = channels * (1 + columns.axis * (l_max + 1))
    pairs = slopes[:, channels:before].view(len(a), l_max + 1, columns.axis, channels)
    back = contracted(a, pairs, l_max, columns.axis)
    back[:, 0] += slopes[:, :channels]
    if columns.triples:
        some = a[:, :, : columns.triples]
        which = products_of(l_max, columns.triples)
        back[:, :, : columns.triples] += threefold_adjoint(slopes[:, before:], some, some, which)
    return back


def _fitted(inputs: Tensor, counts: list[int], fittings: list[Fitting]) -> tuple[Tensor, Tensor]:
    """Return the energies (n,) of inputs sorted by type, and their slopes (n, inputs)."""
    with torch.enable_grad():
        moved = inputs.requires_grad_()
        parts = zip(moved.split(counts), fittings, strict=True)
        energies = torch.cat([fitting(part) for part, fitting in parts if len(part)])
        (slopes,) = torch.autograd.grad(energies.sum(), moved)
    return energies.detach(), slopes
