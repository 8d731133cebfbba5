"""DeepPot-SE (Zhang et al., NeurIPS 2018, arXiv:1805.09003), two-body embedding (se_e2_a)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepcg.compute.tensor_cache import TensorCache
from deepcg.geometry.neighbor_list import Neighbors
from deepcg.networks.by_type import joined
from deepcg.networks.deeppot_se.descriptor import Fitting, Products, energies_of
from deepcg.networks.deeppot_se.environment import (
    EnvironmentModule,
    at_infinity,
    completed,
    reference_features,
)
from deepcg.networks.deeppot_se.inference import EvaluationPath, EvaluationPaths, ways
from deepcg.networks.deeppot_se.pair_features import (
    Embedded,
    Pairs,
    Rows,
    features_of,
    values_and_slopes,
)
from deepcg.networks.fast_path import FastPath, checked_path
from deepcg.networks.layers import Perceptron, Residual
from deepcg.runtime.errors import InputError


class DeepPotSE(EnvironmentModule):
    """u_i = fitting(D_i), D_i = (G^T R)(R^T G_<) / n^2, with G = embedding(s(r)).

    R has the rows (s, s x/r, s y/r, s z/r), s(r) = switch(r) / r, standardized by the mean and
    spread over a sample. Parameters, layers and padding are those of DeePMD-kit's se_e2_a, so
    that weights can be carried over (``deepmd_weights``): a bead with fewer neighbors
    than ``n_neighbors`` has the rest of them at infinity.

    ``forward`` is the definition; ``fast_path`` has compiled loops for the CPU.

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
        DeePMD's ``sel``, one for each type: the divisor n is their sum. ``standardize`` sets
        it from the sample where it is not given.
    plain
        Have no fast path: slower, differentiable twice in the positions.

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
        slots = torch.full((n_types,), 40.0) if n_neighbors is None else torch.tensor(n_neighbors)
        slots = slots.to(torch.get_default_dtype())
        super().__init__(cutoff, switch_on, two_sided, slots, plain)
        if axis > embedding[-1]:
            raise InputError(f"{axis} axis neurons need an embedding as wide, not {embedding[-1]}")
        self.channels, self.axis = embedding[-1], axis
        self.n_neighbors_given = n_neighbors is not None
        self.embeddings = nn.ModuleList(
            _embedding(embedding) for _ in range(n_types**2 if two_sided else n_types)
        )
        self.fitting = nn.ModuleList(
            Perceptron(embedding[-1] * axis, fitting, residual=True) for _ in range(n_types)
        )
        self._kept: TensorCache[EvaluationPaths] = TensorCache()

    def forward(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        """Return bead energies (n_frames, n_beads), kJ/mol."""
        features = reference_features(neighbors, types, self.scales, self._embed)
        return energies_of(features, types, self.fitting, self._products)

    def fast_path(self, like: Tensor) -> FastPath | None:
        """Return compiled loops over the pairs within the cutoff, if ``like`` is on the CPU.

        The shape of ``like`` does not count.
        """
        if self.plain or like.device.type != "cpu":
            return None
        loops = self._energies_of_pairs, self._energies_and_pair_gradients
        return checked_path(self.n_types, *loops)

    def _energies_of_pairs(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        """Return bead energies, differentiable as force matching needs."""
        pairs, g = self._embedded(neighbors, types)
        features = features_of(neighbors.displacement, pairs, g)
        far = at_infinity(self.scales, self._embed)
        features = completed(features, pairs.counts, types, self.scales, far)
        return energies_of(features, types, self.fitting, self._products)

    @torch.no_grad()
    def _energies_and_pair_gradients(
        self, neighbors: Neighbors, types: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return bead energies and dU/dr_ij (n_frames, n_beads, width, 3), kJ/mol/nm."""
        pairs, g = self._embedded(neighbors, types)
        way = self._ways.at(g.where.s)
        return way.energies_and_pair_gradients(neighbors, types, self.scales, pairs, g)

    @torch.no_grad()
    def standardize(self, neighbors: Neighbors, types: Tensor) -> None:
        """Set mean and spread of R and, unless they were given, the numbers of neighbors.

        From a sample of environments of beads of ``types`` (n_beads,).
        """
        self.get_buffer("mean").zero_()
        self.get_buffer("spread").fill_(1)
        s, rows = self.scales.environment(neighbors, types)
        neighbor_types = neighbors.neighbor_types(types)
        if not self.n_neighbors_given:
            for t in range(self.n_types):
                most = int((neighbor_types == t).sum(-1).max())
                self.get_buffer("slots")[t] = max(1, round(1.2 * most))
        for kind in range(self.n_types):
            found = (neighbor_types >= 0) & (types == kind)[:, None]
            if found.any():
                self.get_buffer("mean")[kind] = s[found].mean()
                self.get_buffer("spread")[kind, 0] = s[found].std(correction=0).clamp(min=1e-2)
                vector = rows[found][:, 1:].square().mean().sqrt()
                self.get_buffer("spread")[kind, 1] = vector.clamp(min=1e-2)

    def _embed(self, net: int, s: Tensor) -> Tensor:
        """Return G (..., m) at s (...)."""
        g: Tensor = self.embeddings[net](s[..., None])
        return g

    def _embedded(self, neighbors: Neighbors, types: Tensor) -> tuple[Pairs, Embedded]:
        """Return the pairs within the cutoff, with their G and dG/ds."""
        pairs = Pairs.within(neighbors, types, self.scales)
        where = Rows.of(pairs, neighbors, types, len(self.embeddings))
        parts = [values_and_slopes(*one) for one in zip(self.embeddings, where.s, strict=True)]
        value, slope = (joined(some) for some in zip(*parts, strict=True))
        return pairs, Embedded(where, value, slope)

    @property
    def _products(self) -> Products:
        return Products(self.channels, self.axis)

    @property
    def _ways(self) -> EvaluationPaths:
        """How to evaluate the network, kept while weights are the same."""
        made_of = *self.parameters(), self.get_buffer("mean"), self.get_buffer("spread")
        return self._kept.get(made_of, 0, self._make_ways)

    @torch.no_grad()
    def _make_ways(self) -> EvaluationPaths:
        far = at_infinity(self.scales, self._embed)
        whole = EvaluationPath(None, Fitting.of(self.fitting, self._products), far)
        return ways(self.embeddings, whole, self.scales)


def _embedding(widths: Sequence[int]) -> nn.Sequential:
    pairs = zip([1, *widths], widths, strict=False)
    return nn.Sequential(*(Residual(n_in, n_out, timestep=False) for n_in, n_out in pairs))
