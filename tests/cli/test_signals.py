"""Ctrl-C and SIGTERM: the state is kept, the status is the shell's, a second one ends at once."""

import os
import signal
import time
from pathlib import Path

import pytest
from processes import CONTEXT, finish

from deepcg.cli.signals import Stopped, stoppable
from deepcg.runtime.progress import silent


@pytest.fixture(autouse=True)
def heard():
    """Hear Ctrl-C, which shells tell programs in the background to ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_progress_stops_after_a_signal(number: signal.Signals, capfd):
    before = signal.getsignal(number)
    done = []

    def work() -> None:
        with stoppable(silent) as progress:
            progress(1, 3, "work")
            os.kill(os.getpid(), number)
            done.append("this step")
            progress(2, 3, "work")
            done.append("the next")

    with pytest.raises(Stopped) as stopped:
        work()
    assert done == ["this step"]
    assert "stopping at the next safe point" in capfd.readouterr().err
    assert stopped.value.status == 128 + number
    assert signal.getsignal(number) is before


def test_before_any_progress_a_signal_stops_at_once():
    def work() -> None:
        with stoppable(silent):
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("it went on")

    with pytest.raises(Stopped):
        work()


def test_a_task_that_makes_no_progress_is_stopped_after_a_while(monkeypatch):
    monkeypatch.setattr("deepcg.cli.signals.PATIENCE", 0.05)

    def work() -> None:
        with stoppable(silent) as progress:
            progress(1, 2, "work")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
            pytest.fail("it went on")

    with pytest.raises(Stopped):
        work()


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable(silent) as progress:
            os.kill(os.getpid(), signal.SIGINT)
            progress(1, 1, "work")
    finally:
        signal.signal(signal.SIGINT, before)


def stubborn(ready: Path) -> None:
    """Work on after a signal, without any progress."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with stoppable(silent) as progress:
        progress(0, 1, "work")
        ready.touch()
        while True:
            time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals, tmp_path: Path):
    process = CONTEXT.Process(target=stubborn, args=(tmp_path / "ready",))
    process.start()
    for _ in range(3000):
        if (tmp_path / "ready").exists():
            break
        time.sleep(0.01)
    os.kill(process.pid, number)
    time.sleep(0.2)
    assert process.is_alive()
    os.kill(process.pid, number)
    assert finish(process, 20) == -number
