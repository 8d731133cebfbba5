"""Force matching finds a known free energy under noise, and goes on where it stopped."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepcg.networks import PairSpline
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.potentials.collective_variables import CVPotential
from deepcg.runtime.errors import InputError
from deepcg.training.config import TrainingConfig, TrainingError, learning_rate
from deepcg.training.loss import force_error
from deepcg.training.samples import Deck, ForceSamples, prepare
from deepcg.training.stacked import StackOfSurfaces
from deepcg.training.trainer import StackOfOne, run_training, train
from deepcg.trajectory.frames import Frames
from deepcg.workflow.fit.beads import judge

CUTOFF = 0.6
NOISE = 30.0  # kJ/mol/nm, standard deviation of a force component
TYPES = torch.zeros(27, dtype=torch.long)


def gas(n_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    grid = torch.cartesian_prod(*[torch.arange(3.0)] * 3) * 0.45
    jitter = 0.2 * torch.rand(n_frames, 27, 3, generator=generator)  # no two nearer than 0.25
    return grid + jitter, 1.35 * torch.eye(3).expand(n_frames, 3, 3)


def pair_energy(positions: torch.Tensor, box: torch.Tensor | None) -> torch.Tensor:
    """A known U: soft spheres that a spline of the right cutoff can represent closely."""
    d = positions[:, :, None] - positions[:, None]
    if box is not None:
        edge = box[:, 0, 0][:, None, None, None]
        d = d - edge * (d / edge).round()
    r = (d.square().sum(-1) + torch.eye(27)).sqrt()
    u = 40 * (1 - r / 0.55).clamp(min=0) ** 4
    return 0.5 * (u * (1 - torch.eye(27))).sum((1, 2))


@pytest.fixture(scope="module")
def noisy() -> Frames:
    positions, box = gas(220)
    _, forces = energy_and_forces(pair_energy, positions, box)
    generator = torch.Generator().manual_seed(2)
    noise = NOISE * torch.randn(forces.shape, generator=generator)
    return Frames(positions, box, forces + noise, TYPES)


def potential(seed: int = 0) -> NetworkPotential:
    torch.manual_seed(seed)
    return NetworkPotential([PairSpline(CUTOFF, 1, n_knots=20)], CUTOFF, TYPES)


CONFIG = TrainingConfig(steps=300, batch_size=8, learning_rate=0.3, validations=6)


@pytest.fixture(scope="module")
def trained(noisy: Frames) -> NetworkPotential:
    u = potential()
    samples = prepare(u, noisy)
    train(u, samples[:200], samples[200:], replace(CONFIG, steps=800, learning_rate=0.5))
    return u


def test_the_mean_force_is_found_under_noise(trained: NetworkPotential) -> None:
    """20 coefficients from 200 * 81 noisy numbers: the error of the mean force is
    NOISE * sqrt(20 / 16200) = 1.05; three times that leaves room for the spline's own error."""
    positions, box = gas(20)
    _, exact = energy_and_forces(pair_energy, positions, box)
    _, found = energy_and_forces(trained, positions, box)
    assert (found - exact).square().mean().sqrt() < 3.2


def test_the_noise_floor_is_the_variance_of_the_noise(
    trained: NetworkPotential, noisy: Frames
) -> None:
    """Within 4 standard errors (1620 validation numbers; false alarms 1 in 16 000)."""
    samples = prepare(trained, noisy)
    quality = judge(trained, samples[:200], samples[200:], noisy)
    error = NOISE**2 * (2 / 1620) ** 0.5
    assert abs(quality.floor.value - NOISE**2) < 4 * error
    assert abs(quality.validation.value - NOISE**2) < 4 * error
    assert 0.3 < quality.floor.error / (error / 2) < 4
    assert f"{100 * quality.explained:.1f} %" in quality.in_words()


def test_an_interrupted_training_ends_bit_for_bit_alike(noisy: Frames, tmp_path) -> None:
    whole, halves = potential(), potential()
    samples = prepare(whole, noisy)
    history = train(whole, samples[:200], samples[200:], CONFIG)
    checkpoint = tmp_path / "checkpoint.pt"

    class Stop(Exception):
        pass

    def stop(record) -> None:
        if record.step >= 150:
            raise Stop

    with pytest.raises(Stop):
        train(halves, samples[:200], samples[200:], CONFIG, report=stop, checkpoint=checkpoint)
    resumed = potential(seed=5)  # other weights: all must come from the checkpoint
    again = train(resumed, samples[:200], samples[200:], CONFIG, checkpoint=checkpoint, resume=True)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [(r.step, r.train, r.validation) for r in again] == [
        (r.step, r.train, r.validation) for r in history
    ]


def test_the_same_seed_gives_the_same_model(noisy: Frames) -> None:
    first, second, other = potential(), potential(), potential()
    samples = prepare(first, noisy)
    short = replace(CONFIG, steps=20)
    train(first, samples[:200], samples[200:], short)
    train(second, samples[:200], samples[200:], short)
    train(other, samples[:200], samples[200:], replace(short, seed=1))
    assert torch.equal(first.terms[0].coefficients, second.terms[0].coefficients)
    assert not torch.equal(first.terms[0].coefficients, other.terms[0].coefficients)


def test_a_checkpoint_of_other_settings_is_refused(noisy: Frames, tmp_path) -> None:
    u = potential()
    samples = prepare(u, noisy)
    path = tmp_path / "checkpoint.pt"
    train(u, samples[:200], samples[200:], replace(CONFIG, steps=10), checkpoint=path)
    with pytest.raises(TrainingError, match="other settings"):
        train(u, samples[:200], samples[200:], CONFIG, checkpoint=path, resume=True)


def test_a_loss_that_is_not_finite_stops_with_the_step(noisy: Frames) -> None:
    u = potential()
    samples = prepare(u, noisy)
    with torch.no_grad():
        u.terms[0].coefficients.fill_(torch.inf)
    with pytest.raises(TrainingError, match="not finite at step 1: reduce --learning-rate"):
        train(u, samples[:200], samples[200:], CONFIG)


def test_training_that_diverges_names_frames_and_keeps_the_best_weights(
    noisy: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    jump = 33  # from which steps are far too long
    monkeypatch.setattr(
        "deepcg.training.trainer.learning_rate", lambda step, c: 0.3 if step < jump else 1e6
    )
    u, records = potential(), []
    samples = prepare(u, noisy)
    config = replace(CONFIG, validations=60)  # every fifth step
    with pytest.raises(TrainingError) as error:
        train(u, samples[:200], samples[200:], config, report=records.append)
    deck = Deck(torch.arange(200), 8, config.seed)
    batch = ", ".join(str(k) for k in sorted(deck.batch(jump + 1).tolist()))
    assert f"at step {jump + 1}: reduce --learning-rate" in str(error.value)
    assert f"(of the batch {batch}, from 0); the best weights, those of step" in str(error.value)
    best = min(record.validation for record in records)
    assert float(force_error(u, samples[200:]).mean()) == pytest.approx(best, rel=1e-6)


def test_early_stopping_waits_for_the_patience(noisy: Frames) -> None:
    u = potential()
    samples = prepare(u, noisy)
    config = TrainingConfig(steps=400, learning_rate=1e-12, validations=100, patience=3, ema=0)
    history = train(u, samples[:200], samples[200:], config)
    assert len(history) < 100


def test_early_stopping_keeps_the_best_weights(noisy: Frames, tmp_path: Path) -> None:
    samples = prepare(potential(), noisy)
    fitted, held_out = samples[:200], samples[200:]
    restless = TrainingConfig(
        steps=300, learning_rate=0.1, final_ratio=1.0, validations=60, patience=4, ema=0
    )
    u = potential()
    history = train(u, fitted, held_out, restless, checkpoint=tmp_path / "checkpoint.pt")
    errors = [record.validation for record in history]
    assert errors[-1] > min(errors)
    assert float(force_error(u, held_out).mean()) == pytest.approx(min(errors), rel=1e-6)
    again = potential()  # the best are in the checkpoint, too
    train(again, fitted, held_out, restless, checkpoint=tmp_path / "checkpoint.pt", resume=True)
    assert float(force_error(again, held_out).mean()) <= min(errors) * (1 + 1e-6)


def test_every_frame_is_seen_once_in_an_epoch() -> None:
    frames = torch.arange(50, 153)  # three are left over
    deck = Deck(frames, 10, seed=3)
    epoch = torch.cat([deck.batch(step) for step in range(1, 11)])
    assert len(set(epoch.tolist())) == 100
    assert set(epoch.tolist()) < set(frames.tolist())
    assert deck.batch(11).tolist() != epoch[:10].tolist()
    assert deck.batch(4).tolist() == epoch[30:40].tolist()  # whatever was dealt before


def test_the_learning_rate_falls_to_the_final_ratio() -> None:
    config = TrainingConfig(steps=1000, learning_rate=1e-2, final_ratio=1e-3)
    assert learning_rate(0, replace(config, warmup=0.0)) == 1e-2
    assert learning_rate(1000, config) == pytest.approx(1e-5)


def test_errors_do_not_depend_on_the_batch(trained: NetworkPotential, noisy: Frames) -> None:
    samples = prepare(trained, noisy)[:40]
    one_by_one = force_error(trained, samples, chunk=1)
    torch.testing.assert_close(force_error(trained, samples, chunk=40), one_by_one)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", 0, "steps is 0: it must be positive"),
        ("ema", 1.0, "ema is 1.0"),
        ("optimizer", "adm", "did you mean 'adam'"),
        ("patience", -1, "patience is -1"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingConfig(**{name: value})


def test_frames_without_forces_are_refused() -> None:
    positions, box = gas(2)
    with pytest.raises(InputError, match="no forces"):
        prepare(potential(), Frames(positions, box, None, TYPES))


# a single fit is a stack of one


def surface() -> CVPotential:
    torch.manual_seed(0)
    return CVPotential((6.0, None), widths=(8, 8)).double()


def field(n: int) -> ForceSamples[torch.Tensor]:
    torch.manual_seed(9)
    values = torch.rand(n, 2, dtype=torch.float64) * 2 - 1
    forces = torch.stack([values[:, 0].sin(), -values[:, 1]], 1)
    return ForceSamples(values, forces + 0.3 * torch.randn_like(forces), torch.ones(2).double())


class Springs(torch.nn.Module):
    """A force constant for each coordinate, with an axis of members or without."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.k = torch.nn.Parameter(torch.ones(shape, dtype=torch.float64))

    def forces(
        self, inputs: torch.Tensor, /, *, create_graph: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return (self.k / 2 * inputs.square()).sum(1), -self.k * inputs


@pytest.mark.parametrize("patience", [0, 2])
def test_a_single_fit_is_a_stack_of_one(patience: int) -> None:
    """Bit for bit, also where gradients are clipped and the best weights are not the last."""
    samples, held_out, alone = field(200), field(50), Springs(2)
    restless = replace(CONFIG, steps=60, seed=4, clip=0.1, final_ratio=1.0, ema=0.0)
    config = replace(restless, validations=20, patience=patience)
    history = train(alone, samples, held_out, config)
    stack = StackOfOne(Springs(1, 2))
    stack.stacked = True
    of_stack = run_training(stack, samples, held_out, config, seeds=[4])
    assert (len(history) < 20) == (patience > 0)
    for record, (same,) in zip(history, of_stack, strict=True):
        assert replace(same, seconds=record.seconds) == record
    assert torch.equal(alone.k, stack.parameters[0][0])


def test_checkpoints_of_single_fits_have_no_axis_of_members(tmp_path: Path) -> None:
    samples, config = field(40), replace(CONFIG, steps=4, seed=7, validations=2)
    alone, stack = surface(), StackOfSurfaces([surface()] * 3)
    shapes = [p.shape for p in alone.parameters()]
    train(alone, samples, samples, config, checkpoint=tmp_path / "alone.pt")
    path = tmp_path / "stack.pt"
    run_training(stack, samples, samples, config, seeds=[1, 2, 3], checkpoint=path)
    one, three = (torch.load(tmp_path / name) for name in ("alone.pt", "stack.pt"))
    for name in ("parameters", "average", "best"):
        assert [weight.shape for weight in one[name]] == shapes
        assert [weight.shape for weight in three[name]] == [(3, *shape) for shape in shapes]
    assert one.keys() - three.keys() == {"covariance"}
    assert three.keys() - one.keys() == {"seeds"}
    assert one["config"]["seed"] == 7
    assert three["seeds"] == [1, 2, 3]
    assert isinstance(one["losses"], float)
    assert three["losses"].shape == (3,)
    assert [record["step"] for record in one["history"]] == [2, 4]
    assert [len(records) for records in three["history"]] == [3, 3]


def test_the_seed_of_a_single_fit_is_that_of_its_member(tmp_path: Path) -> None:
    samples, config, path = field(40), replace(CONFIG, steps=4), tmp_path / "checkpoint.pt"
    run_training(StackOfOne(surface()), samples, samples, config, seeds=[3], checkpoint=path)
    train(surface(), samples, samples, replace(config, seed=3), checkpoint=path, resume=True)
    with pytest.raises(TrainingError, match="other settings"):
        train(surface(), samples, samples, config, checkpoint=path, resume=True)


def test_a_member_that_diverges_stops_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = field(40)
    samples.forces[17] = torch.nan
    drawn = [torch.arange(10), torch.arange(10, 20)]
    monkeypatch.setattr("deepcg.training.trainer.DIVERGED", torch.inf)
    config, stack = replace(CONFIG, batch_size=10), StackOfSurfaces([surface()] * 2)
    with pytest.raises(TrainingError, match=r"not finite at step 1: .* training frame 17 \(of the"):
        run_training(stack, samples, samples, config, seeds=[1, 2], drawn=drawn)


def test_a_fit_that_stops_between_validations_tells_the_same_losses(tmp_path: Path) -> None:
    samples, path = field(200), tmp_path / "checkpoint.pt"
    samples = replace(samples, forces=samples.forces.float(), inputs=samples.inputs.float())
    config = replace(CONFIG, steps=12, validations=2)

    def stop(done: int, total: int, what: str) -> None:
        if done == 9:
            raise KeyboardInterrupt

    whole = train(Springs(2), samples, samples, config)
    with pytest.raises(KeyboardInterrupt):
        train(Springs(2), samples, samples, config, checkpoint=path, progress=stop)
    again = train(Springs(2), samples, samples, config, checkpoint=path, resume=True)
    assert [record.train for record in again] == [record.train for record in whole]
