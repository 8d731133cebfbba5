"""Is the spread of an ensemble its error? On a surface of two angles that is known exactly.

Independent sets of frames with noisy forces, an ensemble of four for each; all fits of a case are
trained as one stack. Prints the parts of the error (noise of the data, initial weights, network),
and how much of it is within 1 and 2 spreads of the mean of four, before and after a factor.

    python benchmarks/calibration.py [FIGURE.png]
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepcg.analysis.style import png
from deepcg.analysis.uncertainty.calibration import calibrate, parts_of
from deepcg.analysis.uncertainty.figures import calibration_figure
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.stacked import SurfaceStack
from deepcg.training.config import TrainingConfig
from deepcg.training.members import drawn_frames
from deepcg.training.samples import ForceSamples
from deepcg.training.stacked import train_stack

TURN = 2 * math.pi
SETS, MEMBERS = 6, 4
NOISE = 30.0  # kJ/mol/rad, about that of alanine dipeptide
TRAINING = TrainingConfig(
    steps=600, batch_size=256, learning_rate=2e-2, final_ratio=1e-3, validations=1
)


@dataclass(frozen=True)
class Case:
    """What is fitted with what."""

    name: str
    frames: int
    widths: tuple[int, ...]
    resample: bool


CASES = (
    Case("default network, 2 000 frames, initial weights", 2_000, (48, 48), False),
    Case("default network, 2 000 frames, and frames drawn", 2_000, (48, 48), True),
    Case("default network, 16 000 frames, initial weights", 16_000, (48, 48), False),
    Case("narrow network, 16 000 frames, initial weights", 16_000, (4,), False),
)


def energy(x: Tensor) -> Tensor:
    """Return U of two angles, kJ/mol: three basins, barriers of some 25."""
    phi, psi = x.unbind(-1)
    basins = [((-1.3, 2.6), 24.0, 3.0), ((-1.4, -0.3), 22.0, 4.0), ((1.0, 0.6), 18.0, 6.0)]
    wells = [
        -depth * torch.exp(k * ((phi - a).cos() + (psi - b).cos() - 2))
        for (a, b), depth, k in basins
    ]
    return torch.stack(wells).sum(0) + 4 * (2 * phi - psi).cos()


def mean_force(x: Tensor) -> Tensor:
    """Return -dU/dx (n, 2), kJ/mol/rad."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(energy(x).sum(), x)
    return -slope


def fits(case: Case) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return forces (sets, members, n, 2) at places where frames are, and the true ones."""
    generator = torch.Generator().manual_seed(0)
    n = SETS * case.frames
    values = TURN * (torch.rand(n, 2, generator=generator) - 0.5)
    noise = NOISE * torch.randn(n, 2, generator=generator)
    samples = ForceSamples(values, mean_force(values) + noise, torch.full((2,), NOISE))
    rows, seeds, members = [], [], []
    for one in range(SETS):
        own = torch.arange(one * case.frames, (one + 1) * case.frames)
        for k in range(MEMBERS):
            seed = 1 + one * MEMBERS + k
            rows.append(own[drawn_frames([case.frames], seed)] if case.resample else own)
            torch.manual_seed(seed)
            member = CVPotential((TURN, TURN), widths=case.widths)
            member.standardize(samples.inputs[rows[-1]], samples.forces[rows[-1]])
            members.append(member)
            seeds.append(seed)
    trained, _ = train_stack(
        members, samples, samples[: 4 * SETS], TRAINING, seeds=seeds, drawn=rows
    )
    line = torch.linspace(-math.pi, math.pi, 25)[:-1]
    places = torch.cartesian_prod(line, line)
    forces = SurfaceStack(trained).forces(places)[1].double().numpy()
    return forces.reshape(SETS, MEMBERS, -1, 2), mean_force(places).double().numpy()


def main() -> None:
    """Print a line for each case."""
    torch.set_num_threads(1)
    for number, case in enumerate(CASES):
        began = time.process_time()
        found, truth = fits(case)
        parts = parts_of(found, truth)
        error, spread = found.mean(1) - truth, found.std(1, ddof=1)
        checked = calibrate(error, spread)
        print(f"{case.name} ({time.process_time() - began:.0f} s)")
        print(
            f"  error of one fit, kJ/mol/rad: {parts.data:.2f} from the data, {parts.start:.2f} "
            f"from the initial weights, {parts.model:.2f} from the network"
        )
        print(f"  mean of {MEMBERS}: {checked.in_words('kJ/mol/rad')}", flush=True)
        if number == 0 and len(sys.argv) > 1:
            figure = calibration_figure(error, spread, checked.factor, "kJ/mol/rad")
            Path(sys.argv[1]).write_bytes(png(figure))


if __name__ == "__main__":
    main()
