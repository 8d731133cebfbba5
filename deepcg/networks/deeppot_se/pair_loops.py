"""Fused CPU loops behind ``pair_features.py``: sums over the neighbors that are within the cutoff.

Loops run in parallel over beads; every bead writes its own rows, so that the result does not
depend on the number of threads. LANES channels are worked on at once, the rest one by one.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from deepcg.compute.loops import CHUNKS, Loop, share
from deepcg.compute.simd import LANES, load, store, total

NUMBERS = 8
"""Of a pair: s, q, ds/dr, dq/dr, q/r and the unit vector u; s and q = s0 s are scaled."""


@njit(parallel=True, cache=True, error_model="numpy")
def count_pairs(d, neighbor_types, limit, counts):
    """Set ``counts`` (beads, types) to the neighbors of each type nearer than a limit, squared."""
    n = d.shape[1]
    for bead in prange(d.shape[0] * n):
        f, i = bead // n, bead % n
        counts[bead] = 0
        for j in range(d.shape[2]):
            if neighbor_types[f, i, j] < 0:
                break
            x, y, z = d[f, i, j, 0], d[f, i, j, 1], d[f, i, j, 2]
            if x * x + y * y + z * z < limit:
                counts[bead, neighbor_types[f, i, j]] += 1


@njit(parallel=True, cache=True, error_model="numpy")
def fill_pairs(
    d, neighbor_types, types, two_sided, mean, spread, numbers, first, slots, nets, geometry
):
    """Describe pairs, those of a bead after one another from ``first`` (beads + 1,) on.

    ``slots`` (pairs,) are their places in ``d``, ``nets`` (pairs,) their embedding nets,
    ``geometry`` (pairs, NUMBERS) what they look like; ``numbers`` are switch and cutoff.
    """
    on, cutoff = numbers
    n, n_types = d.shape[1], len(mean)
    for bead in prange(d.shape[0] * n):
        f, i = bead // n, bead % n
        here, pair = types[i], first[bead]
        for j in range(d.shape[2]):
            if pair == first[bead + 1]:
                break
            x, y, z = d[f, i, j, 0], d[f, i, j, 1], d[f, i, j, 2]
            square = x * x + y * y + z * z
            if not square < cutoff * cutoff:
                continue
            r = np.sqrt(np.float64(square))
            k = min(max((r - on) / (cutoff - on), 0.0), 1.0)
            w = 1 - k * k * k * (10 - 15 * k + 6 * k * k)
            dw = -30 * k * k * (1 - k) * (1 - k) / (cutoff - on)
            s = w / r
            ds = (dw - s) / r
            own = geometry[pair]
            own[0], own[1] = (s - mean[here]) / spread[here, 0], s / spread[here, 1]
            own[2], own[3] = ds / spread[here, 0], ds / spread[here, 1]
            own[4] = s / spread[here, 1] / r
            own[5], own[6], own[7] = x / r, y / r, z / r
            slots[pair] = j
            nets[pair] = here * n_types * two_sided + neighbor_types[f, i, j]
            pair += 1


@njit(parallel=True, cache=True, error_model="numpy")
def find_twins(first, slots, types, index, others, reverse_pairs):
    """Set ``reverse_pairs`` (pairs,), where it is -1, to the pair of j and i for that of i and j.

    Of beads of different types they stay; of a neighbor there is one image. ``others`` (pairs,) are
    the beads j.
    """
    n = index.shape[1]
    for bead in prange(len(first) - 1):
        f, i = bead // n, bead % n
        for pair in range(first[bead], first[bead + 1]):
            j = index[f, i, slots[pair]]
            others[pair] = f * n + j
            if j < i or types[i] != types[j]:
                continue
            for back in range(first[f * n + j], first[f * n + j + 1]):
                if index[f, j, slots[back]] == i:
                    reverse_pairs[pair], reverse_pairs[back] = back, pair
                    break


@njit(cache=True, error_model="numpy")
def number_rows(nets, reverse_pairs, geometry, s, ends, rows):
    """Set ``rows`` (pairs,) to places in which pairs, twins as one, are sorted by net.

    ``s`` are those of the places, ``ends`` (nets,), at first 0, where each net's places end. A
    counting sort, which keeps the order within a net.
    """
    for pair, net in enumerate(nets):
        ends[net] += not 0 <= reverse_pairs[pair] < pair
    place = np.cumsum(ends) - ends
    for pair, net in enumerate(nets):
        if 0 <= reverse_pairs[pair] < pair:
            rows[pair] = rows[reverse_pairs[pair]]
        else:
            rows[pair] = place[net]
            s[place[net]] = geometry[pair, 0]
            place[net] += 1
    ends[:] = place


@njit(inline="always")
def longest(first):
    """Return the largest number of pairs of a bead."""
    most = 0
    for bead in range(len(first) - 1):
        most = max(most, first[bead + 1] - first[bead])
    return most


@njit(inline="always")
def _fill_row(own, k, r):
    """Set column k of ``r`` to R of a pair."""
    r[0, k], r[1, k] = own[0], own[1] * own[5]
    r[2, k], r[3, k] = own[1] * own[6], own[1] * own[7]


@njit(inline="always")
def fill_rows(begin, end, geometry, r):
    """Set ``r`` (4, room) to R of the pairs of a bead."""
    for pair in range(begin, end):
        _fill_row(geometry[pair], pair - begin, r)


def _features_of(width: int) -> Loop:
    """Return what sums over the pairs of a bead for ``width`` channels from m on."""

    @njit(fastmath=True, error_model="numpy")
    def block(m, begin, end, rows, r, g, n, nothing, out, to):
        f0 = f1 = f2 = f3 = load(nothing, 0, width)
        for pair in range(begin, end):
            k, value = pair - begin, load(g, rows[pair] * n + m, width)
            f0, f1 = f0 + value * r[0, k], f1 + value * r[1, k]
            f2, f3 = f2 + value * r[2, k], f3 + value * r[3, k]
        store(out, to + m, f0)
        store(out, to + n + m, f1)
        store(out, to + 2 * n + m, f2)
        store(out, to + 3 * n + m, f3)

    return block


def _features_back_of(width: int) -> Loop:
    """Return the way back of ``_features_of`` to G."""

    @njit(fastmath=True, error_model="numpy")
    def block(m, begin, end, rows, reverse_pairs, others, r, q, slopes, n, at, back):
        f0, f1 = load(slopes, at + m, width), load(slopes, at + n + m, width)
        f2, f3 = load(slopes, at + 2 * n + m, width), load(slopes, at + 3 * n + m, width)
        for pair in range(begin, end):
            k, twin = pair - begin, reverse_pairs[pair]
            if 0 <= twin < pair:
                continue
            value = f0 * r[0, k] + f1 * r[1, k] + f2 * r[2, k] + f3 * r[3, k]
            if twin >= 0:
                its = 4 * n * others[pair] + m
                g0, g1 = load(slopes, its, width), load(slopes, its + n, width)
                g2, g3 = load(slopes, its + 2 * n, width), load(slopes, its + 3 * n, width)
                value = value + g0 * q[0, k] + g1 * q[1, k] + g2 * q[2, k] + g3 * q[3, k]
            store(back, rows[pair] * n + m, value)

    return block


def _pulls_back_of(width: int) -> Loop:
    """Return the way back of ``pulls`` for ``width`` channels of a bead from m on."""

    @njit(fastmath=True, error_model="numpy")
    def block(m, begin, end, places, r, t, q, w, given, n, at, nothing, back, back_g, back_dg):
        rows, reverse_pairs, others = places
        g, dg, slopes = given
        f0, f1 = load(slopes, at + m, width), load(slopes, at + n + m, width)
        f2, f3 = load(slopes, at + 2 * n + m, width), load(slopes, at + 3 * n + m, width)
        s0 = s1 = s2 = s3 = load(nothing, 0, width)
        for pair in range(begin, end):
            k, place, twin = pair - begin, rows[pair] * n + m, reverse_pairs[pair]
            r0, r1, r2, r3 = r[0, k], r[1, k], r[2, k], r[3, k]
            t0, t1, t2, t3 = t[0, k], t[1, k], t[2, k], t[3, k]
            value, moved = load(g, place, width), load(dg, place, width) * t0
            s0, s1 = s0 + moved * r0 + value * t0, s1 + moved * r1 + value * t1
            s2, s3 = s2 + moved * r2 + value * t2, s3 + moved * r3 + value * t3
            if 0 <= twin < pair:
                continue
            on_g = f0 * t0 + f1 * t1 + f2 * t2 + f3 * t3
            on_dg = (f0 * r0 + f1 * r1 + f2 * r2 + f3 * r3) * t0
            if twin >= 0:
                its = 4 * n * others[pair] + m
                h0, h1 = load(slopes, its, width), load(slopes, its + n, width)
                h2, h3 = load(slopes, its + 2 * n, width), load(slopes, its + 3 * n, width)
                on_g = on_g + h0 * w[0, k] + h1 * w[1, k] + h2 * w[2, k] + h3 * w[3, k]
                also = h0 * q[0, k] + h1 * q[1, k] + h2 * q[2, k] + h3 * q[3, k]
                on_dg = on_dg + also * w[0, k]
            store(back_g, place, on_g)
            store(back_dg, place, on_dg)
        store(back, at + m, s0)
        store(back, at + n + m, s1)
        store(back, at + 2 * n + m, s2)
        store(back, at + 3 * n + m, s3)

    return block


_features_many, _features_one = _features_of(LANES), _features_of(1)
_features_back_many, _features_back_one = _features_back_of(LANES), _features_back_of(1)
_pulls_back_many, _pulls_back_one = _pulls_back_of(LANES), _pulls_back_of(1)


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def features(first, rows, geometry, g, out):
    """Set ``out`` (beads, 4, channels) to sum_j R_jc G_jm."""
    n, room = out.shape[2], longest(first)
    whole, values, target = n - n % LANES, g.ravel(), out.ravel()
    for chunk in prange(CHUNKS):
        r, nothing = np.empty((4, room), g.dtype), np.zeros(LANES, g.dtype)
        for bead in range(*share(chunk, len(out))):
            begin, end, to = first[bead], first[bead + 1], 4 * n * bead
            fill_rows(begin, end, geometry, r)
            for m in range(0, whole, LANES):
                _features_many(m, begin, end, rows, r, values, n, nothing, target, to)
            for m in range(whole, n):
                _features_one(m, begin, end, rows, r, values, n, nothing, target, to)


@njit(inline="always")
def _fill_twins_rows(begin, end, reverse_pairs, geometry, r):
    """Set ``r`` (4, room) to R of the twins of the pairs of a bead, where they have any."""
    for pair in range(begin, end):
        if reverse_pairs[pair] >= 0:
            _fill_row(geometry[reverse_pairs[pair]], pair - begin, r)


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def features_back(first, rows, reverse_pairs, others, geometry, slopes, back):
    """Set ``back`` (rows, channels) to the gradient of sum(slopes F) in G."""
    n, room, n_beads = back.shape[1], longest(first), len(slopes)
    whole, given, target = n - n % LANES, slopes.ravel(), back.ravel()
    for chunk in prange(CHUNKS):
        r, q = np.empty((4, room), back.dtype), np.empty((4, room), back.dtype)
        for bead in range(*share(chunk, n_beads)):
            begin, end, at = first[bead], first[bead + 1], 4 * n * bead
            fill_rows(begin, end, geometry, r)
            _fill_twins_rows(begin, end, reverse_pairs, geometry, q)
            known = begin, end, rows, reverse_pairs, others, r, q, given, n, at, target
            for m in range(0, whole, LANES):
                _features_back_many(m, *known)
            for m in range(whole, n):
                _features_back_one(m, *known)


@njit(cache=True, fastmath=True, error_model="numpy")
def complete(types, counts, slots, far, features):
    """Add to ``features`` (beads, 4, channels) what neighbors at infinity add, and divide by n.

    As ``environment.completed`` does, in place.
    """
    n, n_types = len(types), len(slots)
    scale = 1 / slots.sum()
    for bead in range(len(features)):
        f = features[bead]
        for there in range(n_types):
            absent, row = slots[there] - counts[bead, there], far[types[bead % n], there]
            for m in range(f.shape[1]):
                f[0, m] += absent * row[m]
        for c in range(4):
            for m in range(f.shape[1]):
                f[c, m] *= scale


@njit(inline="always")
def pull(own, ds, b1, b2, b3, out):
    """Set ``out`` (3,) to dU/dr of a pair from dU/ds and the slopes in its vector q u."""
    along = b1 * own[5] + b2 * own[6] + b3 * own[7]
    radial = ds * own[2] + along * (own[3] - own[4])
    out[0] = radial * own[5] + own[4] * b1
    out[1] = radial * own[6] + own[4] * b2
    out[2] = radial * own[7] + own[4] * b3


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def pulls(first, rows, slots, geometry, g, dg, slopes, out):
    """Set ``out`` (beads, width, 3) to the gradient of sum(slopes F) in displacements."""
    n = g.shape[1]
    whole, values, changes = n - n % LANES, g.ravel(), dg.ravel()
    for chunk in prange(CHUNKS):
        nothing = np.zeros(LANES, g.dtype)
        for bead in range(*share(chunk, len(out))):
            out[bead] = 0
            f = slopes[bead].ravel()
            for pair in range(first[bead], first[bead + 1]):
                own, at = geometry[pair], rows[pair] * n
                r0, r1, r2, r3 = own[0], own[1] * own[5], own[1] * own[6], own[1] * own[7]
                v0 = v1 = v2 = v3 = load(nothing, 0, LANES)
                for m in range(0, whole, LANES):
                    f0, f1 = load(f, m, LANES), load(f, n + m, LANES)
                    f2, f3 = load(f, 2 * n + m, LANES), load(f, 3 * n + m, LANES)
                    value, change = load(values, at + m, LANES), load(changes, at + m, LANES)
                    v0 = v0 + change * (f0 * r0 + f1 * r1 + f2 * r2 + f3 * r3) + value * f0
                    v1, v2, v3 = v1 + value * f1, v2 + value * f2, v3 + value * f3
                ds, b1, b2, b3 = total(v0), total(v1), total(v2), total(v3)
                for m in range(whole, n):
                    a = r0 * f[m] + r1 * f[n + m] + r2 * f[2 * n + m] + r3 * f[3 * n + m]
                    value = values[at + m]
                    ds += changes[at + m] * a + value * f[m]
                    b1 += value * f[n + m]
                    b2 += value * f[2 * n + m]
                    b3 += value * f[3 * n + m]
                pull(own, ds, b1, b2, b3, out[bead, slots[pair]])


@njit(inline="always")
def _speed(own, speed, k, t):
    """Set column k of ``t`` to how s and its vector change with a displacement's ``speed``."""
    along = speed[0] * own[5] + speed[1] * own[6] + speed[2] * own[7]
    turn = along * (own[3] - own[4])
    t[0, k], t[1, k] = along * own[2], turn * own[5] + own[4] * speed[0]
    t[2, k], t[3, k] = turn * own[6] + own[4] * speed[1], turn * own[7] + own[4] * speed[2]


@njit(inline="always")
def _fill_speeds(begin, end, bead, slots, reverse_pairs, others, geometry, v, t, w):
    """Set ``t`` (4, room) to the changes of R of a bead's pairs, ``w`` to those of their twins."""
    for pair in range(begin, end):
        twin = reverse_pairs[pair]
        _speed(geometry[pair], v[bead, slots[pair]], pair - begin, t)
        if twin >= 0:
            _speed(geometry[twin], v[others[pair], slots[twin]], pair - begin, w)


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def pulls_back(
    first,
    rows,
    reverse_pairs,
    others,
    slots,
    geometry,
    g,
    dg,
    slopes,
    v,
    back_g,
    back_dg,
    back_slopes,
):
    """Set the gradients of sum(v pulls) in G, dG/ds and the slopes; ``v`` (beads, width, 3)."""
    n, room, n_beads = g.shape[1], longest(first), len(slopes)
    whole, given = n - n % LANES, (g.ravel(), dg.ravel(), slopes.ravel())
    on_g, on_dg, on_slopes = back_g.ravel(), back_dg.ravel(), back_slopes.ravel()
    for chunk in prange(CHUNKS):
        r, t = np.empty((4, room), g.dtype), np.empty((4, room), g.dtype)
        q, w = np.empty((4, room), g.dtype), np.empty((4, room), g.dtype)
        nothing, places = np.zeros(LANES, g.dtype), (rows, reverse_pairs, others)
        for bead in range(*share(chunk, n_beads)):
            begin, end, at = first[bead], first[bead + 1], 4 * n * bead
            fill_rows(begin, end, geometry, r)
            _fill_twins_rows(begin, end, reverse_pairs, geometry, q)
            _fill_speeds(begin, end, bead, slots, reverse_pairs, others, geometry, v, t, w)
            known = places, r, t, q, w, given, n, at, nothing, on_slopes, on_g, on_dg
            for m in range(0, whole, LANES):
                _pulls_back_many(m, begin, end, *known)
            for m in range(whole, n):
                _pulls_back_one(m, begin, end, *known)


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def layer(x, y, change, out):
    """Set ``out`` (2n, wide) to what a layer makes of values and slopes ``x`` (2n, narrow).

    ``y`` (n, wide) holds tanh(W x + b) and ``change`` W x'.
    """
    n, narrow, wide = len(x) // 2, x.shape[1], y.shape[1]
    repeats = wide // narrow if wide in (narrow, 2 * narrow) else 0
    for i in prange(n):
        for m in range(wide):
            t = y[i, m]
            out[i, m] = t
            out[n + i, m] = (1 - t * t) * change[i, m]
        for k in range(repeats):
            for m in range(narrow):
                out[i, k * narrow + m] += x[i, m]
                out[n + i, k * narrow + m] += x[n + i, m]


@njit(parallel=True, cache=True, fastmath=True, error_model="numpy")
def layer_back(slopes, y, change, back):
    """Set ``back`` (2n, wide) to the gradient in W x + b and in W x' of that of ``layer``."""
    n = len(y)
    for i in prange(n):
        for m in range(y.shape[1]):
            t, slope = y[i, m], slopes[n + i, m]
            up = 1 - t * t
            back[n + i, m] = slope * up
            back[i, m] = (slopes[i, m] - 2 * t * change[i, m] * slope) * up
