"""Forces of a network without autograd: two compiled passes, with the fitting nets between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deepcg.networks import fused_loops
from deepcg.networks.bispectrum import products_of
from deepcg.networks.fused_loops import Sizes
from deepcg.networks.loops import Basis
from deepcg.threads import use_torch_threads

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

    @property
    def sizes(self) -> Sizes:
        """What loops are compiled for."""
        n_triples = products_of(self.basis.l_max, self.triples).n_columns
        return Sizes(self.basis, self.mix.shape[2], self.axis, self.triples, n_triples)


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
    use_torch_threads()
    f, n = displacement.shape[:2]
    sizes = columns.sizes
    order, counts, place = _places(types, len(fittings), f)
    which = products_of(columns.basis.l_max, columns.triples)
    d, kinds = displacement.contiguous().numpy(), species.to(torch.int32).contiguous().numpy()
    mix, scale = columns.mix.numpy(), columns.scale.numpy()
    about = (d, kinds, types.numpy(), place.numpy())
    threefold = (which.ends, which.terms, which.factors.astype(d.dtype), which.columns)
    a = torch.empty(f * n, columns.basis.n_harmonics, sizes.channels, dtype=displacement.dtype)
    inputs = torch.empty(f * n, columns.mean.shape[1], dtype=displacement.dtype)
    loop = fused_loops.inputs(sizes)
    offset, mean = columns.offset.numpy(), columns.mean.numpy()
    loop(*about, mix, offset, mean, scale, *threefold, a.numpy(), inputs.numpy())
    energies, slopes = _fitted(inputs, [f * count for count in counts], fittings)
    pull = torch.empty_like(displacement)
    back = fused_loops.pulls(sizes)
    back(*about, mix, scale, *threefold, a.numpy(), slopes.numpy(), pull.numpy())
    by_kind = [part.view(f, -1) for part in energies.split([f * count for count in counts])]
    return torch.cat(by_kind, dim=1)[:, torch.argsort(order)], pull


def _places(types: Tensor, n_types: int, n_frames: int) -> tuple[Tensor, list[int], Tensor]:
    """Return beads sorted by type, how many there are of each, and rows for them (beads, 2).

    Rows are sorted by type, then by frame: of a bead in the first frame, and the step to the next.
    """
    order = torch.argsort(types, stable=True)
    counts = torch.bincount(types, minlength=n_types)
    before = counts.cumsum(0) - counts
    rank = torch.argsort(order) - before[types]
    place = torch.stack([n_frames * before[types] + rank, counts[types]], dim=1)
    return order, counts.tolist(), place


def _fitted(inputs: Tensor, lengths: list[int], fittings: list[Fitting]) -> tuple[Tensor, Tensor]:
    """Return the energies (n,) of inputs sorted by type, and their slopes (n, inputs)."""
    with torch.enable_grad():
        moved = inputs.requires_grad_()
        parts = zip(moved.split(lengths), fittings, strict=True)
        energies = torch.cat([fitting(part) for part, fitting in parts if len(part)])
        (slopes,) = torch.autograd.grad(energies.sum(), moved)
    return energies.detach(), slopes
