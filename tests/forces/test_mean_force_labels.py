"""Files of mean forces, fits to them, and how much each label counts."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import eye_array

from deepcg.forces.mean_force_labels import (
    MeanForceLabels,
    are_labels,
    load_labels,
    mean_force,
    no_labels,
    of_beads,
    of_variables,
)
from deepcg.mapping.beads import LinearMapping
from deepcg.mapping.collective_variables import (
    CollectiveVariables,
    Variable,
    dihedral,
    distance,
)
from deepcg.runtime.errors import InputError
from deepcg.training.config import TrainingConfig
from deepcg.training.samples import ForceSamples, label_weights
from deepcg.training.trainer import train
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.dataset.labels import variables_of_labels
from deepcg.workflow.fit.beads import Fit
from deepcg.workflow.fit.collective_variables import split_each
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.info import describe

Floats = NDArray[np.float64]


def with_random(labels: MeanForceLabels, n: int, shape: tuple[int, ...]) -> MeanForceLabels:
    """Return labels with n more, of runs of white noise."""
    rng = np.random.default_rng(0)
    for _ in range(n):
        targets = rng.uniform(0, 1, shape)
        run = rng.normal(size=(2, 40, *shape))
        label = mean_force(0.01 * run[0], run[1], targets, np.array(100.0))
        labels = labels.with_label(label, None if len(shape) == 1 else np.eye(3))
    return labels


def of_two_variables() -> MeanForceLabels:
    variables = CollectiveVariables(
        (
            Variable("phi", (0, 1, 2, 4), dihedral, 2 * math.pi, "rad"),
            Variable("d", (3, 0), distance, None, "nm"),
        ),
        5,
    )
    task = {"map": "dihedral:0,1,2,4;distance:3,0", "temperature": 300.0}
    return with_random(no_labels(task, of_variables(variables)), 3, (2,))


def of_six_beads() -> MeanForceLabels:
    types, masses = torch.tensor([0, 0, 0, 1, 1, 1]), torch.arange(1.0, 7.0)
    mapping = LinearMapping(eye_array(6).tocsr(), types, masses, ("A", "B"))
    task = {"map": "oxygens", "temperature": 310.0}
    return with_random(no_labels(task, of_beads(mapping)), 4, (6, 3))


def test_a_label_is_the_mean_of_a_run() -> None:
    rng = np.random.default_rng(1)
    moved, forces = 0.01 * rng.normal(size=(50, 2, 3)), rng.normal(size=(50, 2, 3))
    targets, stiffness = rng.normal(size=(2, 3)), np.array(400.0)
    label = mean_force(moved, forces, targets, stiffness)
    np.testing.assert_allclose(label.coordinates, (targets + moved).mean(0))
    np.testing.assert_allclose(label.force.value, forces.mean(0))
    np.testing.assert_allclose(label.springs.value, 400 * moved.mean(0))
    np.testing.assert_allclose(label.difference.value, (forces - 400 * moved).mean(0))


def test_saved_labels_of_variables_are_the_same(tmp_path: Path) -> None:
    labels = of_two_variables()
    labels.save(tmp_path / "x.labels.npz")
    found = load_labels(tmp_path / "x.labels.npz")
    assert_same(found, labels)
    assert found.box is None
    assert found.variables.n_atoms == 5
    wanted = [("phi", (0, 1, 2, 4), dihedral, "rad"), ("d", (3, 0), distance, "nm")]
    assert [(v.name, v.atoms, v.function, v.unit) for v in found.variables.variables] == wanted
    assert found.variables.periods == (2 * math.pi, None)


def test_saved_labels_of_beads_are_the_same(tmp_path: Path) -> None:
    labels = of_six_beads()
    labels.save(tmp_path / "x.labels.npz")
    found = load_labels(tmp_path / "x.labels.npz")
    assert_same(found, labels)
    assert found.box is not None
    assert found.box.shape == (4, 3, 3)
    assert found.mapping.types.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.mapping.masses.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.mapping.type_names == ("A", "B")


def assert_same(one: MeanForceLabels, other: MeanForceLabels) -> None:
    assert (one.task, len(one)) == (other.task, len(other))
    for name in ("coordinates", "forces", "errors", "spring_forces", "difference_errors"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def test_files_that_are_no_labels(tmp_path: Path) -> None:
    whole, damaged = tmp_path / "x.labels.npz", tmp_path / "damaged.npz"
    of_two_variables().save(whole)
    assert are_labels(whole)
    damaged.write_bytes(whole.read_bytes()[:-30])
    np.savez(tmp_path / "arrays.npz", forces=np.zeros(3))
    (tmp_path / "text.npz").write_text("nothing")
    for path in (damaged, tmp_path / "arrays.npz", tmp_path / "text.npz"):
        assert not are_labels(path)
        with pytest.raises(InputError, match="is not a file of deepcg label --restrain") as caught:
            load_labels(path)
        assert "\n" not in str(caught.value)
    assert not are_labels(tmp_path / "none.npz")
    with pytest.raises(InputError, match="there is no file"):
        load_labels(tmp_path / "none.npz")


def test_info_tells_what_labels_are_of_and_how_they_were_made(tmp_path: Path) -> None:
    of_six_beads().save(tmp_path / "x.labels.npz")
    facts = describe(tmp_path / "x.labels.npz")
    assert (facts["kind"], facts["labels"]) == ("mean forces of restrained dynamics", 4)
    assert facts["settings"] == {"map": "oxygens", "temperature": 310.0}


@pytest.mark.parametrize(("n", "enough"), [(2, False), (3, True)])
def test_a_few_labels_of_variables_are_split_so_that_both_parts_have_a_spread(
    tmp_path: Path, n: int, enough: bool
) -> None:
    labels = of_two_variables()
    labels.save(tmp_path / "x.labels.npz")
    data = DataConfig(map=labels.map, stop=n)
    mapped = variables_of_labels(tmp_path / "x.labels.npz", data, 300.0)
    if enough:
        (first,), (last,) = split_each(list(mapped.trajectories), 0.1)
        assert (len(first), len(last)) == (1, 2)
    else:
        with pytest.raises(InputError, match="2 frames are too few: one to train on, two"):
            split_each(list(mapped.trajectories), 0.1)


def test_beads_are_fitted_to_their_labels(tmp_path: Path) -> None:
    labels = tmp_path / "x.labels.npz"
    of_six_beads().save(labels)
    said: list[str] = []
    result = fit(config_of(labels, DataConfig()), tell=said.append)
    assert isinstance(result, Fit)
    assert result.model.type_names == ("A", "B")
    assert said[0].startswith("4 frames of 6 beads (A, B)\n4 mean forces on oxygens")
    assert list(json.loads((tmp_path / "run" / "run.json").read_text())["hashes"]) == ["labels"]


@pytest.mark.parametrize(
    ("data", "temperature", "message"),
    [
        (DataConfig(map="com"), 310.0, 'has labels of other coordinates: give --map "oxygens"'),
        (DataConfig(), 300.0, "at 310 K, not 300 K: give --temperature 310"),
        (DataConfig(estimator="linear"), 310.0, "estimator is a setting for trajectories, and"),
        (DataConfig(start=4), 310.0, "--start and --stop leave no labels"),
    ],
)
def test_fits_for_which_labels_were_not_made(
    tmp_path: Path, data: DataConfig, temperature: float, message: str
) -> None:
    labels = tmp_path / "x.labels.npz"
    of_six_beads().save(labels)
    with pytest.raises(InputError, match=message):
        fit(replace(config_of(labels, data), temperature=temperature))
    assert not (tmp_path / "run").exists()


def config_of(labels: Path, data: DataConfig) -> FitConfig:
    training = TrainingConfig(steps=2, batch_size=2, validations=1)
    return FitConfig(
        labels,
        output=labels.parent / "run",
        data=data,
        temperature=310.0,
        cutoff=0.45,
        training=training,
        threads=1,
    )


def test_weights_are_the_inverse_variance_of_label_and_fit() -> None:
    errors = torch.tensor([[1.0, 2.0], [2.0, 2.0], [3.0, 2.0]])
    weights = label_weights(errors)
    wanted = 1 / (torch.tensor([1.0, 4.0, 9.0]) + 4)
    torch.testing.assert_close(weights[:, 0], wanted / wanted.mean())
    torch.testing.assert_close(weights[:, 1], torch.ones(3))
    torch.testing.assert_close(label_weights(torch.zeros(3, 2)), torch.ones(3, 2))
    # an error that came out too small by chance
    weights = label_weights(torch.tensor([1e-6, 1.0, 1.0, 1.0, 1.0]))
    assert 1.9 < weights[0] / weights[1] < 2.1


def test_weights_make_a_fit_of_less_variance() -> None:
    """Slopes of 2000 lines through 40 labels, whose errors differ by a factor of ten and which
    miss another error of their median: an F test at 1.2 fails for equal weights once in 10^4.
    No constants and no network are left that do better by as much."""
    rng = np.random.default_rng(1)
    x = np.linspace(-1, 1, 40)
    sigma = 10 ** rng.uniform(-0.5, 0.5, 40)
    noise = np.hypot(sigma, np.median(sigma))
    y = 3 * x + rng.normal(0, noise, (2000, 40))

    def slopes(weights: Floats) -> Floats:
        return (weights * x * y).sum(1) / (weights * x**2).sum()

    weighted = slopes(label_weights(torch.from_numpy(sigma)).numpy())
    assert abs(weighted.mean() - 3) < 4 * weighted.std() / np.sqrt(2000)
    assert slopes(np.ones(40)).var() > 1.2 * weighted.var()


@pytest.mark.parametrize("weighted", [False, True])
def test_labels_train_by_their_weights(weighted: bool) -> None:
    """Two labels at one value: a network that cannot tell them apart ends at their mean."""
    forces = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    weights = torch.tensor([[1.6], [0.4]], dtype=torch.float64) if weighted else None
    values = torch.full((2, 1), 0.5, dtype=torch.float64)
    samples = ForceSamples(values, forces, torch.ones(()), weights)
    line = Line()
    config = TrainingConfig(steps=300, batch_size=2, learning_rate=0.1, ema=0.0, validations=1)
    train(line, samples, replace(samples, weights=None), config)
    assert line.slope.item() == pytest.approx(1.4 if weighted else 2.0, abs=0.01)


class Line(torch.nn.Module):
    """U = -slope xi."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forces(
        self, inputs: torch.Tensor, /, *, create_graph: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return -self.slope * inputs[:, 0], self.slope.expand_as(inputs)
