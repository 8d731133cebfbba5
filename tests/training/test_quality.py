"""What is told of a fit that explains nothing."""

from dataclasses import replace

import pytest

from deepcg.training.quality import quality_of


@pytest.mark.parametrize("left", [100.0, 106.4])
def test_where_nothing_is_explained_no_floor_is_told(left: float) -> None:
    quality = quality_of(100.0, left, [left] * 4)
    words = quality.in_words()
    assert words.startswith("nothing of the forces is explained")
    assert "no function of these positions" in words
    assert "floor" not in words
    assert "hidden atoms" not in words
    assert quality.noise_floor is None


def test_where_nothing_is_explained_overfitting_is_still_named() -> None:
    words = quality_of(100.0, 40.0, [120.0] * 4).in_words()
    assert words.startswith("nothing of the forces is explained")
    assert "the model overfits (40 " in words


def test_where_a_little_is_explained_the_floor_is_told() -> None:
    quality = quality_of(100.0, 98.0, [98.0] * 4)
    assert "most of the rest is noise of the hidden atoms" in quality.in_words()
    assert quality.noise_floor == 98.0


def test_where_a_simple_model_explains_more_the_training_is_blamed() -> None:
    quality = replace(quality_of(100.0, 106.0, [106.0] * 4), reference=60.0, model="a pair model")
    words = quality.in_words()
    assert "but a pair model leaves 60" in words
    assert "random" not in words
