"""``deepcg simulate``: trajectories of a microscopic model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deepcg.microscopic import WaterSimulation, simulate_water
from deepcg.progress import Progress, silent


def water(
    config: WaterSimulation,
    progress: Progress = silent,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Simulate a box of water and return the trajectory; see ``simulate_water``."""
    trajectory = simulate_water(config, progress)
    tell(f"trajectory in {trajectory}")
    return trajectory
