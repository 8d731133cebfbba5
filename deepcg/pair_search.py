"""All pairs of beads within a cutoff, by comparing all pairs in compiled loops on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from deepcg.threads import use_torch_threads
from deepcg.vectors import LANES, floor, load, store


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


def nearer(displacement: Tensor, count: Tensor, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return frames, beads and slots of the listed neighbors that are nearer than a limit, nm."""
    d, n = displacement.contiguous().numpy(), count.numpy()
    places = np.empty((3, _nearer(d, n, limit**2, np.empty((3, 0), np.int64))), np.int64)
    _nearer(d, n, limit**2, places)
    frames, beads, slots = torch.from_numpy(places)
    return frames, beads, slots


@njit(cache=True, error_model="numpy")
def _nearer(d: Any, count: Any, limit: float, places: Any) -> int:
    """Write as many places (3, room) as there is room for; return how many there are."""
    found = 0
    for f in range(d.shape[0]):
        for i in range(d.shape[1]):
            for slot in range(count[f, i]):
                x, y, z = d[f, i, slot, 0], d[f, i, slot, 1], d[f, i, slot, 2]
                if x * x + y * y + z * z < limit:
                    if found < places.shape[1]:
                        places[0, found], places[1, found], places[2, found] = f, i, slot
                    found += 1
    return found


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


@njit(error_model="numpy")
def _shift(dx: Any, dy: Any, dz: Any, cell: Any) -> Any:
    """Return the box vectors that bring displacements to their shortest images."""
    c = 0 - floor(dz / cell[2, 2] + 0.5)
    b = 0 - floor((dy + c * cell[2, 1]) / cell[1, 1] + 0.5)
    a = 0 - floor((dx + c * cell[2, 0] + b * cell[1, 0]) / cell[0, 0] + 0.5)
    sx = a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0]
    return sx, b * cell[1, 1] + c * cell[2, 1], c * cell[2, 2]


@njit(fastmath=True, error_model="numpy")
def _compare(points: Any, i: int, cell: Any, periodic: bool, squares: Any, shifts: Any) -> None:
    """Set squared distances (room,) of bead i to all, and the shifts (3, room) that they take."""
    room = len(squares)
    xi, yi, zi = points[i], points[room + i], points[2 * room + i]
    for j in range(0, room, LANES):
        dx, dy = load(points, j, LANES) - xi, load(points, room + j, LANES) - yi
        dz = load(points, 2 * room + j, LANES) - zi
        if periodic:
            sx, sy, sz = _shift(dx, dy, dz, cell)
            store(shifts, j, sx)
            store(shifts, room + j, sy)
            store(shifts, 2 * room + j, sz)
            dx, dy, dz = dx + sx, dy + sy, dz + sz
        store(squares, j, dx * dx + dy * dy + dz * dz)


@njit(error_model="numpy")
def _columns(x: Any) -> Any:
    """Return positions (n_frames, n_beads, 3) as (n_frames, 3 * room), beads after one another."""
    f, n, _ = x.shape
    room = -(-n // LANES) * LANES
    points = np.zeros((f, 3 * room), x.dtype)
    for k in range(3):
        points[:, k * room : k * room + n] = x[:, :, k]
    return points


@njit(parallel=True, cache=True, error_model="numpy")
def _count(x: Any, cell: Any, periodic: bool, limit: float, count: Any) -> None:
    n, points = x.shape[1], _columns(x)
    room = points.shape[1] // 3
    for bead in prange(x.shape[0] * n):
        f, i = bead // n, bead % n
        squares, shifts = np.empty(room, x.dtype), np.zeros(3 * room, x.dtype)
        _compare(points[f], i, cell[f], periodic, squares, shifts)
        squares[i] = np.inf
        for j in range(n):
            count[f, i] += squares[j] < limit


@njit(parallel=True, cache=True, error_model="numpy")
def _fill(x: Any, cell: Any, periodic: bool, limit: float, index: Any, shift: Any) -> None:
    n, points = x.shape[1], _columns(x)
    room = points.shape[1] // 3
    for bead in prange(x.shape[0] * n):
        f, i = bead // n, bead % n
        squares, shifts = np.empty(room, x.dtype), np.zeros(3 * room, x.dtype)
        _compare(points[f], i, cell[f], periodic, squares, shifts)
        squares[i] = np.inf
        slot = 0
        for j in range(n):
            if squares[j] < limit:
                index[f, i, slot] = j
                for k in range(3):
                    shift[f, i, slot, k] = shifts[k * room + j]
                slot += 1
        index[f, i, slot:] = i
