"""The packed coordinates of a frame of .xtc, number by number.

The format is that of GROMACS' xdr3dfcoord. Coordinates are whole numbers. An atom is given from the
least corner of all, in as many bits as the extent needs; some that follow it, from the atom before,
in fewer. Three numbers share bits as the digits of one. The size of the small ones goes up and
down, by steps of the cube root of 2, as the file says.

=============================  ==============  ===============  ===================
symbol                         name here       shape            unit
=============================  ==============  ===============  ===================
the packed numbers             packed          (n_bytes,)       bytes
least and greatest corner      extent          (2, 3)           1 / precision nm
how many values a digit has    sizes           (3,)             1
bits of an atom                bits, widths    one, or (3,)     bits
bits of a small step           small           a number         bits
values of its digits           steps           (3,)             1
how many small steps follow    run             a number         atoms
change of their size           change          a number         -1, 0 or 1
position in the data           at              a number         bits
the atom before, this one      before, here    (3,)             1 / precision nm
all atoms                      out             (n_atoms, 3)     1 / precision nm
=============================  ==============  ===============  ===================

The format defines it: there is no function of ours that is easier to read. MDTraj, with the code of
the format's authors, writes what ``unpack`` reads in
``tests/trajectory/test_reader.py::test_everything_mdtraj_writes_is_read``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from deepcg.compute.loops import Array, compiled

FIRST = 9
SIZES = np.array(
    [0] * FIRST
    + [8, 10, 12, 16, 20, 25, 32, 40, 50, 64, 80, 101, 128, 161, 203, 256, 322, 406, 512, 645, 812]
    + [1024, 1290, 1625, 2048, 2580, 3250, 4096, 5060, 6501, 8192, 10321, 13003, 16384, 20642]
    + [26007, 32768, 41285, 52015, 65536, 82570, 104031, 131072, 165140, 208063, 262144, 330280]
    + [416127, 524287, 660561, 832255, 1048576, 1321122, 1664510, 2097152, 2642245, 3329021]
    + [4194304, 5284491, 6658042, 8388607, 10568983, 13316085, 16777216],
    np.int64,
)
"""Of small numbers, by index: what the format says, 5060 and numbers below powers of 2 included."""


@compiled(parallel=False)
def unpack(packed: Array, extent: Array, small: int, out: Array) -> bool:
    """Fill ``out`` (n_atoms, 3); return whether the data can be right.

    ``packed`` are bytes, ``extent`` (2, 3) the least and greatest coordinates, ``small`` is the
    index of the size of small numbers.
    """
    n_atoms, end = len(out), 8 * len(packed)
    sizes = extent[1] - extent[0] + 1
    if sizes.min() < 1 or not FIRST <= small < len(SIZES):
        return False
    widths = np.array([_width(sizes[0]), _width(sizes[1]), _width(sizes[2])])
    apart = sizes.max() > 0xFFFFFF
    bits = widths.sum() if apart else _width_of_product(sizes)
    before, here, steps = np.empty(3, np.int64), np.empty(3, np.int64), np.empty(3, np.int64)
    scratch = np.empty(16, np.int64)
    at = i = run = 0
    while i < n_atoms:
        if at + bits + 1 > end:
            return False
        # an atom from the least corner: three numbers, or one with three digits
        if apart:
            for k in range(3):
                here[k] = _number(packed, at + widths[:k].sum(), widths[k])
        else:
            _digits(packed, at, bits, sizes, here, scratch)
        here += extent[0]
        before[:] = here
        at += bits + 1
        # whether the number of small steps changes, and then their number and how their size does
        change = 0
        if _number(packed, at - 1, 1):
            if at + 5 > end:
                return False
            run = _number(packed, at, 5)
            at += 5
            run, change = run // 3, run % 3 - 1
        if i + 1 + run > n_atoms or at + run * small > end:
            return False
        # steps from the atom before; the digits stand for -size / 2 to size / 2
        steps[:] = SIZES[small]
        for k in range(run):
            _digits(packed, at, small, steps, here, scratch)
            at += small
            here += before - SIZES[small] // 2
            if k == 0:  # the first two are swapped: an oxygen between its hydrogens
                out[i] = here
                out[i + 1] = before
            else:
                out[i + 1 + k] = here
            before[:] = here
        if run == 0:
            out[i] = here
        i += 1 + run
        small += change
        if not FIRST <= small < len(SIZES):
            return False
    return (at + 7) // 8 == len(packed)


@njit(error_model="numpy")
def _width(number: int | np.integer[Any]) -> int:
    """Return how many bits a number has."""
    bits = 0
    while number:
        number >>= 1
        bits += 1
    return bits


@njit(error_model="numpy")
def _width_of_product(sizes: Array) -> int:
    """Return how many bits the product of three numbers of up to 24 bits has."""
    low = np.uint64(sizes[0] * sizes[1])
    third = np.uint64(sizes[2])
    # of 72 bits: 24 from below, the rest above
    mask = np.uint64(0xFFFFFF)
    below = (low & mask) * third
    above = (low >> np.uint64(24)) * third + (below >> np.uint64(24))
    if above:
        return 24 + _width(np.int64(above))
    return _width(np.int64(below))


@njit(error_model="numpy")
def _number(packed: Array, at: int, width: int) -> int:
    """Return the number in ``width`` bits from bit ``at``, the highest bit first."""
    number = 0
    while width > 0:
        there = 8 - (at & 7)
        taken = min(there, width)
        number = number << taken | packed[at >> 3] >> (there - taken) & ((1 << taken) - 1)
        at += taken
        width -= taken
    return number


@njit(error_model="numpy")
def _digits(packed: Array, at: int, width: int, sizes: Array, out: Array, scratch: Array) -> None:
    """Fill ``out`` with the digits, in bases ``sizes``, of the number in ``width`` bits.

    Its bytes come with the lowest first, the bits of each with the highest first.
    """
    n_bytes = (width + 7) // 8
    for k in range(n_bytes):
        scratch[k] = _number(packed, at + 8 * k, min(8, width - 8 * k))
    # long division of the number by the last base, and of what is left by the second
    for axis in (2, 1):
        rest = 0
        for k in range(n_bytes - 1, -1, -1):
            rest = rest << 8 | scratch[k]
            scratch[k] = rest // sizes[axis]
            rest -= scratch[k] * sizes[axis]
        out[axis] = rest
    out[0] = 0
    for k in range(min(n_bytes, 7) - 1, -1, -1):
        out[0] = out[0] << 8 | scratch[k]
