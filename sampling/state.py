"""What a sampler carries from one step to the next, and how it begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

ForceField = Callable[[Tensor], tuple[Tensor, Tensor]]
"""positions (n_chains, n_sites, d) -> energy (n_chains,), forces (n_chains, n_sites, d)"""


@dataclass(frozen=True, slots=True, eq=False)
class SamplerState:
    """Independent chains, side by side, in any one consistent set of units.

    ``positions``, ``velocities`` and ``forces`` are (n_chains, n_sites, d), ``energy`` is
    (n_chains,). Positions are never wrapped. No step changes the tensors of a state.
    """

    positions: Tensor
    velocities: Tensor
    forces: Tensor
    energy: Tensor

    def __post_init__(self) -> None:
        shape = self.positions.shape
        expected = {"velocities": shape, "forces": shape, "energy": shape[:1]}
        for name, right in expected.items():
            value = getattr(self, name)
            if value.shape != right:
                raise ValueError(
                    f"SamplerState.{name} has shape {tuple(value.shape)}, not {tuple(right)}"
                )


Step = Callable[[SamplerState, Generator], SamplerState]
"""One step of an integrator; the noise comes from the generator alone."""


def start(
    force_field: ForceField,
    positions: Tensor,
    masses: Tensor,
    *,
    kT: float | Tensor,
    generator: Generator,
) -> SamplerState:
    """Return a state at ``positions`` with velocities from the Maxwell distribution.

    Parameters
    ----------
    positions
        (n_chains, n_sites, d).
    masses
        (n_sites,), of the dtype and on the device of the positions, as the generator.
    kT
        One number, or (n_chains,).

    Raises
    ------
    FloatingPointError
        The energy or a force at the start is not finite; names the chain.
    """
    energy, forces = force_field(positions)
    bad = ~(torch.isfinite(energy) & torch.isfinite(forces).flatten(1).all(1))
    if bool(bad.any()):
        replica = int(bad.nonzero()[0])
        raise FloatingPointError(f"the energy or a force of replica {replica} is not finite")
    velocities = thermal_speed(kT, masses) * standard_normal(positions, generator)
    return SamplerState(positions, velocities, forces, energy)


def thermal_speed(kT: float | Tensor, masses: Tensor) -> Tensor:
    """Return sqrt(kT / m), (n_sites, 1), or (n_chains, n_sites, 1) for a kT of every chain."""
    return (torch.as_tensor(kT).to(masses)[..., None, None] / masses[:, None]).sqrt()


def standard_normal(like: Tensor, generator: Generator) -> Tensor:
    """Return independent N(0, 1) numbers of the shape, dtype and device of ``like``.

    The numbers of all chains are one draw: a chain's noise depends on the seed and on the
    number of chains, never on what the other chains do.
    """
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
