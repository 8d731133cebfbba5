"""Replicas that left what their model describes: which, when, and which beads."""

from __future__ import annotations

import math
from pathlib import Path

import mdtraj
import torch
from torch import Tensor

from deepcg.geometry.box import lattice_shift
from sampling import Blowup, SamplerState


def describe(
    blowup: Blowup, topology: mdtraj.Topology, box: Tensor | None, dt: float, checkpoint: Path
) -> str:
    """Return the one line that says who blew up, when, where, and what helps.

    ``box`` is (3, 3), nm, or ``None`` in the open; ``dt`` in ps.
    """
    name = {i: f"{topology.atom(i)} (bead {i})" for i in range(topology.n_atoms)}
    i, j, distance = pushed_pair(blowup, box)
    pair = name[i] if j is None else f"{name[i]}, {distance:.3f} nm from {name[j]}"
    old, new = (float(s.energy[blowup.replica]) for s in (blowup.good.state, blowup.bad))
    return (
        f"replica {blowup.replica} blew up at step {blowup.step} "
        f"({blowup.step * dt:.3f} ps): energy {old:.6g} -> {new:.6g} kJ/mol, pushed hardest "
        f"is {pair}. Try a smaller --dt, a longer training or a stronger repulsive prior; the last "
        f"good state is kept in {checkpoint}"
    )


def pushed_pair(blowup: Blowup, box: Tensor | None) -> tuple[int, int | None, float]:
    """Return the bead with the greatest force, its nearest bead and their distance, nm.

    By the minimum-image convention in ``box`` (3, 3), nm, or in the open.
    """
    states = [s for s in (blowup.good.state, blowup.bad) if _is_finite(s, blowup.replica)]
    force = [s.forces[blowup.replica].norm(dim=-1) for s in states]
    worst = max(range(len(states)), key=lambda s: float(force[s].max()))
    i = int(force[worst].argmax())
    x = states[worst].positions[blowup.replica]
    distance = _distances(x - x[i], box)
    distance[i] = torch.inf
    if len(x) == 1:
        return i, None, math.inf
    j = int(distance.argmin())
    return i, j, float(distance[j])


def _is_finite(state: SamplerState, replica: int) -> bool:
    return all(bool(t[replica].isfinite().all()) for t in (state.positions, state.forces))


def _distances(delta: Tensor, box: Tensor | None) -> Tensor:
    """Return the shortest lengths (n,) of (n, 3) over the periodic images."""
    if box is None:
        return delta.square().sum(-1).sqrt()
    box = box.to(delta)
    delta = delta + lattice_shift(delta[None], box[None])[0]
    images = torch.cartesian_prod(*[torch.arange(-1, 2, device=delta.device)] * 3).to(delta)
    shortest: Tensor = (delta[:, None] + images @ box).norm(dim=-1).amin(-1)
    return shortest
