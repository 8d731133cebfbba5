"""Data larger than what a training may keep of it in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from mdtraj.formats import DCDTrajectoryFile

from deepcg.networks import PairSpline
from deepcg.potentials.beads import NetworkPotential
from deepcg.training import samples
from deepcg.training.loss import force_error
from deepcg.training.samples import LazyNeighbors, prepare
from deepcg.trajectory.frames import Frames

N, EDGE = 216, 1.86444

FIT = """
import resource, sys
from deepcg.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    if end.code:
        raise
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_surroundings_that_are_not_kept_are_those_that_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    types = torch.zeros(20, dtype=torch.long)
    potential = NetworkPotential([PairSpline(0.5, 1)], 0.5, types)
    generator = torch.Generator().manual_seed(1)
    positions, forces = (torch.rand(30, 20, 3, generator=generator) for _ in range(2))
    frames = Frames(1.2 * positions, 1.2 * torch.eye(3).expand(30, 3, 3), forces, types)
    kept = prepare(potential, frames, chunk=7)
    monkeypatch.setattr(samples, "MOST_MEMORY", 1000)
    found = prepare(potential, frames, chunk=7)
    assert isinstance(found.inputs, LazyNeighbors)
    assert not isinstance(kept.inputs, LazyNeighbors)
    some = torch.tensor([3, 29, 4])
    near, wanted = found[some].seen, kept[some].seen
    assert torch.equal(near.count, wanted.count)
    width = near.index.shape[2]  # no wider than these frames need
    torch.testing.assert_close(near.displacement, wanted.displacement[:, :, :width])
    torch.testing.assert_close(force_error(potential, found), force_error(potential, kept))


def write(folder: Path, n_frames: int) -> Path:
    """Write beads that shake in a lattice, and forces that are noise."""
    topology, random = mdtraj.Topology(), np.random.default_rng(0)
    chain = topology.add_chain()
    for _ in range(N):
        topology.add_atom("O", mdtraj.element.oxygen, topology.add_residue("HOH", chain))
    grid = np.stack(np.meshgrid(*[np.arange(6)] * 3), -1).reshape(-1, 3) * np.float32(EDGE / 6)
    grid = grid.astype(np.float32)
    first = mdtraj.Trajectory(grid[None], topology)
    first.unitcell_vectors = EDGE * np.eye(3)[None]
    first.save_pdb(str(folder / "traj.pdb"))
    forces = np.lib.format.open_memmap(
        folder / "traj.forces.npy", mode="w+", dtype=np.float32, shape=(n_frames, N, 3)
    )
    with DCDTrajectoryFile(str(folder / "traj.dcd"), "w") as file:
        for start in range(0, n_frames, 1000):
            some = slice(start, min(start + 1000, n_frames))
            shape = (some.stop - start, N, 3)
            x = grid + 0.1 * random.random(shape, dtype=np.float32)
            edges, right = np.full((shape[0], 3), 10 * EDGE), np.full((shape[0], 3), 90.0)
            file.write(10 * x, cell_lengths=edges, cell_angles=right)
            forces[some] = 200 * random.standard_normal(shape, dtype=np.float32)
    (folder / "traj.forces.json").write_text('{"units": "kJ/mol/nm"}')
    return folder / "traj.dcd"


@pytest.mark.slow
def test_a_hundred_thousand_frames_are_trained_on_within_4_gibibytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trajectory = write(tmp_path, 100_000)
    words = ["fit", trajectory, "--map", "oxygens", "--steps", "30", "-o", tmp_path / "run"]
    words += ["--validations", "1", "--validation-fraction", "0.002", "--threads", "1"]
    words += ["--network", "pair-spline"]
    done = subprocess.run(
        [sys.executable, "-c", FIT, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    peak = int(done.stdout.split()[-1]) / 2**20
    with capsys.disabled():
        print(f"\npeak memory {peak:.2f} GiB")
    assert peak < 4
