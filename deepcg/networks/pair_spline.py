"""The baseline: a sum over pairs of a cubic B-spline of the distance."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from deepcg.geometry.neighbor_list import Neighbors
from deepcg.networks.deeppot_se_l.density import Density, density, reference_density
from deepcg.networks.deeppot_se_l.density_loops import Basis
from deepcg.networks.fast_path import FastPath, checked_path
from deepcg.runtime.errors import InputError


class PairSpline(nn.Module):
    """u_i = 1/2 sum_j f_c(r_ij) sum_k c_k B((r_ij - r_k) / h), with c for every pair of types.

    What is left of force matching without many-body terms: the best pair potential. Linear
    in the neighbor density of l = 0 that ``DeepPotSEL`` is built on.

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
