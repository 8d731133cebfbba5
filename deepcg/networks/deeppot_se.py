"""DeepPot-SE (Zhang et al., NeurIPS 2018, arXiv:1805.09003), two-body embedding (se_e2_a)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepcg.errors import InputError
from deepcg.neighbors import Neighbors
from deepcg.networks.base import Perceptron, Residual, switch
from deepcg.networks.descriptor import energies_and_slopes, energies_of
from deepcg.networks.kinds import joined
from deepcg.networks.pair_features import (
    Pairs,
    Scales,
    features_of,
    pulls_of_features,
    values_and_slopes,
)


class DeepPotSE(nn.Module):
    """u_i = fitting(D_i), D_i = (G^T R)(R^T G_<) / n^2, with G = embedding(s(r)).

    R has the rows (s, s x/r, s y/r, s z/r), s(r) = switch(r) / r, standardised by the mean and
    spread over a sample. Parameters, layers and padding are those of DeePMD-kit's se_e2_a, so
    that weights can be carried over (``deepmd_weights``): a bead with fewer neighbors
    than ``n_neighbors`` has the rest of them at infinity.

    Parameters
    ----------
    cutoff, switch_on
        nm, where s ends and where it begins to fall below 1/r.
    n_types
        Number of bead types.
    embedding, axis, fitting
        Widths of the embedding nets, columns of G_<, widths of the fitting nets.
    two_sided
        An embedding net for every pair of types, not for every type of neighbor.
    n_neighbors
        DeePMD's ``sel``, one for each type: the divisor n is their sum. ``standardise`` sets
        it from the sample where it is not given.
    plain
        Use the plain PyTorch definition on every device: slower, differentiable twice in the
        positions.

    Raises
    ------
    InputError
        If the axis is wider than the embedding.
    """

    def __init__(
        self,
        cutoff: float,
        n_types: int,
        *,
        embedding: Sequence[int] = (16, 32),
        axis: int = 4,
        fitting: Sequence[int] = (64, 64),
        two_sided: bool = False,
        switch_on: float = 0.05,
        n_neighbors: Sequence[int] | None = None,
        plain: bool = False,
    ) -> None:
        super().__init__()
        if axis > embedding[-1]:
            raise InputError(f"{axis} axis neurons need an embedding as wide, not {embedding[-1]}")
        self.cutoff, self.n_types, self.axis = cutoff, n_types, axis
        self.switch_on, self.two_sided, self.plain = switch_on, two_sided, plain
        self.n_neighbors_given = n_neighbors is not None
        self.embeddings = nn.ModuleList(
            _embedding(embedding) for _ in range(n_types**2 if two_sided else n_types)
        )
        self.fitting = nn.ModuleList(
            Perceptron(embedding[-1] * axis, fitting, residual=True) for _ in range(n_types)
        )
        slots = torch.full((n_types,), 40.0) if n_neighbors is None else torch.tensor(n_neighbors)
        self.register_buffer("slots", slots.to(torch.get_default_dtype()))
        self.register_buffer("mean", torch.zeros(n_types))
        self.register_buffer("spread", torch.ones(n_types, 2))  # of s, and of its vector

    def forward(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        """Return bead energies (n_frames, n_beads), kJ/mol."""
        if self.plain or neighbors.displacement.device.type != "cpu":
            return self._plain(neighbors, types)
        pairs, rows, g, change = self._embedded(neighbors, types)
        features = features_of(neighbors.displacement, pairs, rows, g, change)
        features = self._completed(features, pairs, types)
        return energies_of(features, types, self.fitting, self.axis)

    @torch.no_grad()
    def energy_and_pulls(self, neighbors: Neighbors, types: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return bead energies and dU/dr_ij (n_frames, n_beads, width, 3), detached, kJ/mol/nm.

        On the CPU; ``None`` where there is only autograd.
        """
        d = neighbors.displacement.detach()
        if self.plain or d.device.type != "cpu":
            return None
        pairs, rows, g, change = self._embedded(neighbors, types)
        features = self._completed(features_of(d, pairs, rows, g, change), pairs, types)
        energies, slopes = energies_and_slopes(features, types, self.fitting, self.axis)
        slopes = slopes / self.get_buffer("slots").sum()
        return energies, pulls_of_features(slopes, pairs, rows, g, change, d.shape)

    def _embedded(
        self, neighbors: Neighbors, types: Tensor
    ) -> tuple[Pairs, Tensor, Tensor, Tensor]:
        """Return the pairs within the cutoff, and where their G and dG/ds are."""
        mean, spread = self.get_buffer("mean"), self.get_buffer("spread")
        scales = Scales(mean, spread, self.switch_on, self.cutoff, self.two_sided)
        pairs = Pairs.within(neighbors, types, scales)
        rows, s = pairs.sorted(len(self.embeddings))
        parts = [values_and_slopes(*one) for one in zip(self.embeddings, s, strict=True)]
        g, change = (joined(some) for some in zip(*parts, strict=True))
        return pairs, rows, g, change

    def _completed(self, features: Tensor, pairs: Pairs, types: Tensor) -> Tensor:
        """Add the neighbors at infinity to sum_j R_j G_j (beads, 4, channels); divide by n."""
        slots = self.get_buffer("slots")
        absent = (slots - pairs.counts).view(-1, len(types), self.n_types)
        empty = torch.einsum("fio,iom->fim", absent, self.at_infinity()[types]).flatten(0, 1)
        return torch.cat([features[:, :1] + empty[:, None], features[:, 1:]], dim=1) / slots.sum()

    def at_infinity(self) -> Tensor:
        """Return s G(s) of a neighbor at infinity (n_types, n_types, m), by its type at last."""
        s = -(self.get_buffer("mean") / self.get_buffer("spread")[:, 0])[:, None]  # (t, 1)
        if self.two_sided:
            g = torch.stack([net(s[k // self.n_types]) for k, net in enumerate(self.embeddings)])
            g = g.view(self.n_types, self.n_types, -1)
        else:
            g = torch.stack([net(s) for net in self.embeddings], dim=1)
        return s[..., None] * g

    def _plain(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        """Return what ``forward`` does, by its definition."""
        s, rows = self._environment(neighbors, types)
        species = neighbors.species(types)
        features = (
            sum(self._features(s, rows, species, types, of) for of in range(self.n_types))
            / self.get_buffer("slots").sum()
        )  # (f, i, m, 4)
        descriptor = (features @ features[:, :, : self.axis].mT).flatten(2)
        energy = descriptor.new_zeros(descriptor.shape[:2])
        for kind, fitting in enumerate(self.fitting):
            beads = (types == kind).nonzero().squeeze(1)
            energy = energy.index_copy(1, beads, fitting(descriptor[:, beads]))
        return energy

    @torch.no_grad()
    def standardise(self, neighbors: Neighbors, types: Tensor) -> None:
        """Set mean and spread of R and, unless they were given, the numbers of neighbors."""
        self.get_buffer("mean").zero_()
        self.get_buffer("spread").fill_(1)
        s, rows = self._environment(neighbors, types)
        species = neighbors.species(types)
        if not self.n_neighbors_given:
            for t in range(self.n_types):
                most = int((species == t).sum(-1).max())
                self.get_buffer("slots")[t] = max(1, round(1.2 * most))
        for kind in range(self.n_types):
            found = (species >= 0) & (types == kind)[:, None]
            if found.any():
                self.get_buffer("mean")[kind] = s[found].mean()
                self.get_buffer("spread")[kind, 0] = s[found].std(correction=0).clamp(min=1e-2)
                vector = rows[found][:, 1:].square().mean().sqrt()
                self.get_buffer("spread")[kind, 1] = vector.clamp(min=1e-2)

    def _environment(self, neighbors: Neighbors, types: Tensor) -> tuple[Tensor, Tensor]:
        """Return standardised s (f, i, j) and R (f, i, j, 4), zero rows in padding."""
        r = neighbors.distance
        s = switch(r, self.switch_on, self.cutoff) / r
        vector = s[..., None] * neighbors.displacement / r[..., None]
        mean, spread = self.get_buffer("mean")[types], self.get_buffer("spread")[types]
        s = (s - mean[:, None]) / spread[:, None, 0]
        rows = torch.cat([s[..., None], vector / spread[:, None, None, 1]], dim=-1)
        return s, rows * neighbors.mask[..., None]

    def _features(self, s: Tensor, rows: Tensor, species: Tensor, types: Tensor, of: int) -> Tensor:
        """Return G^T R (f, i, m, 4) over the neighbors of one type, padding included."""
        parts = []
        order = []
        for kind in range(self.n_types if self.two_sided else 1):
            net = self.embeddings[kind * self.n_types + of]
            beads = (
                (types == kind).nonzero().squeeze(1)
                if self.two_sided
                else torch.arange(len(types), device=types.device)
            )
            here = species[:, beads] == of
            g = net(s[:, beads, :, None]) * here[..., None]  # (f, i, j, m)
            found = torch.einsum("fijm,fijc->fimc", g, rows[:, beads])
            absent = self.get_buffer("slots")[of] - here.sum(-1)  # (f, i)
            row = -(self.get_buffer("mean") / self.get_buffer("spread")[:, 0])[types[beads]]
            empty = absent[..., None] * (row[:, None] * net(row[:, None]))  # (f, i, m)
            parts.append(torch.cat([found[..., :1] + empty[..., None], found[..., 1:]], dim=-1))
            order.append(beads)
        return torch.cat(parts, dim=1)[:, torch.argsort(torch.cat(order))]


def _embedding(widths: Sequence[int]) -> nn.Sequential:
    pairs = zip([1, *widths], widths, strict=False)
    return nn.Sequential(*(Residual(n_in, n_out, timestep=False) for n_in, n_out in pairs))
