"""DeepPot-SE with angular resolution: power spectrum and bispectrum of a density expansion.

The density of neighbors is expanded in splines times real spherical harmonics, and its rotation
invariants, the power spectrum (pairs of neighbors) and the bispectrum (triples), enter a fitting
net: a descriptor of the family of SOAP, ACE and SNAP. It has not been published under the name
``deeppot-se-l``, which says only that it is DeepPot-SE with more angular momenta l.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from deepcg.compute.tensor_cache import TensorCache
from deepcg.geometry.neighbor_list import Neighbors
from deepcg.networks.by_type import ByType, joined
from deepcg.networks.deeppot_se_l import fused
from deepcg.networks.deeppot_se_l.bispectrum import bispectrum, products_of, reference_bispectrum
from deepcg.networks.deeppot_se_l.density import (
    Density,
    density,
    power_spectrum,
    reference_density,
    reference_power_spectrum,
)
from deepcg.networks.deeppot_se_l.density_loops import Basis
from deepcg.networks.fast_path import FastPath, check_environments, checked_path
from deepcg.networks.fitting import Groups, groups_of
from deepcg.networks.layers import FirstLayer, Perceptron
from deepcg.runtime.errors import InputError


@dataclass(frozen=True, slots=True)
class Invariants:
    """The three functions that make rotation invariants of neighbors; see ``density.py``.

    Parameters
    ----------
    density
        From displacements and types of neighbors to densities.
    power_spectrum, bispectrum
        From channels of the density to products of two and of three.
    """

    density: Density
    power_spectrum: Callable[[Tensor, int, int], Tensor]
    bispectrum: Callable[[Tensor, int], Tensor]


REFERENCE = Invariants(reference_density, reference_power_spectrum, reference_bispectrum)
"""The definition."""

LOOPS = Invariants(density, power_spectrum, bispectrum)
"""The same by compiled loops, on the CPU."""


class DeepPotSEL(nn.Module):
    """u_i = fitting(A_0, D_0 ... D_lmax), D_l = A_l<^T A_l, A_l = sum_j G(r_ij) Y_l(r_ij).

    DeepPot-SE (arXiv:1805.09003) has the rows (1, x/r, y/r, z/r), which are l = 0 and 1; here
    l goes further, and each l is contracted separately. G, shared by all l, are cubic
    B-splines with trained coefficients for every type of neighbor, in place of an embedding
    net: the sum over neighbors then runs over the fixed splines, once for all channels. D_l is
    the power spectrum of the density. The linear invariants A_0, of which a pair potential is
    made, enter the fitting net too, and so does the bispectrum, products of three A_l
    (``bispectrum.py``), which sees more of how neighbors stand to one another.

    ``forward`` is the definition; ``fast_path`` has compiled loops for the CPU.

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
        Bispectrum channels: columns of A_l that enter products of three; 0 for none.
    fitting
        Widths of the layers of the fitting net.
    two_sided
        Radial functions that depend on the type of the central bead, too.
    plain
        Have no fast path: slower, differentiable twice in the positions.

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
        self.sizes = [channels, axis * (l_max + 1) * channels, n_triples][: 3 if triples else 2]
        n_features = sum(self.sizes)
        self.fitting = nn.ModuleList(
            Perceptron(n_features, fitting, residual=False) for _ in range(n_types)
        )
        self.register_buffer("density_mean", torch.zeros(n_types, width))
        self.register_buffer("density_scale", torch.ones(n_types, width))
        self.register_buffer("feature_mean", torch.zeros(n_types, n_features))
        self.register_buffer("feature_scale", torch.ones(n_types, n_features))
        self._groups: TensorCache[Groups] = TensorCache()
        self._packed: TensorCache[fused.Packed] = TensorCache()

    def forward(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        """Return bead energies (n_frames, n_beads), kJ/mol."""
        return self._energies(REFERENCE, neighbors, types)

    def fast_path(self, like: Tensor) -> FastPath | None:
        """Return compiled loops on the CPU; all in one for inference in single precision.

        Only device and dtype of ``like`` count, not its shape.
        """
        if self.plain or like.device.type != "cpu":
            return None
        fused = like.dtype == torch.float32 and len(self._nets[0].layers) > 1
        training, inference = partial(self._energies, LOOPS), self._fused if fused else None
        return checked_path(self.n_types, training, inference)

    def _energies(self, invariants: Invariants, neighbors: Neighbors, types: Tensor) -> Tensor:
        kinds, rows = self._densities(invariants, neighbors, types)
        features = kinds.split(self._features(invariants, self._mixed(rows, kinds)))
        parts = zip(features, self._first_layers(), self._nets, strict=True)
        return kinds.restored(
            joined([net.after_first_layer(first(some)) for some, first, net in parts])
        )

    @torch.no_grad()
    def _fused(self, neighbors: Neighbors, types: Tensor) -> tuple[Tensor, Tensor]:
        """Return bead energies and dU/dr_ij (n_frames, n_beads, width, 3), kJ/mol/nm."""
        displacement = neighbors.displacement.detach().contiguous()
        n_frames = len(displacement)
        groups = self._groups.get([types], n_frames, lambda: groups_of(types, n_frames))
        neighbor_types = neighbors.neighbor_types(types).to(torch.int32).contiguous()
        packed = self._packed.get(self._weights(), 0, self._pack)
        which = products_of(self.basis.l_max, self.triples)
        return fused.run(
            packed, groups, displacement, neighbor_types, self.basis, self.axis, self.triples, which
        )

    @torch.no_grad()
    def standardize(self, neighbors: Neighbors, types: Tensor) -> None:
        """Center and scale densities and features by their spread in a sample.

        Of environments of beads of ``types`` (n_beads,).
        """
        check_environments(neighbors, types, self.n_types)
        plain = self.fast_path(neighbors.displacement) is None
        invariants = REFERENCE if plain else LOOPS
        kinds, rows = self._densities(invariants, neighbors, types)
        for kind, part in enumerate(rows.split(kinds.counts)):
            if not len(part):
                continue
            scalars = part[:, 0]  # (b, k)
            self.get_buffer("density_mean")[kind] = scalars.mean(0)
            # the spread of l = 0 serves all l; a spline that hardly any neighbor reaches
            # must not become loud
            spread = scalars.std(0, correction=0)
            spread = spread.clamp(min=max(0.1 * float(spread.max()), 1e-6))
            self.get_buffer("density_scale")[kind] = 1 / (spread * math.sqrt(len(spread)))
        features = torch.cat(self._features(invariants, self._mixed(rows, kinds)), dim=1)
        for kind, part in enumerate(features.split(kinds.counts)):
            if len(part):
                self.get_buffer("feature_mean")[kind] = part.mean(0)
                spread = part.std(0, correction=0)
                self.get_buffer("feature_scale")[kind] = 1 / spread.clamp(min=1e-3)

    def _densities(
        self, invariants: Invariants, neighbors: Neighbors, types: Tensor
    ) -> tuple[ByType, Tensor]:
        """Return the densities about beads (beads, harmonics, splines), sorted by type."""
        given = neighbors.displacement, neighbors.neighbor_types(types)
        rho = invariants.density(*given, self.basis, self.n_types)
        kinds = ByType(types, self.n_types, len(rho))
        return kinds, kinds.rows(rho)

    def _weights(self) -> list[Tensor]:
        """Return all parameters and buffers, faster than ``parameters`` and ``buffers`` do."""
        layers = [layer for net in self._nets for layer in net.layers if layer._parameters]
        fitted = [weight for layer in layers for weight in layer._parameters.values()]
        found = [self.radial, *self._buffers.values(), *fitted]
        return [tensor for tensor in found if tensor is not None]

    def _pack(self) -> fused.Packed:
        """Return all weights as the compiled loop reads them."""
        mix, offset = self._mix(), self._offset()
        return fused.pack(mix, offset, self.basis.n_splines, self._first_layers(), self._nets)

    def _mix(self) -> Tensor:
        """Return the radial functions on splines (types, splines of all types, channels)."""
        return self.radial * self.get_buffer("density_scale")[..., None]

    def _offset(self) -> Tensor:
        """Return the mean of the mixed l = 0 (types, channels)."""
        return torch.einsum("tk,tkm->tm", self.get_buffer("density_mean"), self._mix())

    def _mixed(self, rows: Tensor, kinds: ByType) -> Tensor:
        """Return A (beads, harmonics, channels)."""
        mean = self._offset()
        # only l = 0 has a mean
        is_scalar = (torch.arange(rows.shape[1], device=mean.device) == 0).to(mean)
        offset = is_scalar[:, None] * mean[:, None]
        return kinds.each(lambda x, m, o: _product(x, m) - o, rows, self._mix(), offset)

    def _features(self, invariants: Invariants, a: Tensor) -> list[Tensor]:
        """Return A_0, D_l and, if there are triples, the bispectrum, (beads, some) each."""
        features = [a[:, 0], invariants.power_spectrum(a, self.basis.l_max, self.axis).flatten(1)]
        if self.triples:
            features.append(invariants.bispectrum(a[:, :, : self.triples], self.basis.l_max))
        return features

    @property
    def _nets(self) -> list[Perceptron]:
        return [net for net in self.fitting if isinstance(net, Perceptron)]

    def _first_layers(self) -> list[FirstLayer]:
        """Return the first layers of the fitting nets, by type."""
        of_type = self.get_buffer("feature_mean"), self.get_buffer("feature_scale")
        return [
            net.first_layer(mean, scale, self.sizes)
            for net, mean, scale in zip(self._nets, *of_type, strict=True)
        ]


def _product(rows: Tensor, mix: Tensor) -> Tensor:
    """Return rows (beads, harmonics, splines) times mix as one product of matrices."""
    return (rows.flatten(0, 1) @ mix).view(*rows.shape[:2], mix.shape[1])
