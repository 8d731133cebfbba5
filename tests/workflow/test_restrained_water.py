"""``deepcg label --restrain`` on rigid water, as a user would do it."""

from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from paths import SHARED

from deepcg.atomistic.water import WaterSimulation, simulate_water
from deepcg.cli.main import main
from deepcg.forces.mean_force_labels import load_labels
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.learn.config import HoldConfig, LearnConfig
from deepcg.workflow.learn.restrained_oracle import restrained_dynamics

QUICK = ("--number", 1, "--ps", 0.7, "--equilibration-ps", 0.1, "--platform", "CPU", "--threads", 1)


@pytest.fixture(scope="module")
def water(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_water(
        WaterSimulation(
            output=tmp_path_factory.mktemp("water"),
            molecules=20,
            ns=0.003,
            interval_ps=1.0,
            equilibration_ps=1.0,
            cutoff=0.4,
            platform="CPU",
            threads=1,
        )
    )


def deepcg(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Return the status, what was said, and the complaints of a command."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def restrained(
    capsys: pytest.CaptureFixture[str], trajectory: Path, output: Path, *words: object
) -> tuple[int, str, str]:
    return deepcg(capsys, "label", trajectory, "--restrain", "-o", output, *QUICK, *words)


def test_two_runs_on_water_agree_within_their_errors(
    water: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oxygens of 20 rigid molecules at 2 frames: 120 values of z, whose spread has an error of 0.07
    (0.1 with errors of few blocks). At 900 K, where hydrogen bonds last less than a run."""
    hot = ("--number", 2, "--temperature", 900, "--ps", 2, "--equilibration-ps", 0.5)
    found = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        status, out, _ = restrained(capsys, water, folder, *hot, "--friction", 5, "--seed", seed)
        assert status == 0
        assert "weights 1 O + 1 H + 1 H" in out
        assert "2 mean forces on oxygens" in out
        found.append(load_labels(folder / "traj.labels.npz"))
        assert 0.7 < found[-1].disagreement < 1.3
    one, other = found
    z = (one.forces - other.forces) / np.hypot(one.errors, other.errors)
    assert 0.7 < z.std() < 1.4
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    beads = mdtraj.load(str(tmp_path / "1" / "traj.labels.pdb"))
    assert [atom.name for atom in beads.topology.atoms] == ["O"] * 20


def test_centers_of_mass_can_be_restrained(
    water: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forces and pulls agree, whose errors of few periods are too large: z is never as large."""
    words = ("--map", "com", "--estimator", "linear")
    assert restrained(capsys, water, tmp_path, *words)[0] == 0
    labels = load_labels(tmp_path / "traj.labels.npz")
    assert labels.forces.shape == (1, 20, 3)
    assert labels.disagreement < 1.3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--map oxygen", "unknown map 'oxygen'; did you mean 'oxygens'?"),
        ("--map dihedral:0,1,2", "dihedral"),
        ("--map dihedrals", "residue"),
        ("--map oxygens --estimator lest-noise", "did you mean 'least-noise'?"),
        ("--number 4", "number is 4, more than the frames of"),
        ("--ps 0.1", "give at least 0.64, for 32 samples"),
        ("--interval-ps 0.0205", "give a multiple of the time step, 2 fs"),
        ("--dt-fs 5 --map oxygens", "but the springs swing with a period of 4"),
        ("--width-nm 0", "width_nm is 0: give a positive number"),
        ("--temperature nan", "temperature is nan: give a positive number"),
        ("--seed -1", "seed is -1: give 0 or more"),
        ("--platform CPUs", "did you mean 'CPU'?"),
    ],
)
def test_what_cannot_be_restrained_gets_one_line(
    water: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: str,
    message: str,
) -> None:
    status, out, err = restrained(capsys, water, tmp_path / "labels", *words.split())
    assert (status, out) == (2, "")
    assert message in err
    assert err.splitlines()[-1].startswith("deepcg label: ")
    assert not (tmp_path / "labels").exists()


def test_restraints_need_the_switch(water: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = deepcg(capsys, "label", water, "--map", "oxygens", "--ps", 3)
    assert (status, err.count("\n")) == (2, 1)
    assert "need --restrain" in err


def test_frames_need_a_system(
    water: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first_frame(water).save_pdb(str(tmp_path / "alone.pdb"))
    _, _, err = restrained(capsys, tmp_path / "alone.pdb", tmp_path)
    assert "has no System beside it: give --system FILE" in err


def test_frames_must_be_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = SHARED / "alanine"
    if not data.is_dir():
        pytest.skip("the shared data are not here")
    files = ("--topology", data / "alanine.pdb", "--system", data / "alanine.system.xml")
    words = (*files, "--map", "dihedrals")
    _, _, err = restrained(capsys, data / "walker-a.npz", tmp_path, *words)
    assert "has 22 atoms, its System 1048 particles" in err
    assert err.endswith("give a trajectory that has them\n")


def test_a_frame_from_which_dynamics_break_down_is_named(
    water: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = first_frame(water)
    frame.xyz[0, 3:6] += frame.xyz[0, 0] - frame.xyz[0, 3] + 0.02
    frame.save_pdb(str(tmp_path / "clash.pdb"))
    words = ("--system", water.with_suffix(".system.xml"), "--estimator", "linear")
    status, _, err = restrained(capsys, tmp_path / "clash.pdb", tmp_path, *words)
    assert status == 2
    last = err.splitlines()[-1]
    assert last.startswith(f"deepcg label: frame 0 of {tmp_path / 'clash.pdb'}: ")
    assert last.endswith("or frames of dynamics, where no atoms clash")


def test_oxygens_are_taken_to_where_they_are_asked_for(water: Path, tmp_path: Path) -> None:
    """A frame whose molecules are others, and in other boxes: each place has its nearest one."""
    settings = LearnConfig(
        tmp_path,
        (water,),
        oracle="restrained",
        hold=HoldConfig(hold_ps=0.7, settle_ps=0.2, steer_ps=0.5, platform="CPU"),
        threads=1,
    )
    oracle = restrained_dynamics(settings, FitConfig(water), None)
    frame = mdtraj.load(str(water), top=str(water.with_suffix(".pdb")))[1]
    box = float(frame.unitcell_lengths[0, 0])
    rng = np.random.default_rng(0)
    place = frame.xyz[0, ::3].astype(float) + rng.normal(0, 0.02, (20, 3))
    place = rng.permutation(place) + box * rng.integers(-2, 3, (20, 3))
    answer = oracle(torch.from_numpy(place).reshape(1, -1), tmp_path / "round-1")
    assert answer.answered.all()
    assert answer.data is not None
    found = answer.data.coordinates[0]
    apart = found[:, None] - place
    apart -= box * np.round(apart / box)
    nearest = np.linalg.norm(apart, axis=-1).argmin(1)
    assert sorted(nearest) == list(range(20))
    assert np.linalg.norm(apart, axis=-1).min(1).max() < 0.02


def first_frame(trajectory: Path) -> mdtraj.Trajectory:
    return mdtraj.load(str(trajectory), top=str(trajectory.with_suffix(".pdb")))[:1]
