"""``deepcg simulate``: trajectories of a microscopic model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deepcg.atomistic.alanine.config import AlanineSimulation
from deepcg.atomistic.alanine.simulation import simulate_alanine
from deepcg.atomistic.water import WaterSimulation, simulate_water
from deepcg.runtime.progress import Progress, silent


def water(
    config: WaterSimulation,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Simulate a box of water and return the trajectory; see ``simulate_water``."""
    trajectory = simulate_water(config, progress)
    tell(f"trajectory in {trajectory}")
    return trajectory


def alanine(
    config: AlanineSimulation,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[Path, ...]:
    """Simulate alanine dipeptide and return the trajectories; see ``simulate_alanine``."""
    trajectories = simulate_alanine(config, progress)
    if len(trajectories) == 1:
        tell(f"trajectory in {trajectories[0]}")
    else:
        tell(f"{len(trajectories)} trajectories, {trajectories[0]} to {trajectories[-1].name}")
    return trajectories
