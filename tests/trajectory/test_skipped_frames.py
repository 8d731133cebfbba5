"""``--skip-frames``: which frames are left out, and that their numbers stay those of the file."""

from pathlib import Path

import numpy as np
import pytest

from deepcg.runtime.errors import InputError
from deepcg.trajectory.reader import iter_frames, iter_numbered_frames, open_trajectory
from deepcg.trajectory.skipped_frames import SkippedFrames, numbers_in_words
from deepcg.workflow.compare import CompareConfig
from deepcg.workflow.dataset.beads import (
    DataConfig,
    map_positions,
    open_all,
    open_data,
    read_used,
    sample_of,
    used_frames,
)
from deepcg.workflow.fes.command import FesConfig
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.info import InfoConfig, describe, info
from deepcg.workflow.label.command import LabelConfig

N_FRAMES = 23


def argon(path: Path, n_frames: int = N_FRAMES) -> dict[str, np.ndarray]:
    """Eight atoms of argon; x of the first tells the number of the frame."""
    grid = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), -1).reshape(-1, 3) * 0.8 + 0.2
    positions = np.repeat(grid[None], n_frames, 0).astype(np.float32)
    positions[:, 0, 0] += 0.001 * np.arange(n_frames)
    arrays = {
        "positions": positions,
        "forces": np.random.default_rng(1).normal(0, 50, positions.shape).astype(np.float32),
        "numbers": np.full(8, 18),
        "box": np.repeat(np.eye(3, dtype=np.float32)[None] * 1.6, n_frames, 0),
    }
    np.savez(path, **arrays)
    return arrays


def numbers_of(parts) -> list[int]:
    return [round(float(x) * 1000) - 200 for part in parts for x in part.positions[:, 0, 0]]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("", range(23)),
        ("0", range(1, 23)),
        ("0,5,7-9", [1, 2, 3, 4, 6, *range(10, 23)]),
        ("20-", range(20)),
        (" 0 - ".replace(" ", "") + ",3", []),
        ("1-1,22", [0, *range(2, 22)]),
        ("5-100", range(5)),
    ],
)
def test_a_list_names_frames_and_ranges(text, left):
    skipped = SkippedFrames.of(text)
    assert np.flatnonzero(skipped.kept(0, N_FRAMES)).tolist() == list(left)
    for first in (0, 3, 8, 21):
        of_part = [k - first for k in left if k >= first]
        runs = [k for run in skipped.runs(first, N_FRAMES - first) for k in range(N_FRAMES)[run]]
        assert runs == of_part


@pytest.mark.parametrize("text", ["-1", "a", "1:5", "5-2", "1,,2", "1.5", "3-4-5", ","])
def test_other_texts_are_refused(text):
    with pytest.raises(InputError, match="skip_frames is "):
        DataConfig(skip_frames=text)


@pytest.mark.parametrize("chunk", [1, 4, 500])
def test_frames_are_left_out_and_keep_their_numbers(chunk, tmp_path):
    argon(tmp_path / "a.npz")
    skipped = SkippedFrames.of("0,5,7-9,22")
    source = open_trajectory(tmp_path / "a.npz", skipped=skipped)
    left = [1, 2, 3, 4, 6, *range(10, 22)]
    assert source.kept.tolist() == left
    assert numbers_of(iter_frames(source, chunk=chunk)) == left
    for number, part in iter_numbered_frames(source, chunk=chunk, start=2):
        assert numbers_of([part])[0] == number


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
def test_every_nth_frame_is_the_same_whether_others_are_left_out(stride, tmp_path):
    argon(tmp_path / "a.npz")
    config = DataConfig(map="heavy", skip_frames="0,5,7-9", start=2, stop=20, stride=stride)
    source = open_data(tmp_path / "a.npz", config)
    left = [k for k in range(2, 20, stride) if k not in (0, 5, 7, 8, 9)]
    assert used_frames(source, config).tolist() == left
    assert numbers_of(read_used(source, config, lambda *_: None, with_forces=True)) == left
    assert numbers_of([sample_of(source, config)]) == left
    assert len(map_positions(source, config).frames) == len(left)


@pytest.mark.parametrize(
    "damage",
    [
        lambda a: a["positions"].__setitem__((0, 3), np.nan),
        lambda a: a["positions"].__setitem__((0, 3, 1), 1e9),
        lambda a: a["forces"].__setitem__((0, 2), np.inf),
        lambda a: a["box"].__setitem__(0, 1e-4 * np.eye(3)),
    ],
)
def test_a_damaged_first_frame_is_left_out(damage, tmp_path):
    path = tmp_path / "a.npz"
    arrays = argon(path)
    damage(arrays)
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="frame 0"):
        list(iter_frames(open_trajectory(path)))
    source = open_trajectory(path, skipped=SkippedFrames.of("0"))
    assert numbers_of(iter_frames(source)) == list(range(1, N_FRAMES))
    assert source.describe()["frames left out"] == 1


def test_repeated_frames_are_named_and_left_out(tmp_path):
    path = tmp_path / "a.npz"
    arrays = argon(path)
    for k in (7, 8, 15):
        arrays["positions"][k] = arrays["positions"][k - 1]
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"frame 7 repeats the one before.* --skip-frames 7-8,15 "):
        list(iter_frames(open_trajectory(path)))
    left = list(iter_frames(open_trajectory(path, skipped=SkippedFrames.of("7-8,15"))))
    assert sum(map(len, left)) == N_FRAMES - 3


def test_frames_that_are_not_there_are_refused(tmp_path):
    argon(tmp_path / "a.npz")
    argon(tmp_path / "short.npz", 5)
    path = tmp_path / "a.npz"
    with pytest.raises(InputError, match=r"23 frames, 0 to 22: --skip-frames names 23, which is"):
        open_data(path, DataConfig(skip_frames="1,23-30"))
    with pytest.raises(InputError, match="--skip-frames leaves none of the 23 frames"):
        open_data(path, DataConfig(skip_frames="0-"))
    config = DataConfig(map="heavy", skip_frames="0-9", stop=10)
    with pytest.raises(InputError, match="--start, --stop and --skip-frames leave none"):
        map_positions(open_data(path, config), config)
    both = DataConfig(map="heavy", skip_frames="10", also=(tmp_path / "short.npz",))
    assert [len(source.kept) for source in open_all(path, both, 300.0)] == [22, 5]


def test_info_counts_what_is_left_out(tmp_path):
    argon(tmp_path / "a.npz")
    found = info(InfoConfig((tmp_path / "a.npz",), skip_frames="0-4"))[str(tmp_path / "a.npz")]
    assert (found["frames"], found["frames left out"]) == (23, 5)
    assert "frames left out" not in describe(tmp_path / "a.npz")
    with pytest.raises(InputError, match="names 40"):
        describe(tmp_path / "a.npz", skip_frames="40")


def test_every_command_that_reads_trajectories_has_the_option():
    for config in (
        FitConfig(Path("a"), data=DataConfig(skip_frames="0")).data,
        LabelConfig(Path("a"), skip_frames="0"),
        FesConfig(Path("a"), skip_frames="0"),
        CompareConfig(Path("a"), skip_frames="0"),
        InfoConfig((Path("a"),), skip_frames="0"),
    ):
        assert config.skip_frames == "0"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([3], "3"),
        ([0, 1, 2, 7], "0-2,7"),
        (range(0, 40, 2), "0,2,4,6,8,10,..."),
        ([], ""),
    ],
)
def test_numbers_in_words(numbers, text):
    assert numbers_in_words(np.array(numbers, np.int64)) == text
