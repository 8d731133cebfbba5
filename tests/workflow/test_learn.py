"""Active learning: walkers that look for what is not known, oracles, and the whole loop."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torsions import write_torsions

from deepcg.geometry.periodic import shortest
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.ensemble import SurfaceEnsemble, load_surfaces
from deepcg.runtime.errors import InputError
from deepcg.training.config import TrainingConfig
from deepcg.training.members import MembersConfig
from deepcg.trajectory.frames import CVFrames
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.info import describe
from deepcg.workflow.learn.acquisition import (
    RADIUS,
    Exploration,
    StoredFrames,
    choose_queries,
    survey,
)
from deepcg.workflow.learn.command import learn
from deepcg.workflow.learn.config import LearnConfig
from deepcg.workflow.learn.exploration import Range, TrustLevels, explore
from deepcg.workflow.variance import VarianceConfig, variance

TURN = 2 * math.pi
ANGLE = Range((TURN,), torch.tensor([-3.0]), torch.tensor([3.0]))
MIXED = Range((TURN, None), torch.tensor([-3.0, 0.0]), torch.tensor([3.0, math.pi]))


def walls(n: int, height: float) -> list[CVPotential]:
    """Return members U = height cos(x) that agree but for their zero."""
    members = []
    for _ in range(n):
        member = CVPotential((TURN,), widths=(2,), harmonics=1)
        with torch.no_grad():  # tanh of something small is linear
            member.network[0].weight.copy_(torch.tensor([[1e-3, 0.0], [0.0, 0.0]]))
            member.network[0].bias.zero_()
            member.network[2].weight.copy_(torch.tensor([[1e3 * height, 0.0]]))
        members.append(member)
    return members


# walkers


def test_the_bias_is_switched_off_between_the_trust_levels():
    trust = TrustLevels(2.0, 4.0, torch.ones(1), 50.0)
    bias = trust.bias(torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0]))
    torch.testing.assert_close(bias, torch.tensor([1.0, 1.0, 0.5, 0.0, 0.0]))


def walked(members: list[CVPotential], low: float) -> float:
    """Return the mean of the cosine where 200 walkers went that began everywhere alike."""
    generator = torch.Generator().manual_seed(0)
    start = torch.linspace(-math.pi, math.pi, 201)[:-1, None]
    trust = TrustLevels(low, 2 * low, torch.ones(1), 50.0)
    places, _ = explore(
        SurfaceEnsemble(members),
        start,
        trust,
        ANGLE,
        kT=2.5,
        steps=1200,
        every=50,
        generator=generator,
    )
    return float(places[len(places) // 2 :].cos().mean())


def test_where_members_agree_walkers_feel_no_walls():
    """200 walkers, some 2 independent places each: the mean of the cosine is 0 +- 0.7 / 20."""
    assert abs(walked(walls(2, 10.0), 1.0)) < 0.14


def test_where_they_are_not_believed_walkers_stay_in_valleys():
    """U = 10 cos(x), kT = 2.5: the mean of the cosine is -I1(4) / I0(4) = -0.8635. Relaxed after
    80 steps; 200 x 4 places of spread 0.15 have a standard error of 0.005, and the width of a step
    adds stride^2 U'' / (4 kT) = 0.6 % of 1 - 0.8635."""
    members = walls(2, 10.0)
    with torch.no_grad():
        members[1].network[2].weight.mul_(1.2)
        members[0].network[2].weight.mul_(0.8)
    assert walked(members, 1e-9) == pytest.approx(-0.8635, abs=0.02)


def test_walkers_are_put_back():
    values = torch.tensor([[4.0, -0.5], [-7.0, math.pi + 0.25], [1.0, 1.0]])
    back = MIXED.put_back(values)
    expected = torch.tensor([[4.0 - TURN, 0.5], [TURN - 7.0, math.pi - 0.25], [1.0, 1.0]])
    torch.testing.assert_close(back, expected)
    torch.testing.assert_close(MIXED.lengths, torch.ones(2))


@pytest.mark.parametrize("as_array", [np.array, torch.tensor])
def test_differences_go_the_shortest_way_around(as_array: Callable[[object], Any]):
    apart = as_array([[[3.5, 9.0]], [[-3.5, -9.0]]])
    expected = as_array([[[3.5 - TURN, 9.0]], [[TURN - 3.5, -9.0]]])
    found = shortest(apart, (TURN, None))
    assert np.allclose(found, expected, rtol=1e-6)
    assert apart[0, 0, 0] == 3.5


# what is asked for, and who answers


def test_places_differ_and_begin_with_the_worst():
    places = torch.tensor([[0.0], [0.1], [3.1], [-3.1], [1.5]])
    spread = torch.tensor([5.0, 9.0, 1.0, 6.0, 7.0])
    found = Exploration(places, spread, spread > 2)
    generator = torch.Generator().manual_seed(0)
    chosen = choose_queries(found, 3, ANGLE, generator)[:, 0].tolist()
    assert sorted(round(x, 3) for x in chosen) == [-3.1, 0.1, 1.5]
    assert found.fraction == 0.8
    everything = choose_queries(found, 9, ANGLE, generator)
    assert len(everything) == 4


def test_stored_frames_answer_once_and_across_the_period(tmp_path: Path):
    values = torch.tensor([[3.1], [-3.1], [0.0], [0.05], [1.0]], dtype=torch.float64)
    frames = CVFrames(values, 10 * values)
    oracle = StoredFrames(frames, ANGLE, each=2)
    answer = oracle(torch.tensor([[math.pi], [2.0], [0.02]]), tmp_path)
    assert answer.answered.tolist() == [True, False, True]
    assert answer.data is not None
    assert sorted(answer.data.values[:, 0].tolist()) == [-3.1, 0.0, 0.05, 3.1]
    again = oracle(torch.tensor([[0.0]]), tmp_path)
    assert again.data is None
    assert not again.answered.any()
    taken = oracle.take(5, np.random.default_rng(0)).data
    assert taken is not None
    assert taken.values.tolist() == [[1.0]]


def test_places_without_an_answer_do_not_count():
    members = [CVPotential((TURN,), widths=(4,)) for _ in range(2)]
    trust = TrustLevels(1e-9, 1.0, torch.ones(1), 50.0)
    options = {"kT": 2.5, "steps": 200}
    start = torch.zeros(20, 1)
    silent = torch.tensor([[0.5]])
    found = survey(
        members, start, trust, ANGLE, silent=silent, generator=torch.Generator(), **options
    )  # type: ignore[arg-type]
    near = (found.visited[:, 0] - 0.5).abs() < RADIUS
    assert near.any()
    assert not found.unknown[near].any()
    assert found.unknown[~near].float().mean() > 0.9


# the loop


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Frames of a torsion with U = 10 cos x + 5 cos 3x: of positive torsions, and of any."""
    folder = tmp_path_factory.mktemp("torsion")
    some = write_torsions(folder / "some.npz", seed=0, low=0.2, high=np.pi - 0.2, n=500)
    return some, write_torsions(folder / "all.npz", seed=1, low=-np.pi, high=np.pi, n=1500)


@pytest.fixture(scope="module")
def run(data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "some"
    fit(
        FitConfig(
            data[0],
            output=output,
            data=DataConfig(map="dihedral:0,1,2,3", estimator="rotation"),
            training=TrainingConfig(steps=200, batch_size=100, learning_rate=2e-2, validations=2),
            members=MembersConfig(ensemble=3),
            network_options={"widths": [12], "harmonics": 3},
            threads=1,
        )
    )
    return output


def config(run: Path, pool: Path, output: Path) -> LearnConfig:
    return LearnConfig(
        run,
        (pool,),
        output=output,
        rounds=3,
        queries=8,
        frames_per_query=10,
        walkers=30,
        walk=200,
        refit_steps=150,
        stop_fraction=0.0,
        threads=1,
    )


def slope_error(run: Path, low: float, high: float) -> float:
    x = torch.linspace(low, high, 50)[:, None]
    ensemble = SurfaceEnsemble([model.potential for model in load_surfaces(run)])
    force = ensemble.forces(x)[1]
    return float((force - 10 * x.sin() - 15 * (3 * x).sin()).square().mean().sqrt())


def test_what_is_missing_is_asked_for_and_mended(
    run: Path, data: tuple[Path, Path], tmp_path: Path
):
    """Of some 150 forces of noise 3 the slope is known to 3 / sqrt(150 / 4 parameters) = 0.5."""
    output = tmp_path / "learned"
    said: list[str] = []
    learned = learn(config(run, data[1], output), tell=said.append)
    before, after = slope_error(run, -3.0, -0.3), slope_error(output, -3.0, -0.3)
    assert before > 2.5
    assert after < 0.6 * before
    with np.load(output / "round-1" / "asked.npz") as asked:
        places = asked["places"]
    assert (places < 0.3).mean() > 0.8
    assert learned.unknown < learned.rounds[0].unknown / 2
    assert said[0].startswith("round 1: ")
    assert {"model.pt", "learn.toml", "run.json", "surface.npz", "learning.png"} <= {
        path.name for path in output.iterdir()
    }
    found = describe(output)
    assert found["members"] == 3
    assert found["frames_added"] == sum(done.frames for done in learned.rounds)
    # its folder, and that of each round, is a run like any other
    spread = variance(VarianceConfig(output)).surface
    assert spread is not None
    assert spread.frames.sum() == 500 + found["frames_added"]


def test_an_interrupted_loop_ends_bit_for_bit_alike(
    run: Path, data: tuple[Path, Path], tmp_path: Path
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    plain = replace(config(run, data[1], whole), refit_steps=30)
    learn(plain)

    class Stop(Exception):
        pass

    def stop(done: int, total: int, what: str) -> None:
        if what.startswith("round 2") and done == 10:
            raise Stop

    with pytest.raises(Stop):
        learn(replace(plain, output=cut), stop)
    assert not (cut / "model.pt").exists()
    with pytest.raises(InputError, match="holds rounds: give --resume"):
        learn(replace(plain, output=cut))
    with pytest.raises(InputError, match="was begun with queries = 8, not 9"):
        learn(replace(plain, output=cut, queries=9, resume=True))
    learn(replace(plain, output=cut, resume=True))
    for one, other in zip(load_surfaces(whole), load_surfaces(cut), strict=True):
        for a, b in zip(one.potential.parameters(), other.potential.parameters(), strict=True):
            assert torch.equal(a, b)
    rounds = [json.loads((folder / "run.json").read_text())["rounds"] for folder in (whole, cut)]
    assert rounds[0] == rounds[1]


def test_where_all_is_known_no_round_is_needed(run: Path, data: tuple[Path, Path], tmp_path: Path):
    learned = learn(replace(config(run, data[1], tmp_path / "known"), trust_low=1e6))
    assert learned.rounds == ()
    assert learned.unknown == 0
    assert (tmp_path / "known" / "learning.png").is_file()
    before, after = load_surfaces(run), load_surfaces(tmp_path / "known")
    assert torch.equal(before[1].potential.network[0].weight, after[1].potential.network[0].weight)


def test_frames_can_be_taken_at_random(run: Path, data: tuple[Path, Path], tmp_path: Path):
    plain = replace(config(run, data[1], tmp_path / "random"), refit_steps=20, rounds=2)
    learned = learn(replace(plain, at_random=True))
    assert [done.frames for done in learned.rounds] == [80, 80]
    values = torch.cat([frames.values for frames in learned.frames])
    assert 0.3 < float((values < 0).double().mean()) < 0.7
    assert len(values.unique()) == 160


def test_what_cannot_be_learned_is_refused(run: Path, data: tuple[Path, Path], tmp_path: Path):
    plain = config(run, data[1], tmp_path / "bad")
    for change, message in (
        ({"rounds": 0}, "rounds is 0: it must be positive"),
        ({"trust_low": 3.0, "trust_high": 2.0}, "give 0 < trust_low < trust_high"),
        ({"stop_fraction": 1.0}, "less than 1"),
    ):
        with pytest.raises(InputError, match=message):
            replace(plain, **change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="holds another run"):
        learn(replace(plain, output=run))
