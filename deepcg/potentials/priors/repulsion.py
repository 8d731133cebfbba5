"""Excluded volume: what keeps beads apart where there are no data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepcg.geometry.neighbor_list import Neighbors
from deepcg.networks.fast_path import FastPath, checked_path
from deepcg.potentials.priors.repulsion_loops import repel


class Repulsion(nn.Module):
    """u_i = 1/2 sum_j strength kT max(0, (onset - r_ij) / width)^3.

    Zero, with two continuous derivatives, beyond the onset of g(r): the closest approach of
    each pair of types in the data. Inside, a cubic wall that no sample of a network's
    extrapolation should climb, yet soft enough for the time step of the dynamics.

    ``forward`` is the definition, over all listed pairs; ``fast_path`` leaves out those outside.

    Parameters
    ----------
    onset
        (n_types, n_types), nm; not positive where there is no repulsion.
    kT
        kJ/mol.
    width
        nm; the wall is ``strength`` kT high one width inside the onset.
    excluded
        (n_pairs, 2), beads that do not repel each other: those that bonds or angles hold.
    """

    def __init__(
        self,
        onset: Tensor,
        kT: float,
        *,
        width: float = 0.02,
        strength: float = 2.0,
        excluded: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("onset", onset)
        none = torch.empty((0, 2), dtype=torch.long)
        self.register_buffer("excluded", none if excluded is None else excluded, persistent=False)
        self.height, self.width = strength * kT, width

    @property
    def n_types(self) -> int:
        """Number of bead types."""
        return len(self.get_buffer("onset"))

    @property
    def cutoff(self) -> float:
        """The largest onset, nm."""
        return float(self.get_buffer("onset").max())

    def forward(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        """Return bead energies (n_frames, n_beads), kJ/mol."""
        # padding lies beyond any onset
        neighbor_types = neighbors.neighbor_types(types).clamp(min=0)
        onset = self.get_buffer("onset")[types[:, None], neighbor_types]
        energy = self._walls(onset, neighbors.distance)
        excluded = self.get_buffer("excluded")
        if len(excluded):
            free = onset.new_ones(len(types), len(types))
            i, j = excluded.unbind(1)
            free[i, j] = free[j, i] = 0
            beads = torch.arange(len(types), device=types.device)[:, None]
            energy = energy * free[beads, neighbors.index]
        return energy.sum(-1)

    def fast_path(self, like: Tensor) -> FastPath:
        """Return the sum over the few pairs that are close; on the CPU by a compiled loop, too.

        Only the device of ``like`` counts, not its shape.
        """
        loop = self._energies_and_pair_gradients if like.device.type == "cpu" else None
        return checked_path(self.n_types, self._energies_of_close_pairs, loop)

    def _walls(self, onset: Tensor, distance: Tensor) -> Tensor:
        """Return what each bead has of the energies of pairs of it and others."""
        inside = ((onset - distance) / self.width).clamp(min=0)
        energy: Tensor = 0.5 * self.height * inside**3
        return energy

    def _energies_of_close_pairs(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        d = neighbors.displacement
        energy = d.new_zeros(d.shape[:2])
        (f, i, slot), onset = self._close(neighbors, types)
        walls = self._walls(onset, d[f, i, slot].norm(dim=-1))
        return energy.index_put((f, i), walls, accumulate=True)

    @torch.no_grad()
    def _energies_and_pair_gradients(
        self, neighbors: Neighbors, types: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return bead energies and dU/dr_ij (n_frames, n_beads, width, 3), kJ/mol/nm."""
        d = neighbors.displacement.detach()
        energy, gradient = d.new_empty(d.shape[:2]), torch.empty_like(d)
        constants = self.get_buffer("onset"), self.get_buffer("excluded")
        given = d, neighbors.index, neighbors.count, types, *constants
        near, index, count, of, onset, excluded = (t.contiguous().numpy() for t in given)
        known = near, index, count, of, onset, excluded, self.height, self.width
        repel(*known, energy.numpy(), gradient.numpy())
        return energy, gradient

    def _close(
        self, neighbors: Neighbors, types: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Return frames, beads and slots of pairs that may be inside, and where these would be."""
        onset = self.get_buffer("onset")
        # hardly any pair is inside: the others need no arithmetic
        close = neighbors.displacement.detach().square().sum(-1) < onset.max() ** 2
        f, i, slot = close.nonzero(as_tuple=True)
        j = neighbors.index[f, i, slot].long()
        excluded = self.get_buffer("excluded")
        if len(excluded):
            free = ~_is_among(i, j, excluded, len(types))
            f, i, slot, j = f[free], i[free], slot[free], j[free]
        return (f, i, slot), onset[types[i], types[j]]


def onset_of_contacts(
    neighbors: Neighbors, types: Tensor, n_types: int, excluded: Tensor | None = None
) -> Tensor:
    """Return the shortest distance (n_types, n_types), nm, between beads of each two types.

    Zero for types that never meet within the cutoff of the list, but as ``excluded`` pairs.
    """
    distance, neighbor_types = neighbors.distance.detach(), neighbors.neighbor_types(types)
    if excluded is not None and len(excluded):
        beads = torch.arange(len(types), device=types.device)[:, None].expand(neighbor_types.shape)
        held = _is_among(beads, neighbors.index.long(), excluded, len(types))
        neighbor_types = torch.where(held, -1, neighbor_types)
    onset = distance.new_zeros(n_types, n_types)
    for a in range(n_types):
        for b in range(n_types):
            met = distance[:, types == a][neighbor_types[:, types == a] == b]
            if len(met):
                onset[a, b] = met.min()
    return onset


def _is_among(i: Tensor, j: Tensor, pairs: Tensor, n_beads: int) -> Tensor:
    """Return whether beads i and j are one of some pairs (n_pairs, 2), in either order."""
    keys = torch.cat([pairs, pairs.flip(1)]) @ pairs.new_tensor([n_beads, 1])
    return torch.isin(i * n_beads + j, keys)
