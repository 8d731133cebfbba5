"""The settings of ``deepcg label --restrain``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deepcg.mapping.beads import AUTO
from deepcg.runtime.errors import InputError
from deepcg.workflow.dataset.beads import DataConfig

FEWEST_SAMPLES = 32
"""In a run: fewer have no honest error."""


@dataclass(frozen=True, slots=True)
class RestrainConfig:
    """Mean forces from restrained dynamics.

    Parameters
    ----------
    map
        Coarse coordinates and their default, as in deepcg fit; of collective variables dihedrals,
        angles and distances.
    number
        How many configurations of the trajectory to restrain: evenly spaced in time for beads,
        spread evenly over the range for collective variables.
    ps
        Length of the run at each configuration, ps. Motion that is slower makes noise of which
        the errors do not know.
    equilibration_ps
        What precedes it, ps.
    interval_ps
        From sample to sample, ps.
    width_nm, width_rad
        How far the springs let a coordinate go, as a standard deviation: mean forces are means
        over this.
    temperature
        Temperature, K.
    friction
        Of the Langevin thermostat, 1/ps.
    dt_fs
        Time step, fs; by default 2, or 0.5 where hydrogens vibrate.
    estimator
        How forces on atoms become forces on the coordinates: as in deepcg fit.
    seed
        Seed of the choice of configurations and of the dynamics.
    """

    map: str = AUTO
    number: int = 100
    ps: float = 5.0
    equilibration_ps: float = 1.0
    interval_ps: float = 0.02
    width_nm: float = 0.003
    width_rad: float = 0.03
    temperature: float = 300.0
    friction: float = 1.0
    dt_fs: float | None = None
    estimator: str = "least-noise"
    seed: int = 1

    def __post_init__(self) -> None:
        positive = ("number", "ps", "interval_ps", "width_nm", "width_rad")
        for name in (*positive, "temperature", "friction", "dt_fs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value:g}: give a positive number")
        for name in ("equilibration_ps", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name):g}: give 0 or more")
        if self.ps < FEWEST_SAMPLES * self.interval_ps:
            raise InputError(
                f"ps is {self.ps:g}, with a sample every {self.interval_ps:g} ps: give at least "
                f"{FEWEST_SAMPLES * self.interval_ps:g}, for {FEWEST_SAMPLES} samples"
            )
        _ = self.data  # names are checked there

    @property
    def data(self) -> DataConfig:
        """How frames are mapped."""
        return DataConfig(map=self.map, estimator=self.estimator)
