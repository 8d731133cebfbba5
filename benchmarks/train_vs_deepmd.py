"""A step of force matching on 216 oxygens with the same DeepPot-SE here and in DeePMD-kit.

One frame a step, the loss on forces alone, Adam (fused here, as in a fit), in turn; DeePMD-kit
finds neighbors in every step, as its training does, and deepcg before the first, as its own does.
python benchmarks/train_vs_deepmd.py [float32 or float64] [threads] [python with DeePMD-kit]
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from deepmd_peer import CUTOFF, FORCE, Liquid, Peer, Work, liquid, network, told
from side_by_side import header, medians

from deepcg.compute.allocator import keep_freed_memory
from deepcg.geometry.neighbor_list import neighbors
from deepcg.networks import DeepPotSE
from deepcg.potentials.beads import NetworkPotential

CALLS = 5
"""Steps of each in its turn."""


def main(precision: str, threads: int, python: Path) -> None:
    """Print milliseconds a step, and ratios to DeePMD-kit's."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    system = liquid(precision)
    made = network(system)
    plain = copy.deepcopy(made)
    plain.plain = True
    peer = Peer(python, "step", precision, threads, system, made)
    ours = {"deepcg, plain definition": _step(plain, system), "deepcg": _step(made, system)}
    wanted = float(peer.results["loss"]) * FORCE**2
    for name, one in ours.items():
        if not abs(one() / wanted - 1) < 1e-4:
            raise SystemExit(f"the loss of {name} is {one()}, DeePMD-kit's is {wanted}")
    work: Work = {"DeePMD-kit": peer, **ours}
    times = medians(work, calls=CALLS)
    print(header(f"training step on 216 oxygens, {CUTOFF} nm, 25-50-100, 16, 240x3, {precision}"))
    print(peer.about)
    print(told(times, "DeePMD-kit"))


def _step(network: DeepPotSE, system: Liquid) -> Callable[[], float]:
    """Return what takes a step, and returns the loss before it, (kJ/mol/nm)^2."""
    potential = NetworkPotential([network], CUTOFF, system.types)
    near = neighbors(system.positions, system.box, CUTOFF)
    weights = list(potential.parameters())
    optimizer = torch.optim.Adam(weights, lr=1e-9, fused=True)  # the weights hardly move

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        _, forces = potential.forces(near, create_graph=True)
        loss = (forces - system.forces).square().mean()
        loss.backward(inputs=weights)
        optimizer.step()
        return loss.item()

    return step


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else "float32",
        int(sys.argv[2]) if len(sys.argv) > 2 else 1,
        Path(sys.argv[3] if len(sys.argv) > 3 else sys.executable),
    )
