"""Independent samples a day of a coarse-grained water, and of the atoms that it replaces.

Steps a model of 216 oxygens (8 replicas) and OpenMM's TIP3P of as many molecules (PME, rigid), in
turn, and keeps the positions of the oxygens. The structure of either has relaxed when the self part
of its intermediate scattering function, <sin(k d) / (k d)> of displacements d at the first peak of
the structure factor, is down to 1/e: two such times make an independent sample.
python benchmarks/sampling_efficiency.py RUN [time step in ps] [threads]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from side_by_side import header, keeping, medians
from tiled import moving
from water_vs_openmm import ATOM_STEP_PS, MOLECULES, context_of

from deepcg.compute.allocator import keep_freed_memory

REPLICAS, PEAK = 8, 23.0  # 1/nm, where the structure factor of water's oxygens has its maximum
INTERVAL_PS, FRAMES = 0.1, 24  # between frames that are kept, and frames in a round of timing
ROUNDS = 7
Floats = NDArray[np.float64]
Frame = Callable[[], Floats]


def main(run: Path, dt: float, threads: int) -> None:
    """Print the speed of both, how fast their structure relaxes, and what follows."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    sides = {
        f"OpenMM TIP3P, {ATOM_STEP_PS * 1000:g} fs": (atomistic(threads), 1),
        f"CG, {REPLICAS} replicas, {dt * 1000:g} fs": (coarse(run, dt), REPLICAS),
    }
    kept: dict[str, list[Floats]] = {name: [] for name in sides}
    times = medians(
        {name: keeping(frame, kept[name], FRAMES) for name, (frame, _) in sides.items()},
        repeats=ROUNDS,
    )
    print(header(f"independent structures of {MOLECULES} waters, model of {run}"))
    first = None
    for name, (_, replicas) in sides.items():
        ns_day = replicas * FRAMES * INTERVAL_PS / 1000 / (times[name] / 86_400)
        relaxed, error = relaxation(np.stack(kept[name]))
        samples = 1000 * ns_day / (2 * relaxed)
        first = first or samples
        print(
            f"{name:32s}{ns_day:8.0f} ns/day, relaxes in {relaxed:.3f} ± {error:.3f} ps:"
            f"{samples:10.0f} structures a day {samples / first:8.1f}"
        )


def atomistic(threads: int) -> Frame:
    """Return what gives the oxygens (1, molecules, 3) after one more interval of TIP3P."""
    context = context_of(threads)
    steps = round(INTERVAL_PS / ATOM_STEP_PS)

    def frame() -> Floats:
        context.getIntegrator().step(steps)
        x: Floats = context.getState(positions=True).getPositions(asNumpy=True)._value
        return x[None, ::3]

    return frame


def coarse(run: Path, dt: float) -> Frame:
    """Return what gives the beads (replicas, beads, 3) after one more interval of a model."""
    beads = moving(run, (1, 1, 1), REPLICAS, dt)
    steps = round(INTERVAL_PS / dt)

    def frame() -> Floats:
        beads.advance(steps)
        return beads.state.positions.double().numpy()

    return frame


def relaxation(x: Floats) -> tuple[float, float]:
    """Return when F_s is 1/e, ps, and its standard error by groups of molecules.

    ``x`` (frames, replicas, molecules, 3), nm, not wrapped.
    """
    x = x.reshape(len(x), -1, 3)
    curve = np.ones((len(x) // 2, x.shape[1]))
    for lag in range(1, len(curve)):
        d = PEAK * np.linalg.norm(x[lag:] - x[:-lag], axis=-1)
        curve[lag] = np.sinc(d / np.pi).mean(0)
    groups = np.array([_crossing(part.mean(1)) for part in np.array_split(curve, 8, axis=1)])
    return _crossing(curve.mean(1)), float(groups.std(ddof=1) / np.sqrt(len(groups)))


def _crossing(curve: Floats) -> float:
    """Return where a falling curve is 1/e, in ps, between the frames."""
    below = int(np.argmax(curve < np.exp(-1)))
    if not below:
        raise SystemExit(f"the structure has not relaxed in {len(curve) * INTERVAL_PS:g} ps")
    share = (curve[below - 1] - np.exp(-1)) / (curve[below - 1] - curve[below])
    return float((below - 1 + share) * INTERVAL_PS)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        float(sys.argv[2]) if len(sys.argv) > 2 else 0.01,
        int(sys.argv[3]) if len(sys.argv) > 3 else 1,
    )
