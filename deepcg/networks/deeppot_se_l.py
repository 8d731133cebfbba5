"""DeepPot-SE with angular resolution: spherical harmonics beyond l = 1, contracted l by l."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepcg.errors import InputError
from deepcg.neighbors import Neighbors
from deepcg.networks.base import Perceptron
from deepcg.networks.bispectrum import bispectrum, plain_bispectrum, products_of
from deepcg.networks.density import density, plain_density, plain_spectrum, spectrum
from deepcg.networks.detached import Columns, Fitting, energy_and_pulls
from deepcg.networks.loops import Basis


class DeepPotSEL(nn.Module):
    """u_i = fitting(A_0, D_0 ... D_lmax), D_l = A_l<^T A_l, A_l = sum_j G(r_ij) Y_l(r_ij).

    DeepPot-SE (arXiv:1805.09003) has the rows (1, x/r, y/r, z/r), which are l = 0 and 1; here
    l goes further, and each l is contracted separately. G, shared by all l, are cubic
    B-splines with trained coefficients for every type of neighbor, in place of an embedding
    net: the sum over neighbors then runs over the fixed splines, once for all channels. The
    linear invariants A_0, of which a pair potential is made, enter the fitting net too, and
    so do products of three A_l (``bispectrum.py``), which see more of how neighbors stand to one
    another.

    Parameters
    ----------
    cutoff
        nm.
    n_types
        Number of bead types.
    l_max
        Largest angular momentum, 0 to 4.
    n_splines
        Number of radial splines between ``first_knot``, nm, and the cutoff.
    channels, axis
        Columns of A_l and of A_l< ("axis neurons").
    triples
        Columns of A_l that enter products of three; 0 for none.
    fitting
        Widths of the layers of the fitting net.
    two_sided
        Radial functions that depend on the type of the central bead, too.
    plain
        Use the plain PyTorch definitions on every device: slower, differentiable twice in
        the positions.

    Raises
    ------
    InputError
        If ``l_max`` is out of range or there are fewer channels than axis neurons.
    """

    def __init__(
        self,
        cutoff: float,
        n_types: int,
        *,
        l_max: int = 3,
        n_splines: int = 16,
        first_knot: float = 0.22,
        channels: int = 16,
        axis: int = 4,
        triples: int = 0,
        fitting: Sequence[int] = (32, 32),
        two_sided: bool = False,
        plain: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= l_max <= 4:
            raise InputError(f"l_max is {l_max}: choose 0 to 4")
        if axis > channels:
            raise InputError(f"{axis} axis neurons need at least as many channels, not {channels}")
        if not 0 <= triples <= channels:
            raise InputError(
                f"triples is {triples}: choose 0 to the number of channels, {channels}"
            )
        if n_splines < 4:
            raise InputError(f"{n_splines} splines are too few for cubic ones: take at least 4")
        if not first_knot < cutoff:
            raise InputError(
                f"the cutoff {cutoff:g} nm is not above first_knot, {first_knot:g} nm, from which "
                f"on beads are told apart: give a --cutoff of {first_knot + 0.1:.2g} nm or more"
            )
        self.cutoff, self.n_types, self.plain = cutoff, n_types, plain
        self.axis, self.triples = axis, triples
        self.basis = Basis(l_max, n_splines, first_knot, cutoff, cutoff / 2)
        width = n_types * n_splines
        sides = n_types if two_sided else 1
        self.radial = nn.Parameter(torch.randn(sides, width, channels))
        n_triples = products_of(l_max, triples).n_columns
        n_features = channels * (1 + axis * (l_max + 1)) + n_triples
        self.fitting = nn.ModuleList(
            Perceptron(n_features, fitting, residual=False) for _ in range(n_types)
        )
        self.register_buffer("density_mean", torch.zeros(n_types, width))
        self.register_buffer("density_scale", torch.ones(n_types, width))
        self.register_buffer("feature_mean", torch.zeros(n_types, n_features))
        self.register_buffer("feature_scale", torch.ones(n_types, n_features))

    def forward(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        """Return bead energies (n_frames, n_beads), kJ/mol."""
        rho = self._density(neighbors, types)  # (f, n, c, k)
        order = torch.argsort(types, stable=True)
        energies = []
        for kind, mine in self._by_kind(rho, types, order):
            features = self._features(mine, kind)
            scale, mean = self.get_buffer("feature_scale")[kind], self.get_buffer("feature_mean")
            energy: Tensor = self.fitting[kind]((features - mean[kind]) * scale)
            energies.append(energy.view(len(rho), -1))
        return torch.cat(energies, dim=1)[:, torch.argsort(order)]

    def energy_and_pulls(self, neighbors: Neighbors, types: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return bead energies and dU/dr_ij (n_frames, n_beads, width, 3), detached, kJ/mol/nm.

        Compiled as a whole, on the CPU; ``None`` where there is only autograd.
        """
        displacement = neighbors.displacement.detach()
        if self.plain or displacement.device.type != "cpu":
            return None
        fittings: list[Fitting] = list(self.fitting)
        return energy_and_pulls(
            displacement, neighbors.species(types), types, self._columns(), fittings
        )

    @torch.no_grad()
    def standardise(self, neighbors: Neighbors, types: Tensor) -> None:
        """Centre and scale densities and features by their spread in a sample."""
        rho = self._density(neighbors, types)
        order = torch.argsort(types, stable=True)
        for kind, mine in self._by_kind(rho, types, order):
            scalars = mine.flatten(0, 1)[:, 0]  # (b, k)
            self.get_buffer("density_mean")[kind] = scalars.mean(0)
            # the spread of l = 0 serves all l; a spline that hardly any neighbor reaches
            # must not become loud
            spread = scalars.std(0, correction=0)
            spread = spread.clamp(min=max(0.1 * float(spread.max()), 1e-6))
            self.get_buffer("density_scale")[kind] = 1 / (spread * math.sqrt(len(spread)))
            features = self._features(mine, kind)
            self.get_buffer("feature_mean")[kind] = features.mean(0)
            spread = features.std(0, correction=0)
            self.get_buffer("feature_scale")[kind] = 1 / spread.clamp(min=1e-3)

    def _by_kind(self, rho: Tensor, types: Tensor, order: Tensor) -> list[tuple[int, Tensor]]:
        """Return the kinds that there are, and the rows of their beads.

        They are gathered at once: the way back from each kind alone would fill a whole density.
        """
        if self.n_types == 1:
            return [(0, rho)]
        counts = torch.bincount(types, minlength=self.n_types).tolist()
        parts = torch.split(rho.index_select(1, order), counts, dim=1)
        return [(kind, part) for kind, part in enumerate(parts) if part.shape[1]]

    def _density(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        build = plain_density if self.plain else density
        return build(neighbors.displacement, neighbors.species(types), self.basis, self.n_types)

    @torch.no_grad()
    def _columns(self) -> Columns:
        mix = self.radial.expand(self.n_types, -1, -1) * self.get_buffer("density_scale")[..., None]
        offset = torch.einsum("tk,tkm->tm", self.get_buffer("density_mean"), mix)
        mean, scale = self.get_buffer("feature_mean"), self.get_buffer("feature_scale")
        return Columns(self.basis, self.axis, self.triples, mix, offset, mean, scale)

    def _features(self, rho: Tensor, kind: int) -> Tensor:
        """Return A_0, D_l and the bispectrum of beads of one kind, (beads, features)."""
        rho = rho.reshape(-1, *rho.shape[2:])  # (b, c, k)
        mix = self.radial[kind if len(self.radial) > 1 else 0]
        mix = mix * self.get_buffer("density_scale")[kind][:, None]
        a = (rho.reshape(-1, rho.shape[2]) @ mix).view(*rho.shape[:2], -1)  # (b, c, m)
        # only l = 0 has a mean
        is_scalar = (torch.arange(rho.shape[1], device=a.device) == 0).to(a)[:, None]
        a = a - is_scalar * (self.get_buffer("density_mean")[kind] @ mix)
        twofold = plain_spectrum if self.plain else spectrum
        features = [a[:, 0], twofold(a, self.basis.l_max, self.axis).flatten(1)]
        if self.triples:
            threefold = plain_bispectrum if self.plain else bispectrum
            features.append(threefold(a[:, :, : self.triples], self.basis.l_max))
        return torch.cat(features, dim=1)
