"""The baseline: a sum over pairs of a cubic B-spline of the distance."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from deepcg.geometry.neighbor_list import Neighbors
from deepcg.networks.deeppot_se_l.density import (
    Density,
    density,
    reference_density,
    splines_at,
)
from deepcg.networks.deeppot_se_l.density_loops import Basis
from deepcg.networks.fast_path import FastPath, checked_path
from deepcg.runtime.errors import InputError

LEAST_STIFFNESS = 1e-3
"""Of a coefficient by itself, beside that of differences of three: for what no pair ever tells."""


class PairSpline(nn.Module):
    """u_i = 1/2 sum_j f_c(r_ij) sum_k c_k B((r_ij - r_k) / h), with c for every pair of types.

    What is left of force matching without many-body terms: the best pair potential. Linear
    in the neighbor density of l = 0 that ``DeepPotSEL`` is built on, and in its coefficients: a fit
    solves them by least squares (``deepcg.training.least_squares``).

    Parameters
    ----------
    cutoff
        nm.
    n_types
        Number of bead types.
    n_knots
        Number of splines between ``first_knot``, nm, and the cutoff.

    Raises
    ------
    InputError
        If there are fewer than four knots.
    """

    def __init__(
        self, cutoff: float, n_types: int, *, n_knots: int = 40, first_knot: float = 0.2
    ) -> None:
        super().__init__()
        if n_knots < 4:
            raise InputError(f"{n_knots} knots are too few for cubic splines: take at least 4")
        self.cutoff, self.n_types = cutoff, n_types
        self.basis = Basis(0, n_knots, first_knot, cutoff, cutoff / 2)
        self.coefficients = nn.Parameter(1e-2 * torch.randn(n_types, n_types, n_knots))

    def forward(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        """Return bead energies (n_frames, n_beads), kJ/mol."""
        return self._energies(reference_density, neighbors, types)

    def fast_path(self, like: Tensor) -> FastPath | None:
        """Return the density by a compiled loop, if ``like``, of any shape, is on the CPU."""
        on_cpu = like.device.type == "cpu"
        return checked_path(self.n_types, partial(self._energies, density)) if on_cpu else None

    def _energies(self, of: Density, neighbors: Neighbors, types: Tensor) -> Tensor:
        neighbor_types = neighbors.neighbor_types(types)
        rho = of(neighbors.displacement, neighbor_types, self.basis, self.n_types).squeeze(2)
        curves = (self.coefficients + self.coefficients.transpose(0, 1)) / 2
        energy: Tensor = 0.5 * (rho * curves.flatten(1)[types]).sum(-1)
        return energy

    def standardize(self, neighbors: Neighbors, types: Tensor) -> None:
        """Do nothing: splines need no scaling, of whatever ``types`` (n_beads,)."""

    def force_features(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        """Return dF/dw (n_frames, n_beads, 3, n_pairs_of_types * n_knots), 1/nm; see `_places`."""
        d, kinds = neighbors.displacement, neighbors.neighbor_types(types).long()
        frames, beads, _ = kinds.shape
        f, i, slot = (neighbors.mask & (neighbors.distance < self.cutoff)).nonzero(as_tuple=True)
        d = d[f, i, slot]
        r = d.norm(dim=-1)
        # four splines reach a distance
        first = ((r - self.basis.first) / self.basis.spacing).floor().long() - 1
        which = first[:, None] + torch.arange(4, device=r.device)
        slopes = _slopes(r, which, self.basis)
        known = (which >= 0) & (which < self.basis.n_splines)
        n = self.basis.n_splines
        column = self._places[types[i], kinds[f, i, slot]][:, None] * n + which.clamp(0, n - 1)
        size = int(self._places.max() + 1) * n
        out = d.new_zeros(frames * beads * 3 * size)
        # a bead is drawn towards another where their energy rises with the distance
        for axis in range(3):
            row = ((f * beads + i) * 3 + axis)[:, None] * size
            pull = slopes * known * (d[:, axis] / r)[:, None]
            out.index_add_(0, (row + column).flatten(), pull.flatten())
        return out.view(frames, beads, 3, size)

    def roughness(self) -> Tensor:
        """Return the penalty of second differences of coefficients, and a little of each (w, w).

        What no pair of beads ever reaches then goes on straight from what is known.
        """
        n, n_curves = self.basis.n_splines, int(self._places.max() + 1)
        differences = torch.eye(n, dtype=torch.float64).diff(n=2, dim=0)
        one = differences.T @ differences + LEAST_STIFFNESS * torch.eye(n, dtype=torch.float64)
        penalty: Tensor = torch.block_diag(*[one] * n_curves)
        return penalty

    @torch.no_grad()
    def set_weights(self, weights: Tensor) -> None:
        """Take coefficients (n_pairs_of_types * n_knots,), kJ/mol, as `force_features` has them."""
        curves = weights.view(-1, self.basis.n_splines)
        self.coefficients.copy_(curves[self._places])

    @property
    def _places(self) -> Tensor:
        """The number of the curve of two types, (n_types, n_types), which is the same both ways."""
        i, j = torch.triu_indices(self.n_types, self.n_types)
        places = torch.empty(self.n_types, self.n_types, dtype=torch.long)
        places[i, j] = places[j, i] = torch.arange(len(i))
        return places.to(self.coefficients.device)


def _slopes(r: Tensor, which: Tensor, basis: Basis) -> Tensor:
    """Return the derivatives (n, k), 1/nm, of splines at distances (n,); see ``splines_at``."""
    r = r.detach().requires_grad_()
    with torch.enable_grad():
        columns = splines_at(r, which, basis).sum(0).unbind()
        slopes = [torch.autograd.grad(column, r, retain_graph=True)[0] for column in columns]
    return torch.stack(slopes, 1)
