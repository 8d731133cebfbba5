"""Forces with a bias on differentiable coordinates of the positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sampling.state import ForceField

Coordinates = Callable[[Tensor], Tensor]
"""positions (n_chains, n_sites, d) -> values (n_chains, k), by differentiable operations"""

Bias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""values (n_chains, k) -> energy (n_chains,) and its slope (n_chains, k)"""


@dataclass(frozen=True, slots=True, eq=False)
class Biased:
    """A force field plus a bias: itself a force field.

    Only the coordinates are differentiated by autograd: neither the force field nor the bias
    is, which give their own slopes.
    """

    force_field: ForceField
    coordinates: Coordinates
    bias: Bias

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energy (n_chains,) and the forces (n_chains, n_sites, d), bias included."""
        energy, forces = self.force_field(positions)
        moving = positions.detach().requires_grad_()
        with torch.enable_grad():
            values = self.coordinates(moving)
            extra, slope = self.bias(values.detach())
            (pull,) = torch.autograd.grad(values, moving, slope.to(values))
        return energy + extra.to(energy), forces - pull

    def bias_energy(self, positions: Tensor) -> Tensor:
        """Return the energy of the bias alone, (n_chains,)."""
        return self.bias(self.coordinates(positions))[0].to(positions)
