"""Forces that are more than the gradient of an energy: a thermostat's kicks, written with them.

Hidden atoms make noise, too, but only where atoms are hidden: both checks are of all atoms of a
file, before they are mapped.
"""

from __future__ import annotations

import numpy as np

from deepcg.geometry.box import volumes
from deepcg.runtime.arrays import Doubles
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.topology import MoleculeGraph

GRAM_PER_CM3 = 1.66053907e-3
"""A dalton per nm3."""

DENSE = 0.5
"""g/cm3: a periodic box that holds so much has all of its atoms in the file."""

UNBALANCED = 0.1
"""Net force by that of independent forces: 1e-5 of PME, 0.01 of density functional theory."""

CLOSE, FORGOTTEN = 0.9, 0.6
"""Correlations from frame to frame: of bonds in close frames, and below which of their forces."""

FEWEST_FRAMES = 20


def about_net_force(sample: Frames, graph: MoleculeGraph) -> str | None:
    """Return what to tell of a dense periodic box whose forces do not add up to 0.

    Actions equal reactions: only what acts from outside leaves a sum. Independent forces on n atoms
    leave sqrt(n) times one of them.
    """
    if sample.forces is None or sample.box is None or graph.n_atoms < 3:
        return None
    volume = float(volumes(sample.box.double().numpy()).mean())
    if graph.masses.sum() * GRAM_PER_CM3 / volume < DENSE:
        return None
    forces = sample.forces.double().numpy()
    independent = np.sqrt(np.square(forces).sum())
    if not independent > 0:
        return None
    share = float(np.sqrt(np.square(forces.sum(1)).sum()) / independent)
    if share < UNBALANCED:
        return None
    return (
        f"forces on all atoms add up to {share:.2g} of what independent ones would (forces between "
        "atoms: to 0): are those of a thermostat in them (fix langevin), of an external field or "
        "of restraints, or are atoms missing?"
    )


def about_memory(frames: Frames, graph: MoleculeGraph) -> str | None:
    """Return what to tell of forces that change where positions hardly do.

    Looks at bonds, the fastest that there is, in frames that follow one another; where bonds are
    not where they were in the frame before, nothing is said.
    """
    if frames.forces is None or len(frames) < FEWEST_FRAMES or not len(graph.bonds):
        return None
    positions, forces = (t.double().numpy() for t in (frames.positions, frames.forces))
    first, second = graph.bonds.T
    apart = positions[:, second] - positions[:, first]
    length = np.linalg.norm(apart, axis=-1)
    push = ((forces[:, second] - forces[:, first]) * apart).sum(-1) / length
    vibrates = length.std(0) > 8e-4
    kept = np.where(vibrates, _memory(length), 1.0)
    slow = np.ones(graph.n_atoms, bool)
    slow[graph.bonds[kept < CLOSE].ravel()] = False
    chosen = vibrates & slow[first] & slow[second]
    if not chosen.any():
        return None
    memory = float(np.median(_memory(push[:, chosen])))
    if memory > FORGOTTEN:
        return None
    return (
        f"forces along bonds have a correlation of {memory:.2g} from frame to frame, the bonds "
        f"themselves of {float(np.median(kept[chosen])):.2g}: forces that are no function of the "
        "positions are in them, such as those of a thermostat (fix langevin)"
    )


def _memory(series: Doubles) -> Doubles:
    """Return the correlation (n,) of series (f, n) with themselves one frame later."""
    change = np.square(np.diff(series, axis=0)).mean(0)
    spread = series.var(0)
    memory: Doubles = 1 - 0.5 * change / np.maximum(spread, 1e-30)
    return memory
