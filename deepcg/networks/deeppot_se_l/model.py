"""DeepPot-SE with angular resolution: spherical harmonics beyond l = 1, contracted l by l."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepcg.compute.tensor_cache import TensorCache
from deepcg.geometry.neighbor_list import Neighbors
from deepcg.networks.by_type import ByType, joined
from deepcg.networks.deeppot_se_l import fused
from deepcg.networks.deeppot_se_l.bispectrum import (
    bispectrum,
    products_of,
    reference_bispectrum,
)
from deepcg.networks.deeppot_se_l.density import (
    density,
    reference_density,
    reference_power_spectrum,
    spectrum,
)
from deepcg.networks.deeppot_se_l.density_loops import Basis
from deepcg.networks.fitting import Groups, groups_of
from deepcg.networks.layers import FirstLayer, Perceptron
from deepcg.runtime.errors import InputError


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
        kinds, rows = self._densities(neighbors, types)
        invariants = kinds.split(self._invariants(self._mixed(rows, kinds)))
        parts = zip(invariants, self._entrances(), self._nets, strict=True)
        return kinds.restored(
            joined([net.after_first_layer(enter(some)) for some, enter, net in parts])
        )

    @torch.no_grad()
    def energy_and_pair_gradients(
        self, neighbors: Neighbors, types: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Return bead energies and dU/dr_ij (n_frames, n_beads, width, 3), detached, kJ/mol/nm.

        Compiled, on the CPU and in single precision; ``None`` where there is only autograd.
        """
        displacement = neighbors.displacement.detach().contiguous()
        on_cpu = displacement.device.type == "cpu" and displacement.dtype == torch.float32
        if self.plain or not on_cpu or len(self._nets[0].layers) == 1:
            return None
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
        """Center and scale densities and features by their spread in a sample."""
        kinds, rows = self._densities(neighbors, types)
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
        features = torch.cat(self._invariants(self._mixed(rows, kinds)), dim=1)
        for kind, part in enumerate(features.split(kinds.counts)):
            if len(part):
                self.get_buffer("feature_mean")[kind] = part.mean(0)
                spread = part.std(0, correction=0)
                self.get_buffer("feature_scale")[kind] = 1 / spread.clamp(min=1e-3)

    def _densities(self, neighbors: Neighbors, types: Tensor) -> tuple[ByType, Tensor]:
        """Return the densities about beads (beads, harmonics, splines), sorted by type."""
        build = reference_density if self.plain else density
        neighbor_types = neighbors.neighbor_types(types)
        rho = build(neighbors.displacement, neighbor_types, self.basis, self.n_types)
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
        return fused.pack(mix, offset, self.basis.n_splines, self._entrances(), self._nets)

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

    def _invariants(self, a: Tensor) -> list[Tensor]:
        """Return A_0, D_l and, if there are triples, the bispectrum, (beads, some) each."""
        twofold = reference_power_spectrum if self.plain else spectrum
        features = [a[:, 0], twofold(a, self.basis.l_max, self.axis).flatten(1)]
        if self.triples:
            threefold = reference_bispectrum if self.plain else bispectrum
            features.append(threefold(a[:, :, : self.triples], self.basis.l_max))
        return features

    @property
    def _nets(self) -> list[Perceptron]:
        return [net for net in self.fitting if isinstance(net, Perceptron)]

    def _entrances(self) -> list[FirstLayer]:
        """Return the first layers of the fitting nets, by type."""
        of_type = self.get_buffer("feature_mean"), self.get_buffer("feature_scale")
        return [
            net.first_layer(mean, scale, self.sizes)
            for net, mean, scale in zip(self._nets, *of_type, strict=True)
        ]


def _product(rows: Tensor, mix: Tensor) -> Tensor:
    """Return rows (beads, harmonics, splines) times mix as one product of matrices."""
    return (rows.flatten(0, 1) @ mix).view(*rows.shape[:2], mix.shape[1])
