from __future__ import annotations

import io

import pytest

from deepcg.cli.progress_bars import lines, progress_on, say


class Terminal(io.StringIO):
    """A terminal that remembers."""

    def isatty(self) -> bool:
        return True

    def shown(self) -> list[str]:
        """Return the last state of each line."""
        return [line.split("\r")[-1] for line in self.getvalue().split("\n") if line.strip()]


def test_each_phase_has_a_bar():
    terminal = Terminal()
    with progress_on(terminal) as progress:
        for k in range(1, 4):
            progress(k, 3, f"load {k}")
        for k in range(1, 6):
            progress(k, 5, "train")
        progress(1, 5, "train again")
    first, second, third = terminal.shown()
    assert "load 3: 100%" in first
    assert "3/3" in first
    assert "train: 100%" in second
    assert "5/5" in second
    assert "train again:  20%" in third


def test_a_resumed_phase_starts_where_it_is():
    terminal = Terminal()
    with progress_on(terminal) as progress:
        progress(40, 50, "train")
        assert progress.bar.initial == 40  # type: ignore[attr-defined]
    assert "40/50" in terminal.shown()[-1]


def test_bars_end_when_the_work_fails():
    terminal = Terminal()

    def work() -> None:
        with progress_on(terminal) as progress:
            progress(1, 2, "work")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert terminal.getvalue().endswith("\n")


def test_what_is_said_goes_to_standard_output(capsys: pytest.CaptureFixture[str]):
    with progress_on(Terminal()) as progress:
        progress(1, 2, "work")
        say("so far so good")
    assert capsys.readouterr().out == "so far so good\n"


def test_elsewhere_there_is_a_line_every_ten_seconds():
    stream, now = io.StringIO(), [0.0]
    progress = lines(stream, lambda: now[0])
    for k in range(1, 26):
        now[0] = float(k)
        progress(k, 25, "train")
    assert stream.getvalue() == "train: 10 of 25\ntrain: 20 of 25\n"


def test_a_stream_that_is_no_terminal_gets_no_bars():
    stream = io.StringIO()
    with progress_on(stream) as progress:
        progress(1, 2, "work")
    assert stream.getvalue() == ""
