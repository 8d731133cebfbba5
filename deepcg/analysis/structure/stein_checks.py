"""What Stein's identities say of a fitted U, on a few frames of the microscopic simulation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from deepcg.analysis.structure.curve import Curve
from deepcg.analysis.structure.radial import radial_edges, radial_name, type_pairs
from deepcg.analysis.structure.stein import (
    Identity,
    RadialForces,
    Slopes,
    configurational,
    contact,
    implied_radial,
    pair_identity,
    radial_forces,
    radial_slopes,
    random_signs,
    virial,
)
from deepcg.geometry.box import box_heights
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames

MOST_FRAMES, FEWEST_FRAMES = 2000, 16
MOST_BEADS = 20_000  # in all frames together: bounds time and memory
AT_ONCE = 4_000  # beads whose forces are evaluated in one call
WINDOW = 0.02  # nm
FEWEST_PAIRS = 200  # in a window, in all frames together
BLOCKS = 16


@dataclass(frozen=True, slots=True, eq=False)
class SteinChecks:
    """The checks of one model.

    Parameters
    ----------
    n_frames
        Microscopic frames that they were evaluated on.
    identities
        Of g = grad U, the pairs in contact and the pair virial (the first alone if there is only
        one bead).
    slopes
        kT d ln g / dr of the pairs within the model's cutoff, all types together.
    radial
        g(r) as the model's forces want it, of every pair of types in the order of ``type_pairs``;
        empty without a box.
    """

    n_frames: int
    identities: tuple[Identity, ...]
    slopes: Slopes | None
    radial: tuple[Curve, ...]

    @property
    def worst(self) -> float:
        """The largest deviation of an identity, in standard errors."""
        return max((i.deviation for i in self.identities), key=abs)

    @property
    def verdict(self) -> str:
        """All in one line, for a terminal."""
        ratios = ", ".join(
            f"{i.name} {i.ratio.value:.3f} ± {i.ratio.error:.3f}" for i in self.identities
        )
        found = "no error is seen" if abs(self.worst) <= 3 else "an error of its forces is seen"
        return f"noise-free checks on {self.n_frames} frames (1 is right): {ratios}: {found}"


def check(
    potential: NetworkPotential,
    frames: Frames,
    kT: float,
    type_names: tuple[str, ...] = ("bead",),
    *,
    seed: int = 0,
) -> SteinChecks:
    """Check a model on frames of beads that the exact U made, in the order of time.

    Some frames, spread evenly, are enough: every pair of beads in them counts.

    Raises
    ------
    InputError
        There are less than 16 frames, they have weights, or a box is too small for the cutoff.
    """
    if frames.weights is not None:
        raise InputError("the frames are weighted: noise-free checks need unbiased frames")
    if len(frames) < FEWEST_FRAMES:
        raise InputError(
            f"{len(frames)} frames are too few: noise-free checks need {FEWEST_FRAMES}"
        )
    floats = next(potential.parameters())
    some = _spread(frames).to(floats.device, floats.dtype)
    # the same terms, on as many beads as there are here
    terms = list(potential.terms)
    model = NetworkPotential(terms, potential.cutoff, some.types, potential.molecular)

    def forces(positions: Tensor) -> Tensor:
        step = max(1, AT_ONCE // some.n_sites)
        parts = [some[k : k + step] for k in range(0, len(some), step)]
        moved = positions.split(step)
        pairs = zip(moved, parts, strict=True)
        return torch.cat([energy_and_forces(model, x, part.box)[1] for x, part in pairs])

    some = replace(some, forces=forces(some.positions))
    directions = random_signs(some.positions, 1, torch.Generator().manual_seed(seed))
    temperature = configurational(forces, some.positions, directions, kT)
    longest = _longest(some)
    pairs = radial_forces(some, longest)
    if not (pairs.distance < model.cutoff).any():
        return SteinChecks(len(some), (temperature,), None, ())
    fields = {f"virial of pairs within {model.cutoff:g} nm": virial(model.cutoff)}
    peak = _highest(pairs, longest)
    if peak is not None:
        fields = {f"pairs closer than {peak:.2f} nm": contact(peak)} | fields
    identities = [pair_identity(name, pairs, window, kT) for name, window in fields.items()]
    return SteinChecks(
        len(some),
        (temperature, *identities),
        _slopes(pairs, model.cutoff, kT),
        tuple(_radial(some, type_names, pairs, longest, kT)),
    )


def _spread(frames: Frames) -> Frames:
    count = min(max(MOST_BEADS // frames.n_sites, FEWEST_FRAMES), MOST_FRAMES, len(frames))
    return frames[torch.linspace(0, len(frames) - 1, count).long()]


def _longest(frames: Frames) -> float:
    """Return the longest distance of g(r), nm: half the box, or what is shown."""
    half = np.inf if frames.box is None else float(box_heights(frames.box).min()) / 2
    return float(radial_edges(0.9999 * half)[-1])


def _highest(pairs: RadialForces, longest: float) -> float | None:
    """Return where g(r) of all beads is highest, nm, among distances that are not rare."""
    edges = np.arange(0.0, longest, WINDOW / 2)
    counts = np.histogram(pairs.distance, edges)[0]
    density = np.where(counts >= FEWEST_PAIRS / 2, counts / np.diff(edges**3), 0)
    return float(edges[density.argmax()] + WINDOW / 4) if density.any() else None


def _slopes(pairs: RadialForces, cutoff: float, kT: float) -> Slopes | None:
    centers = np.arange(WINDOW, cutoff, WINDOW)
    edges = centers[:, None] + [-WINDOW / 2, WINDOW / 2]
    met = np.diff(np.searchsorted(np.sort(pairs.distance), edges))[:, 0] >= FEWEST_PAIRS
    return radial_slopes(pairs, centers[met], WINDOW, kT) if met.any() else None


def _radial(
    frames: Frames, type_names: tuple[str, ...], pairs: RadialForces, longest: float, kT: float
) -> Iterator[Curve]:
    if frames.box is None:
        return
    volume = np.linalg.det(frames.box.double().cpu().numpy())
    types = frames.types.cpu().numpy()
    counts = np.bincount(types)
    edges = radial_edges(longest)
    r = (edges[1:] + edges[:-1]) / 2
    for a, b in type_pairs(types):
        possible = counts[a] * (counts[a] - 1) / 2 if a == b else counts[a] * counts[b]
        values = implied_radial(pairs.between(a, b), volume, float(possible), r, longest, kT)
        parts = np.array_split(values, BLOCKS)
        blocks = np.stack([part.mean(0) for part in parts])
        weights = np.array([len(part) for part in parts], dtype=np.float64)
        name = radial_name(type_names, (a, b))
        yield Curve(name, r, blocks, weights, "r (nm)", name)
