"""Umbrella sampling: a spring on the coordinates of every chain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class HarmonicBias:
    """The bias sum_k spring_k (s_k - center_k)^2 / 2, over the shortest way around a period.

    Parameters
    ----------
    centers
        (n_chains, k), or one row for all chains.
    springs
        (k,), energy per squared unit of the coordinate.
    periods
        Of the coordinates; ``None`` where there is none.
    """

    centers: Tensor
    springs: Tensor
    periods: tuple[float | None, ...]

    def __call__(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energy (n_chains,) and the slope (n_chains, k) at values (n_chains, k)."""
        columns = (values - self.centers.to(values)).unbind(-1)
        away = torch.stack(
            [
                away if period is None else away - period * (away / period).round()
                for away, period in zip(columns, self.periods, strict=True)
            ],
            dim=-1,
        )
        slope = self.springs.to(values) * away
        return (slope * away).sum(-1) / 2, slope
