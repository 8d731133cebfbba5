"""Is the spread of an ensemble its error? On a surface of two angles that is known exactly.

Independent sets of frames with noisy forces, an ensemble of four for each; all fits of a case are
trained as one stack. Prints the parts of the error (noise of the data, initial weights, network),
and how much of it is within 1 and 2 spreads of the mean of four, before and after a factor.
Then, for three densities of frames, how well the places of large error are told: the rank
correlation of Sigma, and of the error that noise and number of frames leave, with the root mean
square of the error over the sets. Errors of one fit are a random draw at each place; what the rms
of the other sets tells of them bounds what any map can.

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
from scipy.stats import spearmanr
from torch import Tensor

from deepcg.analysis.style import png
from deepcg.analysis.surfaces.fitted import is_near
from deepcg.analysis.uncertainty.calibration import calibrate, parts_of
from deepcg.analysis.uncertainty.data_error import data_error
from deepcg.analysis.uncertainty.figures import calibration_figure
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.stacked import SurfaceStack
from deepcg.training.config import TrainingConfig
from deepcg.training.members import drawn_frames
from deepcg.training.samples import ForceSamples
from deepcg.training.stacked import train_stack
from deepcg.units import thermal_energy
from free_energy import Estimate, Grid, bin_means, block_labels

TURN = 2 * math.pi
SETS, MEMBERS = 6, 4
NOISE = 30.0  # kJ/mol/rad, about that of alanine dipeptide
TRAINING = TrainingConfig(
    steps=600, batch_size=256, learning_rate=2e-2, final_ratio=1e-3, validations=1
)


KT = thermal_energy(300.0)
PLACES = {"even": 0.0, "flattened": 0.3, "Boltzmann's": 1.0}
"""Densities of frames: exp(-U/kT) to these powers."""

REALISATIONS, OF_PLACES, REFITS, BINS = 10, 4_000, 6, 36


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


def drawn_places(power: float, n: int, generator: torch.Generator) -> Tensor:
    """Return n places (n, 2) of the density exp(-U/kT) to a power, by rejection."""
    found: list[Tensor] = []
    while sum(map(len, found)) < n:
        tried = TURN * (torch.rand(200_000, 2, generator=generator) - 0.5)
        kept = torch.rand(len(tried), generator=generator)
        found.append(tried[kept < torch.exp(-power * (energy(tried) + 30.0) / KT)])
    return torch.cat(found)[:n]


def places_told(power: float) -> dict[str, tuple[float, float]]:
    """Return rank correlations with the error, by map: of its rms over sets, and of single sets.

    Sigma and refits are compared with the error of the force, the rest with that of U.
    """
    generator = torch.Generator().manual_seed(5)
    n = REALISATIONS * OF_PLACES
    values = drawn_places(power, n, generator)
    forces = mean_force(values) + NOISE * torch.randn(n, 2, generator=generator)
    samples = ForceSamples(values, forces, torch.full((2,), NOISE))
    rows, seeds, members = [], [], []
    for one in range(REALISATIONS):
        own = torch.arange(one * OF_PLACES, (one + 1) * OF_PLACES)
        for k in range(MEMBERS + REFITS):
            seed = 1 + 100 * one + k
            rows.append(own if k < MEMBERS else own[drawn_frames([OF_PLACES], seed)])
            torch.manual_seed(seed)
            member = CVPotential((TURN, TURN))
            member.standardize(values[rows[-1]], forces[rows[-1]])
            members.append(member)
            seeds.append(seed)
    trained, _ = train_stack(members, samples, samples[:64], TRAINING, seeds=seeds, drawn=rows)
    edges = np.linspace(-math.pi, math.pi, BINS + 1)
    grid = Grid((edges, edges), (TURN, TURN))
    centers = torch.as_tensor(grid.points()[:, 0]).float()
    energies, slopes = SurfaceStack(trained).forces(centers)
    shape = REALISATIONS, MEMBERS + REFITS, BINS * BINS
    u = energies.detach().double().numpy().reshape(shape)
    f = slopes.double().numpy().reshape(*shape, 2)
    true = energy(centers).double().numpy()
    off_force = np.linalg.norm(f[:, 0] - mean_force(centers).double().numpy(), axis=-1)
    maps: dict[str, list[NDArray[np.float64]]] = {"Sigma": [], "refits": [], "noise, number": []}
    off, seen = [], []
    for one in range(REALISATIONS):
        own = slice(one * OF_PLACES, (one + 1) * OF_PLACES)
        frames, mean = binned(grid, values[own], forces[own])
        near = is_near(frames, grid)
        density = np.where(near.ravel(), np.exp(-(true - true.min()) / KT), 0.0)
        apart = u[one, 0] - true
        off.append(np.abs(apart - (apart * density).sum() / density.sum()))
        seen.append(near.ravel())
        maps["Sigma"].append(np.sqrt(f[one, :MEMBERS].var(0).sum(-1)))
        maps["refits"].append(np.sqrt(f[one, MEMBERS:].var(0).sum(-1)))
        told = data_error(grid, frames, mean, density.reshape(grid.shape))
        maps["noise, number"].append(told.ravel())
    found = {
        name: correlations(np.stack(of), off_force if k < 2 else np.stack(off), np.stack(seen))
        for k, (name, of) in enumerate(maps.items())
    }
    for what, error in {"U": np.stack(off), "force": off_force}.items():
        others = [np.delete(error, k, 0) for k in range(REALISATIONS)]
        known = np.stack([np.sqrt((other**2).mean(0)) for other in others])
        found[f"bound, {what}"] = correlations(known, error, np.stack(seen))
    return found


def binned(
    grid: Grid, values: Tensor, forces: Tensor
) -> tuple[NDArray[np.int64], Estimate[NDArray[np.float64]]]:
    """Return the number of frames in each bin, and their mean force with its error."""
    x, blocks = values.double().numpy(), block_labels([len(values)], 500)
    frames = np.bincount(grid.index(x), minlength=BINS**2).reshape(grid.shape)
    columns = [bin_means(grid, x, force, blocks) for force in forces.double().numpy().T]
    value, error = (np.stack([getattr(c, k) for c in columns], -1) for k in ("value", "error"))
    return frames, Estimate(value, error)


def correlations(
    told: NDArray[np.float64], error: NDArray[np.float64], seen: NDArray[np.bool_]
) -> tuple[float, float]:
    """Return the mean rank correlation of maps (sets, n) with the rms error, and with each."""
    rms = np.sqrt((error**2).mean(0))
    everywhere = seen.all(0) & np.isfinite(told).all(0)
    alone = [seen[k] & np.isfinite(told[k]) for k in range(len(told))]
    of_rms = [spearmanr(one[everywhere], rms[everywhere]).statistic for one in told]
    of_each = [
        spearmanr(one[there], own[there]).statistic
        for one, own, there in zip(told, error, alone, strict=True)
    ]
    return float(np.mean(of_rms)), float(np.mean(of_each))


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
    for name, power in PLACES.items():
        print(f"places of error, {name} density of {OF_PLACES} frames:")
        for what, (of_rms, of_each) in places_told(power).items():
            told = f"{of_each:.2f} with that of one set"
            known = "" if what.startswith("bound") else f"{of_rms:.2f} with the rms error, "
            print(f"  {what}: rank correlation {known}{told}", flush=True)


if __name__ == "__main__":
    main()
