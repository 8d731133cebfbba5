"""What is told of forces without a model: signs, bad frames, thermostats, other frames.

Judgements are made at 1 in 10 000 by chance; seeds are fixed. Rates of 5 % are tested to 4 standard
errors of the number of trials.
"""

import functools
import itertools
import logging
import math
import re
from dataclasses import replace

import mdtraj
import numpy as np
import pytest
import torch
from paths import SHARED
from scipy import stats

from deepcg.forces.constraints import from_frames
from deepcg.forces.force_series import (
    ForceSizes,
    about_bad_frames,
    about_drift,
    outliers,
)
from deepcg.forces.hypervirial import (
    Balance,
    about_balance,
    bond_balance,
    contact_balance,
)
from deepcg.forces.random_forces import about_memory, about_net_force
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames
from deepcg.trajectory.reader import iter_frames, open_trajectory
from deepcg.trajectory.sanity_checks import warn_of_forces
from deepcg.trajectory.topology import MoleculeGraph
from deepcg.units import thermal_energy
from deepcg.workflow.dataset.beads import DataConfig, map_forces, open_all
from sampling import baoab, run, start

T = 300.0
KT = thermal_energy(T)


def molecules(symbols, n):
    """A topology of n molecules, chains of these elements."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(n):
        residue = topology.add_residue("MOL", chain)
        atoms = [
            topology.add_atom(f"{s}{k}", mdtraj.element.get_by_symbol(s), residue)
            for k, s in enumerate(symbols)
        ]
        for a, b in itertools.pairwise(atoms):
            topology.add_bond(a, b)
    return MoleculeGraph(topology)


@functools.cache
def liquid(friction=2.0):
    """Soft spheres of argon, 64 in a box: 24 replicas, two frames of each, 1.2 times dense."""
    n, edge, sigma = 64, 1.5, 0.34
    box = torch.eye(3) * edge

    def field(x):
        i, j = torch.triu_indices(n, n, 1)
        d = x[:, j] - x[:, i]
        d = d - edge * (d / edge).round()
        r2 = d.square().sum(-1)
        s6 = (sigma**2 / r2) ** 3
        shift = (sigma / 0.7) ** 6
        inside = r2 < 0.49
        energy = torch.where(inside, 4 * (s6**2 - s6 - shift**2 + shift), 0).sum(-1)
        pull = torch.where(inside, 24 * (2 * s6**2 - s6) / r2, 0)[..., None] * d
        forces = torch.zeros_like(x).index_add(1, j, pull).index_add(1, i, -pull)
        return energy, forces

    grid = torch.cartesian_prod(*[torch.arange(4.0)] * 3) * edge / 4 + 0.1
    noise = torch.Generator().manual_seed(4)
    masses = torch.full((n,), 39.95)
    state = start(field, grid.repeat(24, 1, 1), masses, kT=KT, generator=noise)
    step = baoab(field, masses, kT=KT, dt=0.004, friction=friction)
    states = [s for _, s in run(step, state, noise, n_steps=1200, every=400)][1:]
    positions, forces = (
        torch.cat([getattr(s, name) for s in states]) for name in ("positions", "forces")
    )
    frames = Frames(
        positions, box.expand(len(positions), 3, 3), forces, torch.full((n,), 18, dtype=torch.long)
    )
    return frames, molecules(["Ar"], n)


def vibrating(n_frames, n=30, seed=0, k=2.0e5, symbols=("C", "O")):
    """Diatomics far apart in exact equilibrium: r^2 exp(-k (r - r0)^2 / 2 kT), forces with it."""
    rng = np.random.default_rng(seed)
    width = 7 * math.sqrt(KT / k)
    grid = np.linspace(0.115 - width, 0.115 + width, 4001)
    density = grid**2 * np.exp(-k * (grid - 0.115) ** 2 / 2 / KT)
    r = np.interp(rng.random((n_frames, n)), np.cumsum(density) / density.sum(), grid)
    along = rng.normal(size=(n_frames, n, 3))
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    first = np.arange(n)[:, None] * np.array([1.0, 0, 0]) + np.zeros((n_frames, 1, 1))
    x = np.stack([first, first + r[..., None] * along], 2).reshape(n_frames, 2 * n, 3)
    f = (-k * (r - 0.115))[..., None] * along
    forces = np.stack([-f, f], 2).reshape(n_frames, 2 * n, 3)
    frames = Frames(
        torch.from_numpy(x), None, torch.from_numpy(forces), torch.tensor([6, 8]).repeat(n)
    )
    return frames, molecules(symbols, n)


def with_forces(frames, forces):
    return replace(frames, forces=forces)


def noise_like(forces, size, seed=3):
    return size * torch.randn(
        forces.shape, generator=torch.Generator().manual_seed(seed), dtype=forces.dtype
    )


def bonds_of(frames, graph):
    return bond_balance(frames, graph, frozenset(), T)


def contacts_of(frames, graph):
    return contact_balance(frames, graph, T)


SYSTEMS = {"liquid": (lambda: liquid(), contacts_of), "bonds": (lambda: vibrating(60), bonds_of)}


@pytest.mark.parametrize("system", SYSTEMS)
def test_forces_of_equilibrium_balance(system):
    make, balance = SYSTEMS[system]
    found = balance(*make())
    assert abs(found.ratio - 1) < 4 * found.error(1.0)
    assert found.error(1.0) < 0.1
    assert about_balance(found, T) is None


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: -f, "wrong sign (gradients instead of forces)?"),
        (lambda f: -f / 41.84, "wrong sign (gradients instead of forces)?"),
        (lambda f: f.roll(1, 0), "are they of other frames|belong to other frames"),
        (lambda f: f[torch.randperm(len(f), generator=torch.Generator().manual_seed(1))], "frames"),
        (lambda f: f.roll(3, 1), "another order of atoms|are they of other frames"),
        (lambda f: noise_like(f, float(f.std())), "nothing to do with positions"),
        (lambda f: f * 10, r"are units \(--units\)"),
        (lambda f: f / 41.84, r"are units \(--units\)"),
    ],
)
def test_forces_that_do_not_belong_to_positions_are_told(system, change, told):
    make, balance = SYSTEMS[system]
    frames, graph = make()
    line = about_balance(balance(with_forces(frames, change(frames.forces)), graph), T)
    assert line is not None
    assert any(part.replace("\\", "") in line for part in told.split("|")), line
    assert "\n" not in line


def test_noise_of_a_thermostat_does_not_hide_the_sign():
    frames, graph = liquid()
    noisy = frames.forces + noise_like(frames.forces, float(frames.forces.std()))
    assert about_balance(contacts_of(with_forces(frames, noisy), graph), T) is None
    assert "sign" in about_balance(contacts_of(with_forces(frames, -noisy), graph), T)


def test_pairs_that_attract_one_another_when_close_are_no_wrong_sign():
    """Ion pairs in a well: those nearer than the minimum are few, the theorem holds for all."""
    frames, _ = vibrating(80, n=40, k=2e4, symbols=("Na", "Cl"))
    topology = molecules(["Na"], 80).topology
    found = contacts_of(frames, MoleculeGraph(topology))
    assert abs(found.ratio - 1) < 4 * found.error(1.0)
    flipped = contacts_of(with_forces(frames, -frames.forces), MoleculeGraph(topology))
    assert "sign" in about_balance(flipped, T)


def test_few_frames_of_many_molecules_are_enough():
    frames, graph = liquid()
    some = frames[:4]
    assert about_balance(contacts_of(some, graph), T) is None
    assert "sign" in about_balance(contacts_of(with_forces(some, -some.forces), graph), T)


def test_one_frame_of_bonds_says_nothing():
    frames, graph = vibrating(3)
    assert bonds_of(frames, graph) is None
    assert contacts_of(*vibrating(20, n=2)) is None


def test_bonds_that_are_held_do_not_count():
    """Of a bent molecule of which one bond is held: its group moves as a whole."""
    frames, _ = vibrating(60)
    graph = molecules(["C", "O"], 30)
    every = frozenset(frozenset((2 * k, 2 * k + 1)) for k in range(30))
    assert bond_balance(frames, graph, every, T) is None


def test_the_balance_is_off_as_often_as_it_says():
    """400 exact samples of bonds: beyond the 5 % point of Student's t in 5 % of them."""
    limit = stats.t.ppf(0.975, 19)
    z = []
    for seed in range(400):
        found = bonds_of(*vibrating(40, n=4, seed=seed))
        z.append((found.ratio - 1) / found.error(1.0))
        assert about_balance(found, T) is None
    rate = float((np.abs(z) > limit).mean())
    assert abs(rate - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 400)


def test_weights_undo_a_bias():
    """Frames of a stiffer bond, weighted to those of the bond whose forces are given."""
    frames, graph = vibrating(400, n=1, k=3e5)
    x = frames.positions
    r = (x[:, 1] - x[:, 0]).norm(dim=-1)
    along = (x[:, 1] - x[:, 0]) / r[:, None]
    f = -2e5 * (r - 0.115)[:, None] * along
    forces = torch.stack([-f, f], 1)
    weights = torch.exp(1e5 * (r - 0.115) ** 2 / 2 / KT)
    right = bonds_of(Frames(x, None, forces, frames.types, weights), graph)
    wrong = bonds_of(Frames(x, None, forces, frames.types), graph)
    assert abs(right.ratio - 1) < 4 * right.error(1.0)
    assert abs(wrong.ratio - 1) > 4 * wrong.error(1.0)


def test_bounds_follow_student():
    n = np.random.default_rng(0).normal(1, 0.2, 10)
    balance = Balance("bonds", n, np.ones(10))
    low, high = balance.bounds()
    reach = stats.t.ppf(1 - 5e-5, 9) * n.std(ddof=1) / math.sqrt(10)
    assert (low, high) == pytest.approx((n.mean() - reach, n.mean() + reach))


# thermostats


@pytest.mark.parametrize("share", [0.2, 0.5, 2.0])
def test_kicks_of_a_thermostat_leave_a_net_force(share):
    frames, graph = liquid()
    assert about_net_force(frames, graph) is None
    kicks = noise_like(frames.forces, share * float(frames.forces.std()))
    line = about_net_force(with_forces(frames, frames.forces + kicks), graph)
    assert "fix langevin" in line
    told = float(line.split("add up to ")[1].split(" of what")[0])
    assert told == pytest.approx(share / math.hypot(1, share), rel=0.2)


def test_an_external_field_and_missing_atoms_leave_a_net_force():
    frames, graph = liquid()
    field = frames.forces + torch.tensor([0.0, 0.0, 0.5 * float(frames.forces.std())])
    assert "external field" in about_net_force(with_forces(frames, field), graph)
    some = slice(0, 50)
    part = Frames(frames.positions[:, some], frames.box, frames.forces[:, some], frames.types[some])
    assert "are atoms missing?" in about_net_force(part, molecules(["Ar"], 50))


def test_a_solute_alone_or_in_the_open_may_have_a_net_force():
    frames, graph = vibrating(20)
    noisy = with_forces(frames, frames.forces + noise_like(frames.forces, 500.0))
    assert about_net_force(noisy, graph) is None
    thin = replace(noisy, box=torch.eye(3, dtype=torch.float64).expand(20, 3, 3) * 30)
    assert about_net_force(thin, graph) is None


def oscillating(dt, n_frames=60):
    """Bonds at 60 / ps, in phase with nothing, and their forces."""
    frames, graph = vibrating(1, n=10)
    time = dt * np.arange(n_frames)[:, None]
    phase = np.random.default_rng(2).uniform(0, 2 * np.pi, 10)
    stretch = 0.004 * np.cos(60 * time + phase)
    x = frames.positions.repeat(n_frames, 1, 1)
    unit = torch.nn.functional.normalize(x[:, 1::2] - x[:, ::2], dim=-1)
    x[:, 1::2] = x[:, ::2] + torch.from_numpy(0.115 + stretch)[..., None] * unit
    f = torch.from_numpy(-2e5 * stretch)[..., None] * unit
    forces = torch.stack([-f, f], 2).reshape(n_frames, 20, 3)
    return Frames(x, None, forces, frames.types), graph


def test_forces_that_change_where_bonds_do_not_are_told():
    frames, graph = oscillating(0.002)
    assert about_memory(frames, graph) is None
    kicked = frames.forces + noise_like(frames.forces, 3.0 * float(frames.forces.std()))
    line = about_memory(with_forces(frames, kicked), graph)
    assert "forces that are no function of the positions" in line
    shuffled = frames.forces[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    assert "no function" in about_memory(with_forces(frames, shuffled), graph)


def test_frames_far_apart_say_nothing_of_memory():
    frames, graph = oscillating(0.04)
    kicked = frames.forces + noise_like(frames.forces, float(frames.forces.std()))
    assert about_memory(frames, graph) is None
    assert about_memory(with_forces(frames, kicked), graph) is None


# bad frames and drifts


def sizes_of(frames):
    sizes = ForceSizes()
    for k in range(0, len(frames), 7):
        sizes.add(frames[k : k + 7])
    return sizes


@pytest.mark.parametrize(
    ("frame", "damage", "refused"),
    [
        (0, lambda f: f * 1e4, True),
        (47, lambda f: f * 1e4, True),
        (5, lambda f: f * 0, True),
        (12, lambda f: f * 6, False),
        (20, lambda f: f / 20, False),
        (31, lambda f: f.index_fill(0, torch.tensor([3]), 1e5), True),
        (31, lambda f: f.index_fill(0, torch.tensor([3]), 1e30), True),
    ],
)
def test_one_bad_frame_is_named(frame, damage, refused):
    frames, _ = liquid()
    forces = frames.forces.clone()
    forces[frame] = damage(forces[frame])
    numbers = 10 + 2 * np.arange(len(frames))
    told = f"frame {10 + 2 * frame} are .* --skip-frames {10 + 2 * frame} leaves it out"
    sizes = sizes_of(with_forces(frames, forces))
    if not refused:
        assert re.search(told, about_bad_frames("a.npz", sizes, numbers))
        return
    with pytest.raises(InputError, match=told):
        about_bad_frames("a.npz", sizes, numbers)


def test_several_bad_frames_are_named_in_one_list():
    frames, _ = liquid()
    forces = frames.forces.clone()
    for k in (0, 1, 2, 40):
        forces[k] *= 50
    with pytest.raises(InputError, match="--skip-frames 0-2,40 leaves such frames out"):
        about_bad_frames("a", sizes_of(with_forces(frames, forces)), np.arange(48))


def test_good_frames_are_not_named():
    """Also where sizes have a wide distribution, as in a dilute gas, or are of two kinds."""
    assert about_bad_frames("a", sizes_of(liquid()[0]), np.arange(48)) is None
    assert about_bad_frames("a", sizes_of(vibrating(200, n=1)[0]), np.arange(200)) is None
    rng = np.random.default_rng(0)
    for n in (5, 12, 50, 1000):
        for width in (0.01, 0.3, 2.0):
            assert not outliers(np.exp(rng.normal(0, width, n)), 3.0).any()
    kinds = np.tile(np.where(np.arange(100) < 50, 1.0, 30.0), (2, 1)) * rng.normal(1, 0.02, 100)
    sizes = ForceSizes([kinds[0]], [kinds[1]])
    assert about_bad_frames("a", sizes, np.arange(100)) is None


def test_a_bad_frame_is_not_blamed_on_units(caplog):
    frames, graph = vibrating(12)
    forces = frames.forces.float().numpy() * 700 / float(frames.forces.std())
    forces[0] *= 1e4
    assert not warn_of_forces("a", forces, graph)
    assert not caplog.records
    assert warn_of_forces("a", forces / 41.84, graph)
    assert "kcal/mol/A" in caplog.text


def drifting(n, seed, fall=0.0, memory=0.8):
    rng = np.random.default_rng(seed)
    kicks = rng.normal(size=n)
    series = np.empty(n)
    series[0] = kicks[0] / math.sqrt(1 - memory**2)
    for k in range(1, n):
        series[k] = memory * series[k - 1] + kicks[k]
    squares = 1000 + 10 * series + fall * np.exp(-np.arange(n) / (n / 20))
    return ForceSizes([np.sqrt(squares)], [np.sqrt(squares)])


def test_a_start_that_is_not_equilibrated_is_told():
    line = about_drift(drifting(1000, 0, fall=300.0), np.arange(1000))
    assert "the start is not equilibrated" in line
    last = int(line.split("--skip-frames 0-")[1].split(" ")[0])
    assert 50 < last < 400
    cold = about_drift(drifting(1000, 0, fall=-300.0), 5 * np.arange(1000) + 7)
    assert "--skip-frames 7-" in cold
    assert about_drift(drifting(60, 0, fall=300.0), np.arange(60)) is None


def test_a_drift_is_seen_where_there_is_none_as_seldom_as_it_says():
    """At 1 in 1000, more than 6 of 1500 correlated series have a probability of 1e-3."""
    found = [about_drift(drifting(500, seed), np.arange(500)) for seed in range(1500)]
    assert sum(line is not None for line in found) <= 6


# from files


def saved(path, change=lambda f: f):
    frames, _ = liquid()
    np.savez(
        path,
        positions=frames.positions.numpy(),
        forces=change(frames.forces.clone()).numpy(),
        box=frames.box.numpy(),
        numbers=np.full(64, 18),
    )
    return path


def mapped(path, **options):
    config = DataConfig(map="heavy", **options)
    return map_forces(open_all(path, config, T), config, T)


def test_a_good_file_is_not_remarked_on(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        mapped(saved(tmp_path / "a.npz"))
    assert not caplog.records


def test_a_file_of_gradients_is_told_in_one_line(tmp_path, caplog):
    mapped(saved(tmp_path / "a.npz", lambda f: -f))
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"{tmp_path / 'a.npz'}: forces pull close molecules together")


def test_a_file_with_kicks_is_told(tmp_path, caplog):
    mapped(saved(tmp_path / "a.npz", lambda f: f + noise_like(f, float(f.std()))))
    (line,) = (record.getMessage() for record in caplog.records)
    assert "fix langevin" in line


def test_a_file_with_a_bad_frame_is_refused_until_it_is_left_out(tmp_path, caplog):
    def spoiled(f):
        f[3] *= 1e4
        return f

    path = saved(tmp_path / "a.npz", spoiled)
    with pytest.raises(InputError, match=r"a\.npz: forces of frame 3 .* --skip-frames 3 leaves"):
        mapped(path)
    assert len(mapped(path, skip_frames="3").frames) == 47
    assert not caplog.records


SHARED_FILES = {
    "aimd-water/data_0": 330.0,
    "aimd-water/data_3": 330.0,
    "alanine/walker-a.npz": 300.0,
    "alanine/walker-b.npz": 300.0,
}


@pytest.mark.parametrize("name", SHARED_FILES)
def test_real_forces_are_right_and_their_gradients_wrong(name):
    path, temperature = SHARED / name, SHARED_FILES[name]
    if not path.exists():
        pytest.skip("needs the shared data")
    alanine = {"topology": SHARED / "alanine" / "alanine.pdb"} if "walker" in name else {}
    source = open_trajectory(path, **alanine)
    every = max(1, source.n_frames // 200)
    frames = Frames.join(
        next(iter_frames(source, chunk=1, start=k, stop=k + 1))
        for k in range(0, source.n_frames, every)
    )
    held = from_frames(source.graph, frames)
    balances = lambda f: [
        b
        for b in (
            contact_balance(f, source.graph, temperature),
            bond_balance(f, source.graph, held, temperature),
        )
        if b is not None
    ]
    assert balances(frames)
    assert [about_balance(b, temperature) for b in balances(frames)].count(None) == len(
        balances(frames)
    )
    for balance in balances(with_forces(frames, -frames.forces)):
        told = about_balance(balance, temperature)
        assert told is None or "sign" in told
        assert told is not None or "walker-b" in name  # its weights leave few frames
    assert about_net_force(frames, source.graph) is None
    assert about_bad_frames(path, sizes_of(frames), np.arange(len(frames))) is None
