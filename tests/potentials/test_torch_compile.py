"""Compiled forces are those of the potential, and where nothing can be compiled it goes without."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcg.dynamics.config import DynamicsConfig
from deepcg.geometry.neighbor_list import Neighbors, PairList, find_pairs, neighbors
from deepcg.networks import NETWORKS
from deepcg.networks.deeppot_se.compressed import compressed
from deepcg.potentials.beads import NetworkPotential
from deepcg.potentials.ensemble import EnsemblePotential
from deepcg.potentials.model_file import Architecture, Model, save_model
from deepcg.potentials.priors import ForceField, Repulsion, Table
from deepcg.potentials.torch_compile import MULTIPLE, CompiledPotential
from deepcg.potentials.verlet_list import VerletForces
from deepcg.runtime.errors import InputError
from deepcg.units import thermal_energy
from deepcg.workflow.sample import SampleConfig, sample

N, EDGE, CUTOFF = 27, 1.2, 0.5
TYPES = torch.arange(N) % 2
BOX = EDGE * torch.eye(3, dtype=torch.float64)
ONSET = torch.tensor([[0.38, 0.42], [0.42, 0.40]])
TINY: dict[str, dict[str, Any]] = {
    "deeppot-se": {"embedding": (4,), "axis": 2, "fitting": (4,)},
    "deeppot-se-l": {"l_max": 1, "n_splines": 4, "channels": 3, "axis": 1, "fitting": (4,)},
}
SMALL = {**TINY, "deeppot-se-l": {**TINY["deeppot-se-l"], "l_max": 2, "triples": 2}}

torch_compile = torch.compile
without_inductor = partial(torch.compile, backend="aot_eager")


def liquid(seed: int, n_frames: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(*[torch.arange(3.0)] * 3) * EDGE / 3
    return (grid + 0.08 * torch.rand(n_frames, N, 3, generator=generator)).double()


def listed(positions: Tensor, reach: float = 0.55) -> PairList:
    box = BOX.expand(len(positions), 3, 3)
    return find_pairs(positions, box, reach).with_types(TYPES)


def network(kind: str, options: dict[str, Any], plain: bool = True) -> nn.Module:
    torch.manual_seed(0)
    if kind != "pair-spline":
        options = {**options, "plain": plain}
    made = NETWORKS[kind](CUTOFF, 2, **options).double()
    near = NetworkPotential([made], CUTOFF, TYPES).environments(liquid(0), listed(liquid(0)))
    made.standardize(near, TYPES)
    return made


def potential(*terms: nn.Module, molecular: ForceField | None = None) -> NetworkPotential:
    excluded = torch.tensor([[0, 1], [9, 0]])
    repulsion = Repulsion(ONSET, thermal_energy(300.0), excluded=excluded)
    made = NetworkPotential([*terms, repulsion], CUTOFF, TYPES, molecular)
    return made.double().requires_grad_(False)


def interpreted(module: nn.Module, **options: object) -> nn.Module:
    """Stand for ``torch.compile``: what the graph says, one operation after another."""
    return module


def assert_same_forces(
    found: CompiledPotential, positions: Tensor, pairs: PairList, tolerance: float = 1e-10
) -> None:
    energy, forces = found.all_forces(positions, pairs)
    wanted_energy, wanted = found.potential.all_forces(positions, pairs)
    torch.testing.assert_close(energy, wanted_energy, rtol=tolerance, atol=tolerance)
    scale = float(wanted.abs().max())
    torch.testing.assert_close(forces, wanted, rtol=0, atol=tolerance * scale)


def refuse(line: str) -> None:
    pytest.fail(f"told: {line}")


@pytest.mark.parametrize(
    ("kind", "compiler"), [("deeppot-se-l", torch_compile), ("deeppot-se", without_inductor)]
)
def test_compiled_forces_are_those_of_the_potential(
    kind: str, compiler: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two types, with walls that some beads are inside; one by Inductor, which takes long."""
    monkeypatch.setattr(torch, "compile", compiler)
    u = potential(network(kind, TINY[kind]))
    compiled = CompiledPotential(u, refuse)
    for seed in (1, 2):
        near = u.environments(liquid(seed), listed(liquid(seed)))
        assert float(u.terms[1](near, TYPES).max()) > 1
        assert_same_forces(compiled, liquid(seed), listed(liquid(seed)))


def cases() -> dict[str, Callable[[], NetworkPotential | EnsemblePotential]]:
    born = torch.tensor([0.1, 0.15, 0.8], dtype=torch.float64).expand(N, 3)
    tables = {
        "bonds": Table(torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0.35, 1000.0]] * 2)),
        "torsions": Table(torch.tensor([[0, 1, 2, 3]]), torch.tensor([[1.0, 0.0, 10.0]])),
        "born": Table(torch.arange(N)[:, None], born),
    }
    se, se_l = sorted(SMALL)
    return {
        "deeppot-se": lambda: potential(network(se, SMALL[se])),
        "deeppot-se-l": lambda: potential(network(se_l, SMALL[se_l])),
        "loops": lambda: potential(network(se_l, SMALL[se_l], plain=False)),
        "pair-spline": lambda: potential(network("pair-spline", {})),
        "compressed": lambda: potential(compressed(network(se, SMALL[se]), 0.1, 1e-6)[0]),
        "ensemble": lambda: EnsemblePotential([potential(network(k, SMALL[k])) for k in SMALL]),
        "molecular": lambda: potential(network(se_l, SMALL[se_l]), molecular=ForceField(tables)),
    }


@pytest.mark.parametrize("case", cases())
def test_what_is_compiled_says_the_same(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", interpreted)
    compiled = CompiledPotential(cases()[case](), refuse)
    lists = {seed: listed(liquid(seed)) for seed in (1, 2)}
    for seed in (1, 2, 1):  # nothing of one must stay in the other
        assert_same_forces(compiled, liquid(seed), lists[seed])


def test_lists_are_compiled_once_for_each_multiple_of_their_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch_compile, backend="eager"))
    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    compiled = CompiledPotential(potential(network("deeppot-se", TINY["deeppot-se"])), refuse)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    widths = set()
    for reach in (0.5, 0.59, 0.55, 0.57, 0.5):
        for seed in (1, 2):
            pairs = listed(liquid(seed), reach)
            widths.add(pairs.index.shape[2])
            assert_same_forces(compiled, liquid(seed), pairs)
    multiples = {-(-width // MULTIPLE) for width in widths}
    assert len(widths) > len(multiples) == 2
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before == 2


def test_without_a_compiler_it_says_so_once_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(module: nn.Module, **options: object) -> nn.Module:
        raise RuntimeError("no working\nC++ compiler")

    monkeypatch.setattr(torch, "compile", fail)
    told: list[str] = []
    compiled = CompiledPotential(potential(network("deeppot-se", TINY["deeppot-se"])), told.append)
    for seed in (1, 2):
        assert_same_forces(compiled, liquid(seed), listed(liquid(seed)), tolerance=0)
    (line,) = told
    assert "cannot be compiled, and are slower: RuntimeError: no working C++ compiler" in line


@pytest.mark.parametrize(("energy", "force"), [(1.0, 1.01), (1.01, 1.0), (1.0, torch.nan)])
def test_wrong_results_of_a_compiler_are_not_used(
    energy: float, force: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def miscompile(module: nn.Module, **options: object) -> Callable[..., tuple[Tensor, Tensor]]:
        def run(*arguments: Tensor) -> tuple[Tensor, Tensor]:
            right = module(*arguments)
            return energy * right[0], force * right[1]

        return run

    monkeypatch.setattr(torch, "compile", miscompile)
    told: list[str] = []
    compiled = CompiledPotential(potential(network("deeppot-se", TINY["deeppot-se"])), told.append)
    assert_same_forces(compiled, liquid(1), listed(liquid(1)), tolerance=0)
    assert "differ by" in told[0]


class ByHeart(nn.Module):
    """A term of which a graph cannot know all: a part of it is worked out by NumPy."""

    plain = True

    def forward(self, near: Neighbors, types: Tensor) -> Tensor:
        weights = 1 / np.linalg.norm(near.displacement.detach().numpy(), axis=-1)
        return (torch.from_numpy(weights) * near.distance * near.mask).sum(-1)


def test_what_a_graph_would_have_by_heart_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", interpreted)
    told: list[str] = []
    compiled = CompiledPotential(potential(ByHeart()), told.append)
    assert_same_forces(compiled, liquid(1), listed(liquid(1)), tolerance=0)
    assert "differ by" in told[0]


def test_results_outlive_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a CUDA graph does, all results are written to the same places."""

    def graph(module: nn.Module, **options: object) -> Callable[..., list[Tensor]]:
        places: list[Tensor] = []

        def run(*arguments: Tensor) -> list[Tensor]:
            results = module(*arguments)
            places.extend(torch.empty_like(result) for result in results[len(places) :])
            return [place.copy_(result) for place, result in zip(places, results, strict=True)]

        return run

    monkeypatch.setattr(torch, "compile", graph)
    compiled = CompiledPotential(potential(network("deeppot-se", TINY["deeppot-se"])), refuse)
    first = compiled.all_forces(liquid(1), listed(liquid(1)))
    kept = copy.deepcopy(first)
    compiled.all_forces(liquid(2), listed(liquid(2)))
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))


def test_changed_weights_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", interpreted)
    u = potential(network("deeppot-se-l", TINY["deeppot-se-l"]))
    compiled, pairs = CompiledPotential(u, refuse), listed(liquid(1))
    assert_same_forces(compiled, liquid(1), pairs)
    u.terms[0].radial.mul_(1.5)
    assert_same_forces(compiled, liquid(1), pairs)


def test_what_is_differentiated_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda *_, **__: refuse("compiles"))
    u = potential(network("deeppot-se-l", TINY["deeppot-se-l"])).requires_grad_(True)
    _, forces = CompiledPotential(u, refuse).all_forces(
        liquid(1), listed(liquid(1)), create_graph=True
    )
    forces.square().sum().backward()
    assert u.terms[0].radial.grad is not None


def test_a_verlet_list_takes_it_for_a_potential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", interpreted)
    u = potential(network("deeppot-se-l", TINY["deeppot-se-l"]))
    ways = [VerletForces(one, BOX, skin=0.05) for one in (CompiledPotential(u, refuse), u)]
    for shift in torch.linspace(0, 0.1, 8).double():
        moved = liquid(1) + shift * torch.eye(3).double()[torch.arange(N) % 3]
        (energy, forces), (wanted_energy, wanted) = (way(moved) for way in ways)
        torch.testing.assert_close(energy, wanted_energy, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(forces, wanted, rtol=0, atol=1e-7)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run as a fit leaves it, of a small network that was not trained."""
    folder = tmp_path / "run"
    folder.mkdir()
    name, options = "deeppot-se-l", {**TINY["deeppot-se-l"], "l_max": 0}
    architecture = Architecture(name, options, CUTOFF, 1, False)
    torch.manual_seed(0)
    made = architecture.build(0 * TYPES, 300.0)
    near = neighbors(liquid(0).float(), BOX.float().expand(2, 3, 3), CUTOFF)
    made.terms[0].standardize(near, 0 * TYPES)
    model = Model(architecture, made, ("A",), torch.full((N,), 18.0), "oxygens", 300.0)
    save_model(folder / "model.pt", model)
    positions = liquid(3).float().numpy()
    np.savez(folder / "start.npz", positions=positions, box=BOX.float().expand(2, 3, 3).numpy())
    topology = mdtraj.Topology()
    residue = topology.add_residue("CG", topology.add_chain())
    for _ in range(N):
        topology.add_atom("CA", mdtraj.element.carbon, residue)
    mdtraj.Trajectory(positions[0], topology).save_pdb(str(folder / "beads.pdb"))
    return folder


def sampled(run: Path, choice: str) -> tuple[float, NDArray[np.float32]]:
    """Return the temperature and the positions of 40 steps; nothing is told but what came out."""
    moves = DynamicsConfig(ps=0.2, equilibration_ps=0, interval_ps=0.02, dt=0.005)
    told: list[str] = []
    config = SampleConfig(
        run, replicas=2, dynamics=moves, skin=0.01, compile=choice, device="cpu", threads=1
    )
    summary = sample(config, tell=told.append)
    (line,) = told
    assert "2 replicas of 0.2 ps" in line
    (run / "samples").rename(run / choice)
    files = [str(run / choice / f"{k:03d}.dcd") for k in range(2)]
    assert summary.temperature is not None
    return summary.temperature, mdtraj.load(files, top=str(run / "beads.pdb")).xyz


def test_a_compiled_sampling_goes_the_same_way(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Inductor, and as the CPU does where nobody chooses, the same to rounding."""
    modes: list[object] = []

    def spied(module: nn.Module, **options: object) -> object:
        modes.append(options["mode"])
        return torch_compile(module, **options)

    monkeypatch.setattr(torch, "compile", spied)
    wanted, positions = sampled(run_folder, "auto")
    assert not modes
    temperature, moved = sampled(run_folder, "on")
    assert modes == ["default"]
    assert temperature == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(moved, positions, rtol=0, atol=2e-6)


def test_other_choices_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown choice of compile 'onn'.*auto, off, on"):
        SampleConfig(Path("run"), compile="onn")
