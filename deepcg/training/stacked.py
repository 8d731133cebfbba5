"""Force matching of several networks at once, each on frames and in an order of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.stacked import SurfaceStack
from deepcg.runtime.progress import Progress, silent
from deepcg.training.config import TrainingConfig
from deepcg.training.loss import CHUNK
from deepcg.training.samples import ForceSamples
from deepcg.training.trainer import Records, run_training


class StackOfSurfaces:
    """Potentials of one shape, whose weights are stacked: see `deepcg.training.trainer.Stack`.

    Parameters
    ----------
    members
        The potentials to begin with, which are copied. Weights that need no gradient are held.
    """

    stacked = True

    def __init__(self, members: Sequence[CVPotential]) -> None:
        self.surfaces = SurfaceStack(members)
        self.parameters = [p for p in self.surfaces.weights if p.requires_grad]

    def members(self) -> list[CVPotential]:
        """Return the potentials as they are now."""
        return self.surfaces.members()

    def forces(self, inputs: Tensor) -> Tensor:
        """Return forces (n_members * n, d) at the members' own values (n_members * n, d)."""
        values = inputs.view(self.surfaces.n_members, -1, inputs.shape[1])
        return self.surfaces.forces(values, create_graph=True)[1].flatten(0, 1)

    def limit_gradients(self, norm: float) -> None:
        """Scale each member's gradient to at most this norm."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        squares = [g.square().flatten(1).sum(1) for g in gradients]
        norms = torch.stack(squares).sum(0).sqrt()
        keep = (norm / (norms + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(keep.view(-1, *[1] * (gradient.ndim - 1)))

    def errors(self, samples: ForceSamples[Tensor]) -> Tensor:
        """Return the mean squared error of each member, (n_members,), in units of the scale."""
        n, total = self.surfaces.n_members, torch.zeros((), dtype=torch.float64)
        size = max(1, CHUNK // n)
        for start in range(0, len(samples), size):
            part = samples[start : start + size]
            _, forces = self.surfaces.forces(part.seen)  # (n_members, size, d)
            errors = ((forces.detach() - part.forces) / part.scale).square()
            total = total + errors.double().mean(2).sum(1).cpu()
        return total / len(samples)


def train_stack(
    members: Sequence[CVPotential],
    samples: ForceSamples[Tensor],
    validation: ForceSamples[Tensor],
    config: TrainingConfig,
    *,
    seeds: Sequence[int],
    drawn: Sequence[Tensor] | None = None,
    report: Callable[[Records], None] = lambda records: None,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> tuple[list[CVPotential], list[Records]]:
    """Fit potentials of one shape to the forces (n, d) at once; return them and the history.

    Samples are places (n, d), in the units of the collective variables. Each is trained as
    ``deepcg.training.trainer.train`` would train it, to rounding. The options are those of
    ``run_training`` there.

    Raises
    ------
    TrainingError
        As there.
    """
    stack = StackOfSurfaces(members)
    history = run_training(
        stack,
        samples,
        validation,
        config,
        seeds=seeds,
        drawn=drawn,
        report=report,
        checkpoint=checkpoint,
        resume=resume,
        progress=progress,
    )
    return stack.members(), history
