"""Chains that are kept where a measure of their positions is below a limit."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from sampling.state import SamplerState, Step


class LimitExceeded(Exception):
    """A chain is beyond the limit: which, and what was measured."""

    def __init__(self, chain: int, value: float, taken: int) -> None:
        super().__init__(f"chain {chain} measures {value:.6g} after {taken} steps")
        self.chain, self.value, self.taken = chain, value, taken


class ReflectingLimit:
    """Stops chains that are found beyond a limit, or turns them back.

    A chain that is turned back is put where it was at the last check, with its velocities
    reversed. That is the rejection of generalized hybrid Monte Carlo (Horowitz, Phys. Lett. B
    1991, 268, 247) of a path that is as likely as its reverse: what is sampled stays exp(-U/kT),
    to the error of the integrator, within the limit.

    Parameters
    ----------
    measure
        positions (n_chains, n_sites, d) -> (n_chains,)
    limit
        Largest measure that is allowed.
    every
        Steps between checks.
    reflect
        Turn chains back; else `LimitExceeded` is raised.
    """

    def __init__(
        self, measure: Callable[[Tensor], Tensor], limit: float, *, every: int, reflect: bool
    ) -> None:
        self.measure, self.limit, self.every, self.reflect = measure, limit, every, reflect
        self.taken, self.turned = 0, torch.zeros((), dtype=torch.long)
        self.kept: SamplerState | None = None

    def step(self, step: Step) -> Step:
        """Return ``step`` followed, where it is due, by a check."""

        def with_check(state: SamplerState, generator: Generator) -> SamplerState:
            if self.kept is None:
                self._refuse(self._measured(state))
                self.kept = state
            state = step(state, generator)
            self.taken += 1
            if self.taken % self.every == 0:
                state = self.kept = self._inside(state, self.kept)
            return state

        return with_check

    def get_state(self) -> dict[str, Tensor]:
        """Return where chains were at the last check, shaped as in `SamplerState`; counts, ()."""
        memory = {"taken": torch.tensor(self.taken), "turned": self.turned}
        if self.kept is None:
            return memory
        names = ("positions", "velocities", "forces", "energy")
        return memory | {name: getattr(self.kept, name) for name in names}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a state of ``get_state``: the same names and shapes."""
        self.taken, self.turned = int(state["taken"]), state["turned"]
        names = ("positions", "velocities", "forces", "energy")
        known = "positions" in state
        self.kept = SamplerState(*(state[name] for name in names)) if known else None

    def _inside(self, state: SamplerState, kept: SamplerState) -> SamplerState:
        measured = self._measured(state)
        if not self.reflect:
            self._refuse(measured)
        out = ~(measured <= self.limit)  # what is not a number is turned back, too
        self.turned = self.turned + out.sum().cpu()
        wide = out[:, None, None]
        return SamplerState(
            torch.where(wide, kept.positions, state.positions),
            torch.where(wide, -kept.velocities, state.velocities),
            torch.where(wide, kept.forces, state.forces),
            torch.where(out, kept.energy, state.energy),
        )

    def _measured(self, state: SamplerState) -> Tensor:
        return self.measure(state.positions)

    def _refuse(self, measured: Tensor) -> None:
        out = ~(measured <= self.limit)
        if bool(out.any()):
            chain = int(out.long().argmax())
            raise LimitExceeded(chain, float(measured[chain]), self.taken)
