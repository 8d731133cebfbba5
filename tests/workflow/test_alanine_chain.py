"""The whole way of alanine dipeptide in implicit water: simulate, fit, sample, compare, in short.

The prior has all terms of the System, so that the model is exact and its surface the microscopic
one, within the errors of both. The full form, where a network has to learn, is
``benchmarks/alanine_obc.py``.
"""

from pathlib import Path

import pytest

from deepcg.analysis.surfaces.report import Study
from deepcg.atomistic.alanine.config import AlanineSimulation, BiasSettings
from deepcg.atomistic.alanine.simulation import simulate_alanine
from deepcg.dynamics.config import DynamicsConfig
from deepcg.dynamics.enhanced_sampling import BiasConfig
from deepcg.training.config import TrainingConfig
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fes.command import FesConfig, fes
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.sample import SampleConfig, sample


@pytest.fixture(scope="module")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return simulate_alanine(
        AlanineSimulation(
            output=tmp_path_factory.mktemp("alanine"),
            solvent="obc",
            biasing=BiasSettings(bias="metadynamics", freeze_after_ns=0.03, hill_height=2.0),
            ns=0.08,
            walkers=2,
            equilibration_ps=5.0,
            interval_ps=0.1,
            store="solute",
            threads=1,
        )
    )


@pytest.fixture(scope="module")
def study(walkers: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Study:
    run = tmp_path_factory.mktemp("runs") / "cg"
    first, second = walkers
    fitted = fit(
        FitConfig(
            first,
            output=run,
            data=DataConfig(map="solute", also=(second,)),
            network="pair-spline",
            prior="implicit",
            training=TrainingConfig(steps=20, validations=2),
            threads=1,
        )
    )
    assert fitted.quality.explained > 0.999
    sample(
        SampleConfig(
            run,
            replicas=32,
            dynamics=DynamicsConfig(ps=6.0, equilibration_ps=1.0, interval_ps=0.1),
            enhanced=BiasConfig(bias="metadynamics", freeze_after_ps=4.0),
            threads=1,
        )
    )
    return fes(FesConfig(run, bins=24))


def test_an_exact_model_has_the_microscopic_surface(study: Study) -> None:
    """Errors of short walkers are known to a third: 4 of them are a chance of 1 in 100 at most."""
    (found,) = study.distances
    assert found.bins > 100
    assert found.rms.value < 3.0
    for name in ("C5", "alpha-R"):
        difference = found.basins[name]
        assert abs(difference.value) < 4 * difference.error, name


def test_two_halves_of_the_samples_agree(study: Study) -> None:
    """As above; the replicas have one bias, but are independent once it is fixed."""
    (halves,) = [one for one in study.halves if one.model.startswith("CG")]
    for name in ("C5", "alpha-R"):
        difference = halves.basins[name]
        assert abs(difference.value) < 4 * difference.error, name
