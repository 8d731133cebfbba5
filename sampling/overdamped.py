"""Langevin dynamics without inertia: the high-friction limit of BAOAB."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from sampling.state import ForceField, SamplerState, Step, standard_normal, thermal_speed


def overdamped(
    force_field: ForceField, masses: Tensor, *, kT: float | Tensor, dt: float, friction: float
) -> Step:
    """Return one step of the scheme of Leimkuhler & Matthews (AMRX 2013, 34, eq. 1.6).

    ``x' = x + dt F / (m friction) + sqrt(dt / (2 friction)) (v + v')`` with ``v`` the
    Maxwell velocity drawn in the last step and ``v'`` a new one. Averages over positions
    have an error O(dt^2), against O(dt) of Euler and Maruyama with one noise per step. The
    diffusion coefficient is kT / (m friction). ``velocities`` hold the noise and say nothing
    about the temperature.

    Parameters
    ----------
    masses
        (n_sites,), of the dtype and on the device of the positions.
    kT
        One number, or (n_chains,).
    friction
        A rate, 1 / time, above 0.

    Raises
    ------
    ValueError
        A parameter is out of its range.
    """
    heated = bool((torch.as_tensor(kT) > 0).all())
    if not (dt > 0 and heated and friction > 0 and bool((masses > 0).all())):
        raise ValueError(
            f"overdamped dynamics needs positive masses, dt > 0, kT > 0 and friction > 0: "
            f"{dt=}, {kT=}, {friction=}, smallest mass {masses.min().item()}"
        )
    drift = dt / friction / masses[:, None]
    scatter = math.sqrt(dt / 2 / friction)
    thermal = thermal_speed(kT, masses)

    def step(state: SamplerState, generator: Generator) -> SamplerState:
        v = thermal * standard_normal(state.positions, generator)
        x = torch.addcmul(state.positions, drift, state.forces)
        x = torch.add(x, state.velocities + v, alpha=scatter)
        energy, forces = force_field(x)
        return SamplerState(x, v, forces, energy)

    return step
