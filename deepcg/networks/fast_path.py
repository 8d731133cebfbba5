"""How a network, or another term of U, offers to be faster than its definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from deepcg.geometry.neighbor_list import Neighbors
from deepcg.runtime.errors import InputError

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


def checked_path(
    n_types: int,
    energies: Energies,
    energies_and_pair_gradients: EnergiesAndPairGradients | None = None,
) -> FastPath:
    """Return a fast path that looks at sizes and types first: loops do not, and read beyond.

    Of bead ``types`` (n_beads,) all must be below ``n_types``; see ``check_environments``.
    """

    def safe_energies(near: Neighbors, types: Tensor) -> Tensor:
        check_environments(near, types, n_types)
        return energies(near, types)

    def safe_inference(near: Neighbors, types: Tensor) -> tuple[Tensor, Tensor]:
        check_environments(near, types, n_types)
        assert energies_and_pair_gradients is not None
        return energies_and_pair_gradients(near, types)

    return FastPath(safe_energies, safe_inference if energies_and_pair_gradients else None)


def check_environments(near: Neighbors, types: Tensor, n_types: int) -> None:
    """Refuse environments that are not those of beads of ``types`` (n_beads,).

    Raises
    ------
    InputError
        There are more or fewer beads than types, none at all, parts of the environments differ in
        size, or a type is not one of ``n_types``.
    """
    frames, beads, width = shape = tuple(near.index.shape)
    parts = {
        "displacement": (near.displacement, (*shape, 3)),
        "count": (near.count, (frames, beads)),
        "kinds": (near.kinds, shape),
        "types": (types, (beads,)),
    }
    for name, (part, wanted) in parts.items():
        if part is not None and tuple(part.shape) != wanted:
            raise InputError(
                f"environments of {beads} beads, up to {width} neighbors, in {frames} frames have "
                f"{name} of the shape {tuple(part.shape)}, not {wanted}"
            )
    if not beads or not frames:
        raise InputError(f"there are no environments: {frames} frames of {beads} beads")
    check_types(types, n_types)
    if near.kinds is not None:  # -1 is padding
        check_types(near.kinds, n_types, first=-1)


def check_types(types: Tensor, n_types: int, *, first: int = 0) -> None:
    """Refuse types, in any shape, that are not whole numbers from ``first`` to below ``n_types``.

    Raises
    ------
    InputError
        Names the first that is none.
    """
    if types.is_floating_point() or types.is_complex() or types.dtype == torch.bool:
        raise InputError(f"types are {types.dtype}: give whole numbers from 0 to {n_types - 1}")
    if types.numel() and (int(types.min()) < first or int(types.max()) >= n_types):
        wrong = int(types[(types < first) | (types >= n_types)][0])
        raise InputError(
            f"a bead is of type {wrong}, and the potential knows the types 0 to {n_types - 1}"
        )


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
