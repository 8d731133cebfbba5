"""Formulas that several compiled loops need: products of vectors, uniform cubic B-splines.

Splines are in units of their spacing: x = (r - r_0) / h, k = floor(x), t = x - k.

===============  ================================  ===================  =========
symbol           name here                         shape                unit
===============  ================================  ===================  =========
a, b             a, b                              (3,)                 any
t, 1 - t         t, u                              a number or vector   1
B_m(t)           1st result of cubic_b_splines     4 of these           1
dB_m/dt          2nd result                        4 of these           1
d2B_m/dt2        3rd result                        4 of these           1
===============  ================================  ===================  =========

B is defined by ``deepcg.networks.deeppot_se_l.density.splines``, without its switch; they are tied
by ``tests/networks/test_loop_formulas.py::test_b_splines_and_slopes_are_those_of_the_definition``.
"""

from __future__ import annotations

from typing import Any

from numba import njit

Four = tuple[Any, Any, Any, Any]
Vector3 = Any
"""An array, or a part of one, or a tuple of three numbers."""


@njit(inline="always", error_model="numpy")
def dot(a: Vector3, b: Vector3) -> Any:
    """Return a . b of two vectors (3,)."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(inline="always", error_model="numpy")
def cross(a: Vector3, b: Vector3) -> Vector3:
    """Return a x b (3,) of two vectors (3,)."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@njit(error_model="numpy")
def cubic_b_splines(t: Any) -> tuple[Four, Four, Four]:
    """Return the four cubic B-splines that are not zero at t, and their first two derivatives.

    They are centered on the knots k - 1, k, k + 1 and k + 2 about 0 <= t < 1.
    """
    u = 1 - t
    # of a distance y = |x - center| < 1: (4 - 6 y^2 + 3 y^3) / 6; of 1 <= y < 2: (2 - y)^3 / 6
    values = (
        u * u * u / 6,
        (3 * t - 6) * t * t / 6 + 2 / 3,
        (3 * u - 6) * u * u / 6 + 2 / 3,
        t * t * t / 6,
    )
    slopes = u * u / -2, (3 * t - 4) * t / 2, (4 - 3 * u) * u / 2, t * t / 2
    return values, slopes, (u, 3 * t - 2, 3 * u - 2, t)
