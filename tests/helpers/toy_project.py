"""A folder as the README leaves it, in seconds: water, a short fit and a few samples."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import deepcg
from deepcg.analysis.structure.comparison import OBSERVABLES

SHORT_TRAINING = deepcg.TrainingConfig(steps=20, batch_size=4, validations=2)
SHORT_RUN = deepcg.DynamicsConfig(ps=1.0, equilibration_ps=0.2, interval_ps=0.05)


def make_project(folder: Path) -> Path:
    """Simulate 64 waters, fit their oxygens, sample; return the folder."""
    trajectory = deepcg.simulate_water(
        deepcg.WaterSimulation(
            output=folder / "runs" / "water",
            molecules=64,
            ns=0.003,
            equilibration_ps=1.0,
            interval_ps=0.1,
            cutoff=0.55,
            threads=1,
        )
    )
    deepcg.fit(
        deepcg.FitConfig(
            trajectory,
            output=folder / "runs" / "cg",
            cutoff=0.5,
            network_options={"channels": 8, "fitting": (8,), "n_splines": 10, "l_max": 2},
            training=SHORT_TRAINING,
            threads=1,
        )
    )
    run = folder / "runs" / "cg"
    deepcg.sample(deepcg.SampleConfig(run, replicas=2, dynamics=SHORT_RUN, threads=1))
    return folder


def copied(project: Path, tmp_path: Path) -> Path:
    """Return a copy that a test may change."""
    return Path(shutil.copytree(project, tmp_path / "project"))


@contextmanager
def kept_registries() -> Iterator[None]:
    """Take back what is added to registries inside."""
    registries: list[dict[str, object]] = [
        deepcg.COLLECTIVE_VARIABLES,
        deepcg.ESTIMATORS,
        deepcg.MAPPINGS,
        deepcg.NETWORKS,
        OBSERVABLES,
    ]
    before = [dict(registry) for registry in registries]
    try:
        yield
    finally:
        for registry, entries in zip(registries, before, strict=True):
            registry.clear()
            registry.update(entries)
