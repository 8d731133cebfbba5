"""Energies on a grid of coordinates, as smooth as cubic B-splines are.

The slope is the exact gradient of the interpolated energy, so that forces conserve energy on
any grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Axis:
    """Evenly spaced nodes of one coordinate.

    Parameters
    ----------
    low, high
        Ends of the grid; a whole period apart if the coordinate is periodic. Elsewhere the energy
        beyond an end is that at the end, without a kink.
    n
        Number of nodes, 4 or more.
    periodic
        Whether ``high`` is the same as ``low``.

    Raises
    ------
    ValueError
        The ends are not in order, or there are too few nodes.
    """

    low: float
    high: float
    n: int
    periodic: bool

    def __post_init__(self) -> None:
        if not (self.high > self.low and self.n >= 4):
            raise ValueError(
                f"an axis needs 4 nodes from low to high: {self.n} from {self.low} to {self.high}"
            )

    @classmethod
    def fine(cls, low: float, high: float, *, width: float, periodic: bool) -> Axis:
        """Return the axis on which Gaussians of ``width`` are good to 1e-4 of their height."""
        n = math.ceil((high - low) / (width / 3)) + (0 if periodic else 1)
        return cls(low, high, max(4, n), periodic)

    @property
    def spacing(self) -> float:
        """Distance between nodes."""
        return (self.high - self.low) / (self.n if self.periodic else self.n - 1)

    @property
    def nodes(self) -> Tensor:
        """(n,), without ``high`` where it is periodic."""
        return self.low + self.spacing * torch.arange(self.n, dtype=torch.float64)

    @property
    def around(self) -> Tensor:
        """(n + 3,), the numbers of the nodes from one before the first to two after the last."""
        k = torch.arange(-1, self.n + 2)
        return k % self.n if self.periodic else self.n - 1 - (self.n - 1 - k.abs()).abs()

    def images(self, values: Tensor) -> Tensor:
        """Return (n_values, 3): values and their copies beyond the ends, repeated or mirrored."""
        if self.periodic:
            period = self.high - self.low
            copies = [values, values - period, values + period]
        else:
            copies = [values, 2 * self.low - values, 2 * self.high - values]
        return torch.stack(copies, dim=-1)

    def holds(self, values: Tensor) -> Tensor:
        """Return which values (...) lie on the axis, bool (...)."""
        if self.periodic:
            return torch.isfinite(values)
        return (values >= self.low) & (values <= self.high)


class Spline:
    """An energy of d coordinates and its slope: sums of cubic B-splines.

    Parameters
    ----------
    axes
        The grid.
    coefficients
        (n_1, ..., n_d), weights of the B-splines at the nodes: the energy at a node is a local
        average of them, and not the coefficient itself. Results have their precision.
    """

    def __init__(self, axes: Sequence[Axis], coefficients: Tensor) -> None:
        self.axes, self.coefficients = tuple(axes), coefficients
        row = coefficients.new_tensor
        self._low, self._spacing = row([a.low for a in axes]), row([a.spacing for a in axes])
        self._least = row([-math.inf if a.periodic else 0.0 for a in axes])
        self._most = row([math.inf if a.periodic else a.n - 1.0 for a in axes])
        self._period = row([a.n if a.periodic else math.inf for a in axes])
        self._last = row([a.n - 1.0 if a.periodic else a.n - 2.0 for a in axes])
        padded = coefficients
        for k, axis in enumerate(axes):
            padded = padded.index_select(k, axis.around.to(padded.device))
        self._padded = padded.flatten()
        self._strides = coefficients.new_tensor(padded.stride())
        self._corner = torch.zeros(1, dtype=torch.long, device=coefficients.device)
        for stride in padded.stride():
            four = stride * torch.arange(4, device=coefficients.device)
            self._corner = (self._corner[:, None] + four).flatten()  # (4 ** d,)

    def __call__(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the energy (n,) and its slope (n, d) at values (n, d)."""
        n, d = values.shape
        u = (values.to(self._low) - self._low) / self._spacing
        u = u.clamp(self._least, self._most).remainder(self._period)
        cell = u.floor().nan_to_num().clamp(max=self._last)
        basis = _basis(u - cell)
        basis[:, :, 1] /= self._spacing[:, None]
        first = (cell * self._strides).sum(-1).long()
        sums = self._padded[first[:, None] + self._corner].view(n, *[4] * d)
        for k in range(d):  # the first axis left is summed and comes last
            folded = basis[:, k] @ sums.reshape(n, 4, -1)  # (n, 2, ...)
            sums = folded.view(n, 2, *sums.shape[2:]).movedim(1, -1)
        flat = sums.reshape(n, -1)  # (n, 2 ** d): energies, slopes, mixed slopes
        return flat[:, 0], flat[:, [2 ** (d - 1 - k) for k in range(d)]]


def hills(
    axes: Sequence[Axis], centers: Tensor, widths: Sequence[float], heights: Tensor
) -> Tensor:
    """Return the coefficients (n_1, ..., n_d) of a sum of Gaussian hills.

    ``centers`` (n, d), standard deviations ``widths`` (d,), ``heights`` (n,). A cubic B-spline
    is nearly a Gaussian of variance spacing^2 / 3: coefficients are Gaussians that are narrower
    by as much. Hills near an end that is not periodic are mirrored at it, which keeps the slope
    there at zero.
    """
    total = heights.to(centers)[:, None]  # (n, 1), and then (n, nodes of all axes but the last)
    columns = zip(axes, centers.unbind(-1), widths, strict=True)
    *others, last = (_along(axis, center, width) for axis, center, width in columns)
    for along in others:
        total = (total[:, :, None] * along[:, None]).flatten(1)
    return (total.T @ last).view([axis.n for axis in axes])


def _along(axis: Axis, centers: Tensor, width: float) -> Tensor:
    """Return the coefficients (n, nodes) of Gaussians of height 1 at centers (n,)."""
    narrow = width**2 - axis.spacing**2 / 3
    away = axis.images(centers)[..., None] - axis.nodes.to(centers)  # (n, 3, nodes)
    return (-away.square() / (2 * narrow)).exp().sum(1) * (width / math.sqrt(narrow))


def _basis(t: Tensor) -> Tensor:
    """Return the weights of the four nodes about t (n, d) in [0, 1], and their slopes.

    (n, d, 2, 4).
    """
    s, tt = 1 - t, t * t
    ss = s * s
    weights = [ss * s / 6, 2 / 3 - tt * (1 + s) / 2, 2 / 3 - ss * (1 + t) / 2, tt * t / 6]
    slopes = [-ss / 2, t * (1.5 * t - 2), s * (2 - 1.5 * s), tt / 2]
    return torch.stack(weights + slopes, -1).view(*t.shape, 2, 4)
