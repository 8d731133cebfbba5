"""Frames that an ensemble asks for against frames at random: how soon either mends a surface.

An ensemble of four is fitted to the frames of alanine dipeptide with phi < 0 alone; all frames are
the pool. Each round adds frames where the members disagree (`deepcg learn`), or as many at random.
Prints the rms error of F, from a fit to all frames, over the bins with phi > 0 where F is below
20 kJ/mol, and of the free energy of alpha-L, by frames added, with the standard deviation over
seeds.

    python benchmarks/active_learning.py WALKER.npz WALKER.npz TOPOLOGY.pdb SYSTEM.xml [FIGURE.png]
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepcg.analysis.style import COLORS, png
from deepcg.analysis.surfaces.ramachandran import BASINS
from deepcg.potentials.ensemble import load_surfaces
from deepcg.training.members import MembersConfig
from deepcg.units import thermal_energy
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.learn.command import learn
from deepcg.workflow.learn.config import LearnConfig
from deepcg.workflow.variance import spread_of_surfaces
from free_energy import region_of_bins

SEEDS, ROUNDS, LEVEL = 3, 6, 20.0
KT = thermal_energy(300.0)
PER_FRAME = ("positions", "forces", "bias", "phi", "psi")

Floats = NDArray[np.float64]


def half(path: Path, folder: Path) -> Path:
    """Write the frames with phi < 0 of a trajectory."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    left = arrays["phi"] < 0
    for name in PER_FRAME:
        arrays[name] = arrays[name][left]
    np.savez(folder / path.name, **arrays)
    return folder / path.name


def ensemble(paths: list[Path], files: dict[str, Path], output: Path) -> Path:
    """Fit four members to (phi, psi) and return the run."""
    data = DataConfig(map="dihedrals", also=tuple(paths[1:]), **files)
    fit(FitConfig(paths[0], output=output, data=data, members=MembersConfig(ensemble=4), threads=1))
    return output


def surface(run: Path) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """Return F (36, 36), where phi > 0, and the region of each bin."""
    spread = spread_of_surfaces(run, load_surfaces(run))
    right = np.broadcast_to(spread.grid.centers[0][:, None] > 0, spread.grid.shape)
    return spread.mean, right, region_of_bins(BASINS, spread.grid)


def errors(run: Path, truth: Path) -> tuple[float, float]:
    """Return the rms error of F where phi > 0, and that of alpha-L's free energy, kJ/mol."""
    (found, right, places), (true, _, _) = surface(run), surface(truth)
    low = true < LEVEL
    apart = found - true
    apart = apart - apart[low & ~right].mean()
    return float(np.sqrt((apart[low & right] ** 2).mean())), alpha_l(found, places) - alpha_l(
        true, places
    )


def alpha_l(energy: Floats, places: NDArray[np.int64]) -> float:
    """Return the free energy of alpha-L from PII, kJ/mol."""
    density = np.exp(-(energy - energy.min()) / KT)
    names = list(BASINS)
    share = [density[places == names.index(name)].sum() for name in ("alpha-L", "PII")]
    return float(-KT * np.log(share[0] / share[1]))


def curves(
    run: Path, pool: tuple[Path, ...], truth: Path, folder: Path
) -> dict[str, tuple[Floats, Floats]]:
    """Return frames added (seeds, rounds + 1) and both errors (seeds, rounds + 1, 2) of each."""
    found = {}
    plain = LearnConfig(run, pool, rounds=ROUNDS, stop_fraction=0.0, threads=1)
    for name, at_random in (("asked for", False), ("at random", True)):
        frames, apart = [], []
        for seed in range(SEEDS):
            output = folder / f"{name.split()[-1]}-{seed}"
            learned = learn(replace(plain, output=output, at_random=at_random, seed=seed))
            added = np.cumsum([0] + [done.frames for done in learned.rounds])
            runs = [run] + [output / f"round-{k}" for k in range(1, len(added))]
            frames.append(added)
            apart.append([errors(one, truth) for one in runs])
            print(f"{name}, seed {seed}: {', '.join(f'{e[0]:.2f}' for e in apart[-1])}", flush=True)
        found[name] = np.array(frames, float), np.array(apart)
    return found


def draw(found: dict[str, tuple[Floats, Floats]]) -> Figure:
    """Return the error of F by frames added."""
    figure = Figure(figsize=(5.6, 4.3))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for k, (name, (frames, apart)) in enumerate(found.items(), 1):
        mean, spread = apart[:, :, 0].mean(0), apart[:, :, 0].std(0, ddof=1)
        axes.errorbar(
            frames.mean(0), mean, spread, fmt="o-", capsize=3, color=COLORS[k], label=name
        )
    axes.set(yscale="log", xlabel="frames added", ylabel="rms error of F, φ > 0 (kJ/mol)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.subplots_adjust(left=0.14, right=0.97, bottom=0.13, top=0.97)
    return figure


def main() -> None:
    """Print both curves."""
    one, other, topology, system = (Path(word).resolve() for word in sys.argv[1:5])
    files = {"topology": topology, "system": system}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        truth = ensemble([one, other], files, folder / "all")
        run = ensemble([half(p, folder / "data") for p in (one, other)], files, folder / "half")
        found = curves(run, (one, other), truth, folder)
    for name, (frames, apart) in found.items():
        print(f"{name}:")
        for k in range(frames.shape[1]):
            mean, spread = apart[:, k].mean(0), apart[:, k].std(0, ddof=1)
            print(
                f"  {frames[:, k].mean():6.0f} frames: F {mean[0]:5.2f} +- {spread[0]:.2f}, "
                f"alpha-L {mean[1]:+5.2f} +- {spread[1]:.2f} kJ/mol"
            )
    if len(sys.argv) > 5:
        Path(sys.argv[5]).write_bytes(png(draw(found)))


if __name__ == "__main__":
    main()
