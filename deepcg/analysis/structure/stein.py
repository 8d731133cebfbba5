"""Checks of a fitted U that need neither exact forces nor samples of the model.

For coordinates x distributed as exp(-U / kT), and any smooth field g(x) that vanishes or is
periodic at the boundary, integration by parts gives Stein's identity

    <g . grad U> = kT <div g>,

for one bead pair at a time known as the Born-Green-Yvon hierarchy, and for g = grad U as the
configurational temperature (Rugh, Phys. Rev. Lett. 78, 772 (1997)). The averages are taken over
the mapped frames of the microscopic simulation, whose U is the exact free energy; grad U is that
of the model. So T_g / T = <g . grad U> / (kT <div g>) is 1 within its statistical error if the
model is right, and what it misses is an error of the model's forces along g: noise of the hidden
atoms does not enter.

A field that the training could have bent U along, such as grad U itself (by scaling U), is set
right by any converged fit, whatever else is wrong: the configurational temperature tells an
unfinished or overfitted model, the radial fields tell a model that cannot represent the forces.
Frames of biased sampling need their weights, on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deepcg.geometry.neighbor_list import neighbors
from deepcg.runtime.arrays import Doubles, Integers
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames
from free_energy import Estimate, block_average

Forces = Callable[[Tensor], Tensor]
"""From coordinates (n, ...) to -dU/dx of the same shape."""

Window = Callable[[Doubles], tuple[Doubles, Doubles]]
"""From distances (p,), nm, to w (p,) and dw/dr (p,); w goes to 0 before the largest distance."""

STEP = 1e-4
"""nm; float32 forces are good to 1e-3 of a difference over it, and far better on average."""


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """Both sides of Stein's identity for one field g, frame by frame.

    Parameters
    ----------
    name
        What g is, in words.
    work
        (n,), g . grad U, kJ/mol times the unit of g . x.
    heat
        (n,), kT div g, in the same unit.
    """

    name: str
    work: Doubles
    heat: Doubles

    @property
    def ratio(self) -> Estimate[float]:
        """T_g / T, 1 for the exact U, with the error of a ratio from blocks of frames."""
        heat = float(self.heat.mean())
        ratio = float(self.work.mean()) / heat
        rest = block_average(self.work - ratio * self.heat)
        return Estimate(ratio, float(rest.error) / abs(heat))

    @property
    def deviation(self) -> float:
        """How many standard errors the two sides are apart; well defined even where <div g> = 0."""
        gap = block_average(self.work - self.heat)
        return float(gap.value) / float(gap.error)


def configurational(
    forces: Forces,
    coordinates: Tensor,
    directions: Tensor,
    kT: float,
    *,
    step: float | Tensor = STEP,
) -> Identity:
    """Return the identity of g = grad U: the configurational temperature |grad U|^2 / lap U.

    Parameters
    ----------
    coordinates
        (n, ...), beads or collective variables, all of one unit.
    directions
        As in `laplacian`.
    """
    with torch.no_grad():
        work = forces(coordinates).double().square().flatten(1).sum(1)
    curvature = laplacian(forces, coordinates, directions, step=step)
    return Identity("configurational temperature", _numpy(work), kT * _numpy(curvature))


def laplacian(
    forces: Forces, coordinates: Tensor, directions: Tensor, *, step: float | Tensor = STEP
) -> Tensor:
    """Return the Laplacian of U (n,) from central differences of its forces.

    The sum over directions v of v . (F(x - h v) - F(x + h v)) / 2h. It is the trace of the
    Hessian H if sum_v v v^T = 1, as for `axes`, or has it as its mean if that holds on
    average (Hutchinson, Commun. Stat. Simul. Comput. 19, 433 (1990)): `random_signs` of p
    directions add a variance of 2 sum_{i != j} H_ij^2 / p to that of the frames. A step h adds
    h^2 / 6 sum_v v^4 . grad^4 U, rounding eps |F| / h.

    Parameters
    ----------
    coordinates
        (n, ...).
    directions
        (p, n, ...).
    step
        h; a tensor that broadcasts with coordinates gives each one its own.
    """
    total = coordinates.new_zeros(len(coordinates), dtype=torch.float64)
    with torch.no_grad():
        for v in directions:
            change = forces(coordinates - step * v) - forces(coordinates + step * v)
            total += (change.double() * v / (2 * step)).flatten(1).sum(1)
    return total


def axes(coordinates: Tensor) -> Tensor:
    """Return the unit vectors (p, n, ...) along all p coordinates of a frame, for few of them."""
    shape = coordinates.shape[1:]
    unit = torch.eye(shape.numel(), dtype=coordinates.dtype, device=coordinates.device)
    return unit.view(-1, 1, *shape).expand(-1, len(coordinates), *shape)


def random_signs(coordinates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return directions (count, n, ...) with entries ± count^(-1/2), for many coordinates."""
    shape = (count, *coordinates.shape)
    signs = 2 * torch.randint(0, 2, shape, generator=generator) - 1
    directions: Tensor = signs.to(coordinates) / count**0.5
    return directions


@dataclass(frozen=True, slots=True, eq=False)
class RadialForces:
    """Pairs of beads in n frames, each once, and the model's force that drives them apart.

    Parameters
    ----------
    n_frames
        n.
    frame, distance
        (p,), and nm.
    push
        (p,), e . (F_j - F_i) / 2 with e from i to j, kJ/mol/nm: its mean over the pairs at a
        distance r is kT d ln g / dr if the model is right.
    types
        (p, 2), those of the two beads, the lower one first.
    """

    n_frames: int
    frame: Integers
    distance: Doubles
    push: Doubles
    types: Integers

    def between(self, a: int, b: int) -> RadialForces:
        """Return the pairs of beads of two types."""
        these = (self.types == (min(a, b), max(a, b))).all(1)
        return RadialForces(
            self.n_frames,
            self.frame[these],
            self.distance[these],
            self.push[these],
            self.types[these],
        )

    def sums(self, values: Doubles) -> Doubles:
        """Return the sums over the pairs of each frame (n,) of values (p,)."""
        return np.asarray(np.bincount(self.frame, values, self.n_frames), dtype=np.float64)


def radial_forces(frames: Frames, longest: float) -> RadialForces:
    """Return the pairs nearer than ``longest``, nm, in frames whose forces are the model's.

    Raises
    ------
    InputError
        The frames have no forces, or a box is too small for the distance.
    """
    if frames.forces is None:
        raise InputError("the frames have no forces of a model: evaluate it on them first")
    near = neighbors(frames.positions, frames.box, longest)
    bead = torch.arange(frames.n_sites, device=near.index.device)[:, None]
    f, i, slot = (near.mask & (near.index > bead)).nonzero(as_tuple=True)
    j = near.index[f, i, slot]
    vector = near.displacement[f, i, slot].double()
    distance = vector.norm(dim=1)
    pull = (frames.forces[f, j] - frames.forces[f, i]).double()
    types = torch.stack([frames.types[i], frames.types[j]], 1).sort(1).values
    return RadialForces(
        len(frames),
        f.cpu().numpy(),
        _numpy(distance),
        _numpy((vector * pull).sum(1) / (2 * distance)),
        types.cpu().numpy(),
    )


def pair_identity(name: str, pairs: RadialForces, window: Window, kT: float) -> Identity:
    """Return the identity of g = sum over pairs of w(r), along their distance, on both beads."""
    w, slope = window(pairs.distance)
    return Identity(
        name, -2 * pairs.sums(w * pairs.push), 2 * kT * pairs.sums(slope + 2 * w / pairs.distance)
    )


def hat(center: float, width: float) -> Window:
    """Return the window that falls linearly from 1 at ``center`` to 0 at ± ``width``, nm."""

    def window(r: Doubles) -> tuple[Doubles, Doubles]:
        away = (r - center) / width
        inside = np.abs(away) < 1
        return np.where(inside, 1 - np.abs(away), 0), np.where(inside, -np.sign(away) / width, 0)

    return window


def contact(end: float) -> Window:
    """Return the window max(0, 1 - r / end): the pairs closer than ``end``, nm."""

    def window(r: Doubles) -> tuple[Doubles, Doubles]:
        return np.maximum(0, 1 - r / end), np.where(r < end, -1 / end, 0)

    return window


def virial(end: float) -> Window:
    """Return the window r (1 - r^2 / end^2)^2: the pair virial, switched off at ``end``, nm."""

    def window(r: Doubles) -> tuple[Doubles, Doubles]:
        x = np.minimum((r / end) ** 2, 1)
        return r * (1 - x) ** 2, (1 - x) * (1 - 5 * x)

    return window


@dataclass(frozen=True, slots=True, eq=False)
class Slopes:
    """kT d ln g / dr, kJ/mol/nm, around distances r (k,), nm: by the model and by the data.

    ``model`` is the mean of its radial forces, ``data`` follows from where the pairs are;
    ``difference`` has an error of its own, for the two fluctuate together.
    """

    r: Doubles
    model: Estimate[Doubles]
    data: Estimate[Doubles]
    difference: Estimate[Doubles]

    @property
    def worst(self) -> tuple[float, Estimate[float]]:
        """Where model and data differ most in units of the error, nm, and by how much."""
        value, error = self.difference.value, self.difference.error
        k = int(np.argmax(np.abs(value) / np.maximum(error, np.finfo(float).tiny)))
        return float(self.r[k]), Estimate(float(value[k]), float(error[k]))


def radial_slopes(pairs: RadialForces, centers: Doubles, width: float, kT: float) -> Slopes:
    """Return the slopes in windows `hat` around ``centers`` (k,), nm, all of which hold pairs.

    Raises
    ------
    InputError
        A window holds no pairs.
    """
    windows = [hat(float(c), width) for c in centers]
    count = np.stack([pairs.sums(w(pairs.distance)[0]) for w in windows], 1)  # (n, k)
    if not count.sum(0).all():
        empty = float(centers[int(count.sum(0).argmin())])
        raise InputError(f"no two beads are {empty:g} nm apart in the frames: leave it out")
    sides = [pair_identity("", pairs, w, kT) for w in windows]
    model = np.stack([-s.work / 2 for s in sides], 1)
    data = np.stack([-s.heat / 2 for s in sides], 1)
    return Slopes(centers, _ratio(model, count), _ratio(data, count), _ratio(model - data, count))


def implied_radial(
    pairs: RadialForces, volume: Doubles, possible: float, r: Doubles, end: float, kT: float
) -> Doubles:
    """Return g(r) as the model's forces want it, (n, k): the means of frames are to be averaged.

    g(r) = g_end - V / (4 pi P kT) < sum over pairs beyond r of c(r_ij) push_ij / r_ij^2 >,
    Stein's identity for a field c / r^2 that sets in at r (force sampling: Borgis, Assaraf,
    Rotenberg, Mol. Phys. 111, 3486 (2013)). The switch c goes from 1 to 0 over the last tenth
    before ``end``, and g_end is the histogram's mean there.

    Parameters
    ----------
    volume
        (n,), nm^3, of the boxes.
    possible
        P, the number of pairs of a frame at any distance.
    r
        (k,), nm, ascending.
    end
        nm, not more than the longest distance of the pairs.
    """
    start = 0.9 * end
    switch = np.clip((end - pairs.distance) / (end - start), 0, 1)
    share = volume[pairs.frame] / (4 * np.pi * possible * pairs.distance**2)
    outer = (pairs.distance >= start) & (pairs.distance < end)
    level = pairs.sums(share * outer) / (end - start)
    place = np.searchsorted(r, pairs.distance)  # how many of r lie below: these see the pair
    index = pairs.frame * (len(r) + 1) + place
    pushes = np.bincount(index, share * switch * pairs.push / kT, pairs.n_frames * (len(r) + 1))
    beyond = pushes.reshape(pairs.n_frames, -1)[:, ::-1].cumsum(1)[:, ::-1]
    implied: Doubles = level[:, None] - beyond[:, 1:]
    return implied


def _ratio(above: Doubles, below: Doubles) -> Estimate[Doubles]:
    """Return the ratios of means (k,) of two series (n, k), with errors from blocks."""
    mean = below.mean(0)
    ratio = above.mean(0) / mean
    return Estimate(ratio, block_average(above - ratio * below).error / mean)


def _numpy(values: Tensor) -> Doubles:
    return np.asarray(values.cpu().numpy(), dtype=np.float64)
