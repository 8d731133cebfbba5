"""The loop: steps, soundness checks, and what is known when a chain blows up."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Generator

from sampling.checkpoint import Checkpoint
from sampling.method import Method
from sampling.stability import StabilityCheck, finite
from sampling.state import SamplerState, Step


class Blowup(FloatingPointError):
    """A chain left what its integrator can follow.

    ``step`` is the first unsound step and ``replica`` the first unsound chain in it;
    ``good`` is where all chains were one step before and ``bad`` the unsound state.
    """

    def __init__(self, message: str, good: Checkpoint, bad: SamplerState, replica: int) -> None:
        super().__init__(message)
        self.step = good.step + 1
        self.replica = replica
        self.good = good
        self.bad = bad


def run(
    step: Step,
    state: SamplerState,
    generator: Generator,
    *,
    n_steps: int,
    every: int = 1,
    first: int = 0,
    check_every: int = 10,
    sound: StabilityCheck = finite,
    method: Method | None = None,
) -> Iterator[tuple[int, SamplerState]]:
    """Take ``n_steps`` steps and yield every ``every``-th as (step number, state).

    Numbers count on from ``first``, the number of steps that were taken before. Chains are
    checked before a state is yielded and every ``check_every`` steps, not at each step: a
    check waits for the device. A ``method`` that ``step`` is of is asked for its memory only.

    Raises
    ------
    Blowup
        A chain is not ``sound``; the steps since the last check are repeated to name the
        one that failed.
    """
    good = _checkpoint(first, state, generator, method)
    for n in range(first + 1, first + n_steps + 1):
        state = step(state, generator)
        due = (n - first) % every == 0
        if due or n % check_every == 0 or n == first + n_steps:
            if not bool(sound(good.state, state).all()):
                raise _blowup(step, good, generator, sound, n, state, method)
            good = _checkpoint(n, state, generator, method)
        if due:
            yield n, state


def _checkpoint(
    n: int, state: SamplerState, generator: Generator, method: Method | None
) -> Checkpoint:
    memory = {} if method is None else method.get_state()
    return Checkpoint(n, state, generator.get_state(), memory=memory)


def _blowup(
    step: Step,
    good: Checkpoint,
    generator: Generator,
    sound: StabilityCheck,
    n: int,
    bad: SamplerState,
    method: Method | None,
) -> Blowup:
    """Repeat the steps after ``good`` one by one up to the first that is unsound."""
    generator.set_state(good.generator_state)
    if method is not None:
        method.set_state(good.memory)
    before, state = good, good.state
    while before.step < n:
        state = step(state, generator)
        if not bool(sound(good.state, state).all()):
            return _describe(before, state, sound(good.state, state).tolist())
        before = _checkpoint(before.step + 1, state, generator, method)
    # a force field with a memory may differ in rounding, and the repetition be sound
    return _describe(good, bad, sound(good.state, bad).tolist())


def _describe(before: Checkpoint, bad: SamplerState, sound: list[bool]) -> Blowup:
    replica = sound.index(False)
    old, new = (float(s.energy[replica]) for s in (before.state, bad))
    speed = float(bad.velocities[replica].norm(dim=-1).amax())
    message = (
        f"replica {replica} blew up at step {before.step + 1}: "
        f"energy {old:.6g} -> {new:.6g}, greatest speed {speed:.3g}"
    )
    return Blowup(message, before, bad, replica)
