"""A fit is judged by what simple models leave, and of noise only where atoms are hidden."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch

from deepcg.runtime.config import read_toml, write_toml
from deepcg.runtime.errors import InputError
from deepcg.training.config import RATE, TrainingConfig
from deepcg.training.samples import ForceSamples
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.fit.reference import linear_reference
from deepcg.workflow.fit.run_folder import as_begun

EDGE, N = 1.8, 64
SHORT = TrainingConfig(steps=30, batch_size=4, validations=3)


def lennard_jones(x: np.ndarray) -> np.ndarray:
    """Return forces of argon, smoothly cut at 0.85 nm, kJ/mol/nm."""
    d = x[:, None] - x[None]
    d -= EDGE * np.round(d / EDGE)
    r = np.sqrt((d**2).sum(-1)) + 10 * np.eye(len(x))
    six = (0.34 / r) ** 6
    pull = 24 * 0.996 * (2 * six**2 - six) / r
    fade = np.clip((0.85 - r) / 0.25, 0, 1)
    pull *= fade**3 * (10 - 15 * fade + 6 * fade**2)
    return ((pull / r)[..., None] * d).sum(1)


@pytest.fixture(scope="module")
def argon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 60 frames of a shaken crystal, as an .npz with its topology."""
    path = tmp_path_factory.mktemp("argon") / "argon.npz"
    rng = np.random.default_rng(2)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3) * 0.45
    positions = grid + rng.uniform(-0.06, 0.06, (60, N, 3))
    forces = np.stack([lennard_jones(x) for x in positions])
    np.savez(path, positions=positions, forces=forces, box=EDGE * np.eye(3))
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(N):
        topology.add_atom("Ar", mdtraj.element.argon, topology.add_residue("AR", chain))
    trajectory = mdtraj.Trajectory(positions[:1], topology)
    trajectory.unitcell_vectors = EDGE * np.eye(3)[None]
    trajectory.save_pdb(str(path.with_suffix(".pdb")))
    return path


def config(path: Path, run: Path, **change: object) -> FitConfig:
    data = DataConfig(map="heavy")
    return replace(
        FitConfig(path, run, data, cutoff=0.85, repulsion=False, training=SHORT, threads=1),
        **change,
    )


def test_least_squares_leave_nothing_of_argon_and_speak_of_no_noise(argon: Path, tmp_path) -> None:
    """Of pairs alone splines leave what 40 of them cannot follow, below a thousandth."""
    lines: list[str] = []
    found = fit(config(argon, tmp_path / "run", network="pair-spline"), tell=lines.append)
    assert found.quality.explained > 0.999
    assert any("--steps, --learning-rate and the like are not used" in line for line in lines)
    assert "no atoms are hidden: all of the rest is the model's error" in lines[-1]
    assert "floor" not in lines[-1]
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 1


def test_a_short_training_is_told_to_leave_more_than_pairs_do(argon: Path, tmp_path) -> None:
    lines: list[str] = []
    short = replace(SHORT, steps=5)
    fit(config(argon, tmp_path / "run", network_size="fast", training=short), tell=lines.append)
    assert "that a pair model by least squares leaves: the training is far from" in lines[-1]
    quality = json.loads((tmp_path / "run/run.json").read_text())["quality"]
    assert quality["hidden"] is False
    assert quality["reference"] < 0.01 * quality["variance"]


def test_equal_members_are_said_to_be_equal(argon: Path, tmp_path) -> None:
    lines: list[str] = []
    members = replace(FitConfig(argon).members, ensemble=2)
    given = config(argon, tmp_path / "run", network="pair-spline", members=members)
    one, other = fit(given, tell=lines.append).models
    assert any("all members are equal: give --resample" in line for line in lines)
    assert torch.equal(*(m.potential.terms[0].coefficients for m in (one, other)))


def test_wider_layers_learn_slower_and_a_rate_of_the_user_stays(argon: Path, tmp_path) -> None:
    for name, options, rate in (
        ("wide", {"fitting": [64, 64]}, RATE / 2),
        ("plain", {}, RATE),
    ):
        given = config(argon, tmp_path / name, network_size="fast", network_options=options)
        assert fit(given).config.training.learning_rate == rate
    said = replace(SHORT, learning_rate=RATE)
    given = config(argon, tmp_path / "said", network_options={"fitting": [64, 64]}, training=said)
    assert fit(given).config.training.learning_rate == RATE


def test_runs_of_older_versions_resume_with_their_schedule(argon: Path, tmp_path) -> None:
    given = config(argon, tmp_path / "run", network_options={"fitting": [64, 64]}, resume=True)
    old = replace(given, training=replace(SHORT, learning_rate=RATE), resume=False)
    given.output.mkdir()
    path = given.output / "config.toml"
    write_toml(path, old)
    assert as_begun(given) == given
    kept = [line for line in path.read_text().splitlines() if not line.startswith("warmup")]
    path.write_text("\n".join(kept))
    assert read_toml(path, FitConfig).training.learning_rate == RATE
    found = as_begun(given).training
    assert (found.warmup, found.learning_rate) == (0.0, RATE)
    assert fit(given).config.training == replace(SHORT, warmup=0.0, learning_rate=RATE)
    with pytest.raises(InputError, match="steps"):
        fit(replace(given, training=replace(SHORT, steps=40)))


def test_a_linear_mean_force_is_found() -> None:
    """The noise of 2 is left, to 4 standard errors of 500 numbers (fails once in 16 000)."""
    generator = torch.Generator().manual_seed(1)
    x = 6.28 * torch.rand(2000, 2, generator=generator)
    noise = 2 * torch.randn(2000, 2, generator=generator)
    forces = torch.stack([3 * x[:, 0].sin(), 5 * x[:, 1] - 7], 1) + noise
    scale = torch.tensor([2.0, 4.0])
    parts = (ForceSamples(x[k], forces[k], scale) for k in (slice(1500), slice(1500, 2000)))
    found, squares = linear_reference(*parts, (2 * torch.pi, None))
    error = 4 * 4 * (2 / 500) ** 0.5
    assert (squares - 4).abs().max() < error
    assert found.error == pytest.approx(float((squares / torch.tensor([4.0, 16.0])).mean()))
