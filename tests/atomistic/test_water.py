from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from numpy.typing import NDArray

from deepcg.atomistic.system import read_system
from deepcg.atomistic.water import WaterSimulation, default_cutoff, simulate_water
from deepcg.atomistic.water_box import WATER_MODELS, box_edge, water_box
from deepcg.runtime.errors import InputError

N = 32
SITES = {"opc": 4, "spce": 3, "tip3p": 3, "tip3pfb": 3, "tip4pew": 4}
DEFAULT_EDGE = box_edge(N, 0.997)


def small(output: Path, **changes: object) -> WaterSimulation:
    config = WaterSimulation(
        output=output,
        molecules=N,
        ns=0.0005,
        interval_ps=0.02,
        equilibration_ps=0.1,
        checkpoint_ps=0.2,
        cutoff=0.4,
        platform="CPU",
        threads=1,
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def load(trajectory: Path) -> mdtraj.Trajectory:
    return mdtraj.load(str(trajectory), top=str(trajectory.with_suffix(".pdb")))


def log_of(trajectory: Path) -> dict[str, NDArray[np.float64]]:
    with trajectory.with_suffix(".log.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def bonds(trajectory: mdtraj.Trajectory) -> NDArray[np.float32]:
    """O-H1 and O-H2 lengths (frames, molecules, 2), nm, without any minimum image."""
    o = trajectory.topology.select("name O")
    x = trajectory.xyz
    return np.stack([np.linalg.norm(x[:, o + i] - x[:, o], axis=-1) for i in (1, 2)], -1)


class Cut(Exception):
    """The run was cut off."""


def cut_after(frames: int):
    def progress(done: int, total: int, what: str) -> None:
        if what.startswith("simulate") and done == frames:
            raise Cut

    return progress


@pytest.mark.parametrize("model", WATER_MODELS)
def test_every_model_has_the_exact_count_and_density(model: str, tmp_path: Path) -> None:
    path = simulate_water(small(tmp_path, model=model, ns=0.0002))
    trajectory = load(path)
    assert trajectory.n_frames == 10
    assert trajectory.n_residues == N
    assert trajectory.n_atoms == SITES[model] * N
    assert read_system(path.with_suffix(".system.xml")).getNumParticles() == SITES[model] * N
    np.testing.assert_allclose(trajectory.unitcell_lengths, DEFAULT_EDGE, rtol=1e-6)  # float32
    np.testing.assert_allclose(log_of(path)["density_g_cm3"], 0.997, rtol=1e-6)
    assert np.ptp(bonds(trajectory)) < 2e-5  # constraint tolerance 1e-5, float32 in angstrom


@pytest.mark.parametrize("model", WATER_MODELS)
def test_every_model_can_vibrate(model: str, tmp_path: Path) -> None:
    path = simulate_water(small(tmp_path, model=model, ns=0.0002, flexible=True))
    assert read_system(path.with_suffix(".system.xml")).getNumConstraints() == 0
    assert json.loads(path.with_suffix(".run.json").read_text())["dt_fs"] == 0.5
    lengths = bonds(load(path))
    assert 0.001 < lengths.std() < 0.006  # 0.0026 nm at 300 K for these force constants
    assert lengths.max() < 0.13


def test_molecules_are_whole_and_in_the_box(tmp_path: Path) -> None:
    trajectory = load(simulate_water(small(tmp_path, model="tip4pew", ns=0.002)))
    assert bonds(trajectory).max() < 0.1
    sites = trajectory.xyz.reshape(trajectory.n_frames, N, 4, 3)
    centers = sites.mean(2)
    assert centers.min() > -0.001
    assert centers.max() < DEFAULT_EDGE + 0.001


def test_virtual_sites_are_written_where_they_belong(tmp_path: Path) -> None:
    trajectory = load(simulate_water(small(tmp_path, model="tip4pew", ns=0.0002)))
    o, h1, h2, m = np.moveaxis(trajectory.xyz.reshape(-1, N, 4, 3), 2, 0)
    share = 0.106676721  # of each O-H vector, from the model's paper: 0.0125 nm along the bisector
    np.testing.assert_allclose(m, o + share * (h1 + h2 - 2 * o), atol=1e-6)


def test_the_temperature_is_the_thermostats(tmp_path: Path) -> None:
    config = small(tmp_path, ns=0.006, interval_ps=0.1, friction=20.0, equilibration_ps=1.0)
    log = log_of(simulate_water(config))
    # 189 degrees of freedom: one value is spread by 30.9 K. The kinetic energy forgets in
    # 1/40 ps, so 60 frames are independent. 4 standard errors: false alarm 6e-5 (seed fixed).
    assert abs(log["temperature_K"].mean() - 300) < 4 * 30.9 / np.sqrt(60)
    np.testing.assert_allclose(log["time_ps"], 0.1 * np.arange(1, 61), atol=1e-6)
    assert (log["step"] == 50 * np.arange(1, 61)).all()


def test_a_pressure_finds_the_density_and_then_holds_it(tmp_path: Path) -> None:
    config = small(tmp_path, density=0.8, pressure=1000.0, equilibration_ps=8.0, friction=5.0)
    path = simulate_water(config)
    log = log_of(path)
    assert np.ptp(log["density_g_cm3"]) == 0
    # the density of water at 1 kbar is 1.04; 32 molecules fluctuate by 5 %, the mean of 4 ps by
    # less, and the short cutoff shifts it by some per cent: enough to know it from 0.8
    assert 0.92 < log["density_g_cm3"][0] < 1.16
    edge = read_system(path.with_suffix(".system.xml")).getDefaultPeriodicBoxVectors()[0][0]._value
    assert edge == pytest.approx(log["volume_nm3"][0] ** (1 / 3), rel=1e-6)
    assert load(path).unitcell_lengths[-1] == pytest.approx([edge] * 3, rel=1e-6)
    assert bonds(load(path)).std() < 1e-5
    system = read_system(path.with_suffix(".system.xml"))
    assert "MonteCarloBarostat" not in {force.getName() for force in system.getForces()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_water(small(tmp_path_factory.mktemp("whole")))


def test_a_resumed_run_is_the_run_that_was_not_cut(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Cut):
        simulate_water(small(tmp_path / "cut"), cut_after(17))
    cut = simulate_water(small(tmp_path / "cut", resume=True))
    assert cut.read_bytes() == whole.read_bytes()
    for name, values in log_of(whole).items():
        if name != "speed_ns_day":
            np.testing.assert_array_equal(log_of(cut)[name], values)


def test_a_run_cut_within_a_frame_is_mended(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Cut):
        simulate_water(small(tmp_path / "cut"), cut_after(17))
    with (tmp_path / "cut" / "traj.dcd").open("ab") as file:
        file.write(b"half a frame")
    assert simulate_water(small(tmp_path / "cut", resume=True)).read_bytes() == whole.read_bytes()


def test_a_longer_run_continues_a_shorter_one(tmp_path: Path) -> None:
    long = simulate_water(small(tmp_path / "long", ns=0.0009))
    simulate_water(small(tmp_path / "short"))  # 25 frames, 5 past the checkpoint
    longer = simulate_water(small(tmp_path / "short", ns=0.0009, resume=True))
    assert longer.read_bytes() == long.read_bytes()


def test_a_complete_run_is_left_as_it_is(whole: Path) -> None:
    before = whole.stat().st_mtime_ns
    assert simulate_water(small(whole.parent, resume=True)) == whole
    assert whole.stat().st_mtime_ns == before


def test_a_run_cut_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    def cut(done: int, total: int, what: str) -> None:
        if what.startswith("equilibrate"):
            raise Cut

    with pytest.raises(Cut):
        simulate_water(small(tmp_path), cut)
    assert load(simulate_water(small(tmp_path, resume=True))).n_frames == 25


def test_the_seed_decides_the_run(whole: Path, tmp_path: Path) -> None:
    same, other = (
        simulate_water(small(tmp_path / str(seed), seed=seed)).read_bytes() for seed in (1, 2)
    )
    assert same == whole.read_bytes()
    assert other != same


def test_a_box_can_hold_any_count() -> None:
    for molecules in (1, 27, 28, 100, 216):
        edge = box_edge(molecules, 0.997)
        topology, positions = water_box("tip3p", molecules, edge, np.random.default_rng(0))
        assert topology.getNumResidues() == molecules
        assert positions.shape == (3 * molecules, 3)
        oxygens = positions[::3]
        apart = np.linalg.norm(oxygens[:, None] - oxygens, axis=-1) + 9 * np.eye(molecules)
        assert apart.min() > 0.23  # the emptiest lattice: 28 sites of 64


def test_the_cutoff_follows_the_box(tmp_path: Path) -> None:
    config = WaterSimulation(output=tmp_path)
    assert default_cutoff(config) == 0.9
    reduced = default_cutoff(replace(config, molecules=125))
    assert 0.99 * box_edge(125, 0.997) / 2 < reduced <= box_edge(125, 0.997) / 2
    assert default_cutoff(replace(config, molecules=125, pressure=1.0)) < reduced


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "tip3"}, "unknown water model 'tip3'; did you mean 'tip3p'?"),
        ({"ns": 0.0}, "ns is 0: give a positive number"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"ns": 1e-6}, "less than an interval"),
        ({"seed": -1}, "seed is -1: give 0 or more"),
        ({"interval_ps": 0.0205}, "interval_ps is 0.0205: give a multiple of the time step, 2 fs"),
        ({"dt_fs": 5.0}, "dt_fs is 5: give at most 4 for rigid water"),
        ({"dt_fs": 2.0, "flexible": True}, "give at most 1 for flexible water"),
        ({"cutoff": 0.6}, "a cutoff of 0.6 nm does not fit in a box of 32 molecules, 0.987 nm"),
        ({"cutoff": None}, "give more molecules, or a cutoff of at most 0.493 nm"),
        ({"platform": "cpu"}, "unknown platform 'cpu'"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        simulate_water(small(tmp_path / "run", **changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten_nor_mixed(whole: Path) -> None:
    with pytest.raises(InputError, match="resume it, or give another output folder"):
        simulate_water(small(whole.parent))
    with pytest.raises(InputError, match=r"says temperature = 300.0, not 310.0"):
        simulate_water(small(whole.parent, resume=True, temperature=310.0))
