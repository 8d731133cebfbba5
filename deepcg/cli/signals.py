"""Ctrl-C and SIGTERM: a long task ends where it can go on from, or at once if told twice."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from deepcg.runtime.progress import Progress

SIGNALS = (signal.SIGINT, signal.SIGTERM)

PATIENCE = 20.0
"""Seconds that a task gets to reach its next safe point: batch systems kill after 30."""


class Stopped(KeyboardInterrupt):
    """The user, or the batch system, wants the task to end.

    Progress raises it, where the task is between two pieces of work.
    """

    def __init__(self, signal_number: int = signal.SIGINT) -> None:
        super().__init__()
        self.signal_number = signal_number

    @property
    def status(self) -> int:
        """The exit status that shells expect."""
        return 128 + self.signal_number


@contextmanager
def stoppable(progress: Progress) -> Iterator[Progress]:
    """Return a progress that raises `Stopped` after a signal.

    A second signal ends the process at once, whatever it does. So does one, by `Stopped`, before
    there is any progress, and `PATIENCE` after it where there is no more.
    """
    if threading.current_thread() is not threading.main_thread():
        yield progress  # signals are none of its business
        return
    stop = _Stop(progress)
    # who is told to ignore a signal, as by nohup, goes on doing so
    heard = [s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
    before = {s: signal.signal(s, stop.first) for s in heard}
    alarm = signal.signal(signal.SIGALRM, stop.late)
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.signal(signal.SIGALRM, alarm)


class _Stop:
    """A progress that knows of signals."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.asked: int | None = None
        self.begun = False

    def __call__(self, done: int, total: int, what: str) -> None:
        self.begun = True
        if self.asked is not None:
            raise Stopped(self.asked)
        self.progress(done, total, what)

    def first(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.asked = number
        for each in SIGNALS:
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, signal.SIG_DFL)
        if not self.begun:
            raise Stopped(number)
        # print may be what was interrupted
        os.write(2, b"\nstopping at the next safe point; once more stops at once\n")
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)

    def late(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        raise Stopped(self.asked or signal.SIGINT)
