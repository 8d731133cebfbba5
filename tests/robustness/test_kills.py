"""Commands that are killed at any moment, and given again, end as if they never were."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import begin, finish
from torsions import write_torsions

from deepcg.runtime.errors import InputError
from deepcg.runtime.locks import locked
from deepcg.trajectory.formats import open_trajectory_file

SIGKILL = -9
SMALL = {"channels": 4, "fitting": [4], "n_splines": 6, "l_max": 1}

SIMULATE = [
    "simulate",
    "water",
    *("--molecules", 64, "--ns", 0.0004, "--interval-ps", 0.02, "--equilibration-ps", 0.04),
    *("--cutoff", 0.55, "--checkpoint-ps", 0.1, "--threads", 1, "--platform", "CPU"),
]
FIT = [
    *("--cutoff", 0.5, "--network-options", json.dumps(SMALL), "--validation-fraction", 0.4),
    *("--steps", 30, "--batch-size", 2, "--validations", 6, "--threads", 1),
]
LABEL = ["--threads", 1, "--platform", "CPU"]
ENSEMBLE = [*FIT, "--steps", 12, "--validations", 3, "--ensemble", 2]
STACK = [
    *("--map", "dihedral:0,1,2,3", "--estimator", "rotation", "--steps", 60, "--validations", 6),
    *("--batch-size", 20, "--network-options", json.dumps({"widths": [6], "harmonics": 2})),
    *("--threads", 1),
]
LEARN = [
    *("--rounds", 3, "--queries", 5, "--frames-per-query", 6, "--walkers", 20, "--walk", 60),
    *("--refit-steps", 20, "--stop-fraction", 0, "--trust-low", 0.3, "--threads", 1),
]
SAMPLE = [
    *("--replicas", 2, "--ps", 0.4, "--equilibration-ps", 0.04, "--interval-ps", 0.02),
    *("--threads", 1),
]


@dataclass(frozen=True)
class Job:
    """A command, by the folder that it works in: ``prepare`` makes this, ``words`` run it.

    ``after`` is the command whose files it needs.
    """

    name: str
    after: str
    prepare: Callable[[Path], object]
    words: Callable[[Path], list[object]]
    again: tuple[str, ...] = ("--resume",)


@dataclass(frozen=True)
class Whole:
    """An uninterrupted run: its folder, its files, how often it changed any, its seconds."""

    folder: Path
    files: dict[str, Any]
    changes: int
    seconds: float


def jobs(folder: Path) -> list[Job]:
    """Return the commands, which work in ``folder``."""
    labelled, water = folder / "label" / "traj.dcd", folder / "simulate"

    def nothing(place: Path) -> None:
        del place

    def unlabelled(place: Path) -> None:
        place.mkdir()
        for ending in (".dcd", ".pdb", ".system.xml"):
            shutil.copy(water / f"traj{ending}", place)

    def copied(name: str) -> Callable[[Path], object]:
        return lambda place: shutil.copytree(folder / name, place)

    def frames(n: int, low: float) -> Path:
        path = folder / f"{n}.npz"
        return path if path.exists() else write_torsions(path, seed=n, low=low, high=3.0, n=n)

    def stack(place: Path, *more: object) -> list[object]:
        return ["fit", frames(80, 0.2), "-o", place, *STACK, *more]

    def learn(place: Path) -> list[object]:
        return ["learn", folder / "stack", frames(200, -3.0), "-o", place, *LEARN]

    return [
        Job("simulate", "", nothing, lambda f: [*SIMULATE, "-o", f]),
        Job("label", "simulate", unlabelled, lambda f: ["label", f / "traj.dcd", *LABEL], ()),
        Job("fit", "label", nothing, lambda f: ["fit", labelled, "-o", f, *FIT]),
        Job("sample", "fit", copied("fit"), lambda f: ["sample", f, *SAMPLE]),
        Job("ensemble", "label", nothing, lambda f: ["fit", labelled, "-o", f, *ENSEMBLE]),
        Job("stack", "", nothing, lambda f: stack(f, "--ensemble", 2)),
        Job("more", "stack", copied("stack"), lambda f: stack(f, "--ensemble", 3, "--resume")),
        Job("variance", "stack", copied("stack"), lambda f: ["variance", f, "--threads", 1], ()),
        Job("learn", "stack", nothing, learn),
    ]


class Made:
    """Commands that were run without an interruption, each when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.found = folder, dict[str, tuple[Job, Whole]]()
        self.jobs = {job.name: job for job in jobs(folder)}

    def __getitem__(self, name: str) -> tuple[Job, Whole]:
        if name not in self.found:
            self.found[name] = self.jobs[name], self._run(self.jobs[name])
        return self.found[name]

    def _run(self, job: Job) -> Whole:
        if job.after:
            self[job.after]
        told, count = self.folder / "told", self.folder / "count"
        warm = place_in(self.folder / "warm", job)  # loops that were compiled just now round
        assert finish(begin(job.words(warm), told)) == 0, told.read_text()  # otherwise
        place = place_in(self.folder, job)
        began = time.monotonic()
        assert finish(begin(job.words(place), told, count=count)) == 0, told.read_text()
        seconds = time.monotonic() - began
        return Whole(place, files_in(place), int(count.read_text()), seconds)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


def until_done(
    job: Job, folder: Path, kills: int, die: Callable[[list[object], Path], int]
) -> list[dict[str, Any]]:
    """Kill and resume; begin anew where a run is complete. Return the files of complete runs."""
    ends, killed = [], 0
    for attempt in itertools.count():
        place = place_in(folder / f"{attempt}", job)
        words = job.words(place)
        while killed < kills:
            status = die(words, folder / "told")
            assert status in (0, SIGKILL), (folder / "told").read_text()
            killed += status == SIGKILL
            words = [*job.words(place), *job.again]
            if status == 0:
                break
        else:
            told = folder / "told-last"
            assert finish(begin(words, told)) == 0, told.read_text()
        ends.append(files_in(place))
        if killed >= kills:
            return ends
    raise AssertionError


def place_in(folder: Path, job: Job) -> Path:
    """Return the folder of a job, prepared: pages and figures tell its name, which is the same."""
    folder.mkdir(exist_ok=True)
    job.prepare(folder / job.name)
    return folder / job.name


def files_in(folder: Path) -> dict[str, Any]:
    """Return the contents of all files, without the wall times that they tell."""
    return {
        str(path.relative_to(folder)): timeless(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def timeless(path: Path) -> Any:
    """Return the bytes of a file; of those that tell wall times all else.

    These are: seconds and ns/day in run.json, summary.json, metrics.jsonl and in the checkpoints of
    training and sampling, ns/day in the log of a simulation, the date in the first line of PDB
    files, and in config.toml, learn.toml and sample.json where the run folder is and whether the
    last command said --resume.
    """
    if path.name in ("run.json", "summary.json"):
        return {k: v for k, v in json.loads(path.read_text()).items() if not _is_time(k)}
    if path.name == "metrics.jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [{k: v for k, v in row.items() if not _is_time(k)} for row in rows]
    if path.name == "traj.log.csv":
        return [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    if path.name in ("config.toml", "learn.toml", "sample.json"):
        lines = path.read_text().splitlines()
        mine = ("output =", "resume =", '"run":', '"resume":')
        return [line for line in lines if not line.strip().startswith(mine)]
    if path.suffix == ".pdb":
        return path.read_text().partition("\n")[2]
    if path.name == "checkpoint.pt":
        return _plain(torch.load(path, weights_only=True))
    return path.read_bytes()


def _is_time(name: str) -> bool:
    """Whether a value tells a wall time, or is a hash of such values."""
    return name in ("seconds", "sha256") or name.startswith("ns_per_day")


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.numpy().tobytes()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if not _is_time(str(k))}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def check(job: Job, whole: Whole, folder: Path, kills: int, kind: str) -> str:
    """Kill a command so many times; return what was seen, in words."""
    rng = np.random.default_rng(7)
    moments = iter(rng.choice(whole.changes, size=10 * kills) + 1)

    def at_a_change(words: list[object], told: Path) -> int:
        return finish(begin(words, told, strike=(signal.SIGKILL, int(next(moments)))))

    longest = whole.seconds

    def at_a_time(words: list[object], told: Path) -> int:
        nonlocal longest
        began, process = time.monotonic(), begin(words, told)
        process.join(rng.uniform(0, longest))
        process.kill()
        status = finish(process)
        if status == 0:  # the first run of all was slower
            longest = min(longest, time.monotonic() - began)
        return status

    ends = until_done(job, folder, kills, {"change": at_a_change, "time": at_a_time}[kind])
    for end in ends:
        assert_same(end, whole)
    return f"{job.name}: {kills} kills before a {kind}, {len(ends)} runs ended alike"


def assert_same(end: dict[str, Any], whole: Whole) -> None:
    assert end.keys() == whole.files.keys()
    for name, content in whole.files.items():
        if name.endswith("checkpoint.previous.pt"):  # of the step before the last kill, say
            continue
        assert end[name] == content, f"{name} is not that of an uninterrupted run"


NAMES = ("simulate", "label", "fit", "sample", "stack", "variance", "learn")
ALL = (*NAMES, "ensemble", "more")


@pytest.mark.parametrize("name", NAMES)
def test_two_kills_are_survived(name: str, made: Made, tmp_path: Path) -> None:
    check(*made[name], tmp_path, kills=2, kind="change")


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ["change", "time"])
def test_twenty_kills_are_survived(
    name: str, kind: str, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = check(*made[name], tmp_path, kills=20, kind=kind)
    with capsys.disabled():
        print(f"\n{text}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_kill_before_any_change_of_a_file_is_survived(
    name: str, made: Made, tmp_path: Path
) -> None:
    job, whole = made[name]
    for moment in range(1, whole.changes + 1):
        place, told = place_in(tmp_path / str(moment), job), tmp_path / "told"
        first = begin(job.words(place), told, strike=(signal.SIGKILL, moment))
        assert finish(first) == SIGKILL
        assert finish(begin([*job.words(place), *job.again], told)) == 0, told.read_text()
        assert_same(files_in(place), whole)
        shutil.rmtree(place.parent)


@pytest.mark.parametrize("name", NAMES)
def test_a_command_that_is_told_to_stop_goes_on_where_it_was(
    name: str, made: Made, tmp_path: Path
) -> None:
    job, whole = made[name]
    number = signal.SIGTERM if name in ("simulate", "fit", "stack") else signal.SIGINT
    place, told = place_in(tmp_path, job), tmp_path / "told"
    first = begin(job.words(place), told, strike=(number, whole.changes // 2))
    assert finish(first) == 128 + number, told.read_text()
    resume = " with --resume" if job.again else ""
    assert told.read_text().endswith(f"stopped; give the same command{resume} to go on\n")
    assert not list(place.rglob(".*lock"))
    assert finish(begin([*job.words(place), *job.again], told)) == 0, told.read_text()
    assert_same(files_in(place), whole)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "variance"])
def test_a_second_command_in_the_same_place_is_refused(
    name: str, made: Made, tmp_path: Path
) -> None:
    job, _ = made[name]
    place, told = place_in(tmp_path, job), tmp_path / "told"
    lock = {"label": ".traj.forces.npy.lock", "sample": "samples/.deepcg.lock"}
    path = place / lock.get(name, ".deepcg.lock")
    path.parent.mkdir(exist_ok=True)
    with locked(path):
        before = files_in(place)
        assert finish(begin(job.words(place), told)) == 2
        assert f"is in use (process {os.getpid()} on" in told.read_text()
        assert told.read_text().count("\n") == 1
        assert files_in(place) == before


def test_what_a_killed_simulation_leaves_is_whole_frames(made: Made, tmp_path: Path) -> None:
    job, whole = made["simulate"]
    frames = open_trajectory_file(whole.folder / "traj.dcd").n_frames
    first = begin(job.words(tmp_path), tmp_path / "told", strike=(signal.SIGKILL, 30))
    assert finish(first) == SIGKILL
    data = (tmp_path / "traj.dcd").read_bytes()
    left = open_trajectory_file(tmp_path / "traj.dcd").n_frames
    assert 0 < left < frames
    header = 276  # it counts frames and steps
    assert data[header:] == (whole.folder / "traj.dcd").read_bytes()[header : len(data)]
    (tmp_path / "traj.dcd").write_bytes(data[:-1])
    with pytest.raises(InputError, match=f"the last good frame is {left - 2}, from 0"):
        open_trajectory_file(tmp_path / "traj.dcd")


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_named_and_what_was_saved_is_whole(
    name: str, made: Made, tmp_path: Path
) -> None:
    """Files of limited size stand for the disk: a write ends in the middle, the next one fails."""
    job, whole = made[name]
    place, told = place_in(tmp_path, job), tmp_path / "told"
    before = {path.stat().st_size for path in place.rglob("*") if path.is_file()}
    sizes = {path.stat().st_size for path in whole.folder.rglob("*") if path.is_file()} - before
    assert finish(begin(job.words(place), told, largest=int(0.97 * max(sizes)))) == 2
    assert told.read_text().splitlines()[-1].startswith("deepcg ")
    assert re.search(rf"{place}/\S+ cannot be written \(File too large\)", told.read_text())
    assert "Traceback" not in told.read_text()
    assert not list(place.rglob("*.part"))
    again = [*job.words(place), *job.again]
    assert finish(begin(again, told)) == 0, told.read_text()
    assert_same(files_in(place), whole)
