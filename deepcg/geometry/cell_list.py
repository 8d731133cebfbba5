"""Cell lists: all pairs of beads within a cutoff, in compiled loops on the CPU.

Beads are sorted into cells at least as wide as the cutoff, and each is compared with those of the
cells around its own: the time is linear in the number of beads. Where a box has not enough cells
in a direction for this to spare anything, it has one, and a small box is one cell. Displacements
are those of minimum images; a Verlet list is what is found with a skin added to the cutoff.

=====================  ======================  ===================  =====
symbol                 name here               shape                unit
=====================  ======================  ===================  =====
r_i                    x                       (f, i, 3)            nm
box vectors a, b, c    boxes; box              (f, 3, 3); (3, 3)    nm
1/a_x, 1/b_y, 1/c_z    inverse                 (3,)                 1/nm
reciprocal vectors     normals, columns        (3, 3)               1/nm
cells per direction    shapes; shape           (f, 3); (3,)         1
first of each cell     begins                  (f, cells + 1)       -
i by cells, its cell   beads, cells            (f, i)               -
r_cut^2                limit                   a number             nm^2
j; lattice vector      index, shift            (f, i, j); .., 3     -; nm
neighbors of i         count                   (f, i)               1
r_j + shift - r_i      out of displacements    (f, i, j, 3)         nm
dU/dr_ij               pair_gradient           (f, i, j, 3)         kJ/mol/nm
=====================  ======================  ===================  =====

Pairs are defined by ``deepcg.geometry.neighbor_list.all_pairs``, minimum images by
``deepcg.geometry.neighbor_list.lattice_shift``; they are tied by
``tests/geometry/test_neighbor_list.py::test_all_searches_agree_in_triclinic_boxes``,
``tests/geometry/test_neighbor_list.py::test_all_searches_agree_in_the_open`` and
``tests/geometry/test_neighbor_list.py::test_many_cells_hold_the_pairs_of_one``.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from deepcg.compute.loops import CHUNKS, Array, compiled, run_loop, share
from deepcg.compute.simd import LANES, Vec, floor, load, put, store
from deepcg.compute.threads import use_torch_threads

FEWEST_CELLS = 4
"""In a direction. Of three all are searched, and of two, one would be searched twice."""


def search(positions: Tensor, box: Tensor | None, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return index, shift and count of ``PairList`` for CPU positions (n_frames, n_beads, 3)."""
    use_torch_threads()
    x = positions.contiguous().numpy()
    f, n, _ = x.shape
    boxes = np.zeros((f, 3, 3), x.dtype) if box is None else box.contiguous().numpy()
    periodic, count = box is not None, np.zeros((f, n), np.int64)
    cells = _sorted(x, boxes, periodic, cutoff)
    _count(x, boxes, periodic, cutoff**2, *cells, count)
    width = max(1, int(count.max(initial=0)))
    index = np.empty((f, n, width), np.int64)
    shift = np.empty((f, n, width, 3), x.dtype)
    _fill(x, boxes, periodic, cutoff**2, *cells, index, shift)
    return torch.from_numpy(index), torch.from_numpy(shift), torch.from_numpy(count)


def kinds(index: Tensor, count: Tensor, types: Tensor) -> Tensor:
    """Return the types (n_frames, n_beads, width) of listed neighbors, -1 in padding."""
    out = torch.empty(index.shape, dtype=torch.int32)
    run_loop(_look_up, index, count, types, out)
    return out


def displacements(
    positions: Tensor, index: Tensor, shift: Tensor, count: Tensor, padding: float
) -> Tensor:
    """Return displacements (n_frames, n_beads, width, 3), nm, with no way back to the positions.

    As ``neighbor_list.environments`` of ``index``, ``shift`` and ``count`` of its pairs.
    """
    out = torch.empty_like(shift)
    run_loop(_displace, positions, index, shift, count, padding, out)
    return out


def collected(pair_gradient: Tensor, index: Tensor, count: Tensor) -> Tensor:
    """Return the forces (n_frames, n_beads, 3) of pair gradients dU/d(r_j - r_i), kJ/mol/nm."""
    out = pair_gradient.new_zeros(*index.shape[:2], 3)
    run_loop(_collect, pair_gradient, index, count, out)
    return out


@compiled()
def _displace(
    x: Array, index: Array, shift: Array, count: Array, padding: float, out: Array
) -> None:
    n = x.shape[1]
    for bead in prange(x.shape[0] * n):
        f, i = bead // n, bead % n
        for slot in range(count[f, i]):
            j = index[f, i, slot]
            # r_j + shift - r_i
            for k in range(3):
                out[f, i, slot, k] = x[f, j, k] + shift[f, i, slot, k] - x[f, i, k]
        for slot in range(count[f, i], index.shape[2]):
            out[f, i, slot, 0] = padding
            out[f, i, slot, 1] = 0
            out[f, i, slot, 2] = 0


@compiled()
def _collect(pair_gradient: Array, index: Array, count: Array, out: Array) -> None:
    # frames in parallel: beads of one write to each other's rows
    for f in prange(pair_gradient.shape[0]):
        for i in range(pair_gradient.shape[1]):
            for slot in range(count[f, i]):
                j = index[f, i, slot]
                # -dU/dr_i is dU/dr_ij, and -dU/dr_j is -dU/dr_ij
                for k in range(3):
                    out[f, i, k] += pair_gradient[f, i, slot, k]
                    out[f, j, k] -= pair_gradient[f, i, slot, k]


@compiled()
def _look_up(index: Array, count: Array, types: Array, out: Array) -> None:
    n = index.shape[1]
    for bead in prange(index.shape[0] * n):
        f, i = bead // n, bead % n
        for slot in range(index.shape[2]):
            out[f, i, slot] = types[index[f, i, slot]] if slot < count[f, i] else -1


@njit(error_model="numpy")
def _cells(x: Array, box: Array, periodic: bool, cutoff: float) -> tuple[Array, Array, Array]:
    """Return how many cells to make of a frame (n_beads, 3), and the parallelepiped they divide.

    The latter is the box, or what encloses all beads in the open, and where it begins.
    """
    n, shape = len(x), np.ones(3, np.int64)
    whole, first = box.astype(np.float64), np.zeros(3)
    for k in range(3):
        if not periodic:
            first[k], last = np.inf, -np.inf
            for i in range(n):
                if np.isfinite(x[i, k]):
                    first[k], last = min(x[i, k], first[k]), max(x[i, k], last)
            whole[k, k] = max(last - first[k], cutoff)
    # the height between two faces is 1 over the length of a reciprocal vector
    normals = np.linalg.inv(whole)
    for k in range(3):
        height = 1 / np.sqrt(np.sum(normals[:, k] ** 2))
        shape[k] = int(min(height / (cutoff * (1 + 1e-6)), n))
    while np.prod(shape) > max(n, 1):  # in a void there are fewer beads than cells
        shape[np.argmax(shape)] //= 2
    shape[shape < FEWEST_CELLS] = 1
    return shape, normals, first


@compiled()
def _sorted(
    x: Array, boxes: Array, periodic: bool, cutoff: float
) -> tuple[Array, Array, Array, Array]:
    """Sort the beads (n_frames, n_beads, 3) of every frame by cells.

    Returns the numbers of cells (n_frames, 3), where each cell begins (n_frames, n_beads + 1), the
    beads (n_frames, n_beads) in this order and their cells.
    """
    n_frames, n, _ = x.shape
    shapes = np.ones((n_frames, 3), np.int64)
    begins = np.zeros((n_frames, n + 2), np.int64)
    beads, cells = np.empty((n_frames, n), np.int64), np.empty((n_frames, n), np.int64)
    for f in prange(n_frames):
        shape, normals, first = _cells(x[f], boxes[f], periodic, cutoff)
        # the cell of each bead, from its place along the box vectors in units of these
        shapes[f], of = shape, np.zeros(n, np.int64)
        for i in range(n):
            for k in range(2, -1, -1):
                place = 0.0
                for c in range(3):
                    place += (x[f, i, c] - first[c]) * normals[c, k]
                if periodic:
                    place -= np.floor(place)
                # what is not finite may be in any cell: it is near nothing
                whole = place * shape[k] if 0 < place < 1 else shape[k] - 1 if place >= 1 else 0
                of[i] = of[i] * shape[k] + min(int(whole), shape[k] - 1)
            begins[f, of[i] + 2] += 1
        # a counting sort: where cells begin, and then the beads
        for cell in range(n):
            begins[f, cell + 1] += begins[f, cell]
        for i in range(n):  # moves the end of each cell to where the next begins
            at = begins[f, of[i] + 1]
            begins[f, of[i] + 1] += 1
            beads[f, at], cells[f, at] = i, of[i]
    return shapes, begins, beads, cells


@njit(fastmath=True, error_model="numpy")
def _shift(dx: Vec, dy: Vec, dz: Vec, box: Array, inverse: Array) -> tuple[Vec, Vec, Vec]:
    """Return the box vectors that bring displacements to their minimum images."""
    # c, b and a in turn, as in ``lattice_shift``: of a box in reduced form only c has a z
    c = 0 - floor(dz * inverse[2] + 0.5)
    b = 0 - floor((dy + c * box[2, 1]) * inverse[1] + 0.5)
    a = 0 - floor((dx + c * box[2, 0] + b * box[1, 0]) * inverse[0] + 0.5)
    sx = a * box[0, 0] + b * box[1, 0] + c * box[2, 0]
    return sx, b * box[1, 1] + c * box[2, 1], c * box[2, 2]


@njit(error_model="numpy")
def _inverse(box: Array, periodic: bool) -> Array:
    """Return the inverse edges (3,) of a box, and nothing to round to where there is none."""
    inverse = np.zeros(3, box.dtype)
    for k in range(3):
        inverse[k] = 1 / box[k, k] if periodic else 0
    return inverse


@njit(fastmath=True, error_model="numpy")
def _compare(points: Array, n: int, xyz: Array, box: Array, inverse: Array, squares: Array) -> None:
    """Set the squared distances of the n first points (3, capacity) to one."""
    capacity, x, y, z = len(squares), xyz[0], xyz[1], xyz[2]
    for j in range(0, n, LANES):
        dx, dy = load(points, j, LANES) - x, load(points, capacity + j, LANES) - y
        dz = load(points, 2 * capacity + j, LANES) - z
        sx, sy, sz = _shift(dx, dy, dz, box, inverse)
        dx, dy, dz = dx + sx, dy + sy, dz + sz
        store(squares, j, dx * dx + dy * dy + dz * dz)


@njit(error_model="numpy")
def _around(cell: int, n: int, periodic: bool) -> tuple[int, int]:
    """Return the first of the cells in a direction about one of n, and how many there are."""
    if n == 1:
        return 0, 1
    if periodic:
        return cell - 1, 3
    return max(cell - 1, 0), min(cell + 2, n) - max(cell - 1, 0)


@njit(error_model="numpy")
def _gather(
    x: Array,
    cell: int,
    shape: Array,
    begins: Array,
    beads: Array,
    periodic: bool,
    some: Array,
    points: Array,
) -> int:
    """List the beads in the cells around one, with their positions, and return how many."""
    capacity, found = points.size // 3, 0
    first_x, n_x = _around(cell % shape[0], shape[0], periodic)
    first_y, n_y = _around(cell // shape[0] % shape[1], shape[1], periodic)
    first_z, n_z = _around(cell // (shape[0] * shape[1]), shape[2], periodic)
    for z in range(first_z, first_z + n_z):
        for y in range(first_y, first_y + n_y):
            row = (z % shape[2] * shape[1] + y % shape[1]) * shape[0]
            for c in range(first_x, first_x + n_x):
                one = row + c % shape[0]
                for at in range(begins[one], begins[one + 1]):
                    i = beads[at]
                    some[found] = i
                    for k in range(3):
                        points[k * capacity + found] = x[i, k]
                    found += 1
    return found


@compiled()
def _count(
    x: Array,
    boxes: Array,
    periodic: bool,
    limit: float,
    shapes: Array,
    begins: Array,
    beads: Array,
    cells: Array,
    count: Array,
) -> None:
    n = x.shape[1]
    for chunk in prange(CHUNKS):
        some, squares = np.empty(n, np.int64), np.empty(n + LANES, x.dtype)
        points, last, m = np.zeros(3 * (n + LANES), x.dtype), -1, 0
        start, end = share(chunk, beads.size)
        for one in range(start, end):
            f, at = one // n, one % n
            i, cell, inverse = beads[f, at], cells[f, at], _inverse(boxes[f], periodic)
            if f * n + cell != last:
                m = _gather(x[f], cell, shapes[f], begins[f], beads[f], periodic, some, points)
                last = f * n + cell
            _compare(points, m, x[f, i], boxes[f], inverse, squares)
            found = 0
            for j in range(m):
                found += squares[j] < limit
            count[f, i] = max(found - 1, 0)  # of these it is one itself, if it is anywhere


@compiled()
def _fill(
    x: Array,
    boxes: Array,
    periodic: bool,
    limit: float,
    shapes: Array,
    begins: Array,
    beads: Array,
    cells: Array,
    index: Array,
    shift: Array,
) -> None:
    n = x.shape[1]
    for chunk in prange(CHUNKS):
        some, squares = np.empty(n, np.int64), np.empty(n + LANES, x.dtype)
        points, last, m = np.zeros(3 * (n + LANES), x.dtype), -1, 0
        near = np.empty(n + 1, np.int64)
        away = np.zeros(3 * LANES, x.dtype)
        start, end = share(chunk, beads.size)
        for one in range(start, end):
            f, at = one // n, one % n
            i, cell, inverse = beads[f, at], cells[f, at], _inverse(boxes[f], periodic)
            if f * n + cell != last:
                m = _gather(x[f], cell, shapes[f], begins[f], beads[f], periodic, some, points)
                last = f * n + cell
            _compare(points, m, x[f, i], boxes[f], inverse, squares)
            found = 0
            for j in range(m):
                # written in any case, kept if near: branches that cannot be foreseen cost more
                near[found] = j
                found += squares[j] < limit
            # the others, and itself in padding
            row, slots = index[f, i], 0
            for k in range(found):
                if some[near[k]] != i and slots < len(row):
                    row[slots] = some[near[k]]
                    slots += 1
            row[slots:] = i
            shift[f, i, slots:] = 0
            # their lattice vectors
            for first in range(0, slots, LANES):
                last_lane = min(LANES, slots - first)
                for lane in range(last_lane):
                    for k in range(3):
                        away[k * LANES + lane] = x[f, row[first + lane], k] - x[f, i, k]
                dx, dy = load(away, 0, LANES), load(away, LANES, LANES)
                put(away, 0, *_shift(dx, dy, load(away, 2 * LANES, LANES), boxes[f], inverse))
                for lane in range(last_lane):
                    for k in range(3):
                        shift[f, i, first + lane, k] = away[k * LANES + lane]
