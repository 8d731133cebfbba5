"""A new kind of network is a module and a line in NETWORKS: all else takes it as it is."""

from __future__ import annotations

from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepcg.dynamics.config import DynamicsConfig
from deepcg.geometry.neighbor_list import Neighbors, find_pairs
from deepcg.networks import NETWORKS
from deepcg.networks.base import switch
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.potentials.model_file import load_model
from deepcg.potentials.torch_compile import CompiledPotential
from deepcg.runtime.errors import InputError
from deepcg.training.config import TrainingConfig
from deepcg.workflow.compare import CompareConfig, compare
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig
from deepcg.workflow.sample import SampleConfig, sample

N_FRAMES, N, EDGE, CUTOFF = 40, 27, 1.2, 0.55


class Gaussians(nn.Module):
    """u_i = sum_j f_c(r_ij) sum_k c_k exp(-(r_ij - r_k)^2 / 2 w^2): no sizes, no fast path."""

    def __init__(self, cutoff: float, n_types: int, *, n_centers: int = 6) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.weights = nn.Parameter(0.1 * torch.randn(n_types, n_centers))
        self.register_buffer("centers", torch.linspace(0.2, cutoff, n_centers))

    def forward(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        """Return bead energies (n_frames, n_beads), kJ/mol."""
        r = neighbors.distance
        bumps = torch.exp(-0.5 * ((r[..., None] - self.get_buffer("centers")) / 0.05) ** 2)
        curve = (bumps * self.weights[types][:, None]).sum(-1)
        energy: Tensor = (switch(r, 0.8 * self.cutoff, self.cutoff) * curve).sum(-1)
        return energy

    def standardize(self, neighbors: Neighbors, types: Tensor) -> None:
        """Do nothing: distances need no scaling."""


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "gaussians", Gaussians)


def argon(folder: Path) -> Path:
    """Write atoms about the sites of a lattice, bound to them and repelling each other."""
    rng = np.random.default_rng(0)
    sites = (np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1) + 0.5).reshape(-1, 3)
    shifts = rng.normal(0, 0.02, (N_FRAMES, N, 3))
    positions = (sites * EDGE / 3 + shifts).astype(np.float32)
    between = positions[:, None] - positions[:, :, None]
    between -= EDGE * np.round(between / EDGE)
    r = np.linalg.norm(between, axis=-1, keepdims=True) + np.eye(N)[..., None]
    forces = -(40.0 * (0.5 - r).clip(min=0) * between / r).sum(2) - 500 * shifts
    box = np.broadcast_to(EDGE * np.eye(3, dtype=np.float32), (N_FRAMES, 3, 3))
    np.savez(folder / "argon.npz", positions=positions, forces=forces, box=box)
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(N):
        topology.add_atom("AR", mdtraj.element.argon, topology.add_residue("AR", chain))
    frame = mdtraj.Trajectory(positions[0], topology)
    frame.unitcell_vectors = box[:1]
    frame.save_pdb(str(folder / "argon.pdb"))
    return folder / "argon.npz"


def config(trajectory: Path, output: Path, **more: object) -> FitConfig:
    return FitConfig(
        trajectory,
        output,
        data=DataConfig(map="heavy"),
        network="gaussians",
        cutoff=CUTOFF,
        training=TrainingConfig(steps=20, batch_size=4, validations=2),
        validation_fraction=0.4,
        threads=1,
        **more,
    )


@pytest.mark.usefixtures("toy")
def test_a_toy_kind_goes_through_fit_sample_and_compare(tmp_path: Path) -> None:
    run, trajectory = tmp_path / "run", argon(tmp_path)
    fitted = fit(config(trajectory, run, network_options={"n_centers": 5})).model
    saved = load_model(run)
    assert isinstance(saved.potential.terms[0], Gaussians)
    assert saved.architecture.options == {"n_centers": 5}
    x = torch.from_numpy(np.load(trajectory)["positions"][:2])
    box = EDGE * torch.eye(3).expand(2, 3, 3)
    found, wanted = (energy_and_forces(model.potential, x, box) for model in (saved, fitted))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    moves = DynamicsConfig(ps=1.0, equilibration_ps=0.1, interval_ps=0.05, dt=0.002)
    sample(SampleConfig(run, replicas=2, dynamics=moves, threads=1))
    said: list[str] = []
    comparison = compare(CompareConfig(run, frame_ps=0.05, cutoff=0.5), tell=said.append)
    assert [one.ensemble.name for one in comparison.models] == ["CG, gaussians"]
    assert (run / "report" / "report.html").is_file()


@pytest.mark.usefixtures("toy")
def test_its_options_and_sizes_are_those_of_the_registry(tmp_path: Path) -> None:
    trajectory = argon(tmp_path)
    with pytest.raises(InputError, match=r"unknown network size 'deepmd'.*auto, small"):
        config(trajectory, tmp_path / "run", network_size="deepmd")
    with pytest.raises(InputError, match=r"option of the network 'gaussians': 'centers'.*n_center"):
        fit(config(trajectory, tmp_path / "run", network_options={"centers": 5}))


@pytest.mark.usefixtures("toy")
def test_it_is_compiled_by_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module, **options: module)
    types = torch.arange(N) % 2
    u = NetworkPotential([NETWORKS["gaussians"](CUTOFF, 2)], CUTOFF, types)
    x, box = EDGE * torch.rand(2, N, 3), EDGE * torch.eye(3).expand(2, 3, 3)
    pairs = find_pairs(x, box, CUTOFF).with_types(types)
    compiled = CompiledPotential(u.requires_grad_(False), pytest.fail)
    for found, wanted in zip(compiled.all_forces(x, pairs), u.all_forces(x, pairs), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)
