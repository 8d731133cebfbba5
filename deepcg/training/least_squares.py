"""Force matching by linear least squares, for networks that are linear in their weights.

The normal equations G w = b of the MS-CG method (Izvekov and Voth, J. Phys. Chem. B 109, 2469
(2005); Noid et al., J. Chem. Phys. 128, 244115 (2008)) are summed up over batches of frames, in
double precision: memory does not grow with the number of frames. A ridge, lambda w^T P w with the
roughness P of the network, keeps what few data tell from following their noise; lambda is the one
whose errors are least on the validation frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deepcg.geometry.neighbor_list import Neighbors
from deepcg.networks.base import LinearNetwork
from deepcg.potentials.beads import NetworkPotential
from deepcg.runtime.errors import InputError
from deepcg.runtime.progress import Progress, silent
from deepcg.training.noise_weighting import STARTING_FRAMES, NoiseWeighting
from deepcg.training.samples import ForceSamples

RIDGES = tuple(10.0**k for k in range(-12, 1))
"""Lambda, in units of the trace of G over that of P."""

NUMBERS_AT_ONCE = 500_000
"""Of the features of a batch: 4 MB."""

Samples = ForceSamples[Neighbors]
Weigh = Callable[[Tensor], Tensor]
"""From errors (n_frames, n_beads, m) to errors as they count."""


@dataclass(frozen=True, slots=True, eq=False)
class NormalEquations:
    """Sums over components of forces F with features X; double precision.

    Parameters
    ----------
    gram, moment, square
        X^T X (n_weights, n_weights), X^T F (n_weights,) and F^T F.
    count
        Number of components.
    """

    gram: Tensor
    moment: Tensor
    square: float
    count: int

    def error(self, weights: Tensor) -> float:
        """Return the mean square error of a component with these weights (n_weights,)."""
        left = self.square - 2 * self.moment @ weights + weights @ self.gram @ weights
        return max(0.0, float(left)) / self.count


def linear_network(potential: NetworkPotential) -> LinearNetwork | None:
    """Return the network of a potential if least squares can find its weights."""
    network = potential.terms[0]
    trained = all(p.requires_grad for p in network.parameters())
    return network if isinstance(network, LinearNetwork) and trained else None


def normal_equations(
    network: LinearNetwork,
    potential: NetworkPotential,
    samples: Samples,
    *,
    weigh: Weigh | None = None,
    weighted: bool = True,
    progress: Progress = silent,
) -> NormalEquations:
    """Return the normal equations of the forces that the other terms of a potential leave.

    Parameters
    ----------
    weigh
        How errors count, a linear function; see `NoiseWeighting.weigh`.
    weighted
        Whether components count by ``samples.weights``.

    Raises
    ------
    InputError
        Forces are not finite.
    """
    rest = list(potential.terms)[1:]
    others = NetworkPotential(rest, potential.cutoff, potential.types) if rest else None
    n_weights = len(network.roughness())
    size = max(1, NUMBERS_AT_ONCE // (samples.forces[0].numel() * n_weights))
    total, count = samples.forces.new_zeros(n_weights + 1, n_weights + 1).double(), 0
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        near = part.seen
        exact = replace(near, displacement=near.displacement.double())
        features = network.force_features(exact, potential.types)
        left = part.forces if others is None else part.forces - others.forces(near)[1]
        rows = torch.cat([features, left.double()[..., None]], dim=3)  # (f, i, 3, w + 1)
        if weigh is not None:
            rows = weigh(rows.flatten(2)).view_as(rows)
        if weighted and part.weights is not None:
            rows = rows * part.weights.double().sqrt()[..., None]
        flat = rows.flatten(0, 2)
        total, count = total + flat.T @ flat, count + len(flat)
        progress(min(start + size, len(samples)), len(samples), "least squares")
    if not total.isfinite().all():
        raise InputError("least squares have no solution: the forces are not all finite numbers")
    return NormalEquations(total[:-1, :-1], total[:-1, -1], float(total[-1, -1]), count)


def solutions(training: NormalEquations, roughness: Tensor, ridges: Sequence[float]) -> Tensor:
    """Return the weights (n_solvable, n_weights) for each ridge with which they are determined.

    Raises
    ------
    InputError
        They are with none: the ridges are too small for what data tell.
    """
    scale = training.gram.trace() / roughness.trace()
    found = []
    for ridge in ridges:
        matrix = training.gram + ridge * scale * roughness.to(training.gram)
        unit = matrix.diagonal().clamp(min=1e-300).rsqrt()
        lower, failed = torch.linalg.cholesky_ex(unit[:, None] * matrix * unit)
        if not int(failed):
            moment = (unit * training.moment)[:, None]
            found.append(unit * torch.cholesky_solve(moment, lower)[:, 0])
    if not found:
        raise InputError(f"least squares have no solution with ridges up to {max(ridges):g}")
    return torch.stack(found)


def solve(
    potential: NetworkPotential,
    samples: Samples,
    validation: Samples,
    *,
    noise: bool = False,
    ridges: Sequence[float] = RIDGES,
    progress: Progress = silent,
) -> tuple[float, float]:
    """Give the network of a potential its best weights, and return the mean square errors.

    They are those of a component, (kJ/mol/nm)^2, on the training frames, as each counts, and on
    the validation frames, where all count alike.

    Parameters
    ----------
    noise
        Whether errors count by the inverse of their covariance, which is that of what a first
        solution leaves; see `deepcg.training.noise_weighting`.

    Raises
    ------
    InputError
        The network is not linear in its weights, or forces are not finite.
    """
    network = linear_network(potential)
    if network is None:
        raise InputError("least squares are for networks that are linear in their weights")
    roughness = network.roughness().to(samples.forces.device)
    held_out = normal_equations(network, potential, validation, weighted=False)

    def improve(training: NormalEquations) -> Tensor:
        """Set, and return, the weights of the ridge that validates best."""
        found = list(solutions(training, roughness, ridges))
        best: Tensor = min(found, key=held_out.error)
        network.set_weights(best)
        return best

    weigh = None
    if noise:
        every = max(1, len(samples) // STARTING_FRAMES)
        some = samples[::every]
        improve(normal_equations(network, potential, some))
        weigh = NoiseWeighting(potential.forces(some.seen)[1] - some.forces).weigh
    training = normal_equations(network, potential, samples, weigh=weigh, progress=progress)
    weights = improve(training)
    return training.error(weights), held_out.error(weights)
