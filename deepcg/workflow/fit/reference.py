"""What simple models leave of the forces, and whether anything is hidden: to judge a fit by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from deepcg.geometry.neighbor_list import Neighbors
from deepcg.mapping.beads import LinearMapping
from deepcg.potentials.beads import NetworkPotential
from deepcg.potentials.model_file import Architecture
from deepcg.potentials.priors import ForceField
from deepcg.training.convergence import Reference
from deepcg.training.least_squares import solve
from deepcg.training.loss import force_error
from deepcg.training.samples import ForceSamples, LazyNeighbors
from deepcg.workflow.dataset.beads import Beads
from deepcg.workflow.fit.architecture import standardize

KNOTS, FEWER_KNOTS = 40, 20
"""Of each pair of types, and where there are many."""

MOST_WEIGHTS = 2000
"""Of more the solution takes longer than it is worth."""

ROWS_PER_WEIGHT, FEWEST_FRAMES = 50, 100
"""Force components, and frames, that are enough of the training frames."""


def pair_reference(
    architecture: Architecture,
    types: Tensor,
    temperature: float,
    molecular: ForceField | None,
    samples: ForceSamples[Neighbors],
    validation: ForceSamples[Neighbors],
) -> Reference | None:
    """Return what pair potentials by least squares leave of the forces, beside the same priors.

    Beads are of ``types`` (n_beads,); those of a small molecule have one each, as a network that
    sees it whole can tell them apart. ``None`` where types are too many for it to be worth it.
    """
    cutoff = architecture.cutoff
    if samples.molecule and _n_weights(len(types), FEWER_KNOTS) <= MOST_WEIGHTS:
        types = torch.arange(len(types), device=types.device)
    n_types = int(types.max()) + 1
    knots = KNOTS if _n_weights(n_types, KNOTS) <= MOST_WEIGHTS else FEWER_KNOTS
    n_weights = _n_weights(n_types, knots)
    if n_weights > MOST_WEIGHTS:
        return None
    # a molecule has pairs as near as bonds
    first_knot = min(0.1 if samples.molecule else 0.2, cutoff / 2)
    options = {"n_knots": knots, "first_knot": first_knot}
    pairs = Architecture("pair-spline", options, cutoff, n_types, architecture.repulsion)
    potential = pairs.build(types, temperature, molecular).to(samples.forces)
    wanted = max(FEWEST_FRAMES, ROWS_PER_WEIGHT * n_weights // samples.forces[0].numel())
    training, held_out = (_typed_by(potential, part) for part in (samples, validation))
    standardize(potential, training)
    some, others = (part[:: max(1, len(part) // wanted)] for part in (training, held_out))
    solve(potential, some, others)
    error = float(force_error(potential, held_out).mean())
    return Reference(error, "a pair model by least squares")


def _n_weights(n_types: int, knots: int) -> int:
    return knots * n_types * (n_types + 1) // 2


def _typed_by(
    potential: NetworkPotential, samples: ForceSamples[Neighbors]
) -> ForceSamples[Neighbors]:
    """Return samples whose neighbors are of the potential's types."""
    inputs = samples.inputs
    if isinstance(inputs, LazyNeighbors):
        return replace(samples, inputs=replace(inputs, potential=potential))
    return replace(samples, inputs=replace(inputs, kinds=None))


def linear_reference(
    samples: ForceSamples[Tensor],
    validation: ForceSamples[Tensor],
    periods: Sequence[float | None],
) -> tuple[Reference, Tensor]:
    """Return what mean forces linear in the coordinates, or their sines and cosines, leave.

    As the losses are, in units of the scale; and for each coordinate (d,), in the square of its
    force's unit.
    """

    def features(values: Tensor) -> Tensor:
        columns = [torch.ones(len(values), dtype=torch.float64)]
        for k, period in enumerate(periods):
            x = values[:, k].double().cpu()
            turn = x if period is None else 2 * torch.pi * x / period
            columns += [x] if period is None else [turn.sin(), turn.cos()]
        return torch.stack(columns, 1)

    forces = samples.forces.double().cpu()
    found = torch.linalg.lstsq(features(samples.seen), forces, driver="gelsd").solution
    left = validation.forces.double().cpu() - features(validation.seen) @ found
    squares = left.square().mean(0)
    relative = squares / samples.scale.double().cpu().square()
    return Reference(float(relative.mean()), "a linear mean force by least squares"), squares


def hides_atoms(beads: Beads) -> bool:
    """Return whether forces come from more than beads: atoms that are none, or share one."""
    source, mapping = beads.source, beads.mapping
    if source is None or source.atoms is not None or not isinstance(mapping, LinearMapping):
        return True
    atoms, alone = mapping.weights.indices, np.diff(mapping.weights.indptr) == 1
    real = np.flatnonzero(source.graph.numbers > 0)
    return not (alone.all() and len(np.unique(atoms)) == len(atoms) and np.isin(real, atoms).all())
