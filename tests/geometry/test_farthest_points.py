import math

import numpy as np
import pytest
import torch

from deepcg.geometry.farthest_points import farthest_points


def by_brute_force(points, first, number, periodic):
    """Greedy over all distances, one by one; of equal ones the lowest index."""

    def apart(a, b):
        return sum(
            (2 * math.sin((x - y) / 2)) ** 2 if turns else (x - y) ** 2
            for x, y, turns in zip(a, b, periodic, strict=True)
        )

    chosen = [first]
    while len(chosen) < number:
        left = [i for i in range(len(points)) if i not in chosen]
        nearest = [min(apart(points[i], points[j]) for j in chosen) for i in left]
        chosen.append(left[max(range(len(left)), key=nearest.__getitem__)])
    return chosen


@pytest.mark.parametrize("periodic", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("seed", range(5))
def test_points_are_those_of_brute_force(periodic, seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-4, 4, (40, 2))  # angles beyond a turn
    expected = by_brute_force(points.tolist(), 7, 12, periodic)
    assert farthest_points(points, 7, 12, periodic=periodic) == expected
    assert farthest_points(torch.from_numpy(points), 7, 12, periodic=periodic) == expected
    if not any(periodic):
        assert farthest_points(points, 7, 12) == expected


@pytest.mark.parametrize("of", [np.array, torch.tensor])
def test_equal_points_are_taken_once_or_not_at_all(of):
    points = of([[1.0], [1.0], [3.0], [3.0]])
    assert farthest_points(points, 0, 9, distinct=True) == [0, 2]
    assert sorted(farthest_points(points, 0, 9)) == [0, 1, 2, 3]


def test_angles_are_near_across_the_period():
    points = np.array([[3.1], [-3.1], [1.0]])
    assert farthest_points(points, 0, 2, periodic=(True,)) == [0, 2]
    assert farthest_points(points, 0, 2) == [0, 1]
