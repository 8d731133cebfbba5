"""Well-tempered metadynamics: chains fill, hill by hill, the valleys that they all are in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from sampling.bias import Coordinates
from sampling.spline import Axis, Spline, hills
from sampling.state import SamplerState, Step


class Metadynamics:
    """A bias that grows where chains are (Barducci, Bussi & Parrinello, PRL 2008, 100, 020603).

    All chains add to one bias and feel it (many walkers: Raiteri et al., J. Phys. Chem. B 2006,
    110, 3533). A hill on a bias V is ``height exp(-V / (kT (bias_factor - 1)))`` high, and V
    comes to -(1 - 1 / bias_factor) times the free energy, up to a constant. After ``stop`` steps
    it is fixed, and weights exp(V / kT) are exact.

    It is a `Bias`, and remembers: its state belongs beside that of the chains in a checkpoint.

    Parameters
    ----------
    coordinates
        What is biased.
    axes
        The grid of the bias, one per coordinate. Nothing is added where a chain is beyond it.
    widths
        Standard deviations of hills, one per coordinate.
    height
        Of a first hill of one chain, in energy.
    bias_factor
        Above 1; ``math.inf`` for hills of one height.
    every
        Steps between hills.
    stop
        The step after which no hills are added.

    Raises
    ------
    ValueError
        A parameter is out of its range, or the grid is too coarse for the hills.
    """

    def __init__(
        self,
        coordinates: Coordinates,
        axes: Sequence[Axis],
        *,
        widths: Sequence[float],
        height: float,
        bias_factor: float,
        kT: float,
        every: int,
        stop: float = math.inf,
    ) -> None:
        if not (height > 0 and bias_factor > 1 and kT > 0 and every > 0):
            raise ValueError(
                f"metadynamics needs height > 0, bias_factor > 1, kT > 0 and every > 0: "
                f"{height=}, {bias_factor=}, {kT=}, {every=}"
            )
        for axis, width in zip(axes, widths, strict=True):
            if not width > axis.spacing:
                raise ValueError(f"hills of width {width} on a grid of spacing {axis.spacing:.3g}")
        self.coordinates, self.axes, self.widths = coordinates, tuple(axes), tuple(widths)
        self.height, self.tempering = height, kT * (bias_factor - 1)
        self.every, self.stop = every, stop
        self.taken = 0
        self.bias = Spline(axes, torch.zeros([axis.n for axis in axes], dtype=torch.float64))

    def __call__(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bias (n_chains,) and its slope (n_chains, k) at values (n_chains, k)."""
        if self.bias.coefficients.device != values.device:
            self.bias = Spline(self.axes, self.bias.coefficients.to(values.device))
        return self.bias(values)

    def add(self, values: Tensor) -> None:
        """Add one hill at each of values (n, k), all on the bias as it is."""
        values = values.double()
        inside = [axis.holds(v) for axis, v in zip(self.axes, values.unbind(-1), strict=True)]
        heights = self.height * torch.exp(-self(values)[0] / self.tempering)
        heights = heights.where(torch.stack(inside).all(0), 0.0)
        more = hills(self.axes, values.nan_to_num(), self.widths, heights.nan_to_num())
        self.bias = Spline(self.axes, self.bias.coefficients + more)

    def step(self, step: Step) -> Step:
        """Return ``step`` with hills: before a step, so that energies keep up with the bias.

        The first half kick of such a step is still that of the bias before.
        """

        def with_hills(state: SamplerState, generator: Generator) -> SamplerState:
            if self.taken and self.taken % self.every == 0 and self.taken < self.stop:
                self.add(self.coordinates(state.positions))
            self.taken += 1
            return step(state, generator)

        return with_hills

    def get_state(self) -> dict[str, Tensor]:
        """Return coefficients of the bias on its grid (n_1, ..., n_k), and the steps taken, ()."""
        return {"coefficients": self.bias.coefficients, "taken": torch.tensor(self.taken)}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a state of ``get_state``, coefficients (n_1, ..., n_k) and a number ()."""
        self.bias = Spline(self.axes, state["coefficients"])
        self.taken = int(state["taken"])
