"""The free energy of two collective variables as one source tells it, and what follows from it.

All errors come from replicates: surfaces from resampled blocks of frames, or from resampled fits.
Whatever is computed from a surface (populations, barriers, profiles, distances) is computed from
every replicate, too, and its error is their spread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepcg.analysis.axes import axes_table
from deepcg.analysis.html import fragment
from deepcg.analysis.surfaces.maps import energy_figure, energy_table, profile_figure
from deepcg.runtime.arrays import Doubles
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import read_arrays, write_arrays
from deepcg.units import thermal_energy
from free_energy import Estimate, Grid, Replicates

_PART, _INFLATION = "replicates of ", "inflation of "  # names in files


@dataclass(frozen=True, slots=True, eq=False)
class FreeEnergySurface:
    """A free-energy surface: F = -kT ln p of two coordinates on a grid, kJ/mol.

    It is the potential of mean force of the coordinates: its negative slope is their mean force.

    Parameters
    ----------
    name
        What to call the source in figures.
    names, units
        Of the coordinates.
    grid
        The bins.
    energy
        (*grid), 0 at its lowest; NaN where nothing was sampled.
    temperature
        K.
    source
        Where it comes from: a short text for pages.
    frames
        Number of frames.
    independent
        How many independent frames these are worth; NaN where unknown.
    parts
        Surfaces of which each tells a part of the error alone, by its name: sampling, data,
        training; empty where the replicates have one origin.
    """

    name: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    grid: Grid
    energy: Replicates
    temperature: float
    source: str
    frames: int = 0
    independent: float = float("nan")
    parts: Mapping[str, Replicates] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = self.energy.value.shape, self.energy.samples.shape[1:]
        if shapes != (self.grid.shape, self.grid.shape):
            raise ValueError(f"energies of shapes {shapes} on a grid of {self.grid.shape}")

    @property
    def kT(self) -> float:
        """Thermal energy, kJ/mol."""
        return thermal_energy(self.temperature)

    @property
    def value(self) -> Doubles:
        """F (*grid), kJ/mol, 0 at its lowest."""
        return self.energy.value

    @property
    def error(self) -> Doubles:
        """Standard error of F (*grid), kJ/mol; NaN where it is not known.

        The zero of a surface means nothing: replicates are shifted to the mean of F over the
        density before their spread is taken.
        """
        return self.of_energy(lambda energy: energy - self._mean(energy)).error

    @property
    def axes(self) -> dict[str, Doubles]:
        """The centers of the bins (n_bins,) by ``keys``, in the units of the coordinates."""
        return dict(zip(self.keys, self.grid.centers, strict=True))

    def plot(self) -> Figure:
        """Return F as a figure: a map over two coordinates, or a profile along one."""
        if len(self.names) == 2:
            text = "grey: not sampled"
            return energy_figure(self, self.value, symbol="F", title=self.name, text=text)
        curve = Estimate(self.value, self.error)
        return profile_figure(self, {self.name: curve}, symbol="F", title="")

    def _repr_html_(self) -> str:
        """Return what is known of F and of its coordinates, for notebooks."""
        independent = f", worth {self.independent:.0f}" if self.independent > 0 else ""
        lines = [f"{self.frames} frames{independent}, {self.temperature:g} K, from {self.source}"]
        table = energy_table("F", Estimate(self.value, self.error))
        return fragment(self.name, lines, table, axes_table(self))

    def of_energy(self, function: Callable[[Doubles], Doubles]) -> Estimate[Doubles]:
        """Return a function of F (*grid), kJ/mol, and its error, which the replicates tell."""
        if not len(self.energy.samples):
            value = function(self.value)
            return Estimate(value, np.full_like(value, np.nan))
        return self.energy.map(function).estimate()

    def parts_of_error(self, function: Callable[[Doubles], Doubles]) -> dict[str, Doubles]:
        """Return the parts of the error of a function of F (*grid), by name; none are known: none.

        Where no replicates tell the part of the data, it is what others leave of the whole.
        """
        found = {name: part.map(function).estimate().error for name, part in self.parts.items()}
        if found and not any(name.startswith("data") for name in found):
            others = sum(error**2 for error in found.values())
            rest = self.of_energy(function).error ** 2 - others
            found = {"data": np.sqrt(np.maximum(rest, 0.0)), **found}
        return found

    @property
    def error_parts(self) -> dict[str, Doubles]:
        """The parts of ``error`` (*grid), kJ/mol, by name; empty where they are not known."""
        return self.parts_of_error(lambda energy: energy - self._mean(energy))

    def _mean(self, energy: Doubles) -> float:
        known = np.isfinite(self.value) & np.isfinite(energy)
        density = np.exp(-self.value[known] / self.kT)
        return float((density * energy[known]).sum() / density.sum())

    def save(self, path: Path) -> None:
        """Write as .npz: the axes by the names of the coordinates, F, error and replicates."""
        arrays: dict[str, NDArray[Any]] = {
            "F": self.value,
            "error": self.error,
            "replicates": self.energy.samples.astype(np.float32),
            "inflation": np.array(self.energy.inflation),
            "name": np.array(self.name),
            "names": np.array(self.names),
            "units": np.array(self.units),
            "temperature": np.array(self.temperature),
            "frames": np.array(self.frames),
            "independent": np.array(self.independent),
            "source": np.array(self.source),
            "periods": np.array([np.nan if p is None else p for p in self.grid.periods]),
        }
        for name, part in self.parts.items():
            arrays[f"{_PART}{name}"] = part.samples.astype(np.float32)
            arrays[f"{_INFLATION}{name}"] = np.array(part.inflation)
        write_arrays(path, arrays | self.axes, compressed=True)

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the axes in files: ``phi`` and ``psi`` where there is one of each."""
        short = tuple(name.split()[0] for name in self.names)
        return short if len(set(short)) == len(short) else self.names


def load_free_energy_surface(path: Path) -> FreeEnergySurface:
    """Return what `FreeEnergySurface.save` wrote.

    Raises
    ------
    InputError
        The file is not such a file, or not whole.
    """
    try:
        file = read_arrays(path)
        names = tuple(str(name) for name in file["names"])
        short = tuple(name.split()[0] for name in names)
        keys = short if len(set(short)) == len(short) else names
        periods = tuple(None if np.isnan(p) else float(p) for p in file["periods"])
        grid = Grid(tuple(edges_of(file[key]) for key in keys), periods)
        return FreeEnergySurface(
            str(file["name"]),
            names,
            tuple(str(unit) for unit in file["units"]),
            grid,
            Replicates(
                file["F"].astype(float), file["replicates"].astype(float), float(file["inflation"])
            ),
            float(file["temperature"]),
            str(file["source"]),
            int(file["frames"]),
            float(file["independent"]),
            {
                key.removeprefix(_PART): Replicates(
                    file["F"].astype(float),
                    file[key].astype(float),
                    float(file[_INFLATION + key.removeprefix(_PART)]),
                )
                for key in file
                if key.startswith(_PART)
            },
        )
    except (KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"{path} is not a free-energy surface of 'deepcg fes': {reason}"
        ) from error


def difference(
    landscape: FreeEnergySurface, reference: FreeEnergySurface, level: float
) -> Estimate[Doubles]:
    """Return landscape - reference (*grid), kJ/mol, and its error from the two of both.

    The zeros are set such that the mean difference over the bins where the reference is below
    ``level``, weighted by the inverse of the error's square, vanishes.

    Raises
    ------
    ValueError
        The grids differ.
    """
    if landscape.grid.shape != reference.grid.shape:
        raise ValueError(f"grids of {landscape.grid.shape} and {reference.grid.shape} bins")
    error = np.sqrt(landscape.error**2 + reference.error**2)
    apart = landscape.value - reference.value
    with np.errstate(invalid="ignore"):
        low = np.isfinite(apart) & (reference.value < level)
    if not low.any():
        return Estimate(np.full_like(apart, np.nan), error)
    weight = np.where(low & (error > 0), error, np.inf) ** -2.0
    if not weight.sum() > 0:  # no errors are known
        weight = low.astype(float)
    shift = np.nansum(np.where(low, apart, 0.0) * weight) / weight.sum()
    return Estimate(apart - shift, error)


def edges_of(centers: Doubles) -> Doubles:
    """Return the edges (n + 1,) of evenly spaced bins about centers (n,)."""
    width = centers[1] - centers[0]
    return np.append(centers - width / 2, centers[-1] + width / 2)
