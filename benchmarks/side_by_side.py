"""Times of several pieces of work, taken in turn, so that what else a machine does hits all."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from deepcg.runtime.provenance import versions

T = TypeVar("T")


def header(what: str) -> str:
    """Return lines that say what is timed, where, and with which versions."""
    known = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{what}\n{_processor()}, {torch.get_num_threads()} threads\n{known}"


def medians(
    work: Mapping[str, Callable[[], object]], repeats: int = 7, calls: int = 1
) -> dict[str, float]:
    """Return the median time of each, s, of interleaved repeats after one that is not counted.

    A repeat is so many calls: where work is short, as it is done many times on end in use, one call
    alone would find the caches full of what the others left.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(repeats + 1):
        for name, one in work.items():
            began = time.perf_counter()
            for _ in range(calls):
                one()
            if repeat:
                times[name].append((time.perf_counter() - began) / calls)
    return {name: statistics.median(some) for name, some in times.items()}


def keeping(frame: Callable[[], T], kept: list[T], n_frames: int) -> Callable[[], object]:
    """Return the work of making so many frames, which go on to a list."""
    return lambda: kept.extend(frame() for _ in range(n_frames))


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
