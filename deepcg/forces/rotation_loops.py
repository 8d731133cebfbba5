"""Compiled loops behind ``control_variates.py``: the rotation generator on pair functions."""

from __future__ import annotations

from numba import njit, prange


@njit(inline="always", error_model="numpy")
def _spline(t, piece):
    """Return a piece of the uniform cubic B-spline at 0 <= t < 1, and its two derivatives."""
    if piece == 0:
        return (1 - t) ** 3 / 6, -((1 - t) ** 2) / 2, 1 - t
    if piece == 1:
        return (3 * t**3 - 6 * t * t + 4) / 6, (3 * t * t - 4 * t) / 2, 3 * t - 2
    if piece == 2:
        return (1 + 3 * t + 3 * t * t - 3 * t**3) / 6, (1 + 2 * t - 3 * t * t) / 2, 1 - 3 * t
    return t**3 / 6, t * t / 2, t


@njit(inline="always", error_model="numpy")
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(inline="always", error_model="numpy")
def _cross(a, b):
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )


@njit(inline="always", error_model="numpy")
def _on_radial(sign, arm, turned, d, p1, p2, kT):
    """Return tau . L p + kT L^2 p of p(|d|), where turning the arm moves d by ``sign`` times it.

    ``turned`` is torque x arm; p1 = p'/d, and p2 = p''.
    """
    along, arm2 = _dot(arm, d), _dot(arm, arm)
    q = (p2 - p1) / _dot(d, d)
    laplacian = arm2 * (p2 + p1) - q * along * along - 2 * sign * p1 * along
    return sign * p1 * _dot(turned, d) + kT * laplacian


@njit(inline="always", error_model="numpy")
def _add_on_arm(out, generated, sign, arm, turned, d, p, p1, kT):
    """Add tau . L (p e) + kT L^2 (p e), where e is the arm that turns; see ``_on_radial``."""
    along, arm2 = _dot(arm, d), _dot(arm, arm)
    for k in range(3):
        mixed = 2 * sign * p1 * (arm2 * d[k] - along * arm[k])
        out[k] += generated * arm[k] + p * turned[k] + kT * (mixed - 2 * p * arm[k])


@njit(parallel=True, cache=True, error_model="numpy")
def rotated_pairs(
    near, index, count, arms, torques, kinds, moves, columns, first, spacing, n_splines, kT, out
):
    """Add the control variates of one frame to ``out`` (n_beads, n_variates, 3).

    near (n_beads, width, 3), index and count: as in ``Neighbors``; arms (n_beads, n_sites, 3);
    torques (n_beads, 3); kinds (n_beads, n_sites), -1 where a bead has fewer sites; moves
    (n_kinds,), whether rotations move the site; columns (n_kinds, n_kinds), the first column of
    every ordered pair of kinds, or -1.
    """
    for i in prange(len(near)):
        for slot in range(count[i]):
            j = index[i, slot]
            base = (near[i, slot, 0], near[i, slot, 1], near[i, slot, 2])
            for a in range(arms.shape[1]):
                for b in range(arms.shape[1]):
                    if kinds[i, a] < 0 or kinds[j, b] < 0:
                        continue
                    column = columns[kinds[i, a], kinds[j, b]]
                    if column < 0:
                        continue
                    here = (arms[i, a, 0], arms[i, a, 1], arms[i, a, 2])
                    there = (arms[j, b, 0], arms[j, b, 1], arms[j, b, 2])
                    turned_here = _cross(torques[i], here)
                    turned_there = _cross(torques[j], there)
                    d = (
                        base[0] + there[0] - here[0],
                        base[1] + there[1] - here[1],
                        base[2] + there[2] - here[2],
                    )
                    distance = _dot(d, d) ** 0.5
                    x = (distance - first) / spacing
                    whole = int(x // 1)
                    for piece in range(4):
                        k = whole - 3 + piece
                        if k < 0 or k >= n_splines:
                            continue
                        p, dp, ddp = _spline(x - whole, piece)
                        p1, p2 = dp / (spacing * distance), ddp / spacing**2
                        generated = 0.0
                        if moves[kinds[i, a]]:
                            generated += _on_radial(-1, here, turned_here, d, p1, p2, kT)
                        if moves[kinds[j, b]]:
                            generated += _on_radial(1, there, turned_there, d, p1, p2, kT)
                        for c in range(3):
                            out[i, column + k, c] += generated * base[c]
                        slot_k = column + n_splines + k
                        if moves[kinds[i, a]]:
                            _add_on_arm(
                                out[i, slot_k], generated, -1, here, turned_here, d, p, p1, kT
                            )
                            slot_k += n_splines
                        if moves[kinds[j, b]]:
                            _add_on_arm(
                                out[i, slot_k], generated, 1, there, turned_there, d, p, p1, kT
                            )
