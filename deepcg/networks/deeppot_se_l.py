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
        energy = rho.new_empty(rho.shape[:2])
        for kind, beads in self._kinds(types):
            features = self._features(rho[:, beads], kind)
            scale, mean = self.get_buffer("feature_scale")[kind], self.get_buffer("feature_mean")
            mine: Tensor = self.fitting[kind]((features - mean[kind]) * scale).view(len(rho), -1)
            if self.n_types == 1:
                return mine
            energy[:, beads] = mine
        return energy

    @torch.no_grad()
    def standardise(self, neighbors: Neighbors, types: Tensor) -> None:
        """Centre and scale densities and features by their spread in a sample."""
        rho = self._density(neighbors, types)
        for kind, beads in self._kinds(types):
            mine = rho[:, beads].flatten(0, 1)  # (b, c, k)
            self.get_buffer("density_mean")[kind] = mine[:, 0].mean(0)
            # the spread of l = 0 serves all l; a spline that hardly any neighbor reaches
            # must not become loud
            spread = mine[:, 0].std(0, correction=0)
            spread = spread.clamp(min=max(0.1 * float(spread.max()), 1e-6))
            self.get_buffer("density_scale")[kind] = 1 / (spread * math.sqrt(len(spread)))
            features = self._features(rho[:, beads], kind)
            self.get_buffer("feature_mean")[kind] = features.mean(0)
            spread = features.std(0, correction=0)
            self.get_buffer("feature_scale")[kind] = 1 / spread.clamp(min=1e-3)

    def _kinds(self, types: Tensor) -> list[tuple[int, Tensor | slice]]:
        """Return the types and where their beads are."""
        if self.n_types == 1:
            return [(0, slice(None))]
        places = [(t, (types == t).nonzero().squeeze(1)) for t in range(self.n_types)]
        return [(t, beads) for t, beads in places if len(beads)]

    def _density(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        build = plain_density if self.plain else density
        return build(neighbors.displacement, neighbors.species(types), self.basis, self.n_types)

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
