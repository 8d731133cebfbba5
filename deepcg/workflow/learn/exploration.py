"""Walkers that look for what an ensemble does not know (reinforced dynamics).

Zhang, Wang, E, J. Chem. Phys. 2018, 148, 124113: the free energy U_w is taken off where the members
agree, so that walkers diffuse freely there, and left as it is where they do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from deepcg.geometry.periodic import shortest
from deepcg.potentials.ensemble import SurfaceEnsemble, deviation, model_deviation

STRIDE = 0.08
"""Width of a random step in units of the coordinates' lengths (1 rad of an angle of a turn)."""


@dataclass(frozen=True, slots=True, eq=False)
class TrustLevels:
    """Between which spreads the bias is switched off.

    Parameters
    ----------
    low, high
        Trust levels: below the first an ensemble is believed, above the second not at all.
    scale
        (d,), in what unit each force counts in the spread.
    ceiling
        Energies above this, kJ/mol over the lowest of what is known, are not taken off: walkers
        have no business there.
    """

    low: float
    high: float
    scale: Tensor
    ceiling: float

    def spread(self, forces: Tensor) -> Tensor:
        """Return Sigma (n,) of members' forces (n_members, n, d)."""
        return model_deviation(deviation(forces) / self.scale)

    def bias(self, spread: Tensor) -> Tensor:
        """Return which part of U_w is taken off, (n,): 1 below, 0 above, a cosine between."""
        x = ((spread - self.low) / (self.high - self.low)).clamp(0, 1)
        return (1 + torch.cos(math.pi * x)) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Range:
    """Where walkers may go.

    Parameters
    ----------
    periods
        Of each coordinate, ``None`` where there is none.
    low, high
        (d,), range of each coordinate that is not periodic: walkers are reflected at its ends.
    """

    periods: Sequence[float | None]
    low: Tensor
    high: Tensor

    @property
    def lengths(self) -> Tensor:
        """(d,), over what length each coordinate changes: a radian of the turn, or its range."""
        return torch.stack(
            [
                (self.high - self.low)[k] / math.pi
                if period is None
                else self.low.new_tensor(period / (2 * math.pi))
                for k, period in enumerate(self.periods)
            ]
        )

    def put_back(self, values: Tensor) -> Tensor:
        """Return values (n, d) in the middle period, or between the ends."""
        back = shortest(values, self.periods)
        for k, period in enumerate(self.periods):
            if period is None:
                low, width = self.low[k], self.high[k] - self.low[k]
                turn = torch.remainder(values[:, k] - low, 2 * width)
                back[:, k] = low + torch.minimum(turn, 2 * width - turn)
        return back


def explore(
    ensemble: SurfaceEnsemble,
    start: Tensor,
    trust: TrustLevels,
    box: Range,
    *,
    kT: float,
    steps: int,
    every: int,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Return where walkers went (n, d), and Sigma there (n,), every so many steps.

    They move by overdamped dynamics from ``start`` (n_walkers, d), steps of some 5 degrees of an
    angle; how fast has no meaning.
    """
    x, stride = start.clone(), STRIDE * box.lengths
    lowest = ensemble.forces(x)[0].min()
    visited, spreads = [], []
    for step in range(1, steps + 1):
        energies, forces = ensemble.stack.forces(x)
        spread, energy = trust.spread(forces), energies.mean(0)
        lowest = torch.minimum(lowest, energy.where(spread < trust.low, math.inf).min())
        off = trust.bias(spread) * (energy - lowest < trust.ceiling)
        drift = stride.square() / 2 * forces.mean(0) * (1 - off)[:, None] / kT
        # beyond a few strides the step is no longer that of the dynamics
        drift = torch.maximum(torch.minimum(drift, 2 * stride), -2 * stride)
        if step % every == 0:
            visited.append(x)
            spreads.append(spread)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = box.put_back(x + drift + stride * noise)
    return torch.cat(visited), torch.cat(spreads)
