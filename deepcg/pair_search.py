"""All pairs of beads within a cutoff, by comparing all pairs in compiled loops on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from deepcg.threads import use_torch_threads


def search(positions: Tensor, box: Tensor | None, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return index, shift and count of ``PairList`` for CPU positions (n_frames, n_beads, 3)."""
    use_torch_threads()
    x = positions.contiguous().numpy()
    f, n, _ = x.shape
    cell = np.zeros((f, 3, 3), x.dtype) if box is None else box.contiguous().numpy()
    count = np.zeros((f, n), np.int64)
    _count(x, cell, box is not None, cutoff**2, count)
    width = max(1, int(count.max(initial=0)))
    index = np.empty((f, n, width), np.int64)
    shift = np.zeros((f, n, width, 3), x.dtype)
    _fill(x, cell, box is not None, cutoff**2, index, shift)
    return torch.from_numpy(index), torch.from_numpy(shift), torch.from_numpy(count)


def displacements(
    positions: Tensor, index: Tensor, shift: Tensor, count: Tensor, padding: float
) -> Tensor:
    """Return what ``neighbors.surroundings`` does, without a way back to the positions."""
    use_torch_threads()
    out = torch.empty_like(shift)
    arrays = [t.contiguous().numpy() for t in (positions, index, shift, count)]
    _displace(*arrays, padding, out.numpy())
    return out


def collected(pull: Tensor, index: Tensor, count: Tensor) -> Tensor:
    """Return the forces (n_frames, n_beads, 3) of pairs: dU/d(r_j - r_i) pulls at both beads."""
    use_torch_threads()
    f, n, _, _ = pull.shape
    out = pull.new_zeros(f, n, 3)
    _collect(*(t.contiguous().numpy() for t in (pull, index, count)), out.numpy())
    return out


@njit(parallel=True, cache=True, error_model="numpy")
def _displace(x: Any, index: Any, shift: Any, count: Any, padding: float, out: Any) -> None:
    n = x.shape[1]
    for bead in prange(x.shape[0] * n):
        f, i = bead // n, bead % n
        for slot in range(count[f, i]):
            j = index[f, i, slot]
            for k in range(3):
                out[f, i, slot, k] = x[f, j, k] + shift[f, i, slot, k] - x[f, i, k]
        for slot in range(count[f, i], index.shape[2]):
            out[f, i, slot, 0] = padding
            out[f, i, slot, 1] = 0
            out[f, i, slot, 2] = 0


@njit(parallel=True, cache=True, error_model="numpy")
def _collect(pull: Any, index: Any, count: Any, out: Any) -> None:
    for f in prange(pull.shape[0]):  # beads of a frame write to each other's rows
        for i in range(pull.shape[1]):
            for slot in range(count[f, i]):
                j = index[f, i, slot]
                for k in range(3):
                    out[f, i, k] += pull[f, i, slot, k]
                    out[f, j, k] -= pull[f, i, slot, k]


@njit(inline="always", error_model="numpy")
def _shift(dx: Any, dy: Any, dz: Any, cell: Any) -> Any:
    """Return the numbers of box vectors that bring a displacement to its shortest image."""
    c = -np.rint(dz / cell[2, 2])
    dx, dy = dx + c * cell[2, 0], dy + c * cell[2, 1]
    b = -np.rint(dy / cell[1, 1])
    dx = dx + b * cell[1, 0]
    a = -np.rint(dx / cell[0, 0])
    return a, b, c


@njit(parallel=True, cache=True, error_model="numpy")
def _count(x: Any, cell: Any, periodic: bool, limit: float, count: Any) -> None:
    n = x.shape[1]
    for bead in prange(x.shape[0] * n):
        f, i = bead // n, bead % n
        for j in range(n):
            if j != i and _near(x[f], cell[f], periodic, limit, i, j)[0]:
                count[f, i] += 1


@njit(parallel=True, cache=True, error_model="numpy")
def _fill(x: Any, cell: Any, periodic: bool, limit: float, index: Any, shift: Any) -> None:
    n = x.shape[1]
    for bead in prange(x.shape[0] * n):
        f, i = bead // n, bead % n
        slot = 0
        for j in range(n):
            if j == i:
                continue
            near, sx, sy, sz = _near(x[f], cell[f], periodic, limit, i, j)
            if near:
                index[f, i, slot] = j
                shift[f, i, slot, 0] = sx
                shift[f, i, slot, 1] = sy
                shift[f, i, slot, 2] = sz
                slot += 1
        index[f, i, slot:] = i


@njit(inline="always", error_model="numpy")
def _near(x: Any, cell: Any, periodic: bool, limit: float, i: int, j: int) -> Any:
    """Return whether i and j are near, and the shift that makes them so."""
    dx, dy, dz = x[j, 0] - x[i, 0], x[j, 1] - x[i, 1], x[j, 2] - x[i, 2]
    sx, sy, sz = 0 * dx, 0 * dx, 0 * dx
    if periodic:
        a, b, c = _shift(dx, dy, dz, cell)
        sx = a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
        sy = b * cell[1, 1] + c * cell[2, 1]
        sz = c * cell[2, 2]
    dx, dy, dz = dx + sx, dy + sy, dz + sz
    return dx * dx + dy * dy + dz * dz < limit, sx, sy, sz
