"""Integrators against what is known exactly; z is a distance in standard errors.

Statistical tests accept |z| < 4: with a new seed each assertion fails by chance once in
16 000 times. The seeds are fixed.
"""

import math
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad

import sampling
from sampling import SamplerState, baoab, overdamped, run, start

F64 = torch.float64


@pytest.fixture(autouse=True)
def _one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def harmonic(k):
    return lambda x: ((k / 2 * x**2).sum((1, 2)), -k * x)


def free(x):
    return x.new_zeros(len(x)), torch.zeros_like(x)


def double_well(x):
    """U = x^2 / 2 + cos(2 x) / 2: two minima, a barrier, and a force with bounded slope."""
    return (x**2 / 2 + torch.cos(2 * x) / 2).sum((1, 2)), torch.sin(2 * x) - x


def lennard_jones(x):
    """Particles in the open, held together by a weak harmonic well."""
    n = x.shape[1]
    i, j = torch.triu_indices(n, n, 1)
    d = x[:, i] - x[:, j]
    s6 = d.square().sum(-1) ** -3
    g = ((24 * s6 - 48 * s6**2) / d.square().sum(-1))[..., None] * d
    forces = -torch.zeros_like(x).index_add(1, i, g).index_add(1, j, -g) - 0.1 * x
    return (4 * (s6**2 - s6)).sum(-1) + 0.05 * x.square().sum((1, 2)), forces


def lattice(n_chains, dtype=F64):
    x = torch.cartesian_prod(*[torch.arange(2.0, dtype=dtype)] * 3) * 1.1
    return (x - x.mean(0)).repeat(n_chains, 1, 1)


def take(force_field, x, masses, *, n_steps, make=baoab, every=1, seed=0, **options):
    generator = seeded(seed)
    masses = masses.to(x)
    step = make(force_field, masses, **options)
    state = start(force_field, x, masses, kT=options["kT"], generator=generator)
    return [s for _, s in run(step, state, generator, n_steps=n_steps, every=every)]


def z_of_variance(samples, exact):
    """Independent Gaussian numbers of zero mean: their mean square has error sqrt(2 / n)."""
    n = samples.numel()
    return float((samples.square().mean() / exact - 1) / math.sqrt(2 / n))


@pytest.mark.parametrize("friction", [0.3, 2.0, 50.0])
def test_baoab_has_no_error_in_the_positions_of_a_harmonic_well(friction):
    k, kT, m, dt = 3.0, 0.7, 2.0, 0.8  # omega dt = 0.98
    x = math.sqrt(kT / k) * torch.randn(20_000, 1, 3, generator=seeded(1), dtype=F64)
    state = take(
        harmonic(k), x, torch.tensor([m]), n_steps=60, kT=kT, dt=dt, friction=friction, seed=2
    )[-1]
    assert abs(z_of_variance(state.positions, kT / k)) < 4
    assert abs(z_of_variance(state.velocities, kT / m * (1 - dt**2 * k / m / 4))) < 4
    before_last_kick = state.velocities - dt / 2 / m * state.forces
    assert abs(z_of_variance(before_last_kick, kT / m)) < 4


def test_overdamped_has_no_error_in_the_positions_of_a_harmonic_well():
    k, kT, m, friction, dt = 3.0, 0.7, 2.0, 1.5, 0.8  # k dt / (m friction) = 0.8
    options = {"kT": kT, "dt": dt, "friction": friction}
    x = torch.zeros(20_000, 1, 3, dtype=F64)
    state = take(harmonic(k), x, torch.tensor([m]), n_steps=60, make=overdamped, **options)[-1]
    assert abs(z_of_variance(state.positions, kT / k)) < 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_start_draws_maxwell_velocities(dtype):
    masses = torch.tensor([1.0, 4.0, 16.0], dtype=dtype)
    x = torch.zeros(20_000, 3, 3, dtype=dtype)
    state = start(free, x, masses, kT=2.5, generator=seeded())
    assert state.velocities.dtype == dtype
    scaled = state.velocities * (masses[:, None] / 2.5).sqrt()
    n = scaled.numel()
    for i in range(3):
        assert abs(z_of_variance(scaled[:, i], 1.0)) < 4
    assert abs(float(scaled.mean()) * math.sqrt(n)) < 4
    assert abs(float((scaled**4).mean() - 3) / math.sqrt(96 / n)) < 4


@pytest.mark.parametrize("make", [baoab, overdamped])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_free_particles_diffuse_as_einstein_says(make, dtype):
    """Exact for a finite time and step: both schemes move by sums of (v + v')."""
    kT, m, friction, dt, n = 0.7, 2.0, 1.5, 0.2, 60
    x = torch.zeros(20_000, 1, 3, dtype=dtype)
    options = {"kT": kT, "dt": dt, "friction": friction}
    end = take(free, x, torch.tensor([m]), n_steps=n, make=make, seed=3, **options)[-1]
    diffusion = kT / m / friction
    if make is overdamped:
        exact = 2 * diffusion * dt * (n - 0.5)
        limit = 2 * diffusion * dt * n
    else:
        lags = np.abs(np.subtract.outer(np.arange(n + 1), np.arange(n + 1)))
        weights = np.r_[0.5, np.ones(n - 1), 0.5] * dt
        exact = kT / m * weights @ np.exp(-friction * dt * lags) @ weights
        limit = 2 * diffusion * (n * dt - 1 / friction)
    assert abs(z_of_variance(end.positions, exact)) < 4
    assert exact == pytest.approx(limit, rel=0.01)


@pytest.mark.parametrize("make", [baoab, overdamped])
def test_beads_of_different_mass_share_the_energy_equally(make):
    """m <v^2> = kT and <x dU/dx> = kT for each bead; the bias of the step is below 0.1 %."""
    masses = torch.tensor([1.0, 3.0, 10.0])
    dt, kT = (0.1, 0.8) if make is baoab else (0.02, 0.8)
    x = torch.randn(3000, 3, 3, generator=seeded(4))
    options = {"n_steps": 1500, "every": 15, "kT": kT, "dt": dt, "friction": 1.0}
    states = take(double_well, x, masses, make=make, **options)[20:]
    virial = torch.stack([-(s.positions * s.forces).mean(-1) for s in states]).mean(0)  # (c, n)
    back = dt / 2 / masses[:, None] if make is baoab else 0.0  # to before the last kick
    v = torch.stack([s.velocities - back * s.forces for s in states])
    kinetic = (masses * v.square().mean(-1)).mean(0)  # (c, n)
    for average in (virial, kinetic):
        z = (average.mean(0) - kT) / (average.std(0) / math.sqrt(len(x)))
        assert (z.abs() < 4).all(), z


def bias_of_cos2x(make, dt, n_steps, seed):
    """Return <cos 2x> in the double well minus its exact value, and the standard error."""
    u = lambda x: x**2 / 2 + math.cos(2 * x) / 2
    norm = quad(lambda x: math.exp(-u(x)), -9, 9)[0]
    exact = quad(lambda x: math.cos(2 * x) * math.exp(-u(x)), -9, 9)[0] / norm
    generator, masses = seeded(seed), torch.ones(1)
    step = make(double_well, masses, kT=1.0, dt=dt, friction=1.0)
    x = torch.randn(6000, 1, 3, generator=generator)
    begin = start(double_well, x, masses, kT=1.0, generator=generator)
    total, n_burn = torch.zeros(6000, dtype=F64), n_steps // 10
    for n, state in run(step, begin, generator, n_steps=n_steps, check_every=1000):
        if n > n_burn:
            total += torch.cos(2 * state.positions).mean((1, 2))
    average = total / (n_steps - n_burn)
    return float(average.mean()) - exact, float(average.std() / math.sqrt(6000))


@pytest.mark.parametrize(("make", "dt"), [(baoab, 0.6), (overdamped, 0.3)])
def test_the_error_of_averages_is_of_second_order_in_dt(make, dt):
    """The order between dt and dt / 2 is 2 within 4 standard errors plus 0.3 for the next term.

    The standard error is below 0.12, so that order 1 is refused.
    """
    e1, s1 = bias_of_cos2x(make, dt, 1500, seed=0)
    e2, s2 = bias_of_cos2x(make, dt / 2, 3600, seed=1)
    order = math.log2(abs(e1 / e2))
    error = math.hypot(s1 / e1, s2 / e2) / math.log(2)
    told = f"{order=:.2f} +- {error:.2f} from {e1:.5f} +- {s1:.5f}, {e2:.5f} +- {s2:.5f}"
    assert error < 0.12, told
    assert abs(order - 2) < 4 * error + 0.3, told


def test_without_friction_energy_is_kept_to_second_order_in_dt():
    masses = torch.ones(8, dtype=F64)

    def drift(dt):
        states = take(
            lennard_jones, lattice(1), masses, n_steps=round(6 / dt), kT=0.3, dt=dt, friction=0.0
        )
        kinetic = torch.stack([(s.velocities**2).sum((1, 2)) / 2 for s in states])
        total = torch.stack([s.energy for s in states]) + kinetic
        return float((total - total[0]).std())

    drifts = [drift(dt) for dt in (0.01, 0.005)]
    ratios = [a / b for a, b in pairwise(drifts)]
    assert all(3.6 < r < 4.4 for r in ratios), (drifts, ratios)


@pytest.mark.parametrize("make", [baoab, overdamped])
def test_replicas_do_not_see_each_other(make):
    """All noise of a step is one draw, so moving replica 1 leaves that of replica 0 as it is."""
    options = {"n_steps": 30, "make": make, "kT": 0.5, "dt": 0.002, "friction": 2.0}
    x = lattice(3)
    one = take(lennard_jones, x, torch.ones(8), **options)[-1]
    x[1] *= 1.05
    other = take(lennard_jones, x, torch.ones(8), **options)[-1]
    for name in ("positions", "velocities", "forces", "energy"):
        a, b = getattr(one, name), getattr(other, name)
        assert torch.equal(a[[0, 2]], b[[0, 2]])
    assert not torch.equal(one.positions[1], other.positions[1])


def test_the_noise_of_replicas_is_independent():
    v = take(free, torch.zeros(2, 5000, 3), torch.ones(5000), n_steps=3, kT=1, dt=1, friction=50)
    a, b = v[-1].velocities
    assert abs(float((a * b).mean()) * math.sqrt(a.numel())) < 4
    assert abs(float((a * v[-2].velocities[0]).mean()) * math.sqrt(a.numel())) < 4


def test_without_noise_a_replica_alone_moves_as_in_a_batch():
    x = lattice(3)
    x[1] *= 1.05
    masses = torch.ones(8, dtype=F64)
    step = baoab(lennard_jones, masses, kT=0.5, dt=0.002, friction=0.0)
    batch = start(lennard_jones, x, masses, kT=0.5, generator=seeded())
    alone = SamplerState(
        *(t[1:2] for t in (batch.positions, batch.velocities)), *lennard_jones(x[1:2])[::-1]
    )
    *_, (_, end) = run(step, batch, seeded(), n_steps=50)
    *_, (_, end_alone) = run(step, alone, seeded(), n_steps=50)
    assert torch.equal(end.positions[1], end_alone.positions[0])


@pytest.mark.parametrize("make", [baoab, overdamped])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_restart_goes_on_bit_for_bit(make, dtype, tmp_path):
    masses = torch.ones(8, dtype=dtype)
    step = make(lennard_jones, masses, kT=0.5, dt=0.002, friction=2.0)
    generator = seeded()
    begin = start(lennard_jones, lattice(2, dtype), masses, kT=0.5, generator=generator)
    *_, (n, half) = run(step, begin, generator, n_steps=37)
    path = tmp_path / "checkpoint.pt"
    sampling.save(path, sampling.Checkpoint(n, half, generator.get_state(), {"a": 1}))
    rest = list(run(step, half, generator, n_steps=25, first=n))
    found = sampling.load(path)
    assert (found.step, found.notes) == (37, {"a": 1})
    generator = seeded(99)
    generator.set_state(found.generator_state)
    again = list(run(step, found.state, generator, n_steps=25, first=n))
    assert [n for n, _ in again] == [n for n, _ in rest] == list(range(38, 63))
    for name in ("positions", "velocities", "forces", "energy"):
        assert torch.equal(getattr(again[-1][1], name), getattr(rest[-1][1], name))
    assert again[-1][1].positions.dtype == dtype


def test_a_checkpoint_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    state = SamplerState(*(torch.zeros(1, 2, 3) for _ in range(3)), torch.zeros(1))
    sampling.save(path, sampling.Checkpoint(3, state, seeded().get_state()))
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"checkpoint\.pt is not a whole checkpoint"):
        sampling.load(path)


def test_a_failed_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    state = SamplerState(*(torch.zeros(1, 2, 3) for _ in range(3)), torch.zeros(1))
    sampling.save(path, sampling.Checkpoint(3, state, seeded().get_state()))

    def disk_is_full(content, file):
        file.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", disk_is_full)
    with pytest.raises(OSError, match="no space"):
        sampling.save(path, sampling.Checkpoint(4, state, seeded().get_state()))
    assert sampling.load(path).step == 3


def test_states_handed_out_are_never_changed_later():
    states = take(lennard_jones, lattice(1), torch.ones(8), n_steps=5, kT=1, dt=0.002, friction=1)
    copies = take(lennard_jones, lattice(1), torch.ones(8), n_steps=2, kT=1, dt=0.002, friction=1)
    assert torch.equal(states[1].positions, copies[1].positions)
    assert torch.equal(states[1].velocities, copies[1].velocities)


@pytest.mark.parametrize("check_every", [1, 7, 1000])
def test_a_blow_up_names_step_and_replica_whenever_it_is_noticed(check_every):
    """A wall of nan: replica 2 reaches it first, and the state one step before is kept."""

    def walled(x):
        energy, forces = free(x)
        return torch.where(x[:, 0, 0] > 1, torch.nan, energy), forces

    x = torch.zeros(4, 2, 3, dtype=F64)
    masses = torch.ones(2, dtype=F64)
    step = baoab(walled, masses, kT=1.0, dt=0.01, friction=0.0)
    v = torch.zeros_like(x)
    v[2, 0, 0], v[3, 0, 0] = 2.02, 1.5
    state = SamplerState(x, v, v * 0, x.new_zeros(4))
    with pytest.raises(sampling.Blowup, match="replica 2 blew up at step 60: energy 0 -> nan") as e:
        list(run(step, state, seeded(), n_steps=200, every=40, first=10, check_every=check_every))
    assert (e.value.step, e.value.replica, e.value.good.step) == (60, 2, 59)
    assert float(e.value.good.state.positions[2, 0, 0]) == pytest.approx(49 * 0.0202)
    assert e.value.bad.energy[2].isnan()


def test_the_state_before_a_blow_up_is_the_same_whenever_it_is_noticed():
    """The steps that are repeated see the same noise again."""

    def walled(x):
        energy, forces = free(x)
        return torch.where(x[:, 0, 0] > 1, torch.nan, energy), forces

    def last_good(check_every):
        step = baoab(walled, torch.ones(1), kT=1.0, dt=0.05, friction=3.0)
        generator = seeded(5)
        state = start(walled, torch.zeros(4, 1, 3), torch.ones(1), kT=1.0, generator=generator)
        with pytest.raises(sampling.Blowup) as e:
            list(run(step, state, generator, n_steps=900, every=900, check_every=check_every))
        return e.value.good

    one, other = last_good(1), last_good(50)
    assert one.step == other.step > 0
    assert torch.equal(one.state.positions, other.state.positions)
    assert torch.equal(one.generator_state, other.generator_state)


def test_no_state_that_is_not_sound_is_handed_out():
    fine = lambda x: (torch.where(x[:, 0, 0] > 1, torch.inf, 0.0), torch.zeros_like(x))
    x, v = torch.zeros(1, 1, 3), torch.tensor([[[1.0, 0.0, 0.0]]])
    step = baoab(fine, torch.ones(1), kT=1.0, dt=0.3, friction=0.0)
    states = run(step, SamplerState(x, v, v * 0, x[:, 0, 0]), seeded(), n_steps=9)
    assert [(n, s.energy.tolist()) for n, s in islice(states, 3)] == [(n, [0.0]) for n in (1, 2, 3)]
    with pytest.raises(sampling.Blowup):
        next(states)


def test_calm_refuses_what_heat_alone_does_not_do():
    x = torch.zeros(4, 5, 3)
    good = SamplerState(x, x, x, torch.zeros(4))
    fast = x.clone()
    fast[1, 2, 0] = 15.0  # 112 kT
    energy = torch.tensor([0.0, 0.0, 151.0, -1e6])  # rise allowed: 100 + 10 * 5 kT
    sound = sampling.thermally_stable(torch.ones(5), 1.0)(
        good, replace(good, velocities=fast, energy=energy)
    )
    assert sound.tolist() == [True, False, False, True]


def test_a_start_that_is_not_finite_names_the_replica():
    bad = lambda x: (torch.tensor([0.0, torch.inf]), torch.zeros_like(x))
    with pytest.raises(FloatingPointError, match="replica 1 is not finite"):
        start(bad, torch.zeros(2, 1, 3), torch.ones(1), kT=1.0, generator=seeded())


@pytest.mark.parametrize("make", [baoab, overdamped])
@pytest.mark.parametrize("wrong", [{"dt": 0.0}, {"kT": -1.0}, {"friction": -0.1}, {"dt": math.nan}])
def test_parameters_out_of_range_are_refused_with_their_values(make, wrong):
    right = {"kT": 1.0, "dt": 0.1, "friction": 1.0}
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        make(free, torch.ones(1), **(right | wrong))


def test_masses_must_be_positive():
    with pytest.raises(ValueError, match=r"smallest mass 0\.0"):
        baoab(free, torch.tensor([1.0, 0.0]), kT=1.0, dt=0.1, friction=1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_restart_on_the_device_goes_on_bit_for_bit(tmp_path):
    masses = torch.ones(8, device="cuda")
    step = baoab(lennard_jones, masses, kT=0.5, dt=0.002, friction=2.0)
    generator = torch.Generator("cuda").manual_seed(0)
    x = lattice(2, torch.float32).cuda()
    state = start(lennard_jones, x, masses, kT=0.5, generator=generator)
    path = tmp_path / "checkpoint.pt"
    sampling.save(path, sampling.Checkpoint(0, state, generator.get_state()))
    *_, (_, end) = run(step, state, generator, n_steps=20)
    found = sampling.load(path, "cuda")
    generator.set_state(found.generator_state)
    *_, (_, again) = run(step, found.state, generator, n_steps=20)
    assert torch.allclose(end.positions, again.positions, atol=1e-6)  # atomics sum in any order


def test_a_site_at_nan_is_not_sound_whatever_its_forces():
    zeros = torch.zeros(2, 3, 3)
    positions = zeros.clone()
    positions[1, 2, 0] = torch.nan
    state = sampling.SamplerState(positions, zeros, zeros, torch.zeros(2))
    assert sampling.finite(state, state).tolist() == [True, False]
