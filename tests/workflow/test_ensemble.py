"""Several fits as one job: how they are trained, kept, resumed, used and begun from others."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch

from deepcg.dynamics.config import DynamicsConfig
from deepcg.dynamics.model_deviation import ModelDeviationConfig
from deepcg.dynamics.run import SamplingError
from deepcg.potentials.beads import energy_and_forces
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.ensemble import (
    EnsemblePotential,
    SurfaceEnsemble,
    deviation,
    load_beads,
    load_surfaces,
    member_folder,
    model_deviation,
)
from deepcg.potentials.stacked import SurfaceStack
from deepcg.runtime.errors import InputError
from deepcg.runtime.progress import Progress
from deepcg.training.config import TrainingConfig
from deepcg.training.members import MembersConfig, drawn_frames, part_of
from deepcg.training.samples import ForceSamples
from deepcg.training.stacked import train_stack
from deepcg.training.trainer import train
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fes.command import FesConfig, fes
from deepcg.workflow.fes.sources import fitted
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.info import describe
from deepcg.workflow.members import member_energies
from deepcg.workflow.sample import SampleConfig, sample
from deepcg.workflow.variance import VarianceConfig, variance

TURN = 2 * np.pi
SHORT = TrainingConfig(steps=30, batch_size=32, learning_rate=1e-2, validations=3)
TORSION = DataConfig(map="dihedral:0,1,2,3")
ATOMS = DataConfig(map='select:"all"')
TINY = {"l_max": 1, "n_splines": 6, "first_knot": 0.1, "channels": 4, "axis": 2, "fitting": [6]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 frames of four atoms in a chain of any torsion, in springs, with noisy forces."""
    rng = np.random.default_rng(0)
    turn = rng.uniform(-np.pi, np.pi, 240)
    rest = np.zeros((240, 4, 3))
    rest[:, 0], rest[:, 2], rest[:, 3] = [0.14, 0, -0.05], [0, 0, 0.15], [0, 0, 0.2]
    rest[:, 3, 0], rest[:, 3, 1] = 0.14 * np.cos(turn), 0.14 * np.sin(turn)
    away = rng.normal(0, 0.005, rest.shape)
    forces = rng.normal(0, 30, rest.shape) - 1e5 * away
    topology = mdtraj.Topology()
    residue = topology.add_residue("BUT", topology.add_chain())
    atoms = [topology.add_atom(f"C{k}", mdtraj.element.carbon, residue) for k in range(4)]
    for one, other in pairwise(atoms):
        topology.add_bond(one, other)
    path = tmp_path_factory.mktemp("chain") / "a.npz"
    np.savez(path, positions=(rest + away).astype("f4"), forces=forces.astype("f4"))
    mdtraj.Trajectory(rest[:1], topology).save_pdb(str(path.with_suffix(".pdb")))
    return path


def config(data: Path, output: Path, files: DataConfig, n: int, **more: object) -> FitConfig:
    members = MembersConfig(ensemble=n, **more)  # type: ignore[arg-type]
    beads: dict[str, object] = {"network_options": TINY, "cutoff": 0.5, "force_achiral": True}
    options = {} if files is TORSION else beads
    return FitConfig(
        data, output=output, data=files, training=SHORT, members=members, threads=1, **options
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def of_beads(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("beads") / "run"
    fit(config(data, run, ATOMS, 3))
    return run


@pytest.fixture(scope="module")
def of_torsion(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("torsion") / "run"
    fit(config(data, run, TORSION, 3))
    return run


def states(run: Path, n: int) -> list[dict[str, torch.Tensor]]:
    paths = [member_folder(run, k) / "model.pt" for k in range(n)]
    return [torch.load(path, weights_only=True)["state"] for path in paths]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


# stacked networks


def potentials(n: int) -> list[CVPotential]:
    found = []
    for seed in range(n):
        torch.manual_seed(seed)
        found.append(CVPotential((TURN, None), widths=(8, 8)).double())
    return found


def field(n: int) -> ForceSamples[torch.Tensor]:
    torch.manual_seed(9)
    values = torch.rand(n, 2, dtype=torch.float64) * 2 - 1
    forces = torch.stack([values[:, 0].sin(), -values[:, 1]], 1)
    return ForceSamples(values, forces + 0.3 * torch.randn_like(forces), torch.ones(2).double())


def test_a_stack_is_its_members():
    members, values = potentials(3), field(20).inputs
    energies, forces = SurfaceStack(members).forces(values)
    for k, member in enumerate(members):
        energy, force = member.forces(values)
        torch.testing.assert_close(energies[k], energy)
        torch.testing.assert_close(forces[k], force)
    for member in members:
        member.network[0].requires_grad_(False)
    again = SurfaceStack(SurfaceStack(members).members())
    assert [p.requires_grad for p in again.members()[2].parameters()] == [False, False] + 3 * [True]
    torch.testing.assert_close(again.forces(values)[1], forces)


@pytest.mark.parametrize("patience", [0, 1])
def test_a_stack_is_trained_as_each_member_alone(patience: int):
    """In double precision, so that rounding has no time to grow."""
    samples, held_out = field(200), field(50)
    config = replace(SHORT, batch_size=40, clip=0.05, validations=6, patience=patience)
    trained, history = train_stack(potentials(2), samples, held_out, config, seeds=(4, 5))
    for k, alone in enumerate(potentials(2)):
        records = train(alone, samples, held_out, replace(config, seed=4 + k))
        if patience == 0:
            torch.testing.assert_close(
                trained[k].forces(samples.inputs)[1], alone.forces(samples.inputs)[1]
            )
        for mine, theirs in zip(history, records, strict=False):
            assert mine[k].validation == pytest.approx(theirs.validation, rel=1e-9)
            assert mine[k].train == pytest.approx(theirs.train, rel=1e-9)


def test_a_stack_that_stops_between_validations_tells_the_same_losses(tmp_path: Path):
    samples, held_out = field(200), field(50)
    config = replace(SHORT, batch_size=40)
    options = {"checkpoint": tmp_path / "checkpoint.pt", "seeds": (4, 5)}

    def stop(done: int, total: int, what: str) -> None:
        if done == config.steps // config.validations + 3:
            raise KeyboardInterrupt

    whole = train_stack(potentials(2), samples, held_out, config, seeds=(4, 5))[1]
    with pytest.raises(KeyboardInterrupt):
        train_stack(potentials(2), samples, held_out, config, progress=stop, **options)
    again = train_stack(potentials(2), samples, held_out, config, resume=True, **options)[1]
    for one, other in zip(whole, again, strict=True):
        assert [r.train for r in one] == [r.train for r in other]


def test_members_see_the_frames_that_they_drew():
    samples, held_out = field(200), field(50)
    rows = [torch.arange(100), torch.arange(100, 190)]
    config = replace(SHORT, batch_size=30)
    trained, _ = train_stack(potentials(2), samples, held_out, config, seeds=(4, 5), drawn=rows)
    for k, alone in enumerate(potentials(2)):
        train(alone, samples[rows[k]], held_out, replace(config, seed=4 + k))
        torch.testing.assert_close(
            trained[k].forces(samples.inputs)[1], alone.forces(samples.inputs)[1]
        )


def test_frames_are_drawn_in_blocks():
    drawn = drawn_frames([200, 100], 3)
    assert 250 < len(drawn) < 350
    assert len(drawn.unique()) < 0.8 * 300
    steps = drawn.diff()
    assert (steps == 1).sum() >= len(drawn) - 40


# potentials


def test_the_mean_of_members_is_a_potential(of_beads: Path):
    """Its forces are those of its energy: central differences of 1e-5 nm in double precision."""
    members = [model.potential.double() for model in load_beads(of_beads)]
    ensemble = EnsemblePotential(members)
    x = torch.as_tensor(np.load(of_beads / "start.npz")["positions"][:2]).double()
    energy, forces = energy_and_forces(ensemble, x, None)
    expected = torch.stack([energy_and_forces(member, x, None)[1] for member in members])
    torch.testing.assert_close(forces, expected.mean(0))
    torch.testing.assert_close(ensemble(x, None), energy)
    step = torch.zeros_like(x)
    step[:, 1, 2] = 1e-5
    slope = (ensemble(x + step, None) - ensemble(x - step, None)) / 2e-5
    torch.testing.assert_close(-forces[:, 1, 2], slope, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(ensemble.deviations(x, None), expected.std(0))


def test_sigma_is_the_root_of_the_sum_over_components():
    forces = torch.randn(5, 7, 3)
    mean = forces.mean(0)
    squares = (forces - mean).square().sum(-1).sum(0) / 4
    torch.testing.assert_close(model_deviation(deviation(forces)), squares.sqrt())
    with pytest.raises(InputError, match="one fit has no spread: fit with --ensemble 4"):
        deviation(forces[:1])


def test_the_mean_of_surfaces_is_a_surface(of_torsion: Path):
    members = [model.potential for model in load_surfaces(of_torsion)]
    values = torch.linspace(-3, 3, 11)[:, None]
    energy, forces = SurfaceEnsemble(members).forces(values)
    torch.testing.assert_close(energy, torch.stack([u(values) for u in members]).mean(0))
    spread = SurfaceEnsemble(members).deviations(values)
    torch.testing.assert_close(spread, torch.stack([u.forces(values)[1] for u in members]).std(0))
    assert forces.shape == spread.shape == (11, 1)


# fits


@pytest.mark.parametrize("files", [TORSION, ATOMS])
def test_members_are_added_to_a_plain_fit(files: DataConfig, data: Path, tmp_path: Path):
    run = tmp_path / "run"
    fit(config(data, run, files, 1))
    before = states(run, 1)[0]
    assert not member_folder(run, 1).exists()
    more = fit(replace(config(data, run, files, 3), resume=True))
    assert len(more.models) == 3
    assert same(before, states(run, 3)[0])
    assert not same(*states(run, 3)[1:])
    assert describe(run)["members"] == 3
    with pytest.raises(InputError, match="is a fit with ensemble = 3, not 2"):
        fit(replace(config(data, run, files, 2), resume=True))


def test_refits_of_beads_begin_from_fits_to_all_frames(data: Path, tmp_path: Path) -> None:
    run, plain = tmp_path / "run", tmp_path / "plain"
    fit(config(data, plain, ATOMS, 1))
    fit(config(data, run, ATOMS, 4, resample=True))
    assert json.loads((run / "run.json").read_text())["refitted_from"] == [None, 0, None, 2]
    fits, refits = states(run, 4)[::2], states(run, 4)[1::2]
    assert same(fits[0], states(plain, 1)[0])  # the first is the plain fit
    steps = [
        json.loads((member_folder(run, k) / "metrics.jsonl").read_text().splitlines()[-1])["step"]
        for k in range(4)
    ]
    assert steps == [30, 8, 30, 8]

    def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
        return sum(float((one[name] - other[name]).square().sum()) for name in one)

    for begun, found, other in zip(fits, refits, fits[::-1], strict=True):
        assert 0 < apart(begun, found) < 0.2 * apart(other, found)


def test_a_fitted_surface_tells_data_from_training(of_torsion: Path) -> None:
    parts = fitted(of_torsion).error_parts
    assert list(parts) == ["data", "training"]
    whole = fitted(of_torsion).error
    assert np.nanmean(parts["training"]) > 0
    more = parts["training"] < whole
    squares = parts["data"] ** 2 + parts["training"] ** 2
    np.testing.assert_allclose(squares[more], whole[more] ** 2, rtol=1e-6)
    assert (parts["data"][~more] == 0).all()  # where training explains all


def test_surfaces_of_older_versions_have_one_error(of_torsion: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(of_torsion, run)
    saved = dict(np.load(run / "surface.npz"))
    del saved["starts"]
    np.savez(run / "surface.npz", **saved)
    assert fitted(run).error_parts == {}
    assert np.isfinite(fitted(run).error).any()


def test_refits_are_of_beads(data: Path, tmp_path: Path) -> None:
    wrong = config(data, tmp_path / "run", TORSION, 2, resample=True, refit=0.5)
    with pytest.raises(InputError, match="are settings for beads"):
        fit(wrong)
    assert not (tmp_path / "run").exists()


def test_members_fitted_to_their_frames_alone(data: Path, tmp_path: Path) -> None:
    """As they were before refits: from weights of their own, on frames drawn."""
    run = tmp_path / "run"
    fit(config(data, run, ATOMS, 2, resample=True, common=0))
    assert json.loads((run / "run.json").read_text())["refitted_from"] == [None, None]
    known = member_energies(run, [(torch.as_tensor(np.load(run / "start.npz")["positions"]), None)])
    assert known is not None
    assert known.resampled
    assert known.energies.shape == (2, 64)


def test_surfaces_of_samples_have_errors_that_include_the_fit(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(config(data, run, ATOMS, 5, resample=True))
    sample(replace(sampled(run), dynamics=replace(MOVES, ps=4.0)))
    said: list[str] = []
    cv = "distance:0,2;distance:1,3"
    study = fes(FesConfig(run, cv=cv, bins=6), tell=said.append)
    (told,) = study.errors
    assert list(told.parts) == ["sampling", "data", "training"]
    assert told.total**2 == pytest.approx(sum(part**2 for part in told.parts.values()), rel=0.4)
    assert any("error of F" in line and "training" in line for line in said)
    numbers = json.loads((run / "fes" / "fes.json").read_text())["errors_and_their_parts"]
    assert numbers[told.model]["parts_kJ_mol"]["training"] == told.parts["training"]


def stopped_after(n: int) -> tuple[Progress, type[Exception]]:
    """Return a progress that raises at the n-th step of training of all members."""

    class Stop(Exception):
        pass

    seen = [0]

    def progress(done: int, total: int, what: str) -> None:
        seen[0] += "training" in what
        if seen[0] == n:
            raise Stop

    return progress, Stop


@pytest.mark.parametrize(("files", "at"), [(TORSION, 25), (ATOMS, 25), (ATOMS, 34)])
@pytest.mark.parametrize("resample", [False, True])
def test_an_interrupted_ensemble_ends_bit_for_bit_alike(
    files: DataConfig, at: int, resample: bool, data: Path, tmp_path: Path
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    fit(config(data, whole, files, 2, resample=resample))
    progress, stop = stopped_after(at)
    with pytest.raises(stop):
        fit(config(data, cut, files, 2, resample=resample), progress)
    fit(replace(config(data, cut, files, 2, resample=resample), resume=True))
    assert all(same(a, b) for a, b in zip(states(whole, 2), states(cut, 2), strict=True))
    for k in range(2):
        lines = [
            [{**json.loads(line), "seconds": 0} for line in file.read_text().splitlines()]
            for file in (member_folder(run, k) / "metrics.jsonl" for run in (whole, cut))
        ]
        assert lines[0] == lines[1]


def test_members_that_are_added_are_resumed_bit_for_bit_too(data: Path, tmp_path: Path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for run in (whole, cut):
        fit(config(data, run, TORSION, 1))
    fit(replace(config(data, whole, TORSION, 3), resume=True))
    progress, stop = stopped_after(25)
    with pytest.raises(stop):
        fit(replace(config(data, cut, TORSION, 3), resume=True), progress)
    # the first two added ones are trained together; a third waits for them
    fit(replace(config(data, cut, TORSION, 4), resume=True))
    assert all(same(a, b) for a, b in zip(states(whole, 3), states(cut, 3), strict=True))
    assert len(states(cut, 4)) == 4


# transfer


@pytest.mark.parametrize("files", [TORSION, ATOMS])
@pytest.mark.parametrize("frozen", ["embedding", "fitting"])
def test_frozen_parts_stay_and_others_move(
    files: DataConfig,
    frozen: str,
    data: Path,
    tmp_path: Path,
    of_beads: Path,
    of_torsion: Path,
):
    source = of_torsion if files is TORSION else of_beads
    new = fit(config(data, tmp_path / "new", files, 2, start_from=source, freeze=(frozen,)))
    old = load_surfaces(source) if files is TORSION else load_beads(source)
    for k, model in enumerate(new.models):
        begun = dict(old[k].potential.named_parameters())
        for name, weight in model.potential.named_parameters():
            kept = part_of(name, model.potential) == frozen
            kept |= name.endswith("layers.2.bias")  # no force depends on a constant
            assert torch.equal(weight, begun[name]) == kept, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"freeze": ("fitting",)}, "give --start-from RUN, too"),
        ({"start_from": Path("x"), "freeze": ("all",)}, "choose from embedding, fitting"),
        ({"start_from": Path("x"), "freeze": ("fitting", "embedding")}, "nothing is left"),
        ({"ensemble": 0}, "1 or more"),
        ({"resample": True, "common": -1}, "give 0 or more fits"),
        ({"resample": True, "refit": 0.0}, "more than 0 and at most 1"),
        ({"refit": 0.5}, "give --resample, too"),
    ],
)
def test_senseless_settings_are_refused(change: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        MembersConfig(**change)  # type: ignore[arg-type]


def test_weights_of_another_network_are_refused(
    data: Path, tmp_path: Path, of_beads: Path, of_torsion: Path
):
    other = config(data, tmp_path / "bad", ATOMS, 1, start_from=of_beads)
    cases: list[tuple[FitConfig, str]] = [
        (replace(other, cutoff=0.4), "the cutoff 0.5"),
        (replace(other, network_options={**TINY, "axis": 3}), "the options"),
        (config(data, tmp_path / "bad", ATOMS, 1, start_from=of_torsion), "is of collective"),
        (config(data, tmp_path / "bad", TORSION, 1, start_from=of_beads), "is of beads"),
    ]
    for bad, message in cases:
        with pytest.raises(InputError, match=message):
            fit(bad)
        assert not (tmp_path / "bad").exists()


# sampling

MOVES = DynamicsConfig(dt=0.002, ps=0.2, equilibration_ps=0.02, interval_ps=0.02)


def sampled(run: Path, **trust: object) -> SampleConfig:
    return SampleConfig(
        run,
        replicas=2,
        dynamics=MOVES,
        uncertainty=ModelDeviationConfig(**trust),  # type: ignore[arg-type]
        threads=1,
    )


@pytest.fixture
def copied(of_beads: Path, tmp_path: Path) -> Callable[[], Path]:
    def copy() -> Path:
        run = tmp_path / "copy"
        for source in (p for p in of_beads.rglob("*") if p.is_file()):
            target = run / source.relative_to(of_beads)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
        return run

    return copy


@pytest.mark.parametrize("member", ["1", "mean"])
def test_the_spread_is_written_along_the_samples(copied: Callable[[], Path], member: str):
    run = copied()
    sample(sampled(run, member=member))
    found = np.load(run / "samples" / "spread.npy")
    assert found.shape == (10, 2, 4, 3)
    ensemble = EnsemblePotential([model.potential for model in load_beads(run)])
    frames = mdtraj.load(str(run / "samples" / "001.dcd"), top=str(run / "beads.pdb"))
    expected = ensemble.deviations(torch.from_numpy(frames.xyz), None).detach().numpy()
    # positions in files are rounded to 1e-6 nm
    np.testing.assert_allclose(found[:, 1], expected, rtol=0.01, atol=0.5)


def test_replicas_are_kept_where_the_spread_is_small(copied: Callable[[], Path]):
    """Beyond the limit at a check every 10 steps, which is where frames are written."""
    run = copied()
    ensemble = EnsemblePotential([model.potential for model in load_beads(run)])
    start = torch.as_tensor(np.load(run / "start.npz")["positions"])
    begin = model_deviation(ensemble.deviations(start[[0, -1]], None)).max().item()
    limit = 1.05 * begin
    sample(sampled(run, max_deviation=limit))
    found = np.load(run / "samples" / "spread.npy")
    assert np.sqrt((found**2).sum(-1)).max() < 1.001 * limit
    with pytest.raises(InputError, match="of a run with beyond = reflect"):
        sample(replace(sampled(run, max_deviation=limit, beyond="stop"), resume=True))


def test_replicas_stop_where_the_spread_is_large(copied: Callable[[], Path]):
    run = copied()
    with pytest.raises(SamplingError, match=r"begins with a spread of .* more data there"):
        sample(sampled(run, max_deviation=1e-3, beyond="stop"))


def test_members_that_are_not_there_are_refused(of_beads: Path):
    with pytest.raises(InputError, match="has the members 0 to 2, not 3"):
        sample(sampled(of_beads, member="3"))
    with pytest.raises(InputError, match="give a number from 0, or mean"):
        ModelDeviationConfig(member="first")


# the report


def test_a_report_run(copied: Callable[[], Path]):
    run = copied()
    sample(SampleConfig(run, replicas=2, dynamics=MOVES, threads=1))
    found = variance(VarianceConfig(run, frames=20, largest=3))
    microscopic, own = found.beads
    assert microscopic.sigma.shape == (20, 4)
    assert own.sigma.shape == (20, 4)
    folder = run / "variance"
    stored = np.load(run / "samples" / "spread.npy")
    expected = np.sqrt((stored.astype(float) ** 2).sum(-1)).max()
    assert own.sigma.max() == pytest.approx(expected, rel=1e-3)
    worst = mdtraj.load(str(folder / "largest-own.dcd"), top=str(folder / "largest-own.pdb"))
    assert worst.n_frames == 3
    column = [
        float(line[60:66])
        for line in (folder / "largest-own.pdb").read_text().splitlines()
        if line.startswith(("ATOM", "HETATM"))
    ]
    percent = 100 * own.sigma[own.largest(1)[0]] / np.sqrt((own.force**2).mean())
    expected_column = np.minimum(percent, 99.99)
    np.testing.assert_allclose(column, expected_column, atol=0.006)
    numbers = json.loads((folder / "variance.json").read_text())["beads"]
    assert set(numbers) == {"microscopic frames", "own samples"}
