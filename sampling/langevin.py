"""Langevin dynamics with inertia: BAOAB."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from sampling.state import ForceField, SamplerState, Step, standard_normal, thermal_speed


def baoab(
    force_field: ForceField, masses: Tensor, *, kT: float | Tensor, dt: float, friction: float
) -> Step:
    """Return one step of BAOAB (Leimkuhler & Matthews, AMRX 2013, 34).

    In a harmonic well the positions have no error in ``dt`` at any stable step; elsewhere
    their error is O(dt^2), and O(dt^4) at high friction. The velocities at the end of a step
    are too cold by O(dt^2), those before its last kick are not: ``v - dt F / (2 m)``.

    Parameters
    ----------
    masses
        (n_sites,), of the dtype and on the device of the positions.
    kT
        One number, or (n_chains,).
    friction
        A rate, 1 / time; 0 gives velocity Verlet at constant energy.

    Raises
    ------
    ValueError
        A parameter is out of its range.
    """
    heated = bool((torch.as_tensor(kT) > 0).all())
    if not (dt > 0 and heated and friction >= 0 and bool((masses > 0).all())):
        raise ValueError(
            f"BAOAB needs positive masses, dt > 0, kT > 0 and friction >= 0: "
            f"{dt=}, {kT=}, {friction=}, smallest mass {masses.min().item()}"
        )
    kick = dt / 2 / masses[:, None]
    keep = math.exp(-friction * dt)
    scatter = math.sqrt(-math.expm1(-2 * friction * dt)) * thermal_speed(kT, masses)

    def step(state: SamplerState, generator: Generator) -> SamplerState:
        v = torch.addcmul(state.velocities, kick, state.forces)  # B
        x = torch.add(state.positions, v, alpha=dt / 2)  # A
        v = torch.addcmul(keep * v, scatter, standard_normal(v, generator))  # O
        x = torch.add(x, v, alpha=dt / 2)  # A
        energy, forces = force_field(x)
        return SamplerState(x, torch.addcmul(v, kick, forces), forces, energy)  # B

    return step
