"""How replicas move: the settings of Langevin dynamics."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deepcg.runtime.errors import InputError, pick
from sampling import INTEGRATORS


@dataclass(frozen=True, slots=True)
class DynamicsConfig:
    """How replicas move.

    The default time step is for water: the mean force on an oxygen makes it swing at about
    26 rad/ps (from <F^2> / (m kT)), hence (omega dt)^2 / 4 = 0.4 %, the scale of all errors in
    the time step, and it is a seventh of the stable limit 2 / omega_max of the hydrogen bond's
    300 / cm. ``overdamped`` needs a far smaller one: dt / friction below 2 / omega_max^2.

    Parameters
    ----------
    dt
        Time step, ps; by default 0.005, or for a molecule in the open what its bonds allow.
    friction
        Friction, 1/ps.
    temperature
        Temperature of the samples, K.
    ps
        Length of every replica, without the equilibration, ps.
    equilibration_ps
        Time before the first frame is written, ps; rounded up to whole intervals.
    interval_ps
        Time between frames, ps.
    integrator
        baoab (Langevin) or overdamped (Brownian, without velocities; needs a shorter dt).
    seed
        Seed of the noise and of the first velocities.
    """

    dt: float | None = None
    friction: float = 1.0
    temperature: float = 300.0
    ps: float = 200.0
    equilibration_ps: float = 10.0
    interval_ps: float = 0.1
    integrator: str = "baoab"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dt", "friction", "temperature", "ps", "interval_ps"):
            value = self.step if name == "dt" else getattr(self, name)
            lowest_is_legal = name == "friction" and self.integrator == "baoab"
            if not (math.isfinite(value) and (value > 0 or (lowest_is_legal and value == 0))):
                raise InputError(f"the {name} of the dynamics is {value}: give a positive number")
        if not (math.isfinite(self.equilibration_ps) and self.equilibration_ps >= 0):
            raise InputError(f"equilibration_ps is {self.equilibration_ps}: give 0 or more")
        pick(INTEGRATORS, self.integrator, "integrator")
        _whole(self.interval_ps, self.step, "interval_ps", "dt")
        _whole(self.ps, self.interval_ps, "ps", "interval_ps")

    @property
    def step(self) -> float:
        """The time step, ps."""
        return 0.005 if self.dt is None else self.dt

    @property
    def every(self) -> int:
        """Steps from one written frame to the next."""
        return round(self.interval_ps / self.step)

    @property
    def n_frames(self) -> int:
        """Frames that each replica writes."""
        return round(self.ps / self.interval_ps)

    @property
    def n_equilibration(self) -> int:
        """Intervals before the first frame's."""
        return math.ceil(self.equilibration_ps / self.interval_ps - 1e-6)


def _whole(value: float, unit: float, what: str, of: str) -> None:
    ratio = value / unit
    if round(ratio) < 1 or abs(ratio - round(ratio)) > 1e-6 * ratio:
        near = max(1, round(ratio)) * unit
        raise InputError(
            f"{what} = {value} is not a whole multiple of {of} = {unit}: take {near:.6g}"
        )
