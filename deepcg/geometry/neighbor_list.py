"""Neighbor lists: who is near whom within a cutoff, by the minimum-image convention.

A list may be made for the cutoff and a skin beyond it, and be kept until beads have moved by half
of the skin: a Verlet list (`deepcg.potentials.verlet_list`). A cutoff of more than half of the
shortest height of the box is refused, as a bead would meet two images of one neighbor.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deepcg.geometry import cell_list
from deepcg.geometry.box import box_heights, lattice_shift
from deepcg.runtime.errors import InputError

AT_ONCE = 2**26
"""Pairs that are compared in one go on a device: each takes some 30 bytes of its memory."""


@dataclass(frozen=True, slots=True, eq=False)
class PairList:
    """Which beads are near which, padded to the largest number of neighbors.

    Parameters
    ----------
    index
        (n_frames, n_beads, width), the number j of the neighbor; the bead itself in padding,
        which comes last.
    shift
        (n_frames, n_beads, width, 3), nm, the lattice vector to add to the position of j.
    count
        (n_frames, n_beads), the number of neighbors before the padding.
    kinds
        (n_frames, n_beads, width), the types of the neighbors, -1 in padding; ``None`` where
        nobody has looked them up yet (``with_types``).
    """

    index: Tensor
    shift: Tensor
    count: Tensor
    kinds: Tensor | None = None

    def with_types(self, types: Tensor) -> PairList:
        """Return the list with the types (n_beads,) looked up, for use in many steps.

        Raises
        ------
        InputError
            There are not as many types as beads.
        """
        _check_types_of(self.index, types)
        if self.index.device.type == "cpu":
            return replace(self, kinds=cell_list.kinds(self.index, self.count, types))
        kinds = torch.where(_mask(self.index, self.count), types[self.index], -1)
        return replace(self, kinds=kinds.to(torch.int32))

    def __getitem__(self, frames: slice | Tensor) -> PairList:
        """Return the lists of some of the frames."""
        kinds = None if self.kinds is None else self.kinds[frames]
        return PairList(self.index[frames], self.shift[frames], self.count[frames], kinds)

    @classmethod
    def join(cls, parts: list[PairList]) -> PairList:
        """Concatenate the lists of frames, padded to a common width."""
        width = max(part.index.shape[2] for part in parts)
        parts = [part.widened(width) for part in parts]
        return cls(
            torch.cat([p.index for p in parts]),
            torch.cat([p.shift for p in parts]),
            torch.cat([p.count for p in parts]),
        )

    def widened(self, width: int) -> PairList:
        """Return the same list with more padding."""
        f, n, old, _ = self.shift.shape
        itself = torch.arange(n, device=self.index.device, dtype=self.index.dtype)[:, None]
        index = torch.cat([self.index, itself.expand(f, n, width - old)], dim=2)
        shift = torch.cat([self.shift, self.shift.new_zeros(f, n, width - old, 3)], dim=2)
        return PairList(index, shift, self.count)


@dataclass(frozen=True, slots=True, eq=False)
class Neighbors:
    """The environments of every bead: all that a network sees.

    Parameters
    ----------
    displacement
        (n_frames, n_beads, width, 3), nm, from bead i to its neighbor j. Padding lies
        beyond the cutoff, so that a smooth cutoff zeroes it and no norm is 0.
    index, count, kinds
        As in ``PairList``.
    """

    displacement: Tensor
    index: Tensor
    count: Tensor
    kinds: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """(n_frames, n_beads, width), true for neighbors, false for padding."""
        return _mask(self.index, self.count)

    @property
    def distance(self) -> Tensor:
        """(n_frames, n_beads, width), nm."""
        distance: Tensor = self.displacement.norm(dim=-1)
        return distance

    def neighbor_types(self, types: Tensor) -> Tensor:
        """Return the types of the neighbors (n_frames, n_beads, width), -1 in padding.

        Raises
        ------
        InputError
            There are not as many types as beads.
        """
        if self.kinds is not None:
            return self.kinds
        _check_types_of(self.index, types)
        if self.index.device.type == "cpu":
            return cell_list.kinds(self.index, self.count, types)
        return torch.where(self.mask, types[self.index], -1).to(torch.int32)

    def __getitem__(self, frames: slice | Tensor) -> Neighbors:
        """Return the environments in some of the frames."""
        kinds = None if self.kinds is None else self.kinds[frames]
        return Neighbors(self.displacement[frames], self.index[frames], self.count[frames], kinds)


def check_cutoff(box: Tensor | None, cutoff: float) -> None:
    """Refuse a cutoff, nm, for which a bead would meet two images of the same neighbor.

    In boxes (n_frames, 3, 3), nm; ``None`` has no images.

    Raises
    ------
    InputError
        If the cutoff is more than half of the shortest height of any box.
    """
    if box is None:
        return
    shortest = float(box_heights(box).min())
    if 2 * cutoff > shortest:
        raise InputError(
            f"the cutoff {cutoff:g} nm is more than half of the shortest box height "
            f"{shortest:.3f} nm: reduce the cutoff below {shortest / 2:.3f} nm or take a larger box"
        )


def find_pairs(positions: Tensor, box: Tensor | None, cutoff: float) -> PairList:
    """Find all pairs closer than ``cutoff``, nm, among positions (n_frames, n_beads, 3).

    Raises
    ------
    InputError
        If the box is too small for the cutoff, or shapes do not fit one another.
    """
    _check_frames(positions, box)
    check_cutoff(box, cutoff)
    positions = positions.detach()
    box = None if box is None else box.to(positions)
    if positions.device.type == "cpu":
        return PairList(*cell_list.search(positions, box, cutoff))
    return all_pairs(positions, box, cutoff)


def environments(positions: Tensor, pairs: PairList, padding: float) -> Neighbors:
    """Return the displacements of listed pairs, differentiable in ``positions``.

    They are (n_frames, n_beads, width, 3), nm, of positions (n_frames, n_beads, 3), nm. Padding is
    put at the distance ``padding``, nm, which must lie beyond the cutoff.

    Raises
    ------
    InputError
        The list is of other numbers of frames or beads than the positions.
    """
    frames, beads, width = pairs.index.shape
    _check_frames(positions, None)
    sizes = tuple(pairs.shift.shape), tuple(pairs.count.shape)
    if positions.shape[:2] != (frames, beads) or sizes != (
        (frames, beads, width, 3),
        (frames, beads),
    ):
        raise InputError(
            f"the list of pairs is of {frames} frames of {beads} beads, and the positions are of "
            f"{positions.shape[0]} frames of {positions.shape[1]} beads"
        )
    if positions.device.type == "cpu" and not positions.requires_grad:
        listed = pairs.index, pairs.shift, pairs.count
        near = cell_list.displacements(positions, *listed, padding)
        return Neighbors(near, pairs.index, pairs.count, pairs.kinds)
    f, n, width = pairs.index.shape
    flat = (pairs.index + n * torch.arange(f, device=pairs.index.device)[:, None, None]).flatten()
    other = positions.reshape(f * n, 3).index_select(0, flat).view(f, n, width, 3)
    displacement = other + pairs.shift - positions[:, :, None]
    far = positions.new_tensor([padding, 0.0, 0.0])
    displacement = torch.where(_mask(pairs.index, pairs.count)[..., None], displacement, far)
    return Neighbors(displacement, pairs.index, pairs.count, pairs.kinds)


def neighbors(positions: Tensor, box: Tensor | None, cutoff: float) -> Neighbors:
    """Find the environments within ``cutoff``, nm, of positions (n_frames, n_beads, 3)."""
    return environments(positions, find_pairs(positions, box, cutoff), 2 * cutoff)


def all_pairs(positions: Tensor, box: Tensor | None, cutoff: float) -> PairList:
    """Compare all pairs of positions (n_frames, n_beads, 3) on any device; box (n_frames, 3, 3)."""
    some = max(1, AT_ONCE // max(1, positions.shape[1] ** 2))
    boxes = [None] * len(positions) if box is None else box.split(some)
    parts = [_compared(x, b, cutoff) for x, b in zip(positions.split(some), boxes, strict=False)]
    return parts[0] if len(parts) == 1 else PairList.join(parts)


def _compared(positions: Tensor, box: Tensor | None, cutoff: float) -> PairList:
    """Compare all pairs of some frames at once."""
    displacement = positions[:, None, :] - positions[:, :, None]
    shift = torch.zeros_like(displacement) if box is None else lattice_shift(displacement, box)
    near = (displacement + shift).square().sum(-1) < cutoff**2
    near.diagonal(dim1=1, dim2=2).fill_(False)
    count = near.sum(-1)
    frame, i, j = near.nonzero(as_tuple=True)  # sorted
    f, n = count.shape
    width = max(1, int(count.max())) if count.numel() else 1
    flat = count.flatten()
    slot = torch.arange(len(i), device=i.device) - (flat.cumsum(0) - flat)[frame * n + i]
    index = torch.arange(n, device=i.device)[:, None].repeat(f, 1, width)
    index[frame, i, slot] = j
    rows = shift.new_zeros(f, n, width, 3)
    rows[frame, i, slot] = shift[frame, i, j]
    return PairList(index, rows, count)


def _check_types_of(index: Tensor, types: Tensor) -> None:
    if types.ndim != 1 or len(types) != index.shape[1]:
        raise InputError(
            f"types have shape {tuple(types.shape)}, and {index.shape[1]} beads are listed: give "
            f"({index.shape[1]},)"
        )


def _check_frames(positions: Tensor, box: Tensor | None) -> None:
    """Refuse positions that are not (n_frames, n_beads, 3), and boxes that are not as many."""
    if positions.ndim != 3 or positions.shape[2] != 3:
        raise InputError(
            f"positions have shape {tuple(positions.shape)}: give (n_frames, n_beads, 3), nm"
        )
    if box is not None and tuple(box.shape) != (len(positions), 3, 3):
        raise InputError(
            f"boxes have shape {tuple(box.shape)}, and there are {len(positions)} frames: give "
            f"({len(positions)}, 3, 3), nm"
        )


def _mask(index: Tensor, count: Tensor) -> Tensor:
    return torch.arange(index.shape[2], device=index.device) < count[..., None]
