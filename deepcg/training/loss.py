"""The force-matching loss (MS-CG): mean square errors of forces against instantaneous ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from deepcg.compute.matmul_precision import EXACT, multiplied_in
from deepcg.training.samples import ForceSamples, Inputs, InputsSeen_contra

CHUNK = 13_000
"""Force components that are evaluated at a time."""


class Trainable(Protocol[InputsSeen_contra]):
    """A potential with weights: an ``nn.Module`` that knows its forces."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the weights."""
        ...

    def forces(
        self, inputs: InputsSeen_contra, /, *, create_graph: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return U (n_frames,), kJ/mol, and minus its gradient, shaped as the forces."""
        ...


def residuals(
    potential: Trainable[Inputs],
    samples: ForceSamples[Inputs],
    *,
    chunk: int | None = None,
    as_trained: bool = False,
) -> Tensor:
    """Return the potential's forces less those of the samples, shaped as these, (n_frames, ...).

    They are over ``samples.scale``, which for beads is 1: in kJ/mol/nm. ``chunk`` frames are
    evaluated at a time; ``None``: as many as have ``CHUNK`` components. Forces are worked out in
    the fastest way, or ``as_trained``, in that of a step of training.
    """
    size = chunk or max(1, CHUNK * len(samples) // samples.forces.numel())
    errors = []
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        _, forces = potential.forces(part.seen, create_graph=as_trained)
        errors.append((forces.detach() - part.forces) / part.scale)
    return torch.cat(errors)


def squared_errors(
    potential: Trainable[Inputs],
    samples: ForceSamples[Inputs],
    *,
    chunk: int | None = None,
    as_trained: bool = False,
) -> Tensor:
    """Return the terms of the force-matching (MS-CG) loss, whose mean over all components it is.

    They are the squares of `residuals`, which has the same options; for beads in (kJ/mol/nm)^2.
    """
    return residuals(potential, samples, chunk=chunk, as_trained=as_trained).square()


def force_error(
    potential: Trainable[Inputs], samples: ForceSamples[Inputs], *, chunk: int | None = None
) -> Tensor:
    """Return the squared force errors of each frame, (n_frames,), mean over components.

    Their unit is that of `squared_errors`, which has ``chunk``, too.
    """
    return squared_errors(potential, samples, chunk=chunk).flatten(1).mean(1)


def matmul_change(
    potential: Trainable[Inputs], samples: ForceSamples[Inputs], matmul: str
) -> float:
    """Return by how much of itself the mean squared force error changes with ``matmul``.

    It is a precision of matrix products, as in `deepcg.compute.matmul_precision`; 0.01 is 1 %.
    """
    errors = []
    for precision in (EXACT, matmul):
        with multiplied_in(precision):
            errors.append(float(squared_errors(potential, samples, as_trained=True).mean()))
    return errors[1] / errors[0] - 1


def in_brief(error: float) -> str:
    """Return a mean square error with the digits that matter, whatever its unit."""
    return f"{error:.0f}" if error >= 100 else f"{error:.3g}"
