"""The free energy of a few collective variables, U(xi): one network on the coordinates themselves.

Periodic coordinates enter as cosines and sines, so that U and all its derivatives have their
periods; others are shifted and scaled to mean 0 and spread 1. The activation is smooth: so is U.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class CVPotential(nn.Module):
    """U(xi) of d coordinates as a multilayer perceptron with tanh.

    Parameters
    ----------
    periods
        Of each coordinate, in its unit; ``None`` where it has none.
    widths
        Of the hidden layers.
    harmonics
        How many multiples of an angle the network sees: more makes sharp features easy to learn.
    """

    periods: tuple[float | None, ...]
    center: Tensor
    spread: Tensor
    energy_unit: Tensor
    multiples: Tensor

    def __init__(
        self,
        periods: Sequence[float | None],
        *,
        widths: Sequence[int] = (48, 48),
        harmonics: int = 2,
    ) -> None:
        super().__init__()
        self.periods, self.widths, self.harmonics = tuple(periods), tuple(widths), harmonics
        self.periodic = [k for k, period in enumerate(self.periods) if period is not None]
        self.straight = [k for k, period in enumerate(self.periods) if period is None]
        # not a buffer, which would be rounded to single precision before it is made double
        self.turns = [2 * math.pi / period for period in self.periods if period is not None]
        spread = torch.ones(len(self.periods))
        spread[self.periodic] = 1 / torch.tensor(self.turns)
        self.register_buffer("center", torch.zeros(len(self.periods)))
        self.register_buffer("spread", spread)
        self.register_buffer("energy_unit", torch.ones(()))
        multiples = torch.arange(1.0, harmonics + 1)
        self.register_buffer("multiples", multiples, persistent=False)
        sizes = [2 * harmonics * len(self.periodic) + len(self.straight), *self.widths]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.Tanh()]
        # no bias: forces would leave it undetermined
        self.network = nn.Sequential(*layers, nn.Linear(sizes[-1], 1, bias=False))

    def standardize(self, values: Tensor, forces: Tensor) -> None:
        """Take origins and units of coordinates (n, d) and of U from a sample with forces (n, d).

        The unit of U is the work of a typical force over a typical way: far from it the network
        would spend its training on a factor.
        """
        for k in self.straight:
            column = values[:, k].double()
            self.center[k] = column.mean()
            self.spread[k] = column.std().clamp(min=torch.finfo(torch.float32).tiny)
        work = forces.double().square().mean(0).sqrt() * self.spread.double()
        self.energy_unit.copy_(work.mean())

    def forward(self, values: Tensor) -> Tensor:
        """Return U (n,), kJ/mol, up to a constant, at values (n, d)."""
        energy: Tensor = self.network(self._features(values))[:, 0]
        return self.energy_unit * energy

    def forces(self, values: Tensor, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        """Return U (n,), kJ/mol, and -dU/dxi (n, d), kJ/mol per unit of each coordinate.

        With ``create_graph`` both can be differentiated in the parameters.
        """
        values = values.detach().requires_grad_()
        with torch.enable_grad():
            energy = self(values)
            (gradient,) = torch.autograd.grad(energy.sum(), values, create_graph=create_graph)
        return (energy if create_graph else energy.detach()), -gradient

    def _features(self, values: Tensor) -> Tensor:
        angles = values[:, self.periodic] * values.new_tensor(self.turns)
        angles = (angles[:, :, None] * self.multiples).flatten(1)
        straight = ((values - self.center) / self.spread)[:, self.straight]
        return torch.cat([angles.cos(), angles.sin(), straight], -1)
