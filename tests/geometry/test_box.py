"""Heights and minimum images are the same in PyTorch, NumPy and compiled loops."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch

from deepcg.geometry.box import (
    box_heights,
    cell_in_words,
    heights,
    lattice_shift,
    minimum_image,
    reduced,
)
from deepcg.geometry.cell_list import search


def boxes(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return n triclinic boxes (n, 3, 3) in reduced form, nm."""
    return reduced(np.eye(3) * rng.uniform(1.5, 3, (n, 1, 1)) + rng.uniform(0, 0.6, (n, 3, 3)))[0]


def test_heights_are_volume_over_area_in_every_form():
    box = boxes(50, np.random.default_rng(1))
    a, b, c = np.moveaxis(box, 1, 0)
    faces = [np.linalg.norm(np.cross(x, y), axis=-1) for x, y in ((b, c), (c, a), (a, b))]
    exact = np.linalg.det(box)[:, None] / np.stack(faces, -1)
    np.testing.assert_allclose(heights(box), exact)
    np.testing.assert_allclose(box_heights(torch.from_numpy(box)), exact)


def test_minimum_images_are_the_nearest_of_all_in_every_form():
    """Up to half of the shortest height; the compiled form is seen through a list of two beads."""
    rng = np.random.default_rng(2)
    box = boxes(400, rng)
    apart = rng.uniform(-1.5, 1.5, (400, 1, 3)) @ box
    images = np.array([*product(range(-4, 5), repeat=3)]) @ box  # (400, 729, 3)
    every = apart + images
    exact = every[np.arange(400), np.linalg.norm(every, axis=-1).argmin(1)]
    reach = 0.999 * heights(box).min(1) / 2
    near = np.linalg.norm(exact, axis=-1) < reach
    assert 100 < near.sum() < 400

    np.testing.assert_allclose(minimum_image(apart, box)[near, 0], exact[near], atol=1e-12)
    of_torch = torch.from_numpy(apart)
    of_torch = of_torch + lattice_shift(of_torch, torch.from_numpy(box))
    np.testing.assert_allclose(of_torch[near, 0], exact[near], atol=1e-12)
    for k in range(len(box)):
        pair = torch.from_numpy(np.stack([0 * apart[k, 0], apart[k, 0]])[None])
        index, shift, count = search(pair, torch.from_numpy(box[k : k + 1]), float(reach[k]))
        assert count[0, 0] == near[k]
        if near[k]:
            assert index[0, 0, 0] == 1
            np.testing.assert_allclose(apart[k, 0] + shift[0, 0, 0].numpy(), exact[k], atol=1e-12)


def test_a_cell_in_words_tells_lengths_angles_and_volume():
    box = np.array([[2.0, 0, 0], [1.0, np.sqrt(3), 0], [0, 0, 3.0]])  # hexagonal, gamma = 60
    assert cell_in_words(box) == "2.0000 x 2.0000 x 3.0000 nm, 90.00 90.00 60.00 deg, 10.392 nm^3"
