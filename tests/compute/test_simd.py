"""Vectors in compiled loops do what arrays do."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from deepcg.compute.simd import (
    LANES,
    floor,
    load,
    maximum,
    minimum,
    put,
    sqrt,
    store,
    total,
    transpose,
)


@njit
def mixture(a, out):
    v, w = load(a, 0, LANES), load(a, LANES, LANES)
    store(out, 0, sqrt(maximum(v * v + 2.5 * w - 1, 1e-12)) / w + floor(3 * w) - minimum(v, w))
    put(out, 1, v / 2, 1 - w, w + v)
    return total(v)


@njit
def turned(a, out, step, stride):
    transpose(a, 1, step, out, 2, stride)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arithmetic_is_that_of_arrays(dtype: type):
    a = np.random.default_rng(0).uniform(0.1, 1, 2 * LANES).astype(dtype)
    out = np.zeros(4 * LANES, dtype)
    found = mixture(a, out)
    v, w = a[:LANES], a[LANES:]
    wanted = np.sqrt(np.maximum(v * v + 2.5 * w - 1, 1e-12)) / w + np.floor(3 * w)
    wanted = np.concatenate([wanted - np.minimum(v, w), v / 2, 1 - w, w + v])
    rounding = 8 * np.finfo(dtype).eps
    # a square root of something near zero magnifies the rounding below it
    np.testing.assert_allclose(out, wanted, rtol=rounding, atol=np.sqrt(rounding) * 1e-2)
    np.testing.assert_allclose(found, v.sum(), rtol=rounding)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squares_are_transposed_from_row_to_row(dtype: type):
    step, stride = LANES + 3, LANES + 5
    a = np.arange(1 + step * LANES, dtype=dtype)
    out = np.zeros(2 + stride * LANES, dtype)
    turned(a, out, step, stride)
    for i in range(LANES):
        row = out[2 + i * stride : 2 + i * stride + LANES]
        np.testing.assert_array_equal(row, a[1 + i : 1 + i + step * LANES : step][:LANES])
