"""The environment of DeepPot-SE by its plain definition: s, R and their sum with an embedding G."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepcg.geometry.neighbor_list import Neighbors
from deepcg.networks.base import switch

Embed = Callable[[int, Tensor], Tensor]
"""From the number of an embedding net and s (...) to G (..., channels)."""


@dataclass(frozen=True, slots=True, eq=False)
class Scales:
    """What turns distances into s and R.

    Parameters
    ----------
    mean, spread
        (n_types,) and (n_types, 2), 1/nm: of s by the type of the central bead, the latter of its
        vector, too.
    slots
        (n_types,), DeePMD's ``sel``: neighbors of each type, the absent ones being at infinity.
    switch_on, cutoff
        nm.
    two_sided
        Whether embedding nets depend on the type of the central bead, too.
    """

    mean: Tensor
    spread: Tensor
    slots: Tensor
    switch_on: float
    cutoff: float
    two_sided: bool

    @property
    def n_types(self) -> int:
        """Number of bead types."""
        return len(self.mean)

    @property
    def infinity(self) -> Tensor:
        """(n_types,), s of a neighbor at infinity."""
        return -self.mean / self.spread[:, 0]

    def at(self, r: float) -> Tensor:
        """Return s (n_types,) of a neighbor at a distance, nm."""
        distance = self.mean.new_tensor(r)
        s = switch(distance, self.switch_on, self.cutoff) / distance
        return (s - self.mean) / self.spread[:, 0]

    def net(self, here: int, there: int) -> int:
        """Return the number of the embedding net for a neighbor's type about a bead's."""
        return here * self.n_types * self.two_sided + there

    def environment(self, neighbors: Neighbors, types: Tensor) -> tuple[Tensor, Tensor]:
        """Return standardized s (f, i, j) and R (f, i, j, 4), zero rows in padding."""
        r = neighbors.distance
        s = switch(r, self.switch_on, self.cutoff) / r
        vector = s[..., None] * neighbors.displacement / r[..., None]
        mean, spread = self.mean[types], self.spread[types]
        s = (s - mean[:, None]) / spread[:, None, 0]
        rows = torch.cat([s[..., None], vector / spread[:, None, None, 1]], dim=-1)
        return s, rows * neighbors.mask[..., None]


class EnvironmentModule(nn.Module):
    """What sees beads by s and R: the constants of ``Scales``, kept with its weights.

    Parameters
    ----------
    slots
        (n_types,), see ``Scales``.
    plain
        Have no fast path.
    """

    def __init__(
        self, cutoff: float, switch_on: float, two_sided: bool, slots: Tensor, plain: bool
    ) -> None:
        super().__init__()
        self.cutoff, self.switch_on, self.n_types = cutoff, switch_on, len(slots)
        self.two_sided, self.plain = two_sided, plain
        self.register_buffer("slots", slots)
        self.register_buffer("mean", torch.zeros(self.n_types))
        self.register_buffer("spread", torch.ones(self.n_types, 2))  # of s, and of its vector

    @property
    def scales(self) -> Scales:
        """What turns distances into s and R."""
        mean, spread, slots = (self.get_buffer(name) for name in ("mean", "spread", "slots"))
        return Scales(mean, spread, slots, self.switch_on, self.cutoff, self.two_sided)


def reference_features(neighbors: Neighbors, types: Tensor, scales: Scales, embed: Embed) -> Tensor:
    """Return F = G^T R / n (f * i, 4, channels); a bead lacks no neighbors: the rest is far."""
    s, rows = scales.environment(neighbors, types)
    neighbor_types, far = neighbors.neighbor_types(types), scales.infinity
    of_kinds, order = [], []
    for here in range(scales.n_types):
        beads = (types == here).nonzero().squeeze(1)
        total: Tensor | float = 0.0
        for there in range(scales.n_types):
            net, found = scales.net(here, there), neighbor_types[:, beads] == there
            g = embed(net, s[:, beads]) * found[..., None]  # (f, i, j, m)
            near = torch.einsum("fijm,fijc->ficm", g, rows[:, beads])
            absent = scales.slots[there] - found.sum(-1)  # (f, i)
            empty = absent[..., None] * (far[here] * embed(net, far[here]))  # (f, i, m)
            total = total + torch.cat([near[:, :, :1] + empty[:, :, None], near[:, :, 1:]], dim=2)
        assert isinstance(total, Tensor)
        of_kinds.append(total)
        order.append(beads)
    features = torch.cat(of_kinds, dim=1)[:, torch.argsort(torch.cat(order))]
    return features.flatten(0, 1) / scales.slots.sum()


def at_infinity(scales: Scales, embed: Embed) -> Tensor:
    """Return s G(s) of a neighbor at infinity (n_types, n_types, channels), its type second."""
    kinds, far = range(scales.n_types), scales.infinity
    rows = [torch.stack([embed(scales.net(t, of), far[t]) for of in kinds]) for t in kinds]
    return far[:, None, None] * torch.stack(rows)


def completed(
    features: Tensor, counts: Tensor, types: Tensor, scales: Scales, far: Tensor
) -> Tensor:
    """Return F (beads, 4, channels) from the sum over near neighbors.

    Parameters
    ----------
    features
        sum_j R_j G_j (beads, 4, channels).
    counts
        (beads, n_types), near neighbors of each type.
    types
        (n_beads,), of one frame.
    far
        What each that is not there adds; see ``at_infinity``.
    """
    absent = (scales.slots - counts).view(-1, len(types), scales.n_types)
    empty = torch.einsum("fio,iom->fim", absent, far[types]).flatten(0, 1)
    return torch.cat([features[:, :1] + empty[:, None], features[:, 1:]], dim=1) / (
        scales.slots.sum()
    )
