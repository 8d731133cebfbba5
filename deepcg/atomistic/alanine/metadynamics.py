"""Well-tempered metadynamics with OpenMM: walkers that fill (phi, psi) with hills together.

The table of hills and the States of all walkers are saved in one file, so that what was cut off
takes the steps of what was not.

Why not ``openmm.app.Metadynamics``, which is the oracle in tests: its walkers share their hills
through files. Here those of one process share one table, and what is resumed is exact.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm

from deepcg.atomistic.alanine.molecule import torsions
from deepcg.atomistic.alanine.torsion_bias import (
    POINTS,
    BiasedSystem,
    Table,
    bias_energy,
    hill,
    tempered,
)
from deepcg.atomistic.equilibration import Thermostat, advance, parse_state, restart, state_of
from deepcg.runtime.files import read_arrays, write_arrays
from deepcg.runtime.progress import Progress


@dataclass(frozen=True, slots=True)
class MetadynamicsSettings:
    """How a bias is built.

    Parameters
    ----------
    height, width
        Of a hill where there is no bias yet: kJ/mol, rad.
    bias_factor
        How many times the temperature phi and psi are sampled at in the end.
    every
        Steps from one hill of a walker to its next.
    number
        Hills of each walker.
    per_segment
        Hills of each walker from one checkpoint to the next.
    """

    height: float
    width: float
    bias_factor: float
    every: int
    number: int
    per_segment: int


@dataclass(frozen=True, slots=True, eq=False)
class MetadynamicsState:
    """How far it is: the table, hills of each walker so far, the walkers' States."""

    table: Table
    hills: int
    states: list[openmm.State]

    @classmethod
    def begin(cls, states: list[openmm.State]) -> MetadynamicsState:
        """Return that without any hills."""
        return cls(np.zeros((POINTS, POINTS)), 0, states)

    def save(self, path: Path) -> None:
        """Write it as .npz."""
        states = np.array([openmm.XmlSerializer.serialize(state) for state in self.states])
        write_arrays(path, {"bias": self.table, "hills": np.array(self.hills), "states": states})

    @classmethod
    def load(cls, path: Path) -> MetadynamicsState:
        """Read what ``save`` wrote."""
        saved = read_arrays(path)
        states = [parse_state(str(text), path) for text in saved["states"]]
        return cls(saved["bias"], int(saved["hills"]), states)


def fill(
    thermostat: Thermostat,
    system: openmm.System,
    hills: MetadynamicsSettings,
    filling: MetadynamicsState,
    checkpoint: Path,
    progress: Progress,
) -> MetadynamicsState:
    """Return what ``filling`` becomes when every walker has left all its hills.

    All walkers move under the same table, then all add their hills to it. What is done is saved
    to ``checkpoint`` at the end of each segment.
    """
    biased, table = BiasedSystem(system, filling.table), filling.table.copy()
    contexts = [thermostat.context(biased.system) for _ in filling.states]
    began, first = time.monotonic(), filling.hills
    for number in range(first, hills.number):
        if number % hills.per_segment == 0:
            _begin_segment(thermostat, contexts, filling)
        for context in contexts:
            advance(context, hills.every)
        table += sum(_hill(context, hills, thermostat.temperature) for context in contexts)
        biased.update(table, contexts)
        if (number + 1) % hills.per_segment == 0 or number + 1 == hills.number:
            filling = MetadynamicsState(table.copy(), number + 1, [state_of(c) for c in contexts])
            filling.save(checkpoint)
        ps = (number + 1 - first) * hills.every * thermostat.dt * len(contexts)
        speed = ps / 1000 / (time.monotonic() - began) * 86400
        progress(number + 1, hills.number, f"leave hills, {speed:.0f} ns/day")
    return filling


def _begin_segment(
    thermostat: Thermostat, contexts: list[openmm.Context], filling: MetadynamicsState
) -> None:
    for walker, (context, state) in enumerate(zip(contexts, filling.states, strict=True)):
        number = filling.hills * len(contexts) + walker
        restart(context, state, thermostat.seed_of("hills", number))


def _hill(context: openmm.Context, hills: MetadynamicsSettings, temperature: float) -> Table:
    positions = context.getState(positions=True).getPositions(asNumpy=True)._value
    phi, psi = torsions(positions)
    height = tempered(hills.height, bias_energy(context), temperature, hills.bias_factor)
    return hill((phi, psi), height, hills.width)
