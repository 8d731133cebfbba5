"""The estimators of bead forces by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from deepcg.forces.constraints import Constraints
from deepcg.forces.control_variates import with_rotations
from deepcg.forces.force_map import ForceEstimator, least_noise_map, projected_map
from deepcg.mapping.beads import LinearMapping, Mapping
from deepcg.trajectory.frames import Frames
from deepcg.units import thermal_energy

Build = Callable[[Mapping, Iterable[Frames], Constraints, float], ForceEstimator]
"""From a mapping, a sample of frames with forces, constraints and a temperature in K."""


def least_noise(
    mapping: Mapping, sample: Iterable[Frames], constraints: Constraints, temperature: float
) -> ForceEstimator:
    """Return the best constant weights, less the noise that rotations of molecules explain.

    Raises
    ------
    InputError
        As `least_noise_map`.
    """
    sample = list(sample)
    weights = least_noise_map(mapping, sample, constraints)
    assert isinstance(mapping, LinearMapping)
    return with_rotations(weights, mapping, sample, thermal_energy(temperature))


def linear(
    mapping: Mapping, sample: Iterable[Frames], constraints: Constraints, temperature: float
) -> ForceEstimator:
    """Return the constant weights of least noise: `least_noise_map`."""
    del temperature
    return least_noise_map(mapping, sample, constraints)


def least_weights(
    mapping: Mapping, sample: Iterable[Frames], constraints: Constraints, temperature: float
) -> ForceEstimator:
    """Return the least weights that make the force of the mapping: `projected_map`."""
    del temperature
    return projected_map(mapping, sample, constraints)


ESTIMATORS: dict[str, Build] = {
    "least-noise": least_noise,
    "linear": linear,
    "projected": least_weights,
}
