"""Where an ensemble knows U: the model deviation over surfaces and beads, and the spread of F."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deepcg.analysis.surfaces.estimates import lowered
from deepcg.analysis.surfaces.fitted import bin_energies, is_near
from deepcg.analysis.surfaces.surface import FreeEnergySurface
from deepcg.analysis.uncertainty.data_error import data_error
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.ensemble import SurfaceEnsemble, model_deviation
from deepcg.runtime.arrays import Doubles, Integers
from free_energy import Estimate, Grid, Replicates, normalized

LOW = 20.0
"""kJ/mol: where U is below, a model spends its time."""


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceDeviation:
    """The model deviation of an ensemble on a grid of one or two collective variables.

    Parameters
    ----------
    names, units
        Of the coordinates.
    grid
        The bins.
    sigma
        (*grid), spread of the members' forces at the centers of the bins, kJ/mol per unit; where
        units differ, in units of the root mean square of each force.
    unit
        Of ``sigma``.
    energies
        (n_members, *grid), U of each, kJ/mol, also where there are no frames; normalized alike
        where there are.
    frames
        (*grid), number of frames trained on.
    data_error
        (*grid), standard error of U that noise and number of the frames leave, kJ/mol; see
        ``data_error``. NaN where it is not known.
    force
        Root mean square of the mean force where frames are, in the unit of ``sigma``.
    temperature
        K.
    source
        Where it comes from.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    grid: Grid
    sigma: Doubles
    unit: str
    energies: Doubles
    frames: Integers
    data_error: Doubles
    force: float
    temperature: float
    source: str

    @property
    def axes(self) -> dict[str, Doubles]:
        """The centers of the bins (n_bins,) by the names of the coordinates, in their units."""
        return dict(zip(self.names, self.grid.centers, strict=True))

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(*grid), whether a bin or those around it hold some frames."""
        return is_near(self.frames, self.grid)

    @property
    def inside(self) -> float:
        """Root mean square of Sigma over bins that are seen."""
        return _rms(self.sigma[self.seen])

    @property
    def outside(self) -> float:
        """Root mean square of Sigma over bins that are not; NaN where all are."""
        return _rms(self.sigma[~self.seen])

    @property
    def by_frames(self) -> float:
        """Root mean square of Sigma over the frames trained on."""
        return math.sqrt(float((self.frames * self.sigma**2).sum() / self.frames.sum()))

    @property
    def mean(self) -> Doubles:
        """U (*grid), kJ/mol, the mean of the members, 0 at its lowest."""
        mean: Doubles = self.energies.mean(0)
        lowest: Doubles = mean - mean.min()
        return lowest

    @property
    def landscape(self) -> FreeEnergySurface:
        """F with the members as replicates: their spread, not the error of their mean."""
        energies = np.where(self.seen, self.energies, np.nan)
        n = len(energies)
        mean = np.where(self.seen, self.energies.mean(0), np.nan)
        replicates = lowered(Replicates(mean, energies, math.sqrt(n / (n - 1))))
        return FreeEnergySurface(
            f"mean of {n} members",
            self.names,
            self.units,
            self.grid,
            replicates,
            self.temperature,
            self.source,
            int(self.frames.sum()),
        )

    def in_words(self) -> str:
        """Say how large Sigma is where there are data, and where not."""
        text = (
            f"Sigma is {self.inside:.3g} {self.unit} rms over the bins with frames "
            f"({self.by_frames:.3g} {self.unit} over the frames, "
            f"{100 * self.by_frames / self.force:.2g} % of the rms mean force)"
        )
        if math.isfinite(self.outside):
            ratio = self.outside / self.inside
            text += f", {self.outside:.3g} {self.unit} over those without: {ratio:.2g} times"
        return text + self._of_data()

    def _of_data(self) -> str:
        """Say what the frames leave uncertain, where it is known."""
        known = self.seen & np.isfinite(self.data_error)
        if not known.any():
            return ""
        low = self.mean < LOW
        low = known & low if (known & low).any() else known
        worst = self.data_error[low].max()
        return (
            f"; noise and number of frames leave an error of U of {_rms(self.data_error[low]):.2g} "
            f"kJ/mol rms, at most {worst:.2g} kJ/mol, over the bins below {LOW:g} kJ/mol"
        )


def surface_spread(
    members: Sequence[CVPotential],
    grid: Grid,
    frames: Integers,
    *,
    mean_force: Estimate[Doubles] | None = None,
    names: tuple[str, ...],
    units: tuple[str, ...],
    kT: float,
    temperature: float,
    source: str,
) -> SurfaceDeviation:
    """Return the spread of fits over bins, of which ``frames`` (*grid) is known; kT in kJ/mol.

    ``mean_force`` (*grid, d) in the bins, kJ/mol per unit, with its error, tells the noise.
    """
    ensemble = SurfaceEnsemble(members)
    like = members[0].center
    points = torch.as_tensor(grid.points()[:, 0]).to(like)
    deviations = ensemble.deviations(points).double()
    forces = ensemble.forces(points)[1].detach().double()
    seen = torch.from_numpy(is_near(frames, grid).ravel())
    alike = len(set(units)) == 1
    scale = forces.new_ones(len(units)) if alike else forces[seen].square().mean(0).sqrt()
    energies = np.stack([bin_energies(member, grid, kT) for member in members])
    nothing = np.full(grid.shape, np.nan)
    mean = energies.mean(0)
    density = np.where(is_near(frames, grid), np.exp(-(mean - mean.min()) / kT), 0.0)
    zeros = [_zero(energy, grid, is_near(frames, grid), kT) for energy in energies]
    return SurfaceDeviation(
        names,
        units,
        grid,
        model_deviation(deviations / scale).numpy().reshape(grid.shape),
        f"kJ/mol/{units[0]}" if alike else "rms mean forces",
        energies - np.array(zeros).reshape(-1, *[1] * len(grid.shape)),
        frames,
        nothing if mean_force is None else data_error(grid, frames, mean_force, density),
        float((forces[seen] / scale).square().sum(1).mean().sqrt()),
        temperature,
        source,
    )


@dataclass(frozen=True, slots=True, eq=False)
class BeadSpread:
    """The model deviation Sigma of beads in frames of one source.

    Parameters
    ----------
    name
        What to call the source.
    sigma
        (n_frames, n_beads), kJ/mol/nm.
    force
        (n_frames, n_beads), length of the mean force on each, kJ/mol/nm.
    types
        (n_beads,), integers from 0.
    type_names
        Of the types.
    source
        Where the frames come from.
    """

    name: str
    sigma: Doubles
    force: Doubles
    types: Integers
    type_names: tuple[str, ...]
    source: str

    @property
    def rms_force(self) -> float:
        """Root mean square of the mean force on a bead, kJ/mol/nm."""
        return _rms(self.force)

    @property
    def relative(self) -> float:
        """Rms of Sigma over the rms of the mean force."""
        return _rms(self.sigma) / self.rms_force

    def of_type(self, kind: int) -> Doubles:
        """Return Sigma (n,), kJ/mol/nm, of all beads of a type in all frames."""
        return self.sigma[:, self.types == kind].ravel()

    def largest(self, n: int) -> Integers:
        """Return the numbers (n,) of the frames whose worst bead is worst, the worst first."""
        order: Integers = np.argsort(-self.sigma.max(1), kind="stable")
        return order[:n]

    def in_words(self) -> str:
        """Say how large Sigma is."""
        return (
            f"{self.name}: Sigma is {_rms(self.sigma):.3g} kJ/mol/nm rms, "
            f"{100 * self.relative:.2g} % of the rms mean force {self.rms_force:.4g} kJ/mol/nm, at "
            f"most {self.sigma.max():.3g} kJ/mol/nm"
        )


def _zero(energy: Doubles, grid: Grid, seen: NDArray[np.bool_], kT: float) -> float:
    """Return what is to be taken off U to normalize it over the bins that are seen."""
    known = np.where(seen, energy, np.nan)
    shift = kT * normalized(known[None] / kT, grid)[0] - known
    return -float(np.nanmean(shift))


def _rms(values: Doubles) -> float:
    return float(np.sqrt((values**2).mean())) if values.size else math.nan
