from __future__ import annotations

import itertools

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from paths import SHARED
from scipy.sparse import csr_array
from scipy.spatial.transform import Rotation
from torch import Tensor

from deepcg.forces.bead_estimators import ESTIMATORS
from deepcg.forces.constraints import from_system
from deepcg.forces.control_variates import (
    ControlledForces,
    control_variates,
    rotors_of,
    with_rotations,
)
from deepcg.forces.force_map import LinearForceMap, least_noise_map
from deepcg.mapping.beads import LinearMapping, build_mapping
from deepcg.trajectory.frames import Frames

DATA = SHARED
kT = 2.5


def energy(x: Tensor) -> Tensor:
    """A smooth energy of three molecules and an ion (n, 10, 3), a few kT deep."""
    charge = torch.tensor([-1.0, 0.6, 0.4] * 3 + [0.7], dtype=torch.float64)
    pairs = [(a, b) for a, b in itertools.combinations(range(10), 2) if a // 3 != b // 3]
    a, b = torch.tensor(pairs).T
    distance2 = (x[:, a] - x[:, b]).square().sum(-1)
    pull = 3 * (charge[a] * charge[b] / (distance2 + 0.02).sqrt()).sum(1)
    field = torch.tensor([9.0, -6.0, 12.0], dtype=torch.float64)
    return pull + ((charge[:, None] * x).sum(1) * field).sum(1)


def turning_molecules(n: int, center: str) -> tuple[Frames, np.ndarray, LinearMapping]:
    """Uniform orientations of rigid molecules at fixed beads, and their Boltzmann weights."""
    shape = np.array([[0, 0, 0], [0.1, 0.02, 0], [-0.03, 0.09, 0]])
    row = {"oxygens": [1.0, 0.0, 0.0], "com": [0.6, 0.3, 0.1]}[center]
    shape = shape - np.array(row) @ shape
    beads = np.array([[0, 0, 0], [0.3, 0.05, 0], [0.1, 0.28, 0.1], [-0.2, 0.1, 0.2]])
    turns = Rotation.random(3 * n, random_state=5).as_matrix().reshape(n, 3, 3, 3)
    sites = np.einsum("nmij,aj->nmai", turns, shape) + beads[:3][:, None]
    x = np.concatenate([sites.reshape(n, 9, 3), np.broadcast_to(beads[3], (n, 1, 3))], 1)
    positions = torch.tensor(x, requires_grad=True)
    e = energy(positions)
    (gradient,) = torch.autograd.grad(e.sum(), positions)
    weights = torch.softmax(-e.detach() / kT, 0).numpy()
    m = np.zeros((4, 10))
    for k in range(3):
        m[k, 3 * k : 3 * k + 3] = row
    m[3, 9] = 1
    mapping = LinearMapping(
        csr_array(m),
        torch.tensor([0, 0, 0, 1]),
        torch.ones(4),
        ("W", "I"),
        np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 3]),
        ("W O", "W H", "W F") * 3 + ("I I",),
    )
    frames = Frames(positions.detach(), None, -gradient, torch.zeros(10, dtype=torch.long))
    return frames, weights, mapping


RIGID = frozenset(frozenset(range(k, k + 3)) for k in (0, 3, 6))


def scores(
    frames: Frames, weights: np.ndarray, mapping: LinearMapping, temperature: float
) -> np.ndarray:
    """Return how many standard errors the weighted mean of every variate is away from zero."""
    linear = least_noise_map(mapping, [frames[:50]], RIGID)
    rotors = rotors_of(linear, mapping, [frames[:50]])
    assert rotors is not None
    total, square = 0.0, 0.0
    for w, c in zip(weights, control_variates(frames, rotors, mapping, temperature), strict=True):
        total, square = total + w * c, square + (w * c) ** 2
    z: np.ndarray = total / np.sqrt(np.maximum(square, 1e-30 * square.max()))
    return z


@pytest.mark.parametrize("center", ["oxygens", "com"])
def test_variates_have_zero_mean_at_fixed_beads(center):
    # some 1000 means: none beyond 5 standard errors, false alarm 6e-4
    frames, weights, mapping = turning_molecules(8000, center)
    z = scores(frames, weights, mapping, kT)
    assert np.abs(z).max() < 5
    visited = np.abs(z) > 1e-6
    assert 0.8 < z[visited].std() < 1.2
    wrong = scores(frames, weights, mapping, 0)  # the torques alone
    assert np.abs(wrong).max() > 10


def test_the_mean_force_stays_and_its_noise_falls():
    # 12 differences of means, each within 4 standard errors: false alarm 8e-4
    frames, weights, mapping = turning_molecules(20_000, "oxygens")
    chosen = torch.multinomial(
        torch.tensor(weights), 8000, replacement=True, generator=torch.Generator().manual_seed(1)
    )
    frames = frames[chosen]
    linear = least_noise_map(mapping, [frames[:2000]], RIGID)
    built = with_rotations(linear, mapping, [frames[:2000]], kT)
    assert isinstance(built, ControlledForces)
    fresh = frames[2000:]
    before, after = linear(fresh).numpy(), built(fresh).numpy()
    removed = after - before
    z = removed.mean(0) / removed.std(0) * len(removed) ** 0.5
    # sampling with replacement from 20 000 weighted frames doubles the variance at most
    assert np.abs(z).max() < 4 * 2**0.5
    assert after.var(0).mean() < 0.5 * before.var(0).mean()
    # the noise that was foretold by cross-validation is that of new frames, within 2 %
    assert built.noise == pytest.approx(float(np.sqrt((after**2).mean())), rel=0.02)


def test_coefficients_solve_the_regression():
    frames, _, mapping = turning_molecules(300, "com")
    linear = least_noise_map(mapping, [frames], RIGID)
    built = with_rotations(linear, mapping, [frames[:100], frames[100:]], kT)
    assert isinstance(built, ControlledForces)
    variates = control_variates(frames, built.rotors, mapping, kT)
    c = np.concatenate([v.transpose(0, 2, 1).reshape(12, -1) for v in variates])
    f = linear(frames).numpy().ravel()
    left = np.linalg.norm(f - c @ np.linalg.lstsq(c, f, rcond=1e-10)[0])
    # the ridge costs little on the sample itself
    assert left <= np.linalg.norm(f - c @ built.coefficients) < 1.05 * left


def test_independent_molecules_gain_nothing_and_stay_linear():
    frames, _, mapping = turning_molecules(40, "oxygens")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(frames.positions.shape, generator=generator, dtype=torch.float64)
    sample = Frames(100 * frames.positions, None, noise, frames.types)  # nobody is near
    linear = least_noise_map(mapping, [sample], RIGID)
    assert with_rotations(linear, mapping, [sample], kT) is linear
    assert with_rotations(linear, mapping, [sample[:1]], kT) is linear


def test_a_solute_of_many_beads_has_no_rotors():
    frames, _, mapping = turning_molecules(10, "oxygens")
    every = LinearMapping(
        csr_array(np.eye(10)[:3]),
        torch.arange(3),
        torch.ones(3),
        ("A", "B", "C"),
        mapping.molecules,
        mapping.atom_names,
    )
    built = ESTIMATORS["least-noise"](every, [frames], frozenset(), 300.0)
    assert isinstance(built, LinearForceMap)


@pytest.fixture(scope="module")
def water() -> tuple[Frames, mdtraj.Topology, openmm.System]:
    folder = DATA / "water"
    if not (folder / "tip3p216.dcd").is_file():
        pytest.skip("water of the shared data is not here")
    topology = mdtraj.load_pdb(folder / "tip3p216.pdb").topology
    system = openmm.XmlSerializer.deserialize((folder / "tip3p216.system.xml").read_text())
    trajectory = mdtraj.load_dcd(str(folder / "tip3p216.dcd"), top=topology, stride=80)
    context = openmm.Context(
        system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("CPU")
    )
    forces = []
    for x in trajectory.xyz:
        context.setPositions(x.astype(float))
        forces.append(context.getState(getForces=True).getForces(asNumpy=True)._value)
    frames = Frames(
        torch.tensor(trajectory.xyz),
        torch.tensor(trajectory.unitcell_vectors),
        torch.tensor(np.array(forces), dtype=torch.float32),
        torch.zeros(topology.n_atoms, dtype=torch.long),
    )
    return frames, topology, system


@pytest.mark.parametrize(("name", "least_gain"), [("oxygens", 6500), ("com", 4500)])
def test_rotations_take_much_of_the_noise_of_tip3p(water, name, least_gain):
    frames, topology, system = water
    mapping = build_mapping(name, topology)
    built = ESTIMATORS["least-noise"](mapping, [frames[::2]], from_system(system), 300.0)
    assert isinstance(built, ControlledForces)
    fresh = frames[1::2]
    net, quiet = built.linear(fresh).double(), built(fresh).double()
    # oxygens: 49 800 = 30 700 of mean force + 19 000 of noise, of which 7 800 were seen to go
    assert float(net.square().mean() - quiet.square().mean()) > least_gain
    # the force along the line to a neighbor, in shells: mean unchanged within 4 standard errors
    beads = mapping(fresh.positions).double()
    box = fresh.box.diagonal(dim1=1, dim2=2).double()[:, None, None]
    line = beads[:, None] - beads[:, :, None]
    line = line - box * (line / box).round()
    distance = line.norm(dim=-1)
    removed = ((quiet - net)[:, :, None] * line).sum(-1) / distance.clamp(min=0.1)
    for low in np.arange(0.26, 0.62, 0.06):
        inside = (distance > low) & (distance < low + 0.06)
        mean = (removed * inside).sum((1, 2)) / inside.sum((1, 2))
        assert abs(float(mean.mean() / mean.std() * len(mean) ** 0.5)) < 5


def test_numbers_do_not_depend_on_threads_or_chunks(water):
    frames, topology, system = water
    mapping = build_mapping("oxygens", topology)
    built = ESTIMATORS["least-noise"](mapping, [frames[:10]], from_system(system), 300.0)
    threads = torch.get_num_threads()
    whole = built(frames[:20])
    torch.set_num_threads(1)
    parts = torch.cat([built(frames[:7]), built(frames[7:20])])
    torch.set_num_threads(threads)
    assert torch.equal(whole, parts)
