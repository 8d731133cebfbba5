"""Enhanced sampling of beads: umbrella sampling, well-tempered metadynamics, replica exchange.

Here is what may be asked for, and how the objects of the sampler that do it are made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

import mdtraj
import numpy as np
import torch
from torch import Tensor

from deepcg.mapping.collective_variables import CollectiveVariables, Variable, build_variables
from deepcg.runtime.errors import InputError, pick
from deepcg.units import thermal_energy
from sampling import (
    Axis,
    Bias,
    Biased,
    ForceField,
    HarmonicBias,
    Metadynamics,
    Method,
    ReplicaExchange,
)

WIDTHS = {"rad": 0.35, "nm": 0.02}
"""Of hills, by the unit of the coordinate."""

Number = TypeVar("Number", int, float)

TOGETHER = 10.0
"""Height of the first hills of all replicas together, kJ/mol."""


@dataclass(frozen=True, slots=True)
class BiasConfig:
    """Enhanced sampling.

    Parameters
    ----------
    bias
        none, metadynamics (well-tempered; all replicas fill one bias, which is then fixed before
        frames are written) or umbrella (springs to a grid of windows).
    cv
        What is biased: dihedrals (phi and psi), or coordinates of beads, counted from 0, such as
        "dihedral:4,6,8,14;distance:3,7".
    hill_height
        Height of a first hill of one replica, kJ/mol; by default 10 over the number of replicas.
    hill_width
        Width of hills in units of the coordinate, one for all or one for each; by default 0.35 rad
        or 0.02 nm.
    bias_factor
        How many times flatter metadynamics makes the free energy, above 1.
    hill_every_ps
        Time between hills, ps.
    freeze_after_ps
        Time for which the bias grows, ps; the equilibration under the fixed bias follows.
    windows
        Number of umbrella windows along the coordinates, one for all or one for each; replicas are
        shared out among all combinations.
    force_constant
        Force constant of the springs of windows, kJ/mol per squared unit, one for all or one for
        each; by default 4 kT over the squared distance of windows.
    temperatures
        Temperatures of replica exchange, K, the model's first; every set of as many replicas swaps
        among them, and frames at the first are the samples.
    swap_every_ps
        Time between swaps, ps.
    """

    bias: str = "none"
    cv: str = "dihedrals"
    hill_height: float | None = None
    hill_width: tuple[float, ...] | None = None
    bias_factor: float = 6.0
    hill_every_ps: float = 0.2
    freeze_after_ps: float = 100.0
    windows: tuple[int, ...] = (12,)
    force_constant: tuple[float, ...] | None = None
    temperatures: tuple[float, ...] = ()
    swap_every_ps: float = 0.2

    def __post_init__(self) -> None:
        pick(BIASES, self.bias, "bias")
        for name, value in asdict(self).items():
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(n, float | int) and not 0 < n < math.inf for n in numbers):
                raise InputError(f"{name} is {value}: give a positive number")
        if self.bias_factor <= 1:
            raise InputError(f"bias_factor is {self.bias_factor}: give a number above 1")
        if self.temperatures and self.bias != "none":
            raise InputError("replica exchange goes without a bias: leave --temperatures or --bias")

    @property
    def settings(self) -> dict[str, str]:
        """What must be the same for a run to be resumed."""
        names = ("bias", "temperatures", "swap_every_ps") if self.bias == "none" else asdict(self)
        return {name: str(getattr(self, name)) for name in names}

    @property
    def growing_ps(self) -> float:
        """Time before the bias is fixed, ps."""
        return self.freeze_after_ps if self.bias == "metadynamics" else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Enhancement:
    """Replicas with what enhances their sampling.

    Parameters
    ----------
    force_field
        With the bias, if there is one.
    start
        (n_replicas, n_beads, 3), nm: the frames to begin from.
    method
        Metadynamics or replica exchange.
    variables
        What is biased.
    """

    force_field: ForceField
    start: Tensor
    method: Method | None = None
    variables: CollectiveVariables | None = None

    @property
    def bias(self) -> Bias | None:
        """Energy over the values of the variables."""
        return self.force_field.bias if isinstance(self.force_field, Biased) else None


def enhance(
    config: BiasConfig,
    force_field: ForceField,
    frames: Tensor,
    topology: mdtraj.Topology,
    *,
    box: Tensor | None = None,
    replicas: int,
    temperature: float,
    dt: float,
) -> Enhancement:
    """Return what the sampler needs for a bias or for replica exchange, or for neither.

    ``frames`` (n, n_beads, 3), nm, are what replicas may begin from, in a ``box`` (3, 3), nm, or
    in the open; ``temperature`` in K, ``dt`` in ps.

    Raises
    ------
    InputError
        Coordinates, windows or temperatures do not fit the beads or the replicas.
    """
    make = BIASES[config.bias]
    if make is None:
        start = frames[_spread(frames, replicas)]
        swaps = _exchange(config, start, temperature, dt) if config.temperatures else None
        return Enhancement(force_field, start, swaps)
    variables = build_variables(config.cv, topology, of_beads=True)
    if box is not None:
        _check_whole(variables)
    task = _Task(variables, frames, replicas, thermal_energy(temperature), dt)
    bias, chosen = make(config, task)
    method = bias if isinstance(bias, Metadynamics) else None
    return Enhancement(Biased(force_field, variables, bias), frames[chosen], method, variables)


def _exchange(config: BiasConfig, start: Tensor, temperature: float, dt: float) -> ReplicaExchange:
    kelvin, replicas = config.temperatures, len(start)
    if len(kelvin) < 2 or list(kelvin) != sorted(set(kelvin)):
        raise InputError(f"temperatures are {list(kelvin)} K: give two or more, ascending")
    if abs(kelvin[0] - temperature) > 0.1:
        raise InputError(
            f"the first of the temperatures is {kelvin[0]:g} K, the model's is {temperature:g} K: "
            f"begin with that"
        )
    n = len(kelvin)
    if replicas % n:
        raise InputError(
            f"{replicas} replicas cannot be shared out among {n} temperatures: "
            f"give --replicas {n * max(1, round(replicas / n))}"
        )
    levels = start.new_tensor([thermal_energy(t) for t in kelvin], dtype=torch.float64)
    return ReplicaExchange(levels, replicas // n, every=max(1, round(config.swap_every_ps / dt)))


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """What a bias is made for: frames (n, n_beads, 3) and their values (n, d); kJ/mol, ps."""

    variables: CollectiveVariables
    frames: Tensor
    replicas: int
    kT: float
    dt: float

    @property
    def ends(self) -> list[tuple[float, float]]:
        """The range of each coordinate: a period, or what frames span and a quarter more."""
        values = self.variables(self.frames).unbind(-1)
        return [_end(v, x) for v, x in zip(self.variables.variables, values, strict=True)]


def _metadynamics(config: BiasConfig, task: _Task) -> tuple[Metadynamics, Tensor]:
    """Return the method, and the frames that replicas begin from: spread over the data."""
    variables, units = task.variables.variables, task.variables.units
    widths = config.hill_width or tuple(WIDTHS[unit] for unit in units)
    widths = _for_each(widths, len(variables), "hill_width")
    axes = [
        Axis.fine(low, high, width=width, periodic=variable.period is not None)
        for variable, (low, high), width in zip(variables, task.ends, widths, strict=True)
    ]
    method = Metadynamics(
        task.variables,
        axes,
        widths=widths,
        height=config.hill_height or TOGETHER / task.replicas,
        bias_factor=config.bias_factor,
        kT=task.kT,
        every=max(1, round(config.hill_every_ps / task.dt)),
        stop=round(config.freeze_after_ps / task.dt),
    )
    return method, _spread(task.frames, task.replicas)


def _umbrella(config: BiasConfig, task: _Task) -> tuple[HarmonicBias, Tensor]:
    """Return the springs of replicas, and the frames nearest to their centers."""
    variables = task.variables.variables
    counts = _for_each(config.windows, len(variables), "windows")
    n_windows = math.prod(counts)
    if task.replicas % n_windows:
        raise InputError(
            f"{' x '.join(map(str, counts))} windows need a multiple of {n_windows} replicas, "
            f"not {task.replicas}: give --replicas {n_windows}"
        )
    lines = [
        np.linspace(low, high, n, endpoint=variable.period is None)
        for variable, n, (low, high) in zip(variables, counts, task.ends, strict=True)
    ]
    grid = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, len(lines))
    centers = task.frames.new_tensor(np.repeat(grid, task.replicas // n_windows, axis=0))
    steps = [line[1] - line[0] if len(line) > 1 else 1.0 for line in lines]
    springs = config.force_constant or tuple(4 * task.kT / step**2 for step in steps)
    constants = centers.new_tensor(_for_each(springs, len(variables), "force_constant"))
    bias = HarmonicBias(centers, constants, task.variables.periods)
    pulls = [bias(value.expand_as(centers))[0] for value in task.variables(task.frames)]
    return bias, torch.stack(pulls).argmin(0)


BIASES: dict[str, Callable[[BiasConfig, _Task], tuple[Bias, Tensor]] | None] = {
    "none": None,
    "metadynamics": _metadynamics,
    "umbrella": _umbrella,
}


def _spread(frames: Tensor, n: int) -> Tensor:
    return torch.linspace(0, len(frames) - 1, n).round().long()


def _check_whole(variables: CollectiveVariables) -> None:
    """Refuse what needs to know the nearest image: replicas wander out of the box."""
    for variable in variables.variables:
        owners = variables.molecules
        if owners is not None and len(set(owners[list(variable.atoms)])) > 1:
            raise InputError(
                f"{variable.name} is of more than one molecule in a periodic box: "
                f"a bias must be within a molecule"
            )


def _end(variable: Variable, values: Tensor) -> tuple[float, float]:
    if variable.period is not None:
        return -variable.period / 2, variable.period / 2
    low, high = float(values.min()), float(values.max())
    if not high > low:
        raise InputError(f"all frames have {variable.name} = {low:.4g}: nothing to sample along it")
    margin = (high - low) / 4
    return max(0.0, low - margin), high + margin


def _for_each(values: tuple[Number, ...], n: int, name: str) -> tuple[Number, ...]:
    if len(values) not in (1, n):
        raise InputError(f"{name} has {len(values)} numbers: give one, or {n}, one per coordinate")
    return values * n if len(values) == 1 else values
