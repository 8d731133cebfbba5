"""Replica exchange in temperature: hot chains climb what cold ones cannot."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from sampling.state import SamplerState, Step


class ReplicaExchange:
    """Swaps between chains at neighboring temperatures (Sugita & Okamoto, CPL 1999, 314, 141).

    Chains stay at their temperatures and swap positions and velocities, scaled to the new
    temperature: each chain samples one temperature all along. Even and odd pairs take turns.
    It remembers: its state belongs beside that of the chains in a checkpoint.

    Parameters
    ----------
    levels
        kT (n_levels,), two or more.
    n_ladders
        Number of independent sets of levels. Chain ``level * n_ladders + ladder`` is at kT
        ``levels[level]``.
    every
        Steps between swaps.

    Raises
    ------
    ValueError
        A parameter is out of its range.
    """

    def __init__(self, levels: Tensor, n_ladders: int, *, every: int) -> None:
        if len(levels) < 2 or not bool((levels > 0).all()) or n_ladders < 1 or every < 1:
            raise ValueError(
                f"exchange needs two or more kT > 0, n_ladders > 0 and every > 0: "
                f"{levels.tolist()}, {n_ladders=}, {every=}"
            )
        n_levels = len(levels)
        self.levels, self.n_ladders, self.every = levels.double(), n_ladders, every
        self.taken = 0
        self.tried = torch.zeros(n_levels - 1, dtype=torch.long, device=levels.device)
        self.accepted = torch.zeros_like(self.tried)
        chains = torch.arange(n_levels * n_ladders, device=levels.device)
        self.walkers = chains.view(n_levels, n_ladders)

    @property
    def kT(self) -> Tensor:
        """Of every chain, (n_levels * n_ladders,)."""
        return self.levels.repeat_interleave(self.n_ladders)

    @property
    def acceptance(self) -> Tensor:
        """Accepted fraction of the swaps of every level with the next, (n_levels - 1,)."""
        return self.accepted / self.tried.clamp(min=1)

    def step(self, step: Step) -> Step:
        """Return ``step`` followed, where it is due, by swaps."""

        def with_swaps(state: SamplerState, generator: Generator) -> SamplerState:
            state = step(state, generator)
            self.taken += 1
            return state if self.taken % self.every else self.swap(state, generator)

        return with_swaps

    def swap(self, state: SamplerState, generator: Generator) -> SamplerState:
        """Return the state after trying to swap every other pair of levels."""
        turn = self.taken // self.every % 2 if len(self.levels) > 2 else 0
        lower = torch.arange(turn, len(self.levels) - 1, 2, device=self.levels.device)
        energy = state.energy.double().view(self.walkers.shape)
        cooling = (1 / self.levels).diff().neg()[lower, None]
        gain = cooling * (energy[lower] - energy[lower + 1])
        luck = torch.rand(
            gain.shape, generator=generator, dtype=gain.dtype, device=gain.device
        ).log()
        accept = luck < gain  # never where an energy is not a number
        self.tried = self.tried.index_add(0, lower, torch.full_like(lower, self.n_ladders))
        self.accepted = self.accepted.index_add(0, lower, accept.sum(1))
        return self._moved(state, lower, accept)

    def get_state(self) -> dict[str, Tensor]:
        """Return which walker is where, the counts of swaps and the number of steps taken.

        (n_levels, n_ladders), twice (n_levels - 1,), and ().
        """
        return {
            "walkers": self.walkers,
            "tried": self.tried,
            "accepted": self.accepted,
            "taken": torch.tensor(self.taken),
        }

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a state of ``get_state``: the same names and shapes."""
        self.walkers, self.taken = state["walkers"], int(state["taken"])
        self.tried, self.accepted = state["tried"], state["accepted"]

    def _moved(self, state: SamplerState, lower: Tensor, accept: Tensor) -> SamplerState:
        chains = torch.arange(self.walkers.numel(), device=lower.device).view(self.walkers.shape)
        source = chains.clone()
        source[lower] = torch.where(accept, chains[lower + 1], chains[lower])
        source[lower + 1] = torch.where(accept, chains[lower], chains[lower + 1])
        self.walkers = self.walkers.flatten()[source]
        source = source.flatten()
        scale = (self.kT / self.kT[source]).sqrt().to(state.velocities)
        return SamplerState(
            state.positions[source],
            state.velocities[source] * scale[:, None, None],
            state.forces[source],
            state.energy[source],
        )
