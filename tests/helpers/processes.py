"""Commands in processes of their own, which begin fast: all that is slow is imported once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "deepcg.cli.main",
        "deepcg.cli.commands",
        "deepcg.workflow.simulate",
        "deepcg.workflow.label.command",
        "deepcg.workflow.fit.command",
        "deepcg.workflow.sample",
        "deepcg.workflow.variance",
        "deepcg.workflow.learn.command",
        "torch._dynamo",  # which optimizers import
    ]
)

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
"""Audit events of the file system, beside that of a file opened for writing."""


def begin(
    words: Sequence[object],
    told: Path,
    *,
    strike: tuple[signal.Signals, int] | None = None,
    count: Path | None = None,
    largest: int | None = None,
) -> multiprocessing.Process:
    """Start a command; what it tells goes to the file ``told``.

    ``strike`` is a signal that it gets just before the so many-th change of a file beside ``told``
    or below; ``count`` is a file for the number of changes. No file may have more than ``largest``
    bytes: to write beyond fails, as on a full disk.
    """
    arguments = (list(map(str, words)), told, strike, count, largest)
    process = CONTEXT.Process(target=_run, args=arguments)
    process.start()
    return process


def finish(process: multiprocessing.Process, timeout: float = 300) -> int:
    """Wait for the end of a command and return its exit status."""
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{process.name} did not end")
    return process.exitcode


def _run(
    words: list[str],
    told: Path,
    strike: tuple[signal.Signals, int] | None,
    count: Path | None,
    largest: int | None,
) -> None:
    from deepcg.cli.main import main

    sys.argv = ["deepcg", *words]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server of forks ignores it
    with told.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    seen = 0

    def note(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event == "open":
            flags = arguments[2]
            changes = bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR))
        else:
            changes = event in CHANGES
        if changes and str(arguments[0]).startswith(str(told.parent)):
            seen += 1
            if strike is not None and seen == strike[1]:
                os.kill(os.getpid(), strike[0])

    sys.addaudithook(note)
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    try:
        main(words)
    finally:
        if count is not None:
            with contextlib.suppress(OSError):
                count.write_text(str(seen))
