"""Beads sorted by type, so that what differs by type acts on rows that lie together in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


class ByType:
    """The order in which beads of one type follow one another, in all frames of a batch.

    Parameters
    ----------
    types
        (n_beads,), integers from 0.
    n_types
        Of which some may have no bead.
    n_frames
        Of the batch.
    """

    def __init__(self, types: Tensor, n_types: int, n_frames: int) -> None:
        self.shape = n_frames, len(types)
        self.counts: list[int] = [n_frames * len(types)]
        self.order: Tensor | None = None  # of one type nothing needs to move
        if n_types > 1:
            self.order = torch.argsort(types, stable=True)
            self.counts = (n_frames * torch.bincount(types, minlength=n_types)).tolist()

    def rows(self, x: Tensor) -> Tensor:
        """Return (n_frames, n_beads, ...) as (n_frames * n_beads, ...), one type after another."""
        if self.order is None:
            return x.flatten(0, 1)
        return x.transpose(0, 1).index_select(0, self.order).flatten(0, 1)

    def restored(self, rows: Tensor) -> Tensor:
        """Undo ``rows``: return (n_frames * n_beads, ...) as (n_frames, n_beads, ...)."""
        n_frames, n_beads = self.shape
        if self.order is None:
            return rows.view(*self.shape, *rows.shape[1:])
        place = torch.argsort(self.order)
        by_bead = rows.view(n_beads, n_frames, *rows.shape[1:])
        return by_bead.index_select(0, place).transpose(0, 1)

    def each(self, act: Callable[..., Tensor], rows: Tensor, *of_kind: Iterable[Any]) -> Tensor:
        """Return what ``act`` makes of the rows of each type and of what belongs to that type.

        From rows (n_frames * n_beads, ...) to as many rows (n_frames * n_beads, ...).
        """
        return joined([act(*one) for one in zip(rows.split(self.counts), *of_kind, strict=True)])

    def split(self, parts: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Return the rows of each type of several tensors (rows, ...)."""
        return list(zip(*(part.split(self.counts) for part in parts), strict=True))


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Return parts (rows, ...) as one (all rows, ...); a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
