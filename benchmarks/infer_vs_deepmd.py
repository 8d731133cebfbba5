"""Energy and forces of 216 oxygens by the same DeepPot-SE weights here and in DeePMD-kit.

In turn, neighbors found anew in every call, both in the precision that is named (positions and the
sum of energies are doubles in DeePMD-kit always).
python benchmarks/infer_vs_deepmd.py [float32 or float64] [threads] [python with DeePMD-kit]
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from deepmd_peer import CUTOFF, Liquid, Peer, Work, largest_difference, liquid, network, told
from side_by_side import header, medians
from torch import Tensor, nn

from deepcg.compute.allocator import keep_freed_memory
from deepcg.networks.deeppot_se.compressed import compressed
from deepcg.potentials.beads import NetworkPotential, energy_and_forces

CALLS = 20
"""Of each in its turn: forces are asked for at every step of a run."""

AGREEMENT = {"float32": 1e-4, "float64": 1e-10}
"""Largest difference of forces, over their rms; of those of tables 1e-4."""


def main(precision: str, threads: int, python: Path) -> None:
    """Print milliseconds a call, and ratios to DeePMD-kit's."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    system = liquid(precision)
    made = network(system)
    plain, (small, _) = copy.deepcopy(made), compressed(made, 0.1, 1e-4)
    plain.plain = True
    ours = {
        "deepcg, plain definition": _forces(plain, system),
        "deepcg": _forces(made, system),
        "deepcg, compressed": _forces(small, system),
    }
    theirs = {
        "DeePMD-kit, frozen": Peer(python, "call", precision, threads, system, made),
        "DeePMD-kit, not frozen": Peer(python, "eager", precision, threads, system, made),
    }
    wanted = theirs["DeePMD-kit, frozen"].forces
    for name, one in ours.items():
        error = largest_difference(one(), wanted)
        limit = 1e-4 if one is ours["deepcg, compressed"] else AGREEMENT[precision]
        if not error < limit:
            raise SystemExit(f"forces of {name} differ by {error:.1e} of their rms")
    work: Work = {**theirs, **ours}
    times = medians(work, calls=CALLS)
    print(
        header(f"energy and forces of 216 oxygens, {CUTOFF} nm, 25-50-100, 16, 240x3, {precision}")
    )
    print(theirs["DeePMD-kit, frozen"].about)
    print(told(times, "DeePMD-kit, frozen"))


def _forces(term: nn.Module, system: Liquid) -> Callable[[], Tensor]:
    potential = NetworkPotential([term], CUTOFF, system.types)
    potential.requires_grad_(False)
    return lambda: energy_and_forces(potential, system.positions, system.box)[1]


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else "float32",
        int(sys.argv[2]) if len(sys.argv) > 2 else 1,
        Path(sys.argv[3] if len(sys.argv) > 3 else sys.executable),
    )
