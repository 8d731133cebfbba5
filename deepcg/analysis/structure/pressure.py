"""The pressure of a fitted free energy at the density of its samples."""

from __future__ import annotations

import numpy as np
import torch

from deepcg.analysis.structure.trajectory_set import TrajectorySet
from deepcg.potentials.beads import NetworkPotential
from deepcg.runtime.arrays import Doubles
from deepcg.trajectory.frames import Frames
from deepcg.units import BAR, thermal_energy
from free_energy import Estimate, block_average

MOST_FRAMES = 512  # of each replica
AT_ONCE = 8_000  # beads whose forces are evaluated in one call


def model_pressure(
    potential: NetworkPotential, ensemble: TrajectorySet, temperature: float
) -> Estimate[float]:
    """Return the mean pressure, bar, of beads under U, with the error of blocks.

    p = (N kT + virial / 3) / V of every frame, N beads: U is taken not to depend on the volume but
    through the places of the beads. A free energy fitted at one density does depend on it, so that
    this is no estimate of the microscopic pressure but what the model exerts on a barostat.

    Parameters
    ----------
    ensemble
        Samples of the potential; of every replica at most 512 frames are used, evenly spaced.
    temperature
        K.
    """
    series = [_pressures(potential, replica, temperature) for replica in ensemble.replicas]
    blocks = [block_average(s) for s in series if len(s) >= 4]
    if not blocks:  # many replicas of a few frames each are themselves independent
        return _mean_of(np.array([s.mean() for s in series]))
    weights = np.array([len(s) for s in series if len(s) >= 4], dtype=float)
    weights /= weights.sum()
    value = sum(w * float(b.value) for w, b in zip(weights, blocks, strict=True))
    error = np.sqrt(sum((w * float(b.error)) ** 2 for w, b in zip(weights, blocks, strict=True)))
    return Estimate(value, float(error))


def _mean_of(values: Doubles) -> Estimate[float]:
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return Estimate(float(values.mean()), float(error))


def _pressures(potential: NetworkPotential, frames: Frames, temperature: float) -> Doubles:
    """Return the pressure (n,), bar, of evenly spaced frames."""
    assert frames.box is not None  # a TrajectorySet has checked it
    count = min(MOST_FRAMES, len(frames))
    chosen = torch.linspace(0, len(frames) - 1, count).round().long()
    kT = thermal_energy(temperature)
    dtype = next(potential.parameters()).dtype
    found = []
    for part in chosen.split(max(1, AT_ONCE // frames.n_sites)):
        positions, box = frames.positions[part].to(dtype), frames.box[part].to(dtype)
        with torch.no_grad():
            virial = potential.virial(positions, box).double()
        volume = torch.linalg.det(box.double())
        found.append((frames.n_sites * kT + virial / 3) / volume / BAR)
    series: Doubles = torch.cat(found).numpy()
    return series
