"""What a bead costs in larger and larger boxes.

Moves a model of water in boxes of 1 000 to 100 000 beads, in turn, and prints microseconds a bead
of a force call with a list of pairs at hand, of making the list anew, and of a whole step of
Langevin dynamics with the list made anew when it is due; the ratio of the latter to the smallest;
and the greatest memory of a process that samples, by the bead.

    python benchmarks/scaling.py RUN [threads [time step in ps]]
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import torch
from side_by_side import header, medians
from tiled import Moving, moving

from deepcg.compute.allocator import keep_freed_memory

TILES = (1, 1, 5), (2, 2, 2), (3, 3, 3), (4, 4, 4), (6, 6, 6), (7, 8, 8)
BEADS_AT_ONCE = 50_000
"""Small boxes take more steps, so that every piece of work is long enough to be timed."""

STEPS = 5
"""About as many as a list lives: short runs would else see it made anew by chance."""


def main(run: Path, threads: int, dt: float) -> None:
    """Print microseconds a bead, ratios, and memory."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    boxes = [moving(run, tiles, 1, dt) for tiles in TILES]
    sizes = [box.state.positions.shape[1] for box in boxes]
    turns = [max(1, BEADS_AT_ONCE // n) for n in sizes]
    work: dict[str, Callable[[], object]] = {}
    for box, n, k in zip(boxes, sizes, turns, strict=True):
        box.advance(STEPS)
        box.renewals = 0
        work[f"force {n}"] = lambda box=box, k=k: forces(box, k)
        work[f"list {n}"] = lambda box=box, k=k: forces_and_lists(box, k)
        work[f"step {n}"] = lambda box=box, k=k: box.advance(k * STEPS)
    repeats = 3
    times = medians(work, repeats=repeats)
    print(header(f"water of {run}, {dt * 1000:g} fs"))
    print("   beads  force    list    step  of the smallest  renewals a step")
    cost = {n: 1e6 * times[f"step {n}"] / n / k / STEPS for n, k in zip(sizes, turns, strict=True)}
    for box, n, k in zip(boxes, sizes, turns, strict=True):
        force, renewed = (1e6 * times[f"{what} {n}"] / n / k for what in ("force", "list"))
        renewals = box.renewals / (repeats + 1) / k / STEPS
        ratio = cost[n] / min(cost.values())
        print(
            f"{n:8d}{force:7.2f}{renewed - force:8.2f}{cost[n]:8.2f} us/bead{ratio:9.2f}"
            f"{renewals:17.2f}"
        )
    memory(run, dt, threads)


def forces(box: Moving, times: int) -> None:
    """Evaluate the forces with the list that is there."""
    for _ in range(times):
        box.forces(box.state.positions)


def forces_and_lists(box: Moving, times: int) -> None:
    """Evaluate the forces with new lists."""
    for _ in range(times):
        box.forces.renew()
        box.forces(box.state.positions)


def memory(run: Path, dt: float, threads: int) -> None:
    """Print the greatest memory of processes that sample, and how it grows with the beads."""
    spawn = get_context("spawn")
    found = []
    for tiles in (TILES[0], TILES[3], TILES[5]):
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            found.append(pool.submit(peak, run, tiles, dt, threads).result())
    for (n, low), (more, high) in pairwise(found):
        print(
            f"from {n} to {more} beads: peak memory {low:.0f} to {high:.0f} MB, "
            f"{1000 * (high - low) / (more - n):.2f} kB/bead"
        )


def peak(run: Path, tiles: tuple[int, int, int], dt: float, threads: int) -> tuple[int, float]:
    """Return the number of beads and the peak memory, MB, of this process after some steps."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    box = moving(run, tiles, 1, dt)
    box.advance(2 * STEPS)
    return box.state.positions.shape[1], _peak_kilobytes() / 1000


def _peak_kilobytes() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        # on Linux this would be that of the parent, where it had more
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        int(sys.argv[2]) if len(sys.argv) > 2 else 1,
        float(sys.argv[3]) if len(sys.argv) > 3 else 0.005,
    )
