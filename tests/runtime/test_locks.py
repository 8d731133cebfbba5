"""One process at a time writes to a folder; tested with processes."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from processes import CONTEXT, begin, finish

from deepcg.runtime.errors import InputError
from deepcg.runtime.locks import Owner, folder_locked, locked


def hold(folder: Path, ready: Path) -> None:
    """Lock a folder until killed."""
    with folder_locked(folder):
        ready.touch()
        signal.pause()


@pytest.fixture
def holder(tmp_path: Path):
    """A process that holds ``tmp_path / "run"``."""
    process = CONTEXT.Process(target=hold, args=(tmp_path / "run", tmp_path / "ready"))
    process.start()
    for _ in range(3000):
        if (tmp_path / "ready").exists():
            break
        time.sleep(0.01)
    yield process
    process.kill()
    process.join()


def test_the_second_process_is_refused_with_the_first_ones_name(holder, tmp_path: Path):
    wanted = rf"run is in use \(process {holder.pid} on {socket.gethostname()}, since 20.*\): wait"
    with pytest.raises(InputError, match=wanted), folder_locked(tmp_path / "run"):
        pass
    assert (tmp_path / "run").exists()


def test_the_lock_of_a_killed_process_is_taken_over_with_a_note(holder, tmp_path: Path, caplog):
    holder.kill()
    holder.join()
    with folder_locked(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / ".deepcg.lock").read_text())["pid"] == os.getpid()
    assert f"was left behind by a process that died (process {holder.pid} on" in caplog.text
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["simulate", "water", "--molecules", 64, "--cutoff", 0.5, "-o"], ""),
        (["simulate", "alanine", "--solvent", "vacuum", "-o"], ""),
        (["fit", "there.dcd", "-o"], ""),
    ],
)
def test_commands_refuse_a_folder_in_use(words, place, holder, tmp_path: Path):
    told = tmp_path / "told"
    assert finish(begin([*words, tmp_path / "run"], told)) == 2
    assert f"is in use (process {holder.pid} on" in told.read_text()
    assert told.read_text().count("\n") == 1


def test_a_folder_is_made_and_taken_away_if_it_stays_empty(tmp_path: Path):
    with folder_locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a").exists()
    with folder_locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").touch()
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_the_same_process_cannot_lock_twice(tmp_path: Path):
    with (
        locked(tmp_path / "lock"),
        pytest.raises(InputError, match=f"process {os.getpid()} on"),
        locked(tmp_path / "lock"),
    ):
        pass
    assert not (tmp_path / "lock").exists()


def test_another_hosts_lock_is_refused_with_the_way_out(tmp_path: Path):
    lock = tmp_path / "lock"
    owner = {"host": "elsewhere", "pid": 1, "command": "deepcg fit x", "since": "2026-01-01"}
    lock.write_text(json.dumps(owner))
    wanted = r"may be in use \(process 1 on elsewhere.*deepcg fit x\): if that has ended, delete .*"
    with pytest.raises(InputError, match=wanted), locked(lock):
        pass
    assert json.loads(lock.read_text()) == owner


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 3}', "\x00" * 100])
def test_a_lock_that_was_half_written_is_taken_over(text: str, tmp_path: Path):
    (tmp_path / "lock").write_text(text)
    with locked(tmp_path / "lock"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_without_locks_of_the_file_system_the_process_is_asked_for(tmp_path: Path, monkeypatch):
    def none(file: int, operation: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    me = Owner.here()
    (tmp_path / "lock").write_text(json.dumps({**vars_of(me), "pid": os.getppid()}))
    with pytest.raises(InputError, match=f"is in use .process {os.getppid()}"):
        locked(tmp_path / "lock").__enter__()
    (tmp_path / "lock").write_text(json.dumps({**vars_of(me), "pid": 2**22 + 1}))
    with locked(tmp_path / "lock"):
        pass


def vars_of(owner: Owner) -> dict[str, object]:
    return {name: getattr(owner, name) for name in ("host", "pid", "command", "since")}


def test_a_lock_that_cannot_be_written_says_so(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot be written \(No such file or directory\)"):
        locked(tmp_path / "none" / "lock").__enter__()
