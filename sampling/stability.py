"""When a chain counts as blown up."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sampling.state import SamplerState

StabilityCheck = Callable[[SamplerState, SamplerState], Tensor]
"""last good state, state now -> which chains are sound, bool (n_chains,)"""


def finite(good: SamplerState, state: SamplerState) -> Tensor:
    """Return which chains have finite energy, forces and positions, bool (n_chains,).

    Positions count for themselves: a site at NaN is near no other, and a force field of
    neighbors may find nothing wrong with it.
    """
    del good
    vectors = torch.isfinite(state.forces) & torch.isfinite(state.positions)
    return torch.isfinite(state.energy) & vectors.flatten(1).all(1)


def thermally_stable(masses: Tensor, kT: float | Tensor, *, limit: float = 100.0) -> StabilityCheck:
    """Return a test that also refuses energies no thermal motion reaches.

    A chain is sound while it is finite, no site has a kinetic energy above ``limit`` kT
    (probability about exp(-limit) in equilibrium), and its potential energy has risen since
    the last check by less than ``limit`` kT plus 10 kT per site. A fall is no alarm: it is
    what a poor start does. ``kT`` is one number, or (n_chains,).
    """

    def sound(good: SamplerState, state: SamplerState) -> Tensor:
        kinetic = masses / 2 * state.velocities.square().sum(-1)  # (c, n)
        rise = state.energy - good.energy
        thermally_stable = (kinetic.amax(-1) < limit * kT) & (
            rise < (limit + 10 * len(masses)) * kT
        )
        return finite(good, state) & thermally_stable

    return sound
