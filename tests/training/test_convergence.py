"""A training that gets nowhere is told of while it happens; its last line speaks of no floor."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace

import pytest

from deepcg.runtime.errors import InputError
from deepcg.training.config import RATE, TrainingConfig, has_settings, learning_rate, rate_for
from deepcg.training.convergence import Reference, Watch, falling
from deepcg.training.quality import Quality, quality_from_json, quality_of
from deepcg.training.trainer import Record

PAIRS = Reference(95_000.0, "a pair model by least squares")
CONFIG = TrainingConfig(steps=9000)


def record(step: int, validation: float) -> Record:
    return Record(step, validation, validation, 1e-3, 1.0)


def told(caplog: pytest.LogCaptureFixture, losses: dict[int, float], reference=PAIRS) -> list[str]:
    caplog.clear()
    watch = Watch(CONFIG, 0.005, reference)
    with caplog.at_level(logging.WARNING, logger="deepcg.training.convergence"):
        for step, loss in losses.items():
            watch((record(step, loss),))
    return [line.getMessage() for line in caplog.records]


def test_a_training_that_is_stuck_is_told_of_once_while_it_happens(caplog) -> None:
    losses = {k: 118_000.0 for k in range(225, 9001, 225)}
    (line,) = told(caplog, losses)
    assert line == (
        "after 1575 steps the validation loss 118000 is above the 95000 of a pair model by least "
        "squares: the training is stuck; try --learning-rate 0.0017"
    )


def test_a_training_that_goes_up_is_told_of(caplog) -> None:
    for reference in (PAIRS, None):
        (line,) = told(caplog, {1000: 60_000.0, 2000: 91_000.0, 3000: 94_000.0}, reference)
        assert "the 60000 that it was at: the training is diverging" in line


@pytest.mark.parametrize(
    "losses",
    [
        {k: 150_000.0 / k**0.1 for k in range(225, 1500, 225)},  # too early to tell
        {1500: 94_999.0, 3000: 67_000.0, 9000: 59_400.0},
        {1500: 60_000.0, 3000: 80_000.0, 9000: 61_000.0},  # scatter
    ],
)
def test_a_training_that_learns_is_not_told_of(caplog, losses: dict[int, float]) -> None:
    assert not told(caplog, losses)
    assert not told(caplog, losses, None)


def test_of_several_members_each_is_watched(caplog) -> None:
    watch = Watch(CONFIG, 0.02, PAIRS)
    with caplog.at_level(logging.WARNING):
        watch((record(3000, 60_000.0), record(3000, 99_000.0)))
    assert "loss 99000 is above" in caplog.text


@pytest.mark.parametrize(
    ("late", "part"),
    [((100.0, 90.0), 0.1), ((100.0, 99.5), 0.0), ((90.0, 100.0), 0.0), ((100.0, 0.0), 0.0)],
)
def test_what_a_training_still_takes_off_at_its_end(late: tuple[float, float], part) -> None:
    history = [record(4500, 300.0), record(8100, late[0]), record(9000, late[1])]
    assert falling(history, 9000) == pytest.approx(part)
    assert falling(history[2:], 9000) == falling([], 9000) == 0.0


def good() -> Quality:
    return quality_of(2398.0, 1500.0, [1513.0] * 40)


def test_the_floor_is_told_where_a_training_has_converged() -> None:
    assert "noise of the hidden atoms" in good().in_words()
    assert good().noise_floor == pytest.approx(1506.5)
    assert "noise floor (estimate), (kJ/mol/nm)²" in good().table()


def test_where_nothing_is_hidden_there_is_no_noise() -> None:
    bare = replace(good(), hidden=False)
    assert "no atoms are hidden: all of the rest is the model's error" in bare.in_words()
    assert "noise" not in bare.in_words() + " ".join(bare.table())
    assert bare.noise_floor is None


def test_a_training_that_has_not_converged_tells_nothing_of_the_noise() -> None:
    above = replace(good(), reference=2.4, model="a pair model by least squares")
    assert "more than the 2.4 that a pair model by least squares leaves" in above.in_words()
    down = replace(good(), falling=0.12)
    assert "still fell by 12 % in the last tenth" in down.in_words()
    for one in (above, down):
        assert "floor" not in one.in_words()
        assert one.noise_floor is None
        assert one.table()["noise floor (estimate), (kJ/mol/nm)²"] == "unknown"


def test_fits_of_older_versions_load() -> None:
    one = {"value": 4.1, "error": None}
    saved = {"variance": 9.0, "training": 4.0, "validation": one, "floor": one}
    assert quality_from_json(saved).noise_floor == 4.1
    more = saved | {"hidden": False, "reference": 3.0, "model": "pairs", "falling": 0.2}
    found = quality_from_json(more)
    assert (found.hidden, found.reference, found.model, found.falling) == (False, 3.0, "pairs", 0.2)


def test_the_rate_rises_first() -> None:
    config = TrainingConfig(steps=1000, learning_rate=1e-2, warmup=0.1)
    assert learning_rate(0, config) == 0
    assert learning_rate(50, config) == pytest.approx(0.5 * 1e-2 * config.final_ratio**0.05)
    assert learning_rate(100, config) == pytest.approx(1e-2 * config.final_ratio**0.1)
    short = TrainingConfig(steps=5, learning_rate=1e-2)  # the first step has its full length
    assert learning_rate(1, short) == learning_rate(1, replace(short, warmup=0.0))
    with pytest.raises(InputError, match="warmup is 1"):
        TrainingConfig(warmup=1.0)


def test_rates_follow_the_width() -> None:
    for no_wider in ([24, 24], (8,), [], "many"):
        assert rate_for(no_wider, (24, 24)) == RATE
    assert rate_for([64, 24], (24, 24)) == pytest.approx(RATE * 24 / 64)
    assert rate_for((96, 96), (48, 48), 0.02) == pytest.approx(0.01)


def test_checkpoints_of_older_versions_are_of_a_schedule_without_a_rise() -> None:
    saved = {"weighting": "even", "matmul": "highest"}
    now = TrainingConfig(learning_rate=0.005, weighting="even")
    older = {k: v for k, v in asdict(now).items() if k != "warmup"} | saved
    assert has_settings(older, replace(now, warmup=0.0))
    assert not has_settings(older, now)
