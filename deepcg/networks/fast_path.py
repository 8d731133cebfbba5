"""How a network, or another term of U, offers to be faster than its definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from deepcg.geometry.neighbor_list import Neighbors

Energies = Callable[[Neighbors, Tensor], Tensor]
"""From environments and types (n_beads,) to bead energies (n_frames, n_beads), kJ/mol."""

EnergiesAndPairGradients = Callable[[Neighbors, Tensor], tuple[Tensor, Tensor]]
"""From the same to bead energies and dU/dr_ij (n_frames, n_beads, width, 3), detached."""

Evaluation = tuple[Energies, EnergiesAndPairGradients]
"""How to train by a term, and how to infer."""


@dataclass(frozen=True, slots=True, eq=False)
class FastPath:
    """What gives the same as the definition of a term, faster; it follows the term's weights.

    Parameters
    ----------
    energies
        For training: can be differentiated in the displacements, and then in the weights.
    energies_and_pair_gradients
        For inference; ``None``: there is nothing faster than autograd of ``energies``.
    """

    energies: Energies
    energies_and_pair_gradients: EnergiesAndPairGradients | None = None


@runtime_checkable
class HasFastPath(Protocol):
    """A network, or another term of U, that can be evaluated faster than by its definition."""

    def fast_path(self, like: Tensor) -> FastPath | None:
        """Return what is faster for displacements of this dtype and device; ``None``: nothing is.

        The shape of ``like`` does not count. It is asked once for each dtype and device, not in
        every step.
        """
        ...


def evaluation(term: Energies, like: Tensor) -> Evaluation:
    """Return how to train and how to infer by a term: its fast path, or else its definition.

    For displacements of the dtype and on the device of ``like``, of any shape.
    """
    path = term.fast_path(like) if isinstance(term, HasFastPath) else None
    energies, inference = term, None
    if path is not None:
        energies, inference = path.energies, path.energies_and_pair_gradients
    return energies, inference or partial(by_autograd, energies)


def by_autograd(energies: Energies, near: Neighbors, types: Tensor) -> tuple[Tensor, Tensor]:
    """Return bead energies and dU/dr_ij (n_frames, n_beads, width, 3), detached, by autograd."""
    displacement = near.displacement.detach().requires_grad_()
    with torch.enable_grad():
        energy = energies(replace(near, displacement=displacement), types)
        (gradient,) = torch.autograd.grad(energy.sum(), displacement)
    return energy.detach(), gradient
