"""Compiled loops of DeepPot-SE's features F over the neighbors within the cutoff, and back.

F_cm = sum_j R_jc G_m(s_j), with s0 = w(r) / r, s = (s0 - mean) / sigma_0, q = s0 / sigma_1 and the
rows R = (s, q u). Loops run in parallel over beads; every bead writes its own rows, so that the
result does not depend on the number of threads. LANES channels are worked on at once, the rest one
by one. A pair of i and j and its twin, that of j and i, of beads of one type, share a row of G.

=========================  =======================  ==================  =========
symbol                     name here                shape               unit
=========================  =======================  ==================  =========
r_ij                       d                        (f, i, j, 3)        nm
w, dw/dx                   w, dw_dx                 of a pair           1
s0, ds0/dr                 s, ds in fill_pairs      of a pair           1/nm, ...
s, q, ds/dr, dq/dr, q/r    geometry, own            (p, NUMBERS)        1, 1/nm
u                          geometry, own            (p, NUMBERS)        1
R_c                        r, twin_r                (4, capacity)       1
G_m, dG_m/ds               g, dg                    (rows, m)           1
F_cm                       features, out            (i, 4, m)           1
dU/dF_cm                   slopes                   (i, 4, m)           kJ/mol
dU/dG_m                    back                     (rows, m)           kJ/mol
dU/dr_ij                   out of pair_gradients    (i, j, 3)           kJ/mol/nm
v_ij                       v                        (i, j, 3)           any
v . dR_c/dr_ij             dr, twin_dr              (4, capacity)       any
n, neighbors missing       slots, absent            (types,)            1
=========================  =======================  ==================  =========

f are frames, i beads (of all frames where f is missing), j neighbors, m channels, p pairs, those of
bead i from first[i] up to first[i + 1]. The features are defined by
``deepcg.networks.deeppot_se.environment.reference_features``; they are tied by
``tests/workflow/test_compress.py::test_loops_do_what_the_definition_says`` and
``tests/workflow/test_compress.py::test_training_follows_the_definition``, twins by
``tests/networks/test_low_rank.py::test_twins_are_the_pairs_of_one_type_the_other_way``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from deepcg.compute.loops import CHUNKS, Array, Loop, compiled, share
from deepcg.compute.simd import LANES, load, store, total
from deepcg.networks.neighbor_loops import switch

NUMBERS = 8
"""Of a pair: s, q, ds/dr, dq/dr, q/r and the unit vector u; s and q are scaled."""

Places = tuple[Array, Array, Array]
"""Of pairs: rows of G, twins, and the beads j."""


@compiled()
def count_pairs(d: Array, neighbor_types: Array, limit: float, counts: Array) -> None:
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


@compiled()
def fill_pairs(
    d: Array,
    neighbor_types: Array,
    types: Array,
    two_sided: bool,
    mean: Array,
    spread: Array,
    numbers: tuple[float, float],
    first: Array,
    slots: Array,
    nets: Array,
    geometry: Array,
) -> None:
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
            # s0 = w / r and ds0/dr = (dw/dr - s0) / r, in double precision
            r = np.sqrt(np.float64(square))
            w, dw_dx = switch(min(max((r - on) / (cutoff - on), 0.0), 1.0), 1.0)
            s = w / r
            ds = (dw_dx / (cutoff - on) - s) / r
            # s, q, ds/dr, dq/dr, q/r and u
            own = geometry[pair]
            own[0], own[1] = (s - mean[here]) / spread[here, 0], s / spread[here, 1]
            own[2], own[3] = ds / spread[here, 0], ds / spread[here, 1]
            own[4] = s / spread[here, 1] / r
            own[5], own[6], own[7] = x / r, y / r, z / r
            slots[pair] = j
            nets[pair] = here * n_types * two_sided + neighbor_types[f, i, j]
            pair += 1


@compiled()
def find_reverse_pairs(
    first: Array, slots: Array, types: Array, index: Array, others: Array, reverse_pairs: Array
) -> None:
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


@compiled(parallel=False)
def number_rows(
    nets: Array, reverse_pairs: Array, geometry: Array, s: Array, ends: Array, rows: Array
) -> None:
    """Set ``rows`` (pairs,) to places in which pairs, twins as one, are sorted by net.

    ``s`` are those of the places, ``ends`` (nets,), at first 0, where each net's places end. A
    counting sort, which keeps the order within a net.
    """
    # how many rows each net has, and where these begin
    for pair, net in enumerate(nets):
        ends[net] += not 0 <= reverse_pairs[pair] < pair
    place = np.cumsum(ends) - ends
    # a pair that comes after its twin has the twin's row, another the next of its net
    for pair, net in enumerate(nets):
        if 0 <= reverse_pairs[pair] < pair:
            rows[pair] = rows[reverse_pairs[pair]]
        else:
            rows[pair] = place[net]
            s[place[net]] = geometry[pair, 0]
            place[net] += 1
    ends[:] = place


@njit(inline="always")
def longest(first: Array) -> int:
    """Return the largest number of pairs of a bead; ``first`` is (beads + 1,)."""
    most = 0
    for bead in range(len(first) - 1):
        most = max(most, first[bead + 1] - first[bead])
    return most


@njit(inline="always")
def _fill_row(own: Array, k: int, r: Array) -> None:
    """Set column k of ``r`` to R = (s, q u) of a pair."""
    r[0, k], r[1, k] = own[0], own[1] * own[5]
    r[2, k], r[3, k] = own[1] * own[6], own[1] * own[7]


@njit(inline="always")
def fill_rows(begin: int, end: int, geometry: Array, r: Array) -> None:
    """Set ``r`` (4, capacity) to R of the pairs of a bead."""
    for pair in range(begin, end):
        _fill_row(geometry[pair], pair - begin, r)


def _features_of(width: int) -> Loop:
    """Return what sums over the pairs of a bead for ``width`` channels from m on."""

    @njit(fastmath=True, error_model="numpy")
    def block(
        m: int,
        begin: int,
        end: int,
        rows: Array,
        r: Array,
        g: Array,
        n: int,
        nothing: Array,
        out: Array,
        to: int,
    ) -> None:
        # F_cm += R_jc G_jm
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
    def block(
        m: int,
        begin: int,
        end: int,
        rows: Array,
        reverse_pairs: Array,
        others: Array,
        r: Array,
        twin_r: Array,
        slopes: Array,
        n: int,
        at: int,
        back: Array,
    ) -> None:
        f0, f1 = load(slopes, at + m, width), load(slopes, at + n + m, width)
        f2, f3 = load(slopes, at + 2 * n + m, width), load(slopes, at + 3 * n + m, width)
        for pair in range(begin, end):
            k, twin = pair - begin, reverse_pairs[pair]
            # the bead of the twin, which comes first, writes their row
            if 0 <= twin < pair:
                continue
            # dU/dG_m = sum_c dU/dF_cm R_c, and the same of the twin, whose bead is j
            value = f0 * r[0, k] + f1 * r[1, k] + f2 * r[2, k] + f3 * r[3, k]
            if twin >= 0:
                its = 4 * n * others[pair] + m
                g0, g1 = load(slopes, its, width), load(slopes, its + n, width)
                g2, g3 = load(slopes, its + 2 * n, width), load(slopes, its + 3 * n, width)
                value = value + g0 * twin_r[0, k] + g1 * twin_r[1, k]
                value = value + g2 * twin_r[2, k] + g3 * twin_r[3, k]
            store(back, rows[pair] * n + m, value)

    return block


def _pulls_back_of(width: int) -> Loop:
    """Return the way back of ``pair_gradients`` for ``width`` channels of a bead from m on."""

    @njit(fastmath=True, error_model="numpy")
    def block(
        m: int,
        begin: int,
        end: int,
        places: Places,
        r: Array,
        dr: Array,
        twin_r: Array,
        twin_dr: Array,
        given: tuple[Array, Array, Array],
        n: int,
        at: int,
        nothing: Array,
        back: Array,
        back_g: Array,
        back_dg: Array,
    ) -> None:
        rows, reverse_pairs, others = places
        g, dg, slopes = given
        f0, f1 = load(slopes, at + m, width), load(slopes, at + n + m, width)
        f2, f3 = load(slopes, at + 2 * n + m, width), load(slopes, at + 3 * n + m, width)
        s0 = s1 = s2 = s3 = load(nothing, 0, width)
        # v . dU/dr_ij = sum_cm dU/dF_cm (G_m dR_c + dG_m/ds dR_0 R_c), with dR_c = v . dR_c/dr_ij
        for pair in range(begin, end):
            k, place, twin = pair - begin, rows[pair] * n + m, reverse_pairs[pair]
            r0, r1, r2, r3 = r[0, k], r[1, k], r[2, k], r[3, k]
            t0, t1, t2, t3 = dr[0, k], dr[1, k], dr[2, k], dr[3, k]
            # its gradient in dU/dF_cm, summed over j
            value, moved = load(g, place, width), load(dg, place, width) * t0
            s0, s1 = s0 + moved * r0 + value * t0, s1 + moved * r1 + value * t1
            s2, s3 = s2 + moved * r2 + value * t2, s3 + moved * r3 + value * t3
            if 0 <= twin < pair:
                continue
            # in G_m: sum_c dU/dF_cm dR_c; in dG_m/ds: dR_0 sum_c dU/dF_cm R_c
            on_g = f0 * t0 + f1 * t1 + f2 * t2 + f3 * t3
            on_dg = (f0 * r0 + f1 * r1 + f2 * r2 + f3 * r3) * t0
            # and the same of the twin, whose bead is j
            if twin >= 0:
                its = 4 * n * others[pair] + m
                h0, h1 = load(slopes, its, width), load(slopes, its + n, width)
                h2, h3 = load(slopes, its + 2 * n, width), load(slopes, its + 3 * n, width)
                on_g = on_g + h0 * twin_dr[0, k] + h1 * twin_dr[1, k]
                on_g = on_g + h2 * twin_dr[2, k] + h3 * twin_dr[3, k]
                also = h0 * twin_r[0, k] + h1 * twin_r[1, k] + h2 * twin_r[2, k]
                also = also + h3 * twin_r[3, k]
                on_dg = on_dg + also * twin_dr[0, k]
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


@compiled(fastmath=True)
def features(first: Array, rows: Array, geometry: Array, g: Array, out: Array) -> None:
    """Set ``out`` (beads, 4, channels) to F_cm = sum_j R_jc G_jm."""
    n, capacity = out.shape[2], longest(first)
    whole, values, target = n - n % LANES, g.ravel(), out.ravel()
    for chunk in prange(CHUNKS):
        r, nothing = np.empty((4, capacity), g.dtype), np.zeros(LANES, g.dtype)
        for bead in range(*share(chunk, len(out))):
            begin, end, to = first[bead], first[bead + 1], 4 * n * bead
            fill_rows(begin, end, geometry, r)
            for m in range(0, whole, LANES):
                _features_many(m, begin, end, rows, r, values, n, nothing, target, to)
            for m in range(whole, n):
                _features_one(m, begin, end, rows, r, values, n, nothing, target, to)


@njit(inline="always")
def _fill_twins_rows(begin: int, end: int, reverse_pairs: Array, geometry: Array, r: Array) -> None:
    """Set ``r`` (4, capacity) to R of the twins of the pairs of a bead, where they have any."""
    for pair in range(begin, end):
        if reverse_pairs[pair] >= 0:
            _fill_row(geometry[reverse_pairs[pair]], pair - begin, r)


@compiled(fastmath=True)
def features_back(
    first: Array,
    rows: Array,
    reverse_pairs: Array,
    others: Array,
    geometry: Array,
    slopes: Array,
    back: Array,
) -> None:
    """Set ``back`` (rows, channels) to the gradient of sum(slopes F) in G."""
    n, capacity, n_beads = back.shape[1], longest(first), len(slopes)
    whole, given, target = n - n % LANES, slopes.ravel(), back.ravel()
    for chunk in prange(CHUNKS):
        r = np.empty((4, capacity), back.dtype)
        twin_r = np.empty((4, capacity), back.dtype)
        for bead in range(*share(chunk, n_beads)):
            begin, end, at = first[bead], first[bead + 1], 4 * n * bead
            fill_rows(begin, end, geometry, r)
            _fill_twins_rows(begin, end, reverse_pairs, geometry, twin_r)
            known = begin, end, rows, reverse_pairs, others, r, twin_r, given, n, at, target
            for m in range(0, whole, LANES):
                _features_back_many(m, *known)
            for m in range(whole, n):
                _features_back_one(m, *known)


@compiled(fastmath=True, parallel=False)
def complete(types: Array, counts: Array, slots: Array, far: Array, features: Array) -> None:
    """Add to ``features`` (beads, 4, channels) what neighbors at infinity add, and divide by n.

    As ``environment.completed`` does, in place.
    """
    n, n_types = len(types), len(slots)
    scale = 1 / slots.sum()
    for bead in range(len(features)):
        f = features[bead]
        # a neighbor at infinity has R = (s, 0): it adds s G_m(s), which is ``far``, to F_0m
        for there in range(n_types):
            absent, row = slots[there] - counts[bead, there], far[types[bead % n], there]
            for m in range(f.shape[1]):
                f[0, m] += absent * row[m]
        for c in range(4):
            for m in range(f.shape[1]):
                f[c, m] *= scale


@njit(inline="always")
def _set_pair_gradient(own: Array, ds: float, b1: float, b2: float, b3: float, out: Array) -> None:
    """Set ``out`` (3,) to dU/dr_ij of a pair from dU/ds and b = dU/d(q u)."""
    # u (dU/ds ds/dr + b . u (dq/dr - q/r)) + b q/r, as du/dr_ij = (1 - u u) / r
    along = b1 * own[5] + b2 * own[6] + b3 * own[7]
    radial = ds * own[2] + along * (own[3] - own[4])
    out[0] = radial * own[5] + own[4] * b1
    out[1] = radial * own[6] + own[4] * b2
    out[2] = radial * own[7] + own[4] * b3


@compiled(fastmath=True)
def pair_gradients(
    first: Array,
    rows: Array,
    slots: Array,
    geometry: Array,
    g: Array,
    dg: Array,
    slopes: Array,
    out: Array,
) -> None:
    """Set the pair gradients ``out`` (beads, width, 3): of sum(slopes F) in displacements."""
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
                # dU/ds = sum_m (dG_m/ds sum_c dU/dF_cm R_c + G_m dU/dF_0m), as R_0 is s
                # b_c = dU/d(q u_c) = sum_m G_m dU/dF_cm
                v0 = v1 = v2 = v3 = load(nothing, 0, LANES)
                for m in range(0, whole, LANES):
                    f0, f1 = load(f, m, LANES), load(f, n + m, LANES)
                    f2, f3 = load(f, 2 * n + m, LANES), load(f, 3 * n + m, LANES)
                    value, change = load(values, at + m, LANES), load(changes, at + m, LANES)
                    v0 = v0 + change * (f0 * r0 + f1 * r1 + f2 * r2 + f3 * r3) + value * f0
                    v1, v2, v3 = v1 + value * f1, v2 + value * f2, v3 + value * f3
                # and the channels that fill no vector
                ds, b1, b2, b3 = total(v0), total(v1), total(v2), total(v3)
                for m in range(whole, n):
                    a = r0 * f[m] + r1 * f[n + m] + r2 * f[2 * n + m] + r3 * f[3 * n + m]
                    value = values[at + m]
                    ds += changes[at + m] * a + value * f[m]
                    b1 += value * f[n + m]
                    b2 += value * f[2 * n + m]
                    b3 += value * f[3 * n + m]
                _set_pair_gradient(own, ds, b1, b2, b3, out[bead, slots[pair]])


@njit(inline="always")
def _speed(own: Array, speed: Array, k: int, t: Array) -> None:
    """Set column k of ``t`` to v . dR_c/dr_ij of a pair, v being ``speed``."""
    # v . ds/dr_ij = v.u ds/dr; v . d(q u)/dr_ij = v.u (dq/dr - q/r) u + q/r v
    along = speed[0] * own[5] + speed[1] * own[6] + speed[2] * own[7]
    turn = along * (own[3] - own[4])
    t[0, k], t[1, k] = along * own[2], turn * own[5] + own[4] * speed[0]
    t[2, k], t[3, k] = turn * own[6] + own[4] * speed[1], turn * own[7] + own[4] * speed[2]


@njit(inline="always")
def _fill_speeds(
    begin: int,
    end: int,
    bead: int,
    slots: Array,
    reverse_pairs: Array,
    others: Array,
    geometry: Array,
    v: Array,
    dr: Array,
    twin_dr: Array,
) -> None:
    """Set ``dr`` (4, capacity) to v . dR/dr_ij of a bead's pairs, ``twin_dr`` to their twins'."""
    for pair in range(begin, end):
        twin = reverse_pairs[pair]
        _speed(geometry[pair], v[bead, slots[pair]], pair - begin, dr)
        if twin >= 0:
            _speed(geometry[twin], v[others[pair], slots[twin]], pair - begin, twin_dr)


@compiled(fastmath=True)
def pair_gradients_back(
    first: Array,
    rows: Array,
    reverse_pairs: Array,
    others: Array,
    slots: Array,
    geometry: Array,
    g: Array,
    dg: Array,
    slopes: Array,
    v: Array,
    back_g: Array,
    back_dg: Array,
    back_slopes: Array,
) -> None:
    """Set the gradients of sum(v pulls) in G, dG/ds and the slopes; ``v`` (beads, width, 3)."""
    n, capacity, n_beads = g.shape[1], longest(first), len(slopes)
    whole, given = n - n % LANES, (g.ravel(), dg.ravel(), slopes.ravel())
    on_g, on_dg, on_slopes = back_g.ravel(), back_dg.ravel(), back_slopes.ravel()
    for chunk in prange(CHUNKS):
        r, dr = np.empty((4, capacity), g.dtype), np.empty((4, capacity), g.dtype)
        twin_r, twin_dr = np.empty((4, capacity), g.dtype), np.empty((4, capacity), g.dtype)
        nothing, places = np.zeros(LANES, g.dtype), (rows, reverse_pairs, others)
        for bead in range(*share(chunk, n_beads)):
            begin, end, at = first[bead], first[bead + 1], 4 * n * bead
            fill_rows(begin, end, geometry, r)
            _fill_twins_rows(begin, end, reverse_pairs, geometry, twin_r)
            _fill_speeds(begin, end, bead, slots, reverse_pairs, others, geometry, v, dr, twin_dr)
            about = r, dr, twin_r, twin_dr, given, n, at
            known = places, *about, nothing, on_slopes, on_g, on_dg
            for m in range(0, whole, LANES):
                _pulls_back_many(m, begin, end, *known)
            for m in range(whole, n):
                _pulls_back_one(m, begin, end, *known)


@compiled(fastmath=True)
def layer(x: Array, y: Array, change: Array, out: Array) -> None:
    """Set ``out`` (2n, wide) to what a layer makes of values and slopes ``x`` (2n, narrow).

    A layer is t + x, with t = tanh(W x + b) and x as often as the widths allow; its slope in s is
    (1 - t^2) W x' + x'. ``y`` (n, wide) holds t and ``change`` W x'.
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


@compiled(fastmath=True)
def layer_back(slopes: Array, y: Array, change: Array, back: Array) -> None:
    """Set ``back`` (2n, wide) to the gradient in W x + b and in W x' of that of ``layer``."""
    n = len(y)
    for i in prange(n):
        for m in range(y.shape[1]):
            t, slope = y[i, m], slopes[n + i, m]
            up = 1 - t * t
            # dt/d(W x + b) = 1 - t^2, and d(1 - t^2)/d(W x + b) = -2 t (1 - t^2)
            back[n + i, m] = slope * up
            back[i, m] = (slopes[i, m] - 2 * t * change[i, m] * slope) * up
