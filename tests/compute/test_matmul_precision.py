"""Steps of training multiply in the precision that is asked for, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from deepcg.compute.matmul_precision import MATMUL, multiplied_in
from deepcg.networks import DeepPotSEL
from deepcg.potentials.beads import NetworkPotential
from deepcg.runtime.config import from_flat
from deepcg.runtime.errors import InputError
from deepcg.training.config import TrainingConfig, TrainingError, has_settings
from deepcg.training.loss import force_error, matmul_change
from deepcg.training.samples import ForceSamples, prepare
from deepcg.training.trainer import train
from deepcg.trajectory.frames import Frames
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fit import beads as fitting
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig, with_preset

ATEN = torch.ops.aten
SHORT = TrainingConfig(steps=4, batch_size=2, validations=2)


class Spring(nn.Module):
    """Forces of a trained strength; remembers in what precision they were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.ones(()))
        self.seen: list[tuple[bool, str]] = []

    def forces(self, inputs: Tensor, /, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        self.seen.append((create_graph, torch.get_float32_matmul_precision()))
        return self.k / 2 * inputs.square().sum((1, 2)), -self.k * inputs


def samples() -> ForceSamples[Tensor]:
    x = torch.randn(12, 3, 3, generator=torch.Generator().manual_seed(0))
    return ForceSamples(x, -2 * x, torch.ones(()))


@pytest.fixture(autouse=True)
def one_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    after = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    assert after == before, "a test left another precision behind"


@pytest.mark.parametrize("ambient", ["highest", "high"])
@pytest.mark.parametrize("matmul", MATMUL)
def test_steps_have_the_precision_and_validation_has_the_highest(matmul: str, ambient: str) -> None:
    spring = Spring()
    with multiplied_in(ambient):
        train(spring, samples()[:8], samples()[8:], replace(SHORT, matmul=matmul))
        assert torch.get_float32_matmul_precision() == ambient
    steps = [precision for create_graph, precision in spring.seen if create_graph]
    validation = [precision for create_graph, precision in spring.seen if not create_graph]
    assert steps == [matmul] * SHORT.steps
    assert validation == ["highest"] * SHORT.validations


def test_the_precision_is_as_before_when_a_training_fails() -> None:
    broken = replace(samples()[:8], forces=torch.full((8, 3, 3), torch.nan))
    with pytest.raises(TrainingError, match="not finite"):
        train(Spring(), broken, samples()[8:], replace(SHORT, matmul="medium"))
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_precision_is_as_before_when_it_is_interrupted() -> None:
    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Spring(), samples(), samples(), replace(SHORT, matmul="high"), progress=stop)
    assert torch.get_float32_matmul_precision() == "highest"


def test_other_precisions_are_refused() -> None:
    message = r"unknown precision of --matmul 'hi'.*\(choices: high, highest, medium\)"
    with pytest.raises(InputError, match=message):
        TrainingConfig(matmul="hi")


def test_collective_variables_are_refused() -> None:
    config = FitConfig(Path("x"), data=DataConfig(map="dihedrals"), training=SHORT)
    with_preset(config)
    with pytest.raises(InputError, match="matmul = high is a setting for beads"):
        with_preset(replace(config, training=replace(SHORT, matmul="high")))


def test_an_older_checkpoint_is_of_exact_products() -> None:
    older = asdict(SHORT)
    del older["matmul"]
    assert has_settings(older, SHORT)
    assert not has_settings(older, replace(SHORT, matmul="high"))


def test_a_training_goes_on_in_its_precision_alone(tmp_path: Path) -> None:
    path, fast = tmp_path / "checkpoint.pt", replace(SHORT, matmul="high")
    train(Spring(), samples(), samples(), fast, checkpoint=path)
    train(Spring(), samples(), samples(), fast, checkpoint=path, resume=True)
    with pytest.raises(TrainingError, match="other settings"):
        train(Spring(), samples(), samples(), SHORT, checkpoint=path, resume=True)


class Coarse(Spring):
    """Forces that are 10 % too large by fast products, as steps of training work them out."""

    def forces(self, inputs: Tensor, /, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        energy, forces = super().forces(inputs)
        fast = create_graph and torch.get_float32_matmul_precision() != "highest"
        return energy, (1.1 if fast else 1.0) * forces


def test_the_change_by_fast_products_is_that_of_the_error() -> None:
    """Of -2 x: (2 - 1.1)^2 / (2 - 1)^2 = 0.81."""
    assert matmul_change(Coarse(), samples(), "medium") == pytest.approx(0.81 - 1, rel=1e-5)
    assert matmul_change(Coarse(), samples(), "highest") == 0


@pytest.mark.parametrize(
    ("matmul", "changes", "line"),
    [
        ("medium", [0.0, -0.002], "--matmul medium change the validation error by -0.2 %"),
        ("high", [0.004, 0.0011], "--matmul high change the validation error by +0.4 %"),
        ("high", [0.0009, -0.0009], None),
        ("highest", [], None),
    ],
)
def test_a_fit_tells_that_fast_products_change_its_error(
    matmul: str, changes: list[float], line: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = list(changes)
    monkeypatch.setattr(fitting, "matmul_change", lambda *_: left.pop(0))
    told: list[str] = []
    models = [Model() for _ in changes]
    fitting._tell_of_products(matmul, models, samples(), told.append)  # type: ignore[arg-type]
    assert not left
    assert len(told) == (line is not None)
    assert line is None or line in told[0]


class Model:
    """All that is asked of a model here."""

    potential = None


def test_a_fit_takes_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "MOST_CHANGED", -1.0)  # any change is told
    rng = np.random.default_rng(0)
    positions = np.arange(0, 0.9, 0.3)[:, None] * [1, 1, 0] + rng.normal(0, 0.02, (12, 3, 3))
    path = tmp_path / "a.npz"
    np.savez(path, positions=positions.astype("f4"), forces=rng.normal(0, 1, (12, 3, 3)))
    topology = mdtraj.Topology()
    for _ in range(3):
        residue = topology.add_residue("AR", topology.add_chain())
        topology.add_atom("AR", mdtraj.element.argon, residue)
    mdtraj.Trajectory(positions[:1], topology).save_pdb(str(path.with_suffix(".pdb")))
    settings = {
        "trajectory": path,
        "output": tmp_path / "run",
        "map": 'select:"all"',
        "network_options": {"l_max": 1, "n_splines": 6, "channels": 4, "fitting": [4]},
        "force_achiral": True,
        "steps": 2,
        "matmul": "medium",
        "threads": 1,
    }
    told: list[str] = []
    fit(from_flat(FitConfig, settings), tell=told.append)
    assert any("--matmul medium change the validation error by +0 %" in line for line in told)
    assert 'matmul = "medium"' in (tmp_path / "run" / "config.toml").read_text()


class CoarseProducts(TorchDispatchMode):
    """What a processor with products of bfloat16 does where fast ones are allowed."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        first = {ATEN.mm.default: 0, ATEN.bmm.default: 0, ATEN.addmm.default: 1}.get(func)
        if first is not None and torch.get_float32_matmul_precision() == "medium":
            factors = (x.bfloat16().float() for x in args[first : first + 2])
            args = (*args[:first], *factors)
        return func(*args, **(kwargs or {}))


def test_fast_products_reach_the_validation_error_of_exact_ones() -> None:
    """Forces have no noise here, so that the error is the network's own: 3 % were measured."""
    types = torch.zeros(27, dtype=torch.long)
    generator = torch.Generator().manual_seed(1)
    grid = torch.cartesian_prod(*[torch.arange(3.0)] * 3) * 0.45
    positions = grid + 0.2 * torch.rand(80, 27, 3, generator=generator)
    box = 1.35 * torch.eye(3).expand(80, 3, 3)
    frames = Frames(positions, box, forces_of(positions, 1.35), types)
    errors = {}
    for matmul in ("highest", "medium"):
        torch.manual_seed(0)
        network = DeepPotSEL(0.6, 1, l_max=1, n_splines=8, channels=4, axis=2, fitting=(8,))
        u = NetworkPotential([network], 0.6, types)
        prepared = prepare(u, frames)
        network.standardize(prepared[:20].seen, types)
        config = TrainingConfig(steps=150, batch_size=8, learning_rate=0.02, matmul=matmul)
        with CoarseProducts():
            history = train(u, prepared[:64], prepared[64:], config)
        errors[matmul] = history[-1].validation
        exact = float(force_error(u, prepared[64:]).mean())
        assert exact == pytest.approx(errors[matmul], rel=1e-6)
    assert errors["highest"] < 0.3 * float(frames.forces.var())
    assert errors["medium"] != pytest.approx(errors["highest"], rel=1e-4)
    assert errors["medium"] == pytest.approx(errors["highest"], rel=0.1)


def forces_of(positions: Tensor, edge: float) -> Tensor:
    """Forces of soft spheres."""
    d = positions[:, :, None] - positions[:, None]
    d = d - edge * (d / edge).round()
    r = (d.square().sum(-1) + torch.eye(27)).sqrt()
    slope = 40 * 4 / 0.55 * (1 - r / 0.55).clamp(min=0) ** 3 * (1 - torch.eye(27))
    return ((slope / r)[..., None] * d).sum(2)
