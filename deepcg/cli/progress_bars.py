"""Progress for people: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TextIO

from tqdm import tqdm

from deepcg.runtime.progress import Progress

BETWEEN_LINES = 10.0  # s

_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"


@contextmanager
def progress_on(stream: TextIO) -> Iterator[Progress]:
    """Show progress on a stream: a bar for each phase of the work if it is a terminal."""
    if not stream.isatty():
        yield lines(stream)
        return
    bars = _Bars(stream)
    try:
        yield bars
    finally:
        bars.close()


def say(text: str) -> None:
    """Print a line to standard output, above the bars if there are any."""
    tqdm.write(text, file=sys.stdout)


def lines(stream: TextIO, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Return a progress that writes a line if the last is at least 10 s old."""
    last = clock()

    def show(done: int, total: int, what: str) -> None:
        nonlocal last
        if clock() - last >= BETWEEN_LINES:
            last = clock()
            stream.write(f"{what}: {done} of {total}\n")
            stream.flush()

    return show


class _Bars:
    """One bar at a time: a new one when the total changes or the count falls back."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.bar: tqdm[NoReturn] | None = None

    def __call__(self, done: int, total: int, what: str) -> None:
        bar = self.bar
        if bar is None or bar.total != total or done < bar.n:
            self.close()
            bar = self.bar = tqdm(
                desc=what,
                total=total,
                initial=done,
                file=self.stream,
                bar_format=_FORMAT,
                dynamic_ncols=True,
            )
        bar.set_description(what, refresh=False)
        bar.update(done - bar.n)

    def close(self) -> None:
        """Leave the last bar as it is."""
        if self.bar is not None:
            self.bar.refresh()
            self.bar.close()
            self.bar = None
