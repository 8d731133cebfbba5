"""What is read off free-energy surfaces, and how far they are apart, with errors and floors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from deepcg.analysis.surfaces.estimates import (
    CVSamples,
    free_energy_surface_of,
    periods_span_a_turn,
)
from deepcg.analysis.surfaces.surface import FreeEnergySurface, difference
from deepcg.analysis.verdicts import Verdict, of_replicates
from deepcg.runtime.arrays import Doubles
from deepcg.units import thermal_energy
from free_energy import (
    Estimate,
    Grid,
    Rectangle,
    Replicates,
    barriers,
    free_energies,
    jensen_shannon,
    lowest_point,
    pmf_error,
    populations,
    region_of_bins,
    rms_difference,
    sampling_floor,
    surface_mse,
)

Regions = Mapping[str, Rectangle]

LEVEL = 20.0
"""kJ/mol: surfaces are compared where the reference is below."""

KCAL = 4.184


@dataclass(frozen=True, slots=True)
class Basin:
    """A region of the plane: its share, and its free energy relative to the first, kJ/mol."""

    name: str
    population: Estimate[float]
    energy: Estimate[float]


@dataclass(frozen=True, slots=True)
class Barrier:
    """The lowest pass between the lowest points of two regions, kJ/mol above either."""

    start: str
    end: str
    forth: Estimate[float]
    back: Estimate[float]


@dataclass(frozen=True, slots=True)
class Metric:
    """A distance between two ensembles as the literature defines it.

    ``floor`` is the mean of the same between samples of one distribution, of as many independent
    frames as these, and the scatter of one such distance.
    """

    name: str
    unit: str
    value: float
    floor: Estimate[float]


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a surface is from the reference where that is below ``LEVEL``.

    Parameters
    ----------
    model
        Its name.
    bins
        Number of bins.
    rms
        Root mean square of the difference, kJ/mol; its error is from the replicates of both.
    expected
        What the statistical errors of both alone would make of it, kJ/mol.
    basins
        Differences of the free energies of regions, kJ/mol.
    metrics
        Distances of the literature, where both are ensembles of frames.
    tested
        The verdict on the surfaces.
    place
        Where they differ most.
    basins_tested
        Verdicts on the free energies of regions.
    """

    model: str
    bins: int
    rms: Estimate[float]
    expected: float
    basins: Mapping[str, Estimate[float]]
    metrics: tuple[Metric, ...]
    tested: Verdict
    place: str
    basins_tested: Mapping[str, Verdict]

    @property
    def excess(self) -> float:
        """What of the rms difference the errors do not explain, kJ/mol."""
        return math.sqrt(max(0.0, self.rms.value**2 - self.expected**2))

    def in_words(self) -> str:
        """Say whether and how far the surface is from the reference, and which regions are."""
        line = (
            f"{self.model}: F {self.tested.in_words('kJ/mol', place=self.place)}; the difference "
            f"as it is: {self.rms.value:.2f} kJ/mol rms over {self.bins} bins below {LEVEL:g} "
            f"kJ/mol (statistical errors alone: {self.expected:.2f})"
        )
        return "; ".join([line, *self._regions()])

    def _regions(self) -> list[str]:
        """Say what the differences of regions are that differ."""
        found = []
        for name, own in self.basins.items():
            test = self.basins_tested[name].test
            if test is not None and test.differs:
                z = own.value / own.error
                found.append(
                    f"{name} {own.value:+.2f} ± {own.error:.2f} kJ/mol (z = {z:.1f}, "
                    f"{test.p_in_words})"
                )
        return found


@dataclass(frozen=True, slots=True)
class ErrorParts:
    """The error of a surface where it is below ``LEVEL``, root mean squares over bins, kJ/mol.

    Parameters
    ----------
    model
        Its name.
    total
        Of all parts together.
    parts
        By name: sampling (of a model's samples), data (that it was fitted to) and training (random
        weights and order of frames).
    basins
        The same of the free energies of regions, with the whole as ``total``.
    """

    model: str
    total: float
    parts: Mapping[str, float]
    basins: Mapping[str, Mapping[str, float]]

    def in_words(self) -> str:
        """Say how large the error is, and of what."""
        parts = ", ".join(f"{name} {part:.2g}" for name, part in self.parts.items())
        return (
            f"{self.model}: error of F {self.total:.2g} kJ/mol rms over bins below {LEVEL:g} "
            f"kJ/mol ({parts})"
        )


def error_parts_of(landscape: FreeEnergySurface, regions: Regions) -> ErrorParts | None:
    """Return the error of a surface with its parts; ``None`` where these are not known."""
    found = landscape.error_parts
    with np.errstate(invalid="ignore"):
        low = (landscape.value < LEVEL) & np.isfinite(landscape.error)
    if not found or not low.any():
        return None

    def rms(error: Doubles) -> float:
        return float(np.sqrt((error[low] ** 2).mean()))

    places, kT, n = region_of_bins(regions, landscape.grid), landscape.kT, len(regions)

    def energies(energy: Doubles) -> Doubles:
        found: Doubles = kT * free_energies(populations(energy / kT, places, n))
        return found

    basins: dict[str, dict[str, float]] = {}
    if regions:
        of_regions = {"total": landscape.of_energy(energies).error}
        of_regions |= landscape.parts_of_error(energies)
        basins = {
            region: {name: float(errors[k]) for name, errors in of_regions.items()}
            for k, region in enumerate(regions)
            if k > 0  # the first is the zero of all
        }
    parts = {name: rms(error) for name, error in found.items()}
    return ErrorParts(landscape.name, rms(landscape.error), parts, basins)


def basins_of(landscape: FreeEnergySurface, regions: Regions) -> tuple[Basin, ...]:
    """Return the regions' populations and free energies relative to the first of them."""
    if not regions:
        return ()
    places, kT, n = region_of_bins(regions, landscape.grid), landscape.kT, len(regions)
    shares = landscape.of_energy(lambda energy: populations(energy / kT, places, n))
    energies = landscape.of_energy(
        lambda energy: kT * free_energies(populations(energy / kT, places, n))
    )
    return tuple(Basin(name, _one(shares, k), _one(energies, k)) for k, name in enumerate(regions))


def barriers_of(
    landscape: FreeEnergySurface, regions: Regions, paths: Sequence[tuple[str, str]]
) -> tuple[Barrier, ...]:
    """Return the lowest passes between regions; NaN where none of them is sampled."""
    places, grid, kT = region_of_bins(regions, landscape.grid), landscape.grid, landscape.kT
    number = {name: k for k, name in enumerate(regions)}
    found: list[Barrier] = []
    for start, end in paths:
        inside = [places == number[name] for name in (start, end)]
        if not all(np.isfinite(landscape.value[where]).any() for where in inside):
            heights = Estimate(np.full(2, np.nan), np.full(2, np.nan))
        else:
            ends = [lowest_point(landscape.value, grid, where) for where in inside]
            heights = landscape.of_energy(_heights(landscape, ends, kT))
        found.append(Barrier(start, end, _one(heights, 0), _one(heights, 1)))
    return tuple(found)


def distance(
    landscape: FreeEnergySurface,
    reference: FreeEnergySurface,
    regions: Regions,
    metrics: tuple[Metric, ...] = (),
) -> Distance:
    """Compare a surface with the reference on the same grid."""
    apart = difference(landscape, reference, LEVEL)
    with np.errstate(invalid="ignore"):
        low = np.isfinite(apart.value) & (reference.value < LEVEL)
    known = low & np.isfinite(apart.error)
    expected = float(np.sqrt((apart.error[known] ** 2).mean())) if known.any() else float("nan")
    pairs = zip(basins_of(landscape, regions), basins_of(reference, regions), strict=True)
    basins = {
        own.name: Estimate(
            own.energy.value - other.energy.value, math.hypot(own.energy.error, other.energy.error)
        )
        for own, other in list(pairs)[1:]
    }
    rms = _rms_of(landscape, reference)
    tested, place = _tested(landscape, reference, apart, known)
    return Distance(
        landscape.name,
        int(low.sum()),
        rms,
        expected,
        basins,
        metrics,
        tested,
        place,
        _basins_tested(landscape, reference, regions),
    )


def _tested(
    landscape: FreeEnergySurface,
    reference: FreeEnergySurface,
    apart: Estimate[Doubles],
    known: NDArray[np.bool_],
) -> tuple[Verdict, str]:
    """Return the verdict on two surfaces over known bins, and where they differ most.

    Replicates are shifted as the difference is: to a mean of 0 by inverse squares of errors.
    """
    used = known & (apart.error > 0)
    weight = apart.error[used] ** -2.0

    def level(values: Doubles) -> Doubles:
        leveled: Doubles = values - (values @ weight / weight.sum())[..., None]
        return leveled

    def side(one: FreeEnergySurface) -> Replicates:
        samples = one.energy.samples.reshape(-1, *one.grid.shape)[:, used]
        value = level(one.value[used][None])[0] if used.any() else one.value[used]
        return Replicates(value, level(samples) if samples.size else samples, one.energy.inflation)

    verdict = _of_surfaces(side(landscape), side(reference), landscape, reference)
    if verdict.test is None:
        return verdict, ""
    where = landscape.grid.points()[used.ravel(), 0][verdict.test.place]
    texts = [
        f"{name.split()[0]} = {x:.2f} {unit}"
        for name, x, unit in zip(landscape.names, where, landscape.units, strict=True)
    ]
    return verdict, ", ".join(texts)


def _basins_tested(
    landscape: FreeEnergySurface, reference: FreeEnergySurface, regions: Regions
) -> dict[str, Verdict]:
    """Return verdicts on the free energies of regions relative to the first."""
    if not regions:
        return {}
    places, n = region_of_bins(regions, landscape.grid), len(regions)
    found = {}
    for k, name in list(enumerate(regions))[1:]:

        def energy(one: FreeEnergySurface, k: int = k) -> Replicates:
            def of(values: Doubles) -> Doubles:
                return one.kT * free_energies(populations(values / one.kT, places, n))[k : k + 1]

            if len(one.energy.samples):
                return one.energy.map(of)
            return Replicates(of(one.value), np.empty((0, 1)), 1.0)

        own, other = energy(landscape), energy(reference)
        finite = all(np.isfinite(x).all() for s in (own, other) for x in (s.value, s.samples))
        found[name] = (
            _of_surfaces(own, other, landscape, reference)
            if finite
            else Verdict(None, f"{name} is not seen in all of the data")
        )
    return found


def _of_surfaces(
    own: Replicates, other: Replicates, landscape: FreeEnergySurface, reference: FreeEnergySurface
) -> Verdict:
    names = landscape.name, reference.name
    return of_replicates(own, other, names, (landscape.independent, reference.independent))


def distance_of_halves(sampled: CVSamples, grid: Grid, regions: Regions) -> Distance:
    """Compare the surfaces of an ensemble's two halves: the errors should explain all of it."""
    one, other = (free_energy_surface_of(half, grid) for half in sampled.halves())
    return distance(replace(other, name=f"{sampled.name}, two halves"), one, regions)


def metrics_of(sampled: CVSamples, reference: CVSamples, *, seed: int = 0) -> tuple[Metric, ...]:
    """Return the distances of the literature between two ensembles of angles, with their floors.

    FES-MSE and Jensen-Shannon divergence of 60 x 60 bins, PMF error of 100 x 100: see
    ``free_energy.metrics`` for the definitions and their sources. None for other coordinates.
    """
    if not periods_span_a_turn(reference.periods):
        return ()
    rng = np.random.default_rng(seed)
    kT = thermal_energy(reference.temperature)
    kinds: tuple[tuple[str, str, int, Callable[[ArrayLike, ArrayLike], float]], ...] = (
        ("Jensen-Shannon divergence", "nats", 60, jensen_shannon),
        ("FES-MSE", "(kcal/mol)²", 60, in_kcal(kT)),
        ("PMF error", "kT²", 100, pmf_error),
    )
    found = []
    for name, unit, bins, function in kinds:
        p, q = reference.histogram(bins), sampled.histogram(bins)
        # bins that few frames would visit are those beside visited ones
        smooth = gaussian_filter(p / p.sum() + q / q.sum(), 1.0, mode="wrap")
        floor = sampling_floor(
            function, smooth, rng, n_samples=sampled.independent, n_reference=reference.independent
        )
        found.append(Metric(name, unit, float(function(p, q)), floor))
    return tuple(found)


def basins_json(basins: Sequence[Basin]) -> dict[str, Any]:
    """Return basins as plain values by name."""
    return {
        b.name: {"population": pair_json(b.population), "energy_kJ_mol": pair_json(b.energy)}
        for b in basins
    }


def barriers_json(barriers: Sequence[Barrier]) -> dict[str, Any]:
    """Return barriers, kJ/mol, as plain values by what they are between."""
    return {
        f"{b.start} -> {b.end}": {"forth": pair_json(b.forth), "back": pair_json(b.back)}
        for b in barriers
    }


def pair_json(estimate: Estimate[float]) -> dict[str, float]:
    """Return an estimate as plain values."""
    return {"value": estimate.value, "error": estimate.error}


def in_kcal(kT: float) -> Callable[[ArrayLike, ArrayLike], float]:
    """Return the FES-MSE of two histograms in (kcal/mol)^2, ``kT`` in kJ/mol."""
    return lambda p, q: (kT / KCAL) ** 2 * surface_mse(p, q)


def _rms_of(landscape: FreeEnergySurface, reference: FreeEnergySurface) -> Estimate[float]:
    """Return the rms difference and its error: that of each surface's replicates, added up."""

    def of(one: Doubles, other: Doubles) -> float:
        return rms_difference(other, one, below=LEVEL)

    value = of(landscape.value, reference.value)
    own = landscape.of_energy(lambda energy: np.array(of(energy, reference.value)))
    others = reference.of_energy(lambda energy: np.array(of(landscape.value, energy)))
    parts = [float(part.error) for part in (own, others) if np.isfinite(part.error)]
    return Estimate(value, math.hypot(*parts) if parts else float("nan"))


def _heights(
    landscape: FreeEnergySurface, ends: list[Doubles], kT: float
) -> Callable[[Doubles], Doubles]:
    return lambda energy: kT * barriers(energy / kT, landscape.grid, *ends)


def _one(estimate: Estimate[Doubles], k: int) -> Estimate[float]:
    return Estimate(float(estimate.value[k]), float(estimate.error[k]))
