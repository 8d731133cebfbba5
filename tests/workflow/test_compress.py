"""Tables in place of embedding nets give the same forces, faster, and are refused where not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from torch import Tensor

from deepcg.cli.main import main
from deepcg.dynamics.config import DynamicsConfig
from deepcg.geometry.neighbor_list import Neighbors, neighbors
from deepcg.networks import CompressedDeepPotSE, DeepPotSE
from deepcg.networks.deeppot_se.compressed import compressed
from deepcg.networks.deeppot_se.tables import (
    Knots,
    derivatives,
    evaluate,
    packed,
    polynomials,
    slope_error,
    unpacked,
)
from deepcg.networks.fast_path import Energies
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.potentials.model_file import Architecture, Model, load_model, save_model
from deepcg.runtime.errors import InputError
from deepcg.workflow import compress as command
from deepcg.workflow.compress import CompressConfig, compress
from deepcg.workflow.sample import SampleConfig, sample

CUTOFF, N = 0.55, 27
SYSTEMS = [(1, False), (2, False), (2, True)]
"""Numbers of types, and whether nets are two-sided."""


def liquid(n_types: int, dtype: torch.dtype, periodic: bool = True) -> tuple[Tensor, ...]:
    """Two frames of 27 beads in a triclinic box, or in the open: positions, box, types."""
    generator = torch.Generator().manual_seed(3)
    grid = torch.cartesian_prod(*[torch.arange(3.0)] * 3) * 0.4
    positions = grid + 0.12 * torch.rand(2, N, 3, generator=generator)
    box = torch.tensor([[1.2, 0, 0], [0.15, 1.2, 0], [-0.2, 0.1, 1.2]]).expand(2, 3, 3)
    types = torch.arange(N) % n_types
    return positions.to(dtype), box.to(dtype) if periodic else None, types


def environments(n_types: int, dtype: torch.dtype, periodic: bool = True) -> Neighbors:
    """The list reaches beyond the cutoff, as in sampling."""
    positions, box, _ = liquid(n_types, dtype, periodic)
    return neighbors(positions, box, CUTOFF + 0.03)


def network(n_types: int, two_sided: bool, dtype: torch.dtype, axis: int = 3) -> DeepPotSE:
    """18 channels are no multiple of a vector's width."""
    torch.manual_seed(1)
    made = DeepPotSE(
        CUTOFF, n_types, embedding=(9, 18), axis=axis, fitting=(20, 20), two_sided=two_sided
    ).to(dtype)
    made.standardize(environments(n_types, dtype), torch.arange(N) % n_types)
    return made


def forces(term: torch.nn.Module, near: Neighbors, n_types: int) -> tuple[Tensor, Tensor]:
    return NetworkPotential([term], CUTOFF, torch.arange(N) % n_types).forces(near)


def difference(found: Tensor, wanted: Tensor) -> float:
    """Return the rms difference over the rms."""
    return float((found - wanted).double().square().mean().sqrt() / wanted.double().std())


@pytest.mark.parametrize(("n_types", "two_sided"), SYSTEMS)
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forces_are_those_of_the_network(
    n_types: int, two_sided: bool, periodic: bool, dtype: torch.dtype
):
    whole = network(n_types, two_sided, dtype)
    near = environments(n_types, dtype, periodic)
    accuracy, limit = (1e-7, 1e-5) if dtype == torch.float32 else (1e-9, 1e-9)
    small, error = compressed(whole, 0.1, accuracy)
    assert 0 < error <= accuracy
    energy, wanted = forces(whole, near, n_types)
    found, pulled = forces(small, near, n_types)
    assert difference(pulled, wanted) < limit
    torch.testing.assert_close(found, energy, rtol=limit, atol=0)


@pytest.mark.parametrize(("n_types", "two_sided"), SYSTEMS)
@pytest.mark.parametrize("compress_it", [False, True])
def test_loops_do_what_the_definition_says(n_types: int, two_sided: bool, compress_it: bool):
    whole = network(n_types, two_sided, torch.float64)
    term = compressed(whole, 0.1, 1e-7)[0] if compress_it else whole
    near = environments(n_types, torch.float64)
    energy, pulled = forces(term, near, n_types)
    term.plain = True
    assert term.fast_path(near.displacement) is None
    wanted_energy, wanted = forces(term, near, n_types)
    torch.testing.assert_close(energy, wanted_energy, rtol=1e-12, atol=0)
    assert difference(pulled, wanted) < 1e-12


@pytest.mark.parametrize(("n_types", "two_sided"), SYSTEMS)
def test_training_follows_the_definition(n_types: int, two_sided: bool):
    """A loss on energies and forces has the same gradient in all weights."""
    whole = network(n_types, two_sided, torch.float64)
    near = environments(n_types, torch.float64)
    gradients = []
    for plain in (True, False):
        whole.plain = plain
        potential = NetworkPotential([whole], CUTOFF, torch.arange(N) % n_types)
        energy, pulled = potential.forces(near, create_graph=True)
        loss = (pulled - 1).square().mean() + energy.square().mean()
        gradients.append(torch.autograd.grad(loss, list(potential.parameters())))
    for wanted, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11 * float(wanted.abs().max()))


def test_hessians_are_those_of_the_definition_alone():
    whole = network(1, False, torch.float64)
    near = environments(1, torch.float64)
    d = near.displacement.requires_grad_()
    types, path = torch.zeros(N, dtype=torch.long), whole.fast_path(d)
    assert path is not None

    def bend(energies: Energies) -> Tensor:
        energy = energies(replace(near, displacement=d), types).sum()
        (gradient,) = torch.autograd.grad(energy, d, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), d)[0]

    assert bend(path.energies).isnan().all()
    assert bend(whole).isfinite().all()


def test_tables_have_two_continuous_derivatives():
    knots, net = Knots(-1.0, 3.0, 32), network(1, False, torch.float64).embeddings[0]
    table = polynomials(net, knots)
    assert table.shape == (33, 6, 18)
    powers = torch.arange(6.0, dtype=torch.float64)
    factors = [torch.ones(6), powers, powers * (powers - 1)]
    for order, factor in enumerate(factors):
        ends = (table[:-2] * factor[:, None]).sum(1)
        starts = table[1:-1, order] * (1, 1, 2)[order]
        torch.testing.assert_close(ends, starts, rtol=1e-9, atol=1e-9)
    # an interval half as wide: an error of the slopes 2^-5 of that before
    errors = [slope_error(net, Knots(-1.0, 3.0, n)) for n in (32, 64)]
    assert 20 < errors[0] / errors[1] < 45


def test_tables_go_on_as_straight_lines():
    knots, net = Knots(-1.0, 3.0, 32), network(1, False, torch.float64).embeddings[0]
    s = torch.tensor([2.999999, 3.0, 3.5, 100.0], dtype=torch.float64)
    g = evaluate(polynomials(net, knots), knots, s)
    value, slope, _ = derivatives(net, s)
    torch.testing.assert_close(value, net(s[:, None]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(g[0], value[0], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(g[1:], value[1] + slope[1] * (s[1:, None] - 3))


def test_packed_tables_are_unpacked():
    table = torch.rand(5, 6, 18)
    assert packed(table).shape == (5, 2, 6, 16)
    torch.testing.assert_close(unpacked(packed(table), 18), table, rtol=0, atol=0)


def test_forces_are_those_of_the_energy_where_tables_end():
    """Two beads come together through the end of the table: no jump, no step in the force."""
    small, _ = compressed(network(1, False, torch.float64), 0.2, 1e-7)
    potential = NetworkPotential([small], CUTOFF, torch.zeros(2, dtype=torch.long))
    r = torch.linspace(0.03, 0.3, 1801, dtype=torch.float64)
    positions = torch.zeros(len(r), 2, 3, dtype=torch.float64)
    positions[:, 1, 0] = r
    energy, pulled = energy_and_forces(potential, positions, None)
    assert torch.isfinite(pulled).all()
    step = float(r[1] - r[0])
    numeric = -(energy[2:] - energy[:-2]) / (2 * step)
    scale = pulled[1:-1, 1, 0].abs() + 1
    assert float(((pulled[1:-1, 1, 0] - numeric) / scale).abs().max()) < 1e-3


def test_an_accuracy_out_of_reach_is_refused():
    with pytest.raises(InputError, match="give a larger --accuracy or --min-distance"):
        compressed(network(1, False, torch.float64), 0.1, 1e-20)


def test_a_compressed_network_is_not_trained():
    small, _ = compressed(network(1, False, torch.float64), 0.1, 1e-6)
    assert not [p for p in small.parameters() if p.requires_grad]
    potential = NetworkPotential([small], CUTOFF, torch.zeros(N, dtype=torch.long))
    potential.requires_grad_(True)
    with pytest.raises(InputError, match="for inference: train the one that it was made of"):
        potential.forces(environments(1, torch.float64), create_graph=True)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of two types, as a fit leaves it."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_model(folder, "deeppot-se", {"embedding": [9, 18], "axis": 3, "fitting": [20, 20]})
    (folder / "config.toml").write_text('trajectory = "/data/traj.dcd"\nnetwork = "deeppot-se"\n')
    positions, box, _ = liquid(2, torch.float32)
    np.savez(folder / "start.npz", positions=positions.numpy(), box=box.numpy())
    topology = mdtraj.Topology()
    residue = topology.add_residue("CG", topology.add_chain())
    for _ in range(N):
        topology.add_atom("CA", mdtraj.element.carbon, residue)
    mdtraj.Trajectory(positions[0].numpy(), topology).save_pdb(str(folder / "beads.pdb"))
    return folder


def write_model(folder: Path, name: str, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    architecture = Architecture(name, options, CUTOFF, 2, True)
    types = torch.arange(N) % 2
    potential = architecture.build(types, 300.0)
    potential.terms[0].standardize(environments(2, torch.float32), types)
    model = Model(architecture, potential, ("A", "B"), torch.full((N,), 18.0), "oxygens", 300.0)
    save_model(folder / "model.pt", model)


def test_the_command_writes_a_run_folder(run: Path):
    told: list[str] = []
    (made,) = compress(CompressConfig(run, threads=1), tell=told.append)
    assert made.force_error < 1e-5
    assert "the forces differ by" in told[0]
    output = run.with_name("run-compressed")
    record = json.loads((output / "compressed.json").read_text())
    assert record["members"][0]["intervals"] == made.intervals
    old, new = load_model(run), load_model(output)
    assert isinstance(new.potential.terms[0], CompressedDeepPotSE)
    positions, box, _ = liquid(2, torch.float32)
    wanted = energy_and_forces(old.potential, positions, box)[1]
    assert difference(energy_and_forces(new.potential, positions, box)[1], wanted) < 1e-5
    moves = DynamicsConfig(ps=0.1, equilibration_ps=0.02, interval_ps=0.02, dt=0.002)
    summary = sample(SampleConfig(output, replicas=2, dynamics=moves, threads=1))
    assert summary.n_replicas == 2


def status(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_info_tells_what_it_is(run: Path, capsys: pytest.CaptureFixture[str]):
    assert status("compress", str(run), "--threads", "1", "-o", str(run.with_name("small"))) == 0
    assert status("info", str(run.with_name("small"))) == 0
    assert "deeppot-se-compressed" in capsys.readouterr().out


def test_other_networks_have_nothing_to_compress(run: Path, capsys: pytest.CaptureFixture[str]):
    write_model(run, "deeppot-se-l", {"channels": 4, "axis": 2, "fitting": [4]})
    assert status("compress", str(run)) == 2
    assert "radial functions are splines already: there is nothing" in capsys.readouterr().err
    assert not run.with_name("run-compressed").exists()


def test_compressed_runs_are_refused(run: Path):
    compress(CompressConfig(run, threads=1))
    with pytest.raises(InputError, match="run-compressed holds a model: give another --output"):
        compress(CompressConfig(run, threads=1))
    again = CompressConfig(run.with_name("run-compressed"), threads=1)
    with pytest.raises(InputError, match="is compressed already"):
        compress(again)


@pytest.mark.parametrize("extra", [["--resume"], []])
def test_a_fit_does_not_go_on_from_a_compressed_run(
    run: Path, extra: list[str], capsys: pytest.CaptureFixture[str]
):
    compress(CompressConfig(run, threads=1))
    output = str(run.with_name("run-compressed"))
    assert status("fit", "traj.dcd", "-o", output, *extra) == 2
    assert "is compressed, for inference only" in capsys.readouterr().err


def test_forces_that_differ_are_refused(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "LIMIT", 1e-12)
    with pytest.raises(InputError, match=r"differ by .* of their rms, more than 1e-12"):
        compress(CompressConfig(run, threads=1))
    assert not (run.with_name("run-compressed") / "model.pt").exists()


@pytest.mark.parametrize(("field", "value"), [("min_distance", 0.0), ("accuracy", -1.0)])
def test_sizes_must_be_positive(field: str, value: float):
    with pytest.raises(InputError, match=f"{field} is .*: it must be positive"):
        CompressConfig(Path("run"), **{field: value})
