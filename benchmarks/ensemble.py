"""What an ensemble costs beside as many fits one after the other.

Trains four networks on two angles (26 000 noisy forces, default network and settings) as a stack,
and one after the other, and prints the CPU and wall time of both and their ratio.

    python benchmarks/ensemble.py [threads]
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import torch

from deepcg.potentials.collective_variables import CVPotential
from deepcg.training.config import TrainingConfig
from deepcg.training.samples import ForceSamples
from deepcg.training.stacked import train_stack
from deepcg.training.trainer import train

MEMBERS, FRAMES = 4, 26_000
CONFIG = TrainingConfig(steps=200, batch_size=512, learning_rate=2e-2, validations=2)


def samples() -> ForceSamples[torch.Tensor]:
    """Return forces of a torsional energy with noise."""
    generator = torch.Generator().manual_seed(0)
    values = 2 * math.pi * (torch.rand(FRAMES, 2, generator=generator) - 0.5)
    noise = 40 * torch.randn(FRAMES, 2, generator=generator)
    return ForceSamples(values, 20 * values.sin() + noise, torch.full((2,), 40.0))


def members(data: ForceSamples[torch.Tensor]) -> list[CVPotential]:
    """Return untrained networks."""
    found = []
    for seed in range(MEMBERS):
        torch.manual_seed(seed)
        potential = CVPotential((2 * math.pi, 2 * math.pi))
        potential.standardize(data.inputs, data.forces)
        found.append(potential)
    return found


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    """Print both times and their ratio."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    data = samples()
    held_out = data[:2000]

    def stacked() -> None:
        train_stack(members(data), data, held_out, CONFIG, seeds=range(MEMBERS))

    def one_after_the_other() -> None:
        for potential in members(data):
            train(potential, data, held_out, CONFIG)

    seconds(stacked)  # what is loaded and compiled once is not counted
    rows = {"stacked": stacked, "one after the other": one_after_the_other}
    times = {name: seconds(work) for name, work in rows.items()}
    for name, (cpu, wall) in times.items():
        print(f"{MEMBERS} networks {name}: {cpu:.1f} s CPU, {wall:.1f} s")
    ratio = [b / a for a, b in zip(*times.values(), strict=True)]
    print(f"the stack is {ratio[0]:.1f} x cheaper, {ratio[1]:.1f} x faster")


if __name__ == "__main__":
    main()
