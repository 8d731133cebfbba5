"""The fused CPU loops against the plain PyTorch definition of the same network.

Prints milliseconds per frame and their ratio, for a force call and for a training step, on a
random liquid of water's density.   python benchmarks/fused_loops.py [threads]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from deepcg.compute.allocator import keep_freed_memory
from deepcg.geometry.neighbor_list import Neighbors, neighbors
from deepcg.networks import DeepPotSEL
from deepcg.potentials.beads import NetworkPotential

N_BEADS, N_FRAMES, EDGE, CUTOFF = 216, 8, 1.864, 0.6
TYPES = torch.zeros(N_BEADS, dtype=torch.long)


def liquid() -> Neighbors:
    """Return the environments in a jittered lattice of 33 beads per cubic nanometre."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.cartesian_prod(*[torch.arange(6.0)] * 3) * EDGE / 6
    positions = grid + 0.1 * torch.rand(N_FRAMES, N_BEADS, 3, generator=generator)
    return neighbors(positions, EDGE * torch.eye(3).expand(N_FRAMES, 3, 3), CUTOFF)


def potential(near: Neighbors, *, plain: bool) -> NetworkPotential:
    """Return the default network, with the same weights for both ways."""
    torch.manual_seed(0)
    network = DeepPotSEL(CUTOFF, 1, plain=plain)
    network.standardize(near, TYPES)
    return NetworkPotential([network], CUTOFF, TYPES)


def milliseconds(work: Callable[[], object], repeats: int = 10) -> float:
    """Return the median time of a call per frame, after two calls to warm up."""
    times = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return 1e3 * sorted(times[2:])[repeats // 2] / N_FRAMES


def training_step(u: NetworkPotential, near: Neighbors) -> None:
    """Differentiate a loss on forces in the parameters."""
    _, forces = u.forces(near, create_graph=True)
    forces.square().mean().backward(inputs=list(u.parameters()))


def main() -> None:
    """Time both ways side by side."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
    keep_freed_memory()
    near = liquid()
    plain, fused = potential(near, plain=True), potential(near, plain=False)
    print(f"{N_BEADS} beads, {torch.get_num_threads()} threads, ms per frame")
    for what, work in {
        "force call": lambda u: u.forces(near),
        "training step": lambda u: training_step(u, near),
    }.items():
        slow = milliseconds(lambda work=work: work(plain))
        fast = milliseconds(lambda work=work: work(fused))
        print(f"{what:14s} plain {slow:7.2f}   fused {fast:7.2f}   ratio {slow / fast:5.1f}")


if __name__ == "__main__":
    main()
