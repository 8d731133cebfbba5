"""The whole way on a small box, and on ab initio water, as a user would take it."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from paths import SHARED

from deepcg.atomistic.water import WaterSimulation, simulate_water
from deepcg.dynamics.config import DynamicsConfig
from deepcg.networks import QUALITY
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import write_tensors
from deepcg.training.config import TrainingConfig
from deepcg.training.members import MembersConfig
from deepcg.training.quality import Quality
from deepcg.workflow.compare import CompareConfig, compare
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import QUALITY_STEPS, FitConfig, with_preset
from deepcg.workflow.sample import SampleConfig, sample
from free_energy import Estimate

AIMD = SHARED / "aimd-water"
SMALL = {"channels": 8, "fitting": (8,), "n_splines": 10, "l_max": 2}
SHORT = TrainingConfig(steps=60, batch_size=4, validations=3)
MOVES = DynamicsConfig(ps=2.0, equilibration_ps=0.2, interval_ps=0.1)


@pytest.fixture(scope="module")
def water(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 TIP3P molecules, 40 frames."""
    folder = tmp_path_factory.mktemp("water")
    return simulate_water(
        WaterSimulation(
            output=folder,
            molecules=64,
            ns=0.004,
            equilibration_ps=1.0,
            interval_ps=0.1,
            cutoff=0.55,
            threads=1,
        )
    )


def config(trajectory: Path, output: Path) -> FitConfig:
    return FitConfig(
        trajectory,
        output=output,
        cutoff=0.5,
        network_options=SMALL,
        training=SHORT,
        validation_fraction=0.4,
        threads=1,
    )


@pytest.fixture(scope="module")
def run(water: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "cg"
    fit(config(water, folder))
    sample(SampleConfig(folder, replicas=2, dynamics=MOVES, threads=1))
    return folder


def test_a_fit_leaves_all_that_is_needed_to_repeat_it(run: Path, water: Path) -> None:
    results = json.loads((run / "run.json").read_text())
    assert results["seed"] == 0
    assert set(results["hashes"]) >= {"trajectory", "system", "forces"}
    assert "1 O + 1 H + 1 H" in results["estimator"]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    names = {"model.pt", "checkpoint.pt", "config.toml", "start.npz", "beads.pdb"}
    assert names | {"learning-curve.png"} <= {p.name for p in run.iterdir()}


def test_forces_are_computed_once_and_kept_beside_the_trajectory(run: Path, water: Path) -> None:
    forces = np.load(water.with_suffix(".forces.npy"), mmap_mode="r")
    assert forces.shape == (40, 192, 3)


def test_the_same_seed_gives_the_same_model(run: Path, water: Path, tmp_path: Path) -> None:
    again = fit(config(water, tmp_path / "again")).model.potential.state_dict()
    saved = torch.load(run / "model.pt", weights_only=True)["state"]
    assert all(torch.equal(again[name], saved[name]) for name in saved)


def test_samples_and_report(run: Path) -> None:
    said: list[str] = []
    compare(CompareConfig(run), tell=said.append)
    assert (run / "report" / "report.html").read_text().startswith("<!DOCTYPE html>")
    report = json.loads((run / "report" / "report.json").read_text())
    assert report
    assert any("g_OO" in line for line in said)
    assert said[-1] == f"report: {run / 'report' / 'report.html'}"


def test_structure_of_an_ensemble_has_errors_that_include_the_fit(
    water: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    said: list[str] = []
    fit(replace(config(water, run), members=MembersConfig(ensemble=4, resample=True)))
    moves = DynamicsConfig(ps=1.0, equilibration_ps=0.1, interval_ps=0.02)
    sample(SampleConfig(run, replicas=2, dynamics=moves, threads=1))
    compare(CompareConfig(run), tell=said.append)
    told = json.loads((run / "report" / "errors.json").read_text())
    parts = told["g_OO(r)"]["parts_rms"]
    assert list(parts) == ["sampling", "data", "training"]
    total = sum(part**2 for part in parts.values())
    assert told["g_OO(r)"]["total_rms"] ** 2 == pytest.approx(total)
    assert any(line.startswith("g_OO(r): error of the model's curve") for line in said)


def test_a_pair_spline_stands_beside_the_network(run: Path, water: Path, tmp_path: Path) -> None:
    spline = tmp_path / "spline"
    fit(replace(config(water, spline), network="pair-spline", network_options={}))
    sample(SampleConfig(spline, replicas=2, dynamics=MOVES, threads=1))
    comparison = compare(CompareConfig(run, also=(spline,), output=tmp_path / "both"))
    assert [m.ensemble.name for m in comparison.models] == ["CG, deeppot-se-l", "CG, pair-spline"]


def test_nothing_is_overwritten(run: Path, water: Path) -> None:
    with pytest.raises(InputError, match="holds a model"):
        fit(config(water, run))
    with pytest.raises(InputError, match="resume"):
        sample(SampleConfig(run, replicas=2, dynamics=MOVES, threads=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: replace(c, cutoff=0.9), "more than half of the shortest box height"),
        (lambda c: replace(c, cutoff=0.05), "give a --cutoff of 0.32 nm or more"),
        (lambda c: replace(c, data=DataConfig(stop=1)), "1 frames are too few"),
        (lambda c: replace(c, data=DataConfig(map="oxygen")), "did you mean 'oxygens'"),
        (lambda c: replace(c, data=DataConfig(map="select:name XX")), "name XX"),
        (lambda c: replace(c, data=DataConfig(start=100)), "leave none"),
        (lambda c: replace(c, data=DataConfig(estimator="projected")), "least-noise"),
    ],
)
def test_bad_input_leaves_no_run_folder(
    change: Callable[[FitConfig], FitConfig], message: str, water: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        fit(change(config(water, tmp_path / "bad")))
    assert not (tmp_path / "bad").exists()


def test_output_cannot_take_the_place_of_a_file(run: Path, water: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    for place in (there, there / "inside"):
        with pytest.raises(InputError, match="there is a file, not a folder"):
            fit(config(water, place))
        with pytest.raises(InputError, match="there is a file, not a folder"):
            compare(CompareConfig(run, output=place))
    assert there.read_text() == "mine"


def test_a_model_is_sampled_at_its_own_temperature(run: Path) -> None:
    with pytest.raises(InputError, match="at 300 K, not at 310 K: give --temperature 300"):
        sample(SampleConfig(run, dynamics=replace(MOVES, temperature=310.0)))


def test_a_folder_closed_to_writing_is_left_alone(water: Path, tmp_path: Path) -> None:
    """Also by root; and nothing is computed for settings that cannot work."""
    closed = tmp_path / "closed"
    closed.mkdir()
    for ending in (".dcd", ".pdb", ".system.xml"):
        shutil.copy(water.with_suffix(ending), closed)
    closed.chmod(0o555)
    before = sorted(closed.iterdir())
    bad = DataConfig(map="select:name XX")
    with pytest.raises(InputError, match="name XX"):
        fit(replace(config(closed / water.name, tmp_path / "bad"), data=bad))
    assert not (tmp_path / "bad").exists()
    fit(config(closed / water.name, tmp_path / "run"))
    assert sorted(closed.iterdir()) == before
    assert (tmp_path / "run" / "traj.forces.npy").exists()


def test_only_the_same_fit_is_resumed(run: Path, water: Path) -> None:
    before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    with pytest.raises(InputError, match=r"a fit with cutoff = 0.5, not 0.45"):
        fit(replace(config(water, run), cutoff=0.45, resume=True))
    assert before == {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}


def test_an_interrupted_fit_is_not_begun_anew(run: Path, water: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    (cut / "model.pt").unlink()
    with pytest.raises(InputError, match="holds an interrupted fit: give --resume"):
        fit(config(water, cut))
    fit(replace(config(water, cut), resume=True))
    saved = [torch.load(f / "model.pt", weights_only=True)["state"] for f in (run, cut)]
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])


def test_samples_of_another_model_are_refused(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    content = torch.load(other / "model.pt", weights_only=True)
    write_tensors(other / "model.pt", content | {"temperature": 299.0})
    with pytest.raises(InputError, match="are of another model"):
        compare(CompareConfig(other))


def test_a_reference_without_times_is_compared_all_the_same(
    run: Path, water: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.dcd"
    trajectory = mdtraj.load(str(water), top=str(water.with_suffix(".pdb")))
    trajectory.save(str(bare))
    shutil.copy(water.with_suffix(".pdb"), bare.with_suffix(".pdb"))
    compare(CompareConfig(run, reference=bare, output=tmp_path / "report"))
    assert "time between them unknown" in (tmp_path / "report" / "report.html").read_text()


def test_quality_means_the_same_in_python_and_on_the_command_line() -> None:
    chosen = with_preset(FitConfig(Path("x"), quality=True, network_options={"axis": 6}))
    assert chosen.training.steps == QUALITY_STEPS
    assert chosen.network_options == {**QUALITY["deeppot-se-l"], "axis": 6}
    with pytest.raises(InputError, match="no settings of --quality"):
        with_preset(FitConfig(Path("x"), quality=True, network="pair-spline"))


def test_an_overfitted_model_is_called_so() -> None:
    far = Quality(100.0, 40.0, Estimate(120.0, 1.0), Estimate(80.0, 1.0))
    assert "overfits" in far.in_words()
    assert "nan" not in Quality(9.0, 4.0, Estimate(4.2, 0.1), Estimate(4.1, math.nan)).in_words()


def test_a_run_without_samples_cannot_be_compared(water: Path, tmp_path: Path) -> None:
    fit(config(water, tmp_path / "run"))
    with pytest.raises(InputError, match="no finished samples"):
        compare(CompareConfig(tmp_path / "run"))


@pytest.mark.skipif(not AIMD.exists(), reason="the ab initio data are not there")
@pytest.mark.parametrize("name", ["oxygens", "com"])
def test_ab_initio_water_without_topology_or_system(name: str, tmp_path: Path) -> None:
    fitted = fit(
        FitConfig(
            AIMD,
            output=tmp_path / "run",
            data=DataConfig(map=name),
            network_options=SMALL,
            training=SHORT,
            threads=1,
        )
    )
    assert fitted.model.potential.types.shape == (64,)
    # the variance of the net molecular force: 265-271 squared in the five sets
    assert 60_000 < fitted.quality.variance < 80_000
    assert 0.2 < fitted.quality.explained < 0.9
