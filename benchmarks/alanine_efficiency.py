"""Independent structures a day of alanine dipeptide without its water, and of one in water.

Moves 64 replicas of a model of all 22 atoms of the solute at the time step that `deepcg sample`
takes, and OpenMM's explicit water (342 TIP3P, PME) at 4 fs, neither with a bias, in turn. What is
slow is psi, between the basins of PII and alpha-R: the integrated correlation time tau of its sine
and cosine, the longer one, tells how soon a structure is forgotten; 2 tau make an independent one.
The left-handed basins are left to enhanced sampling on both sides: nobody gets there in this time.

    python benchmarks/alanine_efficiency.py RUN [ns in water] [threads]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import mdtraj
import numpy as np
import torch
from alanine_replicas import ATOM_STEPS, explicit_context, moving, safe_step
from numpy.typing import NDArray
from side_by_side import header, keeping, medians

from deepcg.compute.allocator import keep_freed_memory
from deepcg.mapping.collective_variables import CollectiveVariables, build_variables

REPLICAS, INTERVAL_PS, N_ATOMS = 64, 0.2, 22
ROUNDS, SHARE = 40, 0.1
"""Turns of both sides, and how long replicas take theirs, of the time in water."""

LEFT_OUT = 0.2
"""Part of the time at the beginning, in which replicas spread."""

WINDOW = 5.0
"""Correlation times that are summed over (Sokal)."""

Floats = NDArray[np.float64]
Frame = Callable[[], Floats]


def main(run: Path, ns: float, threads: int) -> None:
    """Print the speed of both, how fast psi forgets, and what follows."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    angles = build_variables("dihedrals", mdtraj.load_topology(str(run / "beads.pdb")))
    dt, dt_atoms = safe_step(run), ATOM_STEPS["hbonds"]
    in_water = round(1000 * ns / INTERVAL_PS / ROUNDS)
    of_replicas = max(1, round(SHARE * in_water))
    sides = {
        f"OpenMM, {1000 * dt_atoms:g} fs": (atomistic(angles, dt_atoms, threads), 1, in_water),
        f"CG, {REPLICAS} replicas, {1000 * dt:.2f} fs": (
            coarse(angles, run, dt),
            REPLICAS,
            of_replicas,
        ),
    }
    psi: dict[str, list[Floats]] = {name: [] for name in sides}
    work = {name: keeping(frame, psi[name], n) for name, (frame, _, n) in sides.items()}
    times = medians(work, repeats=ROUNDS - 1)  # after one that is not timed
    print(header(f"independent structures of alanine dipeptide, model of {run}"))
    first = None
    for name, (_, n, n_frames) in sides.items():
        ns_day = n * n_frames * INTERVAL_PS / 1000 / (times[name] / 86_400)
        series = np.stack(psi[name])[round(LEFT_OUT * len(psi[name])) :]
        tau, error = max(correlation_time(f(series)) for f in (np.sin, np.cos))
        samples = 1000 * ns_day / (2 * tau)
        first = first or samples
        print(
            f"{name:32s}{ns_day:8.0f} ns/day, psi forgets in {tau:.1f} ± {error:.1f} ps:"
            f"{samples:10.0f} structures a day {samples / first:8.1f}"
        )


def atomistic(angles: CollectiveVariables, dt: float, threads: int) -> Frame:
    """Return what gives psi (1,) after one more interval in water."""
    context, steps = explicit_context("hbonds", dt, threads), round(INTERVAL_PS / dt)

    def frame() -> Floats:
        context.getIntegrator().step(steps)
        x = context.getState(positions=True).getPositions(asNumpy=True)._value
        return psi_of(angles, torch.from_numpy(x[None, :N_ATOMS]))

    return frame


def coarse(angles: CollectiveVariables, run: Path, dt: float) -> Frame:
    """Return what gives psi (replicas,) after one more interval of a model."""
    advance, steps = moving(run, REPLICAS, dt), round(INTERVAL_PS / dt)
    return lambda: psi_of(angles, advance(steps))


def psi_of(angles: CollectiveVariables, positions: torch.Tensor) -> Floats:
    """Return psi (n,) of positions (n, atoms, 3)."""
    values: Floats = angles(positions.double()).numpy()[:, 1]
    return values


def correlation_time(series: Floats) -> tuple[float, float]:
    """Return the integrated correlation time of series (frames, replicas) and its error, ps.

    Summed over a window of 5 times the result, with the error that Sokal gives for it (Monte
    Carlo methods in statistical mechanics (1996), section 3).
    """
    left = series - series.mean()
    n, replicas = left.shape
    sums = np.fft.irfft(np.abs(np.fft.rfft(left, 2 * n, axis=0)) ** 2, axis=0)[:n].sum(1)
    correlation = sums / (replicas * np.arange(n, 0, -1))
    tau = np.cumsum(correlation / correlation[0]) - 0.5
    enough = np.flatnonzero(np.arange(n) >= WINDOW * tau)
    if not len(enough):
        raise SystemExit(f"psi is not forgotten in {n * INTERVAL_PS:g} ps: give more ns")
    window = int(enough[0])
    error = tau[window] * np.sqrt(2 * (2 * window + 1) / left.size)
    return float(tau[window] * INTERVAL_PS), float(error * INTERVAL_PS)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        float(sys.argv[2]) if len(sys.argv) > 2 else 1.0,
        int(sys.argv[3]) if len(sys.argv) > 3 else 1,
    )
