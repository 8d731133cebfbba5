"""Restrained dynamics as an oracle: springs that move, where they start, and loops with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array
from scipy.spatial.transform import Rotation
from torsion_chain import chain_system, torsion_force, write_chain

from deepcg.atomistic.restrained_dynamics import Run, bench
from deepcg.atomistic.restraints import BeadRestraint, CVRestraint, Restraint
from deepcg.forces.mean_force_labels import load_labels
from deepcg.geometry.neighbor_list import find_pairs
from deepcg.mapping.beads import LinearMapping
from deepcg.mapping.collective_variables import CollectiveVariables, Variable, dihedral
from deepcg.potentials.ensemble import (
    EnsemblePotential,
    SurfaceEnsemble,
    load_beads,
    load_surfaces,
)
from deepcg.runtime.errors import InputError
from deepcg.training.config import TrainingConfig
from deepcg.training.members import MembersConfig
from deepcg.training.samples import joint_weights
from deepcg.trajectory.frames import Frames
from deepcg.units import thermal_energy
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.fit.run_folder import fit_config_of
from deepcg.workflow.info import describe
from deepcg.workflow.learn.beads import fingerprints
from deepcg.workflow.learn.command import learn
from deepcg.workflow.learn.config import HoldConfig, LearnConfig
from deepcg.workflow.learn.restrained_oracle import (
    onto_liquid,
    onto_molecule,
    restrained_dynamics,
)

Floats = NDArray[np.float64]

KT = thermal_energy(300)
REFERENCE = openmm.Platform.getPlatform("Reference")
TORSION = DataConfig(map="dihedral:0,1,2,3", estimator="general")
ATOMS = DataConfig(map='select:"all"')
TINY = {"l_max": 2, "n_splines": 8, "first_knot": 0.1, "channels": 4, "axis": 2, "fitting": [8]}


def chains(n_frames: int, low: float, high: float, seed: int) -> Floats:
    """Return positions (n, 4, 3) with torsions at random, bonds and angles near their rest."""
    rng = np.random.default_rng(seed)
    turn = rng.uniform(low, high, n_frames)
    x = np.zeros((n_frames, 4, 3))
    out, along = 0.15 * np.sin(1.9), -0.15 * np.cos(1.9)
    x[:, 0, 0], x[:, 0, 2], x[:, 2, 2] = out, -along, 0.15
    x[:, 3, 0], x[:, 3, 1] = out * np.cos(turn), out * np.sin(turn)
    x[:, 3, 2] = 0.15 + along
    return x + rng.normal(0, 0.003, x.shape)


def as_frames(positions: Floats) -> Frames:
    types = torch.zeros(positions.shape[1], dtype=torch.long)
    return Frames(torch.from_numpy(positions), None, None, types)


# springs that move


def torsion_springs() -> CVRestraint:
    variable = Variable("phi", (0, 1, 2, 3), dihedral, 2 * math.pi, "rad")
    return CVRestraint(CollectiveVariables((variable,), 4), np.array([0.03]), KT)


def bead_springs() -> BeadRestraint:
    mapping = LinearMapping(
        eye_array(4).tocsr(), torch.zeros(4).long(), torch.full((4,), 12.0), ("C",)
    )
    return BeadRestraint(mapping, 0.003, KT)


def middle_springs() -> BeadRestraint:
    """Two beads, on the middles of two atoms each."""
    weights = csr_array(np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]))
    mapping = LinearMapping(weights, torch.zeros(2).long(), torch.full((2,), 24.0), ("C",))
    return BeadRestraint(mapping, 0.003, KT)


@pytest.mark.parametrize("make", [torsion_springs, bead_springs, middle_springs])
@pytest.mark.parametrize("periodic", [False, True])
def test_springs_take_a_frame_to_its_place(make: Callable[[], Restraint], periodic: bool) -> None:
    """From a torsion of 0.5 to one of -2.5, over the barriers, to some widths."""
    springs = make()
    start, goal = (as_frames(chains(1, turn, turn, seed=1)) for turn in (0.5, -2.5))
    target = springs.values(goal)[0]
    away = springs.displacements(springs.values(start), target)[0]
    pulls = springs.forces(target, periodic=periodic, away=away)
    run = Run(0.001, 500, 40, 20, 300.0, 5.0, steering=2000)
    system = chain_system()
    if periodic:
        system.setDefaultPeriodicBoxVectors([3, 0, 0], [0, 3, 0], [0, 0, 3])
    atoms = Frames.join(bench(system, REFERENCE).run(pulls, start, run, seed=1))
    off = springs.displacements(springs.values(atoms), target)
    width = np.sqrt(KT / springs.stiffness)
    assert (np.abs(away) > 20 * width).any()
    assert (np.abs(off.mean(0)) < 3 * width).all()


# where they start


def test_a_molecule_is_turned_onto_the_frame_that_is_nearest() -> None:
    frames = chains(30, -3.0, 3.0, seed=2)
    turn = Rotation.from_rotvec([0.5, -1.0, 2.0]).as_matrix()
    number, turned = onto_molecule(frames, frames[7] @ turn.T + [1.0, 2.0, -3.0])
    assert number == 7
    np.testing.assert_allclose(turned, frames[7], atol=1e-12)
    mirrored = frames[7] * [1, -1, 1]
    number, turned = onto_molecule(frames, mirrored)
    angles = dihedral(torch.from_numpy(np.stack([mirrored, turned, frames[number]])))
    assert angles[0] == pytest.approx(float(angles[1]), abs=1e-6)
    assert angles[0] == pytest.approx(float(angles[2]), abs=0.4)  # of 30 frames


def test_beads_of_a_liquid_change_places_with_their_like() -> None:
    rng = np.random.default_rng(0)
    frame, types = rng.uniform(0, 2, (40, 3)), np.repeat([0, 1], [30, 10])
    order = np.concatenate([rng.permutation(30), 30 + rng.permutation(10)])
    small = rng.normal(0, 0.01, frame.shape)
    place = frame[order] + small + 2.0 * rng.integers(-2, 3, frame.shape)
    cost, there = onto_liquid(frame, place, types, 2.0 * torch.eye(3))
    assert cost == pytest.approx(np.square(small).sum())
    np.testing.assert_allclose(there[order], frame[order] + small, atol=1e-9)
    swapped, _ = onto_liquid(frame, frame[::-1].copy(), types, 2.0 * torch.eye(3))
    assert swapped > 0.1  # no type-0 bead may take the place of a type-1 bead


def test_labels_count_by_their_errors_and_frames_by_their_noise() -> None:
    """Errors of 1 with a median of 1 make 1 / 2; noise of variance 8 makes 1 / 8."""
    weights = joint_weights(torch.tensor([8.0]), 3, torch.ones(2, 1))
    torch.testing.assert_close(weights / weights[0], torch.tensor([[1.0]] * 3 + [[4.0]] * 2))
    torch.testing.assert_close(weights.mean(0), torch.ones(1))


def test_configurations_are_told_apart_however_they_are_turned() -> None:
    x = torch.rand(2, 20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turn = torch.from_numpy(Rotation.from_rotvec([1.0, 0.4, -2.0]).as_matrix())
    types, worst = torch.zeros(20).long(), torch.tensor([3, 5])
    box = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    for one, other in (
        (Frames(x, None, None, types), Frames(x @ turn + 1, None, None, types)),
        (Frames(x, box, None, types), Frames(x + 0.7 + x.round(), box, None, types)),
    ):
        found = fingerprints(one, worst)
        torch.testing.assert_close(fingerprints(other, worst), found)
        assert (found[0] - found[1]).abs().max() > 0.01


# the loop


def fitted(data: DataConfig, trajectory: Path, output: Path, **more: Any) -> Path:
    steps = more.pop("steps", 200)
    training = TrainingConfig(
        steps=steps,
        batch_size=50,
        learning_rate=2e-2,
        validations=2,
        weighting="even",  # all atoms are beads: there is no noise
    )
    fit(
        FitConfig(
            trajectory,
            output=output,
            data=data,
            training=training,
            members=MembersConfig(ensemble=3),
            threads=1,
            **more,
        )
    )
    return output


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 frames of positive torsions alone."""
    return write_chain(tmp_path_factory.mktemp("some"), "some", chains(500, 0.2, 2.9, seed=0))


@pytest.fixture(scope="module")
def of_torsion(some: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("torsion") / "run"
    return fitted(TORSION, some, output, network_options={"widths": [12], "harmonics": 3})


@pytest.fixture(scope="module")
def of_beads(some: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("beads") / "run"
    options = {
        "network_options": TINY,
        "cutoff": 0.6,
        "prior": "statistical",
        "force_achiral": True,
    }
    return fitted(ATOMS, some, output, **options)


def config(run: Path, pool: Path, output: Path) -> LearnConfig:
    return LearnConfig(
        run,
        (pool,),
        output=output,
        oracle="restrained",
        rounds=2,
        queries=8,
        walkers=12,
        walk=400,
        walk_ps=1.0,
        refit_steps=100,
        stop_fraction=0.0,
        hold=HoldConfig(hold_ps=1.0, settle_ps=0.3, steer_ps=1.0, platform="Reference"),
        threads=1,
    )


def slope_error(run: Path, low: float, high: float) -> float:
    x = torch.linspace(low, high, 50)[:, None]
    ensemble = SurfaceEnsemble([model.potential for model in load_surfaces(run)])
    exact = torsion_force(x.numpy())
    return float(np.sqrt(np.square(ensemble.forces(x)[1].numpy() - exact).mean()))


def test_restrained_dynamics_answer_where_there_are_no_frames(
    of_torsion: Path, some: Path, tmp_path: Path
) -> None:
    """The mean forces of 16 labels: z has a spread of 1, with an error of 0.2."""
    output = tmp_path / "learned"
    learned = learn(config(of_torsion, some, output))
    before, after = slope_error(of_torsion, -3.0, -0.2), slope_error(output, -3.0, -0.2)
    assert after < before / 2
    # how many rounds it takes until nothing is asked for differs with the last bits of the dynamics
    files = sorted(output.glob("round-*/mean-forces.labels.npz"))
    assert files
    labels = [load_labels(file) for file in files]
    assert (labels[0].coordinates < 0.3).mean() > 0.7
    z = np.concatenate([(x.forces - torsion_force(x.coordinates)) / x.errors for x in labels])
    assert 0.4 < np.sqrt(np.square(z).mean()) < 2
    assert [done.answered for done in learned.rounds] == [8, 8]
    assert [len(frames) for frames in learned.frames] == [8, 8]


def test_an_interrupted_round_of_restrained_dynamics_goes_on(
    of_torsion: Path, some: Path, tmp_path: Path
) -> None:
    plain = replace(config(of_torsion, some, tmp_path / "whole"), refit_steps=20, queries=4)
    learn(plain)

    class Stop(Exception):
        pass

    def stop(done: int, total: int, what: str) -> None:
        if what == "round 2, restrained dynamics" and done == 2:
            raise Stop

    cut = replace(plain, output=tmp_path / "cut")
    with pytest.raises(Stop):
        learn(cut, stop)
    assert len(load_labels(cut.output / "round-2" / "asked.labels.npz")) == 2
    learn(replace(cut, resume=True))
    for one, other in zip(load_surfaces(plain.output), load_surfaces(cut.output), strict=True):
        for a, b in zip(one.potential.parameters(), other.potential.parameters(), strict=True):
            assert torch.equal(a, b)


def bead_error(run: Path, positions: Floats) -> float:
    """Return the rms error of the ensemble's forces, kJ/mol/nm."""
    exact = bench(chain_system(), REFERENCE).with_forces(as_frames(positions)).forces
    assert exact is not None
    ensemble = EnsemblePotential([model.potential for model in load_beads(run)])
    x = torch.from_numpy(positions).float()
    pairs = find_pairs(x, None, ensemble.cutoff).with_types(ensemble.types)
    return float((ensemble.all_forces(x, pairs)[1] - exact).square().mean().sqrt())


def test_beads_are_sampled_held_and_learned(of_beads: Path, some: Path, tmp_path: Path) -> None:
    """All atoms are beads: a label is the force at its mean configuration, but for the curvature
    of U over the width of the springs, some 4 % of a bond's stiffness of 1e5 times 0.003 nm."""
    output = tmp_path / "learned"
    learned = learn(config(of_beads, some, output))
    # how many rounds it takes until nothing is asked for differs with the last bits of the dynamics
    files = sorted(output.glob("round-*/mean-forces.labels.npz"))
    assert files
    labels = [load_labels(file) for file in files]
    places, forces, errors = (
        np.concatenate([getattr(one, name) for one in labels])
        for name in ("coordinates", "forces", "errors")
    )
    exact = bench(chain_system(), REFERENCE).with_forces(as_frames(places)).forces
    assert exact is not None
    assert np.abs(forces - exact.numpy()).max() < 5 * errors.max() + 15
    assert bead_error(output, places) < 0.8 * bead_error(of_beads, places)
    found = describe(output)
    assert found["frames_added"] == len(places)
    again = learn(replace(config(of_beads, some, output), resume=True))
    assert again.rounds == learned.rounds
    assert again.unknown == learned.unknown


def test_what_cannot_be_held_has_no_answer(of_beads: Path, some: Path, tmp_path: Path) -> None:
    """A bond that is 0.23 nm too long moves its ends by 0.05 nm, more than 10 widths of springs."""
    plain = config(of_beads, some, tmp_path)
    oracle = restrained_dynamics(plain, fit_config_of(of_beads), None)
    good = chains(2, -2.0, 2.0, seed=8)
    bad = good[0] + np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0.3]])
    places = torch.from_numpy(np.stack([good[0], bad, good[1]])).flatten(1)
    answer = oracle(places, tmp_path / "round-1")
    assert answer.answered.tolist() == [True, False, True]
    assert answer.data is not None
    assert len(answer.data) == 2
    recalled = oracle.recall({}, tmp_path / "round-1")
    assert recalled is not None
    assert np.array_equal(recalled.forces, answer.data.forces)
    none = oracle(places[1:2], tmp_path / "round-2")
    assert none.data is None
    assert oracle.recall({}, tmp_path / "round-2") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"oracle": "stored"}, "stored frames answer for collective variables only"),
        ({"trust_high": 1e-3, "trust_low": 1e-4}, "agree on none of the frames"),
    ],
)
def test_what_beads_cannot_learn_is_refused(
    of_beads: Path, some: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        learn(replace(config(of_beads, some, tmp_path / "bad"), **change))


def test_settings_of_oracles_are_checked(of_beads: Path, some: Path, tmp_path: Path) -> None:
    plain = config(of_beads, some, tmp_path)
    with pytest.raises(InputError, match="unknown oracle 'restraint'; did you mean 'restrained'"):
        replace(plain, oracle="restraint")
    with pytest.raises(InputError, match="leave out --oracle restrained"):
        replace(plain, at_random=True)
    with pytest.raises(InputError, match="steer_ps is 0: it must be positive"):
        HoldConfig(steer_ps=0)
