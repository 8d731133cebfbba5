"""What is told of forces before anything is fitted to them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from deepcg.forces.constraints import Constraints
from deepcg.forces.force_series import ForceSizes, about_bad_frames, about_drift
from deepcg.forces.hypervirial import about_balance, bond_balance, contact_balance
from deepcg.forces.random_forces import about_memory, about_net_force
from deepcg.runtime.arrays import Integers
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.reader import Trajectory, iter_frames
from deepcg.trajectory.sanity_checks import warn_of_forces

_log = logging.getLogger(__name__)

CONSECUTIVE = 60
"""Frames that follow one another, in which forces along bonds are looked at."""


def check_sample(source: Trajectory, sample: Frames, numbers: Integers) -> None:
    """Refuse frames, numbered (n,) in the file, that an estimator must not be built from.

    Raises
    ------
    InputError
        Forces of a frame are of another size than those of all others; it is named.
    """
    sizes = ForceSizes()
    sizes.add(sample)
    about_bad_frames(_where(source), sizes, numbers)


def warn_of_sample(
    source: Trajectory, sample: Frames, first: int, held: Constraints, temperature: float
) -> None:
    """Warn of forces that do not belong to the positions of a sample at a temperature, K.

    ``first`` is the number of a frame of the source with others after it.
    """
    if sample.forces is None:
        return
    path, graph = _where(source), source.graph
    of_other_size = warn_of_forces(path, sample.forces.numpy(), graph)
    told = about_net_force(sample, graph)
    if told is None:
        stop = first + CONSECUTIVE
        told = about_memory(next(iter_frames(source, start=first, stop=stop)), graph)
    if told is not None:
        _log.warning("%s: %s", path, told)
    balances = (
        contact_balance(sample, graph, temperature),
        bond_balance(sample, graph, held, temperature),
    )
    for balance in balances:
        told = None if balance is None else about_balance(balance, temperature)
        if balance is None or told is None or (of_other_size and balance.bounds()[0] >= 0):
            continue
        _log.warning("%s: %s", path, told)
        return


def watched(parts: Iterator[Frames], sizes: ForceSizes) -> Iterator[Frames]:
    """Yield frames, and note the sizes of their forces."""
    for part in parts:
        yield sizes.add(part)


def check_series(source: Trajectory, sizes: ForceSizes, numbers: Integers) -> None:
    """Warn of bad frames and of a start that is not equilibrated; frames are numbered (n,).

    Raises
    ------
    InputError
        As ``check_sample``.
    """
    path = _where(source)
    told = about_bad_frames(path, sizes, numbers) or about_drift(sizes, numbers)
    if told is not None:
        _log.warning("%s: %s", path, told)


def _where(source: Trajectory) -> Path:
    return source.forces or source.trajectory
