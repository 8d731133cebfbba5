"""The time step that the stiffest motion of beads allows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sampling import ForceField

SAFE = 1.2
"""Time step times the fastest frequency. BAOAB is stable below 2, and exact in harmonic wells.

Averages over alanine dipeptide in vacuum (AMBER ff99SB, equal masses) do not depend on the time
step up to 1.8, within 0.4 % of the energy of bonds and angles and 0.1 pm of bond lengths.
"""

SHIFT = 2e-4
"""How far all beads together are moved for a difference of forces, nm."""


def time_step(frequency: float, interval: float, *, overdamped_at: float | None = None) -> float:
    """Return the longest safe time step, ps, that fits into ``interval`` a whole number of times.

    ``interval`` is in ps; ``frequency``, rad/ps, is the fastest one. Overdamped dynamics at the
    friction ``overdamped_at``, 1/ps, move a bead by dt F / (m friction): their limit is that of
    dt^2 / 2 in dynamics with inertia.
    """
    longest = SAFE / frequency
    if overdamped_at is not None:
        longest = longest**2 * overdamped_at / 2
    return interval / math.ceil(interval / longest)


def fastest(
    force_field: ForceField, positions: Tensor, masses: Tensor, *, iterations: int = 40
) -> float:
    """Return the greatest frequency, rad/ps, of harmonic motion about any of the positions.

    By power iteration on the Hessian in mass-weighted coordinates, from differences of forces.

    Parameters
    ----------
    positions
        (n, n_beads, 3), nm, one configuration each.
    masses
        (n_beads,), Da.
    """
    root = masses.to(positions).sqrt()[:, None]
    generator = torch.Generator(positions.device).manual_seed(0)
    v = torch.randn(
        positions.shape, generator=generator, dtype=positions.dtype, device=positions.device
    )
    length = torch.ones_like(positions[:, :1, :1])
    for _ in range(iterations):
        v = v / length
        step = SHIFT / (v / root).norm(dim=(1, 2), keepdim=True)
        shift = step * v / root
        pull = force_field(positions - shift)[1] - force_field(positions + shift)[1]
        v = pull / root / (2 * step)
        length = v.norm(dim=(1, 2), keepdim=True)
    return float(length.max().sqrt())
