"""The whole way of alanine dipeptide in implicit water, where the truth can be had in minutes.

Simulates the peptide in OBC2 water with a metadynamics bias, fits U(phi, psi) and the free energies
of its heavy atoms and of its backbone with C-beta to a part of the frames, samples both models,
and prints how far the three surfaces are from that of all microscopic frames, with errors, and the
time of each step.
python benchmarks/alanine_obc.py FOLDER [ns of each of four walkers] [threads]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deepcg.analysis.surfaces.report import Study
from deepcg.atomistic.alanine.config import AlanineSimulation, BiasSettings
from deepcg.atomistic.alanine.simulation import simulate_alanine
from deepcg.dynamics.config import DynamicsConfig
from deepcg.dynamics.enhanced_sampling import BiasConfig
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fes.command import FesConfig, fes
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.sample import SampleConfig, sample

WALKERS = 4
INTERVAL_PS = 0.2
MAPS = ("heavy", "backbone-cb")
FITTED_NS = 1.0
"""Of each walker: the rest is for the reference alone."""


def main(folder: Path, ns: float, threads: int) -> None:
    """Simulate, fit, sample, compare, and print the table."""
    with timed(f"simulation of {WALKERS} x {ns:g} ns"):
        trajectories = simulate(folder / "ala", ns, threads)
    for name in ("dihedrals", *MAPS):
        with timed(f"fit of {name}"):
            fit_one(folder / name, name, trajectories, threads)
    for name in MAPS:
        with timed(f"samples of {name}"):
            sample_one(folder / name, threads)
    with timed("surfaces"):
        study = fes(
            FesConfig(
                folder / "dihedrals",
                also=tuple(folder / name for name in MAPS),
                reference=trajectories,
                names=("U(phi, psi)", *MAPS),
                output=folder / "fes",
            )
        )
    print_table(study)


def simulate(folder: Path, ns: float, threads: int) -> tuple[Path, ...]:
    """Return the trajectories of walkers under one frozen bias."""
    return simulate_alanine(
        AlanineSimulation(
            output=folder,
            solvent="obc",
            biasing=BiasSettings(bias="metadynamics", freeze_after_ns=0.5),
            ns=ns,
            walkers=WALKERS,
            equilibration_ps=20.0,
            interval_ps=INTERVAL_PS,
            store="solute",
            threads=threads,
        )
    )


def fit_one(output: Path, name: str, trajectories: tuple[Path, ...], threads: int) -> None:
    """Fit one map to the first part of every trajectory."""
    first, *others = trajectories
    stop = round(FITTED_NS * 1000 / INTERVAL_PS)
    fit(
        FitConfig(
            first,
            output=output,
            data=DataConfig(map=name, also=tuple(others), stop=stop),
            threads=threads,
        ),
        tell=print,
    )


def sample_one(run: Path, threads: int) -> None:
    """Sample a model with walkers that fill one bias."""
    sample(
        SampleConfig(
            run,
            replicas=64,
            dynamics=DynamicsConfig(ps=100.0, equilibration_ps=5.0, interval_ps=0.1),
            enhanced=BiasConfig(bias="metadynamics", freeze_after_ps=40.0),
            threads=threads,
        ),
        tell=print,
    )


def print_table(study: Study) -> None:
    """Print basins of each surface and its distance from the microscopic one."""
    for surface, basins in zip(study.landscapes, study.basins, strict=True):
        known = (f"{b.name} {b.energy.value:.2f} ± {b.energy.error:.2f}" for b in basins)
        print(f"{surface.name}: {', '.join(known)} kJ/mol")
    for distance in study.distances:
        print(distance.in_words())
        for metric in distance.metrics:
            floor = f"floor {metric.floor.value:.3g}"
            print(f"    {metric.name} {metric.value:.3g} {metric.unit}, {floor}")


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long something took."""
    began = time.perf_counter()
    yield
    print(f"{what}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        float(sys.argv[2]) if len(sys.argv) > 2 else 5.0,
        int(sys.argv[3]) if len(sys.argv) > 3 else 2,
    )
