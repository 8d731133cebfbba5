"""Tetrahedral order, close triplets, triangles and S(k): crystals, the ideal gas, brute force."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from deepcg.analysis.structure import (
    Curve,
    Sample,
    TrajectorySet,
    close_angles,
    compare_structures,
    equilateral_triplets,
    limits_of_blocks,
    side_edges,
    structure_factor,
    tetrahedral_order,
    wave_number_edges,
)
from deepcg.analysis.structure.tetrahedral import _chunk_values
from deepcg.trajectory.frames import Frames

Array = NDArray[np.float64]

CUBE = np.eye(3) * 2.0
TRICLINIC = np.array([[2.1, 0.0, 0.0], [0.6, 1.9, 0.0], [-0.5, 0.7, 2.0]])


def sample_of(positions: Array, box: Array, n_blocks: int = 8) -> Sample:
    boxes = np.broadcast_to(box, (len(positions), 3, 3)).copy()
    types = torch.zeros(positions.shape[1], dtype=torch.int64)
    frames = Frames(torch.tensor(positions), torch.tensor(boxes), None, types)
    ensemble = TrajectorySet("model", [frames], 0.1, "made for a test", ("O",))
    return Sample(ensemble, ensemble.blocks(n_blocks), 1.0)


def gas(n_frames: int, n: int, box: Array, seed: int) -> Array:
    return np.asarray(np.random.default_rng(seed).uniform(0, 1, (n_frames, n, 3)) @ box)


def crystal(basis: list[list[float]], edge: float, repeats: int) -> tuple[Array, Array]:
    cells = np.array(list(product(range(repeats), repeat=3)), dtype=float)
    places = (cells[:, None] + np.array(basis)).reshape(1, -1, 3) * edge
    return np.repeat(places, 16, 0), np.eye(3) * edge * repeats


FCC = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
DIAMOND = FCC + [[x + 0.25, y + 0.25, z + 0.25] for x, y, z in FCC]


def nearest_images(positions: Array, box: Array) -> Array:
    """Return vectors (n, n, 3) of one frame by trying 27 images."""
    apart = positions[None] - positions[:, None]
    images = np.array(list(product((-1, 0, 1), repeat=3))) @ box
    every = apart[:, :, None] + images
    best = np.square(every).sum(-1).argmin(-1)
    return np.take_along_axis(every, best[..., None, None], 2)[:, :, 0]


def test_tetrahedral_order_is_one_in_diamond_and_nothing_is_told_of_three_neighbors() -> None:
    positions, box = crystal(DIAMOND, 0.6, 3)
    curve = tetrahedral_order(sample_of(positions, box), 0.9)
    assert curve is not None
    assert curve.x[curve.y > 0].tolist() == [pytest.approx(0.99)]
    four = gas(16, 4, CUBE, 1)
    assert tetrahedral_order(sample_of(four, CUBE), 1.0) is None


def test_tetrahedral_order_is_that_of_a_loop_over_beads_and_zero_on_average_in_a_gas() -> None:
    positions = gas(40, 60, TRICLINIC, 2)
    found = _chunk_values(positions, np.broadcast_to(TRICLINIC, (40, 3, 3)), 0.9)
    assert found is not None
    expected = []
    for frame in positions:
        vectors = nearest_images(frame, TRICLINIC)
        for i in range(60):
            lengths = np.linalg.norm(vectors[i], axis=1)
            lengths[i] = np.inf
            units = [vectors[i, j] / lengths[j] for j in np.argsort(lengths)[:4]]
            six = sum((a @ b + 1 / 3) ** 2 for a, b in combinations(units, 2))
            expected.append(1 - 3 / 8 * six)
    assert found == pytest.approx(np.array(expected), abs=1e-12)
    # neighbors of one bead are seen by others too: the scatter of frames is the honest error
    means = found.reshape(40, 60).mean(1)
    assert abs(means.mean()) < 4 * means.std(ddof=1) / np.sqrt(40)  # false alarm 1 in 16 000


def test_close_angles_are_those_of_sides_below_0318() -> None:
    positions, box = crystal(DIAMOND, 0.637, 3)  # bonds of 0.276 nm
    curve = close_angles(sample_of(positions, box))
    assert curve is not None
    assert curve.x[curve.y > 0].tolist() == [pytest.approx(109)]
    positions, box = crystal(DIAMOND, 0.75, 3)  # of 0.325 nm
    assert close_angles(sample_of(positions, box)) is None


def test_equilateral_triplets_are_one_in_a_gas() -> None:
    sample = sample_of(gas(160, 150, TRICLINIC, 3), TRICLINIC, n_blocks=16)
    edges = side_edges(sample.ensemble.longest_distance)
    curve = equilateral_triplets(sample, edges)
    assert curve.x[0] == pytest.approx(0.03)  # where three sides always make a triangle
    far = curve.x > 0.2
    z = (curve.y[far] - 1) / curve.error[far]
    # of 15 degrees of freedom in every error: |t| > 5.3 has a chance of 1e-4
    assert np.abs(z).max() < 5.3
    assert np.abs(z.mean()) < 4.1 / np.sqrt(len(z))


def test_equilateral_triplets_are_counted_as_by_a_loop_over_triples() -> None:
    positions = gas(4, 120, TRICLINIC, 4)
    sample = sample_of(np.repeat(positions, 4, 0), TRICLINIC, n_blocks=2)
    edges = side_edges(sample.ensemble.longest_distance)
    curve = equilateral_triplets(sample, edges)
    expected = np.zeros(len(curve.x))
    for frame in positions:
        lengths = np.linalg.norm(nearest_images(frame, TRICLINIC), axis=-1)
        i, j, k = np.array(list(combinations(range(120), 3))).T
        bins = np.stack([lengths[i, j], lengths[j, k], lengths[i, k]]) // 0.02
        alike = bins[0][(bins == bins[0]).all(0)]
        expected += [(alike == b + 1).sum() for b in range(len(expected))]
    low = curve.x - 0.01
    volume = np.linalg.det(TRICLINIC)
    chance = 8 * np.pi**2 * (((low + 0.02) ** 2 - low**2) / 2) ** 3 / volume**2
    assert expected.sum() > 20
    assert curve.y == pytest.approx(expected / 4 / (chance * 120 * 119 * 118 / 6), rel=1e-9)


def test_triangles_that_go_round_the_box_are_none() -> None:
    """Three beads in a row, a third of the box apart: three equal sides and no triangle."""
    row = np.array([[[0.1, 0, 0], [0.1 + 2 / 3, 0, 0], [0.1 + 4 / 3, 0, 0]]])
    sample = sample_of(np.repeat(row, 16, 0), CUBE)
    edges = side_edges(sample.ensemble.longest_distance)
    assert edges[-1] <= 2 / 3
    assert not equilateral_triplets(sample, edges).y.any()


def test_structure_factor_is_that_of_exponentials_one_in_a_gas_and_zero_in_a_crystal() -> None:
    positions = gas(80, 50, TRICLINIC, 5)
    sample = sample_of(positions, TRICLINIC, n_blocks=16)
    edges = wave_number_edges([sample.ensemble])
    curve = structure_factor(sample, edges)
    z = (curve.y - 1) / curve.error
    assert np.abs(z).max() < 5.3  # 15 degrees of freedom: 1e-4 a bin
    reciprocal = 2 * np.pi * np.linalg.inv(TRICLINIC).T
    grid = np.array([h for h in product(range(-4, 5), repeat=3) if h > (0, 0, 0)])
    k = grid @ reciprocal
    inside = (np.linalg.norm(k, axis=1) >= edges[0]) & (np.linalg.norm(k, axis=1) < edges[1])
    direct = np.abs(np.exp(1j * positions @ k[inside].T).sum(1)) ** 2 / 50
    assert 2 <= inside.sum() <= 16
    assert curve.y[0] == pytest.approx(direct.mean(), rel=1e-9)

    places, box = crystal(FCC, 0.5, 4)
    solid = sample_of(places, box)
    edges = wave_number_edges([solid.ensemble])
    solid_curve = structure_factor(solid, edges)
    bragg = np.sqrt(3) * 2 * np.pi / 0.5
    assert solid_curve.y[solid_curve.x < 0.9 * bragg].max() < 1e-20


def test_limit_of_structure_factor_is_that_of_a_line_in_k_squared() -> None:
    x = np.linspace(3, 40, 24)
    shape = 0.06 + 1e-4 * x**2
    shape[16] = 3.0  # the main peak
    rng = np.random.default_rng(6)
    blocks = shape + 1e-3 * rng.normal(size=(400, 16, 24))
    curves = [Curve("S(k)", x, b, np.ones(16), "k (1/nm)", "S(k)") for b in blocks]
    limits = np.array([limits_of_blocks(curve) for curve in curves])  # (400, 16)
    values, errors = limits.mean(1), limits.std(1, ddof=1) / 4
    assert abs(values.mean() - 0.06) < 4 * values.std(ddof=1) / 20
    # the mean square of an error of 16 blocks is right within 0.365 / sqrt(400) of itself
    assert np.mean(errors**2) / values.var(ddof=1) == pytest.approx(1, abs=4 * 0.08)


def test_comparison_holds_them_and_close_angles_only_where_neighbors_are_close() -> None:
    rng = np.random.default_rng(7)
    places, box = crystal(FCC, 0.42, 4)  # neighbors at 0.297 nm
    near = sample_of(places[:16] + 0.03 * rng.normal(size=places[:16].shape), box)
    names = [o.name for o in compare_structures(near.ensemble, []).observables]
    assert names[-4:] == [
        "tetrahedral order",
        "angle, sides < 0.318 nm",
        "equilateral triplets",
        "S(k)",
    ]
    places, box = crystal(FCC, 0.54, 4)  # at 0.38 nm
    far = sample_of(places[:16] + 0.03 * rng.normal(size=places[:16].shape), box)
    comparison = compare_structures(far.ensemble, [])
    assert "angle, sides < 0.318 nm" not in [o.name for o in comparison.observables]
    assert {"mean tetrahedral order", "S(k → 0)"} <= {s.name for s in comparison.scalars}
