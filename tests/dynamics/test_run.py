"""The sampling job: its files, restarts, blow-ups and the numbers it reports.

Statistical tests accept 4 standard errors: false alarms once in 16 000 seeds.
"""

import json
import math
from dataclasses import replace

import mdtraj
import numpy as np
import pytest
import torch

import sampling
from deepcg.dynamics.blowups import pushed_pair
from deepcg.dynamics.config import DynamicsConfig
from deepcg.dynamics.run import Replicas, SamplingError, run_dynamics
from deepcg.dynamics.sampled_temperature import about_temperature, mean_temperature
from deepcg.runtime.errors import InputError
from deepcg.units import BOLTZMANN

KT = BOLTZMANN * 300
BOX = 1.2
SHORT = {"dt": 0.002, "ps": 0.2, "equilibration_ps": 0.05, "interval_ps": 0.02, "friction": 5.0}


@pytest.fixture(autouse=True)
def _one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def beads(n):
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(n):
        topology.add_atom("O", mdtraj.element.oxygen, topology.add_residue("HOH", chain))
    return topology


def argon(x):
    """Lennard-Jones particles of 0.3 nm and 1 kJ/mol in a cubic box, smoothly cut at 0.59 nm."""
    i, j = torch.triu_indices(x.shape[1], x.shape[1], 1)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        d = x[:, i] - x[:, j]
        r2 = (d - BOX * (d / BOX).round()).square().sum(-1)
        s6 = (0.09 / r2) ** 3
        energy = (4 * (s6**2 - s6) * (1 - r2 / 0.35).clamp(min=0) ** 2).sum(-1)
        (gradient,) = torch.autograd.grad(energy.sum(), x)
    return energy.detach(), -gradient


def lattice(n_replicas, dtype=torch.float32):
    x = torch.cartesian_prod(*[torch.arange(3, dtype=dtype)] * 3) * 0.4 + 0.2
    return x.repeat(n_replicas, 1, 1)


def go(output, force_field=argon, n_replicas=2, start=None, **options):
    names = ("resume", "progress", "drop_blown_up")
    run_options = {k: options.pop(k) for k in names if k in options}
    run_options["checkpoint_seconds"] = options.pop("checkpoint_seconds", 1e9)
    start = lattice(n_replicas) if start is None else start
    moved = {k: options.pop(k) for k in ("forget", "method") if k in options}
    masses, box = torch.full((27,), 18.0), torch.eye(3) * BOX
    replicas = Replicas(force_field, start, masses, box, beads(27), **moved)
    return run_dynamics(replicas, DynamicsConfig(**(SHORT | options)), output, **run_options)


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".dcd", ".csv")}


class Interrupt:
    """A force field that is interrupted, as by control-C, after ``n`` calls."""

    def __init__(self, n):
        self.n = n

    def __call__(self, x):
        self.n -= 1
        if self.n < 0:
            raise KeyboardInterrupt
        return argon(x)


def test_a_run_leaves_the_files_that_compare_reads(tmp_path):
    told = []
    summary = go(tmp_path / "samples", progress=lambda *p: told.append(p))
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [
        "000.dcd",
        "001.dcd",
        "checkpoint.previous.pt",
        "checkpoint.pt",
        "log.csv",
        "summary.json",
        "topology.pdb",
    ]
    top = mdtraj.load_topology(str(tmp_path / "samples" / "topology.pdb"))
    for i in range(2):
        trajectory = mdtraj.load(str(tmp_path / "samples" / f"{i:03d}.dcd"), top=top)
        assert (trajectory.n_frames, trajectory.n_atoms) == (10, 27)
        assert np.allclose(trajectory.unitcell_vectors, np.eye(3) * BOX, atol=1e-6)
    log = np.genfromtxt(tmp_path / "samples" / "log.csv", delimiter=",", names=True)
    assert np.allclose(log["time_ps"], np.arange(1, 11) * 0.02)
    energy, _ = argon(torch.tensor(trajectory.xyz))
    assert np.allclose(energy, log["energy_001"], atol=1e-3)
    assert np.allclose((log["energy_000"] + log["energy_001"]) / 2, log["energy_kJ_mol"], atol=1e-5)
    assert [p[:2] for p in told] == [(i, 13) for i in range(1, 14)]
    assert told[2][2].startswith("equilibrating")
    assert told[3][2].startswith("sampling")
    found = json.loads((tmp_path / "samples" / "summary.json").read_text())
    assert found["ns_per_day"] == summary.ns_per_day > 0
    assert found["n_frames"] == summary.n_frames == 10
    assert found["temperature"] == pytest.approx(log["temperature_K"].mean())


def test_positions_are_written_unwrapped(tmp_path):
    free = lambda x: (x.new_zeros(len(x)), torch.zeros_like(x))
    go(tmp_path, free, start=lattice(1) + 7 * BOX)
    x = mdtraj.load(str(tmp_path / "000.dcd"), top=str(tmp_path / "topology.pdb")).xyz
    end = sampling.load(tmp_path / "checkpoint.pt").state.positions[0].numpy()
    assert np.abs(x[-1] - end).max() < 1e-5
    assert 0.01 < np.abs(end - lattice(1).numpy() - 7 * BOX).max() < 1


@pytest.mark.parametrize("integrator", ["baoab", "overdamped"])
@pytest.mark.parametrize(("calls", "checkpoint_seconds"), [(15, 0.0), (60, 1e9), (101, 0.0)])
def test_a_run_that_is_interrupted_ends_with_the_same_bytes(
    tmp_path, calls, checkpoint_seconds, integrator
):
    options = {"integrator": integrator, "checkpoint_seconds": checkpoint_seconds}
    if integrator == "overdamped":
        options["friction"] = 50.0
    go(tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", Interrupt(calls), **options)
    assert content(tmp_path / "cut") != content(tmp_path / "whole")
    go(tmp_path / "cut", resume=True, **options)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_frames_written_after_the_checkpoint_are_written_again(tmp_path):
    """As after a power cut: files ahead of an old checkpoint, the last frame half written."""
    go(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", Interrupt(75))
    old = (tmp_path / "cut" / "checkpoint.pt").read_bytes()
    go(tmp_path / "cut", resume=True)
    (tmp_path / "cut" / "checkpoint.pt").write_bytes(old)
    with (tmp_path / "cut" / "001.dcd").open("ab") as file:
        file.write(b"half a frame")
    with (tmp_path / "cut" / "log.csv").open("a") as file:
        file.write("0.22,-1")
    go(tmp_path / "cut", resume=True)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_a_longer_run_extends_a_complete_one(tmp_path):
    go(tmp_path / "long", ps=0.4)
    go(tmp_path / "short")
    assert go(tmp_path / "short", ps=0.4, resume=True).n_frames == 20
    assert content(tmp_path / "short") == content(tmp_path / "long")
    before = content(tmp_path / "short")
    again = go(tmp_path / "short", ps=0.4, resume=True)
    assert content(tmp_path / "short") == before
    assert (
        again.ns_per_day == json.loads((tmp_path / "short/summary.json").read_text())["ns_per_day"]
    )


def test_a_force_field_that_remembers_is_told_to_forget(tmp_path):
    """Rounding that depends on the past (a list with a skin) must not outlive an interval."""

    class Remembering:
        def __init__(self, n=10**9):
            self.age, self.inner = 0, Interrupt(n)

        def __call__(self, x):
            energy, forces = self.inner(x)
            self.age += 1
            return energy, forces * (1 + 1e-4 * self.age)

        def forget(self):
            self.age = 0

    field = Remembering()
    go(tmp_path / "whole", field, forget=field.forget)
    field = Remembering(75)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", field, forget=field.forget)
    field = Remembering()
    go(tmp_path / "cut", field, forget=field.forget, resume=True)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_the_seed_decides_the_run(tmp_path):
    go(tmp_path / "a", seed=1)
    go(tmp_path / "b", seed=1)
    go(tmp_path / "c", seed=2)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert content(tmp_path / "a") != content(tmp_path / "c")


def test_double_precision_stays_double(tmp_path):
    seen = set()

    def field(x):
        seen.add(x.dtype)
        return argon(x)

    go(tmp_path, field, start=lattice(2, torch.float64))
    assert seen == {torch.float64}
    assert sampling.load(tmp_path / "checkpoint.pt").state.velocities.dtype == torch.float64


def test_the_temperature_of_harmonic_wells_is_right_at_a_large_step(tmp_path):
    """At omega dt = 0.8 the velocities at the end of a step would show 252 K."""
    k, n_replicas = 18.0 * 0.8**2 / 0.01**2, 20
    x0 = lattice(1)
    well = lambda x: ((k / 2 * (x - x0) ** 2).sum((1, 2)), -k * (x - x0))
    summary = go(
        tmp_path, well, n_replicas, dt=0.01, friction=20.0, interval_ps=0.1, ps=4.0, seed=3
    )
    assert summary.temperature_error < 3
    assert abs(summary.temperature - 300) < 4 * summary.temperature_error
    n = 3 * 27
    assert summary.energy == pytest.approx(n / 2 * KT, rel=0.03)


def harmonic(omega, x0):
    k = 18.0 * omega**2
    return lambda x: ((k / 2 * (x - x0) ** 2).sum((1, 2)), -k * (x - x0))


@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        ({"friction": 0.0}, "without --friction nothing holds the temperature"),
        ({"friction": 5.0, "force_field": "noisy"}, "smaller time step (--dt 0.001)"),
    ],
)
def test_a_temperature_that_is_off_is_told(options, way_out, tmp_path):
    """Constant energy from cold starts; and forces with noise, which heats."""
    x0, noise = lattice(1), torch.Generator().manual_seed(1)
    field = harmonic(50.0, x0)
    if options.pop("force_field", None):
        quiet = field
        field = lambda x: (
            quiet(x)[0],
            quiet(x)[1] + 300 * torch.randn(x.shape, generator=noise),
        )
    summary = go(tmp_path, field, ps=4.0, **options)
    told = summary.temperature_warning
    assert told is not None
    assert f"{summary.temperature:.2f} +- {summary.temperature_error:.2f} K" in told
    assert "the 300 K asked for" in told
    assert told.endswith(way_out)
    saved = json.loads((tmp_path / "summary.json").read_text())
    assert saved["temperature_warning"] == told
    assert saved["temperature_target"] == 300


def test_a_right_temperature_is_not_remarked_on(tmp_path):
    summary = go(tmp_path, harmonic(50.0, lattice(1)), ps=8.0, friction=5.0)
    assert summary.temperature_warning is None
    assert abs(summary.temperature - 300) < 4 * summary.temperature_error


def test_the_error_of_a_temperature_has_the_false_alarms_that_it_says():
    """2 standard errors of correlated series are exceeded by 4.6 %, 4 by one in 16 000."""
    rng = np.random.default_rng(5)
    deviations = []
    for _ in range(1000):
        memory, n = 0.8, 400
        kicks = rng.normal(size=(n, 4)) * 20
        series = np.empty((n, 4))
        series[0] = 300 + kicks[0] / math.sqrt(1 - memory**2)
        for k in range(1, n):
            series[k] = 300 + memory * (series[k - 1] - 300) + kicks[k]
        found = mean_temperature(series)
        deviations.append((found.value - 300) / found.error)
    beyond = np.abs(deviations)
    assert (beyond > 4).sum() == 0
    assert abs((beyond > 2).mean() - 0.046) < 4 * math.sqrt(0.046 / 1000)


@pytest.mark.parametrize(("frames", "replicas"), [(25, 1), (40, 2), (400, 4)])
def test_short_runs_do_not_raise_alarms(frames, replicas):
    """Of 1500 correlated runs at 1 in 16 000, two or more have a probability of 0.004."""
    rng, memory, alarms = np.random.default_rng(7), 0.5, 0
    for _ in range(1500):
        kicks = rng.normal(size=(frames, replicas)) * 20
        series = np.empty((frames, replicas))
        series[0] = kicks[0] / math.sqrt(1 - memory**2)
        for k in range(1, frames):
            series[k] = memory * series[k - 1] + kicks[k]
        found = mean_temperature(300 + series)
        alarms += about_temperature(found, 300.0, dt=0.002, friction=1.0) is not None
    assert alarms <= 1


def test_few_frames_say_nothing_of_a_temperature():
    assert mean_temperature(np.full((5, 8), 400.0)) is None


def test_overdamped_dynamics_report_no_temperature(tmp_path):
    summary = go(tmp_path, integrator="overdamped", friction=50.0)
    assert summary.temperature is None
    assert summary.temperature_error is None
    assert json.loads((tmp_path / "summary.json").read_text())["temperature"] is None


def sticky(x):
    """Beads 3 and 4 of a replica attract as -1/r^8 without end once they are 0.45 nm near."""
    energy, forces = argon(x)
    d = x[:, 3] - x[:, 4]
    d = d - BOX * (d / BOX).round()
    r2 = d.square().sum(-1)
    pull = 0.004 * torch.where(r2 < 0.45**2, 8 * r2**-5, 0)[:, None] * d * r2.new_tensor([[0], [1]])
    forces = forces.clone()
    forces[:, 3] -= pull
    forces[:, 4] += pull
    return energy, forces


def test_a_checkpoint_with_a_changed_number_is_refused(tmp_path):
    go(tmp_path)
    path = tmp_path / "checkpoint.pt"
    whole = sampling.load(path)
    moved = replace(whole.state, positions=whole.state.positions + 1e-6)
    table = torch.load(path, weights_only=True)
    torch.save(table | sampling.pack(replace(whole, state=moved)), path)  # but the hash
    (tmp_path / "checkpoint.previous.pt").unlink()
    with pytest.raises(InputError, match=r"cannot resume: .*checkpoint\.pt .* damaged; delete"):
        go(tmp_path, resume=True)
    del table["sha256"]  # as older versions wrote it
    torch.save(table, path)
    go(tmp_path, resume=True)


def cut(path):
    path.write_bytes(path.read_bytes()[:700])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def gone(path):
    path.unlink()


def other(path):
    torch.save({"weights": torch.zeros(3)}, path)


@pytest.mark.parametrize("calls", [25, 101])
@pytest.mark.parametrize("damage", [cut, flipped, gone, other])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(damage, calls, tmp_path, caplog):
    go(tmp_path / "whole", checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", Interrupt(calls), checkpoint_seconds=0.0)
    damage(tmp_path / "cut" / "checkpoint.pt")
    go(tmp_path / "cut", resume=True)
    (line,) = (r.getMessage() for r in caplog.records)
    assert "checkpoint.pt" in line
    assert "going on from checkpoint.previous.pt, step" in line
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_without_a_whole_checkpoint_nothing_is_resumed(tmp_path):
    go(tmp_path)
    before = content(tmp_path)
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        cut(tmp_path / name)
    with pytest.raises(InputError, match=r"cannot resume: .*checkpoint\.pt .*; delete"):
        go(tmp_path, resume=True, ps=0.4)
    assert content(tmp_path) == before


def test_a_damaged_checkpoint_brings_back_a_replica_that_was_dropped_after_it(tmp_path):
    go(tmp_path / "whole", sticky, drop_blown_up=True)
    go(tmp_path / "cut", sticky, drop_blown_up=True)
    early = tmp_path / "early"
    with pytest.raises(SamplingError):
        go(early, sticky)
    before = (early / "checkpoint.pt").read_bytes()  # of both replicas, one of which will stick
    (tmp_path / "cut" / "checkpoint.previous.pt").write_bytes(before)
    flipped(tmp_path / "cut" / "checkpoint.pt")
    go(tmp_path / "cut", sticky, drop_blown_up=True, resume=True)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_a_blow_up_names_step_replica_and_pair_and_keeps_the_good_part(tmp_path):
    with pytest.raises(SamplingError) as error:
        go(tmp_path, sticky)
    line = str(error.value)
    assert "\n" not in line
    assert "replica 1 blew up at step " in line
    assert any(f"is HOH{a}-O (bead {a})" in line for a in (3, 4)), line
    assert any(f"from HOH{a}-O (bead {a})" in line for a in (3, 4)), line
    assert "smaller --dt" in line
    assert isinstance(error.value, InputError)
    step = int(line.split("at step ")[1].split(" (")[0])
    checkpoint = sampling.load(tmp_path / "checkpoint.pt")
    assert step - 10 <= checkpoint.step < step
    assert all(
        getattr(checkpoint.state, name).isfinite().all()
        for name in ("positions", "velocities", "forces", "energy")
    )
    n_frames = max(0, checkpoint.step // 10 - 3)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 1 + n_frames
    assert (tmp_path / "001.dcd").stat().st_size == 276 + n_frames * (56 + 3 * (27 * 4 + 8))
    with pytest.raises(SamplingError) as again:
        go(tmp_path, sticky, resume=True)
    assert str(again.value) == line


def test_healthy_replicas_go_on_when_asked(tmp_path, caplog):
    whole = go(tmp_path / "whole")
    summary = go(tmp_path / "dropped", sticky, drop_blown_up=True)
    assert "replica 1 blew up at step" in caplog.text
    assert "is dropped; 1 others go on" in caplog.text
    assert summary.dropped == (1,)
    assert summary.n_frames == whole.n_frames
    healthy = (tmp_path / "dropped" / "000.dcd").read_bytes()
    assert healthy == (tmp_path / "whole" / "000.dcd").read_bytes()
    assert not (tmp_path / "dropped" / "001.dcd").exists()
    assert (tmp_path / "dropped" / "dropped-001.dcd").exists()
    log = np.genfromtxt(tmp_path / "dropped" / "log.csv", delimiter=",", names=True)
    assert np.isnan(log["energy_001"][-1])
    assert log["energy_kJ_mol"][-1] == log["energy_000"][-1]


@pytest.mark.parametrize("intervals", [3, 12])
def test_a_run_without_a_replica_is_resumed(intervals, tmp_path):
    go(tmp_path / "whole", sticky, drop_blown_up=True)

    def interrupt(done, total, what):
        if done == intervals:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", sticky, drop_blown_up=True, progress=interrupt)
    go(tmp_path / "cut", sticky, drop_blown_up=True, resume=True)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_with_no_healthy_replica_the_run_ends(tmp_path):
    with pytest.raises(SamplingError, match="replica 1 blew up at step"):
        go(tmp_path, sticky, drop_blown_up=True, ps=4.0)  # whoever takes its place sticks, too


def test_replicas_that_depend_on_one_another_are_not_dropped(tmp_path):
    method = sampling.ReplicaExchange.__new__(sampling.ReplicaExchange)
    with pytest.raises(InputError, match="--drop-blown-up is for replicas that are independent"):
        go(tmp_path, drop_blown_up=True, method=method)


def test_the_pushed_pair_is_found_across_a_triclinic_box():
    box = torch.tensor([[2.0, 0, 0], [0.9, 1.8, 0], [-0.9, 0.8, 1.6]], dtype=torch.float64)
    x = torch.rand(1, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ box
    x[0, 5] = x[0, 2] + torch.tensor([0.03, 0.04, 0.0]) + 3 * box[0] - 2 * box[1] + 4 * box[2]
    forces = torch.zeros_like(x)
    forces[0, 5] = 1e6
    state = sampling.SamplerState(x, x, forces, x.new_zeros(1))
    blowup = sampling.Blowup("", sampling.Checkpoint(0, state, torch.empty(0)), state, 0)
    i, j, distance = pushed_pair(blowup, box)
    assert (i, j) == (5, 2)
    assert distance == pytest.approx(0.05)


def test_beads_that_overlap_at_the_start_are_an_error_that_writes_nothing(tmp_path):
    x = lattice(3)
    x[2, 5] = x[2, 6]
    with pytest.raises(SamplingError, match="replica 2 is not finite at the start"):
        go(tmp_path / "new", start=x)
    assert not (tmp_path / "new").exists()


def test_samples_are_never_overwritten(tmp_path):
    go(tmp_path)
    before = content(tmp_path)
    with pytest.raises(InputError, match=r"already \(checkpoint\.pt\), 10 frames: resume"):
        go(tmp_path)
    (tmp_path / "checkpoint.pt").unlink()
    (tmp_path / "checkpoint.previous.pt").unlink()
    with pytest.raises(InputError, match=r"cannot be resumed without checkpoint\.pt"):
        go(tmp_path, resume=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dt": 0.004}, r"of a run with dt = 0\.002, not 0\.004"),
        ({"seed": 5}, "of a run with seed = 0, not 5"),
        ({"n_replicas": 3}, "of 2 replicas of 27 beads, not of 3 of 27"),
        ({"start": lattice(2, torch.float64)}, r"of torch\.float32, not of torch\.float64"),
        ({"force_field": lambda x: tuple(2 * v for v in argon(x))}, "of another model"),
    ],
)
def test_another_run_is_not_resumed(tmp_path, change, message):
    go(tmp_path)
    before = content(tmp_path)
    with pytest.raises(InputError, match=message):
        go(tmp_path, resume=True, **change)
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["000.dcd", "log.csv", "checkpoint.pt"])
def test_files_that_lost_frames_are_not_resumed(tmp_path, name):
    go(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:700])
    (tmp_path / "checkpoint.previous.pt").unlink()
    with pytest.raises(InputError, match=f"cannot resume: .*{name}.*; delete"):
        go(tmp_path, resume=True, ps=0.4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dt": -0.001}, r"dt of the dynamics is -0\.001"),
        ({"dt": math.nan}, "dt of the dynamics is nan"),
        ({"temperature": 0.0}, r"temperature of the dynamics is 0\.0"),
        ({"friction": -1.0}, r"friction of the dynamics is -1\.0"),
        ({"friction": 0.0, "integrator": "overdamped"}, r"friction of the dynamics is 0\.0"),
        ({"equilibration_ps": -1.0}, r"equilibration_ps is -1\.0"),
        ({"integrator": "baobab"}, "did you mean 'baoab'"),
        ({"dt": 0.003, "interval_ps": 0.1}, r"interval_ps = 0\.1 is not a whole .* take 0\.099"),
        ({"interval_ps": 0.001}, r"interval_ps = 0\.001 .* dt = 0\.005: take 0\.005"),
        ({"ps": 1.05}, r"ps = 1\.05 is not a whole multiple of interval_ps = 0\.1: take 1"),
    ],
)
def test_a_config_that_cannot_be_run_is_refused_in_one_line(wrong, message):
    with pytest.raises(InputError, match=message) as error:
        DynamicsConfig(**wrong)
    assert "\n" not in str(error.value)


def test_shapes_that_disagree_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"start has shape \(2, 5, 3\), not \(replicas, 27, 3\)"):
        go(tmp_path / "new", start=torch.zeros(2, 5, 3))
    assert not (tmp_path / "new").exists()
