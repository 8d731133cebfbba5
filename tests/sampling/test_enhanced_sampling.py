"""Enhanced sampling against what is known exactly; z is a distance in standard errors.

Seeds are fixed. With new ones, n numbers that are compared at 4 standard errors give a false
alarm in n of 16 000 cases.
"""

import math

import pytest
import torch

import sampling
from sampling import (
    Axis,
    Biased,
    HarmonicBias,
    Metadynamics,
    ReplicaExchange,
    baoab,
    overdamped,
    run,
    start,
)
from sampling.spline import Spline, hills

F64 = torch.float64
TORUS = Axis(-math.pi, math.pi, 60, periodic=True)
WALL = Axis(0.0, 2.0, 25, periodic=False)


@pytest.fixture(autouse=True)
def _one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=seeded(seed), dtype=F64)


def first_site(x):
    """Coordinates that are positions themselves."""
    return x[:, 0]


def torus(x):
    """Four valleys, not alike, of sites on a torus; barriers of about 8 kT at kT = 1."""
    a, b = x[:, 0, 0], x[:, 0, 1]
    energy = 4 * torch.cos(2 * a) + torch.cos(a - b - 1) + 2 * torch.cos(2 * b) + torch.sin(b)
    pull_a = 8 * torch.sin(2 * a) + torch.sin(a - b - 1)
    pull_b = -torch.sin(a - b - 1) + 4 * torch.sin(2 * b) - torch.cos(b)
    return energy, torch.stack([pull_a, pull_b], -1)[:, None]


def cells(values, n):
    """Return the number of the cell, in an n x n grid of the torus, of values (..., 2)."""
    k = ((values + math.pi) % (2 * math.pi) / (2 * math.pi) * n).long().clamp(max=n - 1)
    return k[..., 0] * n + k[..., 1]


def exact_populations(n, fine=240):
    """Return the populations (n * n,) of `torus` at kT = 1."""
    at = -math.pi + (torch.arange(fine, dtype=F64) + 0.5) * 2 * math.pi / fine
    points = torch.cartesian_prod(at, at)
    p = torch.exp(-torus(points[:, None])[0])
    return torch.zeros(n * n, dtype=F64).index_add(0, cells(points, n), p) / p.sum()


def populations(values, weights, n):
    """Return weighted populations (n * n,) and jackknife errors over independent chains.

    ``values`` (frames, chains, 2), ``weights`` (frames, chains).
    """
    n_chains = values.shape[1]
    place = cells(values, n) + n * n * torch.arange(n_chains)
    sums = torch.zeros(n_chains * n * n, dtype=F64).index_add(0, place.flatten(), weights.flatten())
    sums = sums.view(n_chains, n * n)
    without = sums.sum(0) - sums
    p = without / without.sum(1, keepdim=True)
    return sums.sum(0) / sums.sum(), ((n_chains - 1) ** 2 / n_chains * p.var(0)).sqrt()


def take(step, state, generator, n_steps, every=10, method=None):
    """Return positions (frames, chains, sites, d) of a run and its last state."""
    states = [
        s for _, s in run(step, state, generator, n_steps=n_steps, every=every, method=method)
    ]
    return torch.stack([s.positions for s in states]), states[-1]


# ---------------------------------------------------------------- the grid


@pytest.mark.parametrize("axes", [[TORUS], [WALL], [TORUS, TORUS], [WALL, TORUS], [WALL] * 3])
def test_the_slope_is_the_gradient_of_the_interpolated_energy(axes):
    generator = seeded(1)
    c = torch.randn([axis.n for axis in axes], generator=generator, dtype=F64)
    values = 12 * uniform(40, len(axes)) - 6  # beyond ends and periods, too

    def energy(v):
        return Spline(axes, c)(v)[0]

    _, slope = Spline(axes, c)(values)
    h = 1e-6
    for k in range(len(axes)):
        step = h * torch.eye(len(axes), dtype=F64)[k]
        numeric = (energy(values + step) - energy(values - step)) / (2 * h)
        assert torch.allclose(slope[:, k], numeric, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(("axis", "center"), [(TORUS, 3.0), (WALL, 1.0), (WALL, 0.1)])
def test_a_hill_is_a_gaussian_with_its_mirror_images_in_walls(axis, center):
    c = hills([axis], torch.tensor([[center]], dtype=F64), [0.3], torch.tensor([2.0]))
    s = torch.linspace(-1, 1, 81, dtype=F64) + center
    s = s[axis.holds(s)]
    energy, _ = Spline([axis], c)(s[:, None])
    centers = [center] if axis.periodic else [center, -center, 4 - center]
    exact = sum(2 * torch.exp(-((s - at) ** 2) / 2 / 0.3**2) for at in centers)
    assert (energy - exact).abs().max() < 2e-3


def test_hills_of_two_coordinates_are_products():
    axes = [TORUS, WALL]
    centers = torch.tensor([[3.0, 0.9], [-1.0, 1.2]], dtype=F64)
    c = hills(axes, centers, [0.35, 0.2], torch.tensor([1.0, 2.0]))
    energy, _ = Spline(axes, c)(torch.tensor([[3.2, 0.95], [-1.1, 1.0]], dtype=F64))
    exact = [
        h * math.exp(-((a / 0.35) ** 2) / 2 - (b / 0.2) ** 2 / 2)
        for h, a, b in [(1, 0.2, 0.05), (2, 0.1, 0.2)]
    ]
    assert energy.tolist() == pytest.approx(exact, abs=1e-3)


def test_beyond_a_wall_the_energy_is_that_at_the_wall():
    c = torch.randn(25, generator=seeded(), dtype=F64)
    at = torch.tensor([[-1.0], [0.0], [2.0], [7.0]], dtype=F64)
    energy, slope = Spline([WALL], c)(at)
    assert energy[0] == energy[1]
    assert energy[2] == energy[3]
    assert slope.abs().max() < 1e-12


def test_a_value_that_is_no_number_gives_an_energy_that_is_none():
    for axis in (TORUS, WALL):
        energy, _ = Spline([axis], torch.ones(axis.n))(torch.full((2, 1), torch.nan))
        assert energy.isnan().all()


# ---------------------------------------------------------------- forces


def torsion(x):
    """The sine and cosine of an angle, as atan2 of four sites: a coordinate of all of them."""
    a, b, c = x.diff(dim=1).unbind(1)
    n, m = torch.linalg.cross(a, b), torch.linalg.cross(b, c)
    sine = b.norm(dim=-1) * (a * m).sum(-1)
    return torch.stack([torch.atan2(sine, (n * m).sum(-1)), (x[:, 3] - x[:, 0]).norm(dim=-1)], -1)


def springs():
    centers = torch.tensor([[3.0, 1.0]], dtype=F64)
    return HarmonicBias(centers, torch.tensor([5.0, 20.0], dtype=F64), (2 * math.pi, None))


def landscape():
    axes = [TORUS, Axis(0.0, 4.0, 30, periodic=False)]
    method = Metadynamics(
        torsion, axes, widths=[0.35, 0.3], height=1.0, bias_factor=5.0, kT=1.0, every=1
    )
    for seed in range(20):
        method.add(uniform(8, 2, seed=seed) * 6 - 3 * torch.tensor([1.0, 0.3], dtype=F64))
    return method


@pytest.mark.parametrize("bias", [springs(), landscape()], ids=["springs", "metadynamics"])
def test_forces_are_the_gradient_of_the_energy_with_its_bias(bias):
    well = lambda x: (x.square().sum((1, 2)) / 2, -x)
    field = Biased(well, torsion, bias)
    x = torch.randn(6, 4, 3, generator=seeded(3), dtype=F64)
    _, forces = field(x)
    h = 1e-6
    for i in range(4):
        for k in range(3):
            shift = torch.zeros_like(x)
            shift[:, i, k] = h
            numeric = -(field(x + shift)[0] - field(x - shift)[0]) / (2 * h)
            assert torch.allclose(forces[:, i, k], numeric, rtol=1e-6, atol=1e-6)
    assert torch.allclose(field(x)[0] - well(x)[0], field.bias_energy(x))
    assert (field.bias_energy(x).abs() > 1e-3).all()


def test_a_bias_keeps_the_precision_of_the_positions():
    x = torch.randn(6, 4, 3, generator=seeded(3))
    energy, forces = Biased(lambda x: (x.sum((1, 2)), -x), torsion, landscape())(x)
    assert energy.dtype == forces.dtype == torch.float32


def test_chains_do_not_feel_the_springs_of_others():
    centers = uniform(5, 2)
    x = torch.randn(5, 4, 3, generator=seeded(3), dtype=F64)
    flat = lambda x: (x.new_zeros(len(x)), torch.zeros_like(x))
    periods = (2 * math.pi, None)
    together = Biased(flat, torsion, HarmonicBias(centers, torch.ones(2), periods))(x)
    alone = Biased(flat, torsion, HarmonicBias(centers[3:4], torch.ones(2), periods))(x[3:4])
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a[3:4], b)


def test_metadynamics_without_noise_keeps_the_energy_with_its_fixed_bias():
    """The total energy has no drift: its spread falls as dt^2."""
    bent = torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 0, 0], [0.5, 0, 1]], dtype=F64)
    well = lambda x: (10 * (x - bent).square().sum((1, 2)), 20 * (bent - x))
    field = Biased(well, torsion, landscape())
    x = bent.repeat(4, 1, 1)

    def spread(dt):
        step = baoab(field, torch.ones(4, dtype=F64), kT=1.0, dt=dt, friction=0.0)
        begin = start(field, x, torch.ones(4, dtype=F64), kT=0.1, generator=seeded(1))
        total = [
            s.energy + s.velocities.square().sum((1, 2)) / 2
            for _, s in run(step, begin, seeded(), n_steps=round(3 / dt))
        ]
        return float(torch.stack(total).std(0).mean())

    assert 3.5 < spread(0.02) / spread(0.01) < 4.5


# ---------------------------------------------------------------- metadynamics


def fill(n_chains, *, height, stop, bias_factor=8.0, n_steps=0, field=torus):
    """Fill `torus` from one valley; return the method, its step and where it has come to."""
    method = Metadynamics(
        first_site,
        [TORUS, TORUS],
        widths=[0.35, 0.35],
        height=height,
        bias_factor=bias_factor,
        kT=1.0,
        every=20,
        stop=stop,
    )
    field = Biased(field, first_site, method)
    generator, masses = seeded(), torch.ones(1, dtype=F64)
    step = method.step(baoab(field, masses, kT=1.0, dt=0.1, friction=1.0))
    x = torch.tensor([[1.5, 1.5]], dtype=F64).repeat(n_chains, 1, 1)
    state = start(field, x, masses, kT=1.0, generator=generator)
    _, state = take(step, state, generator, n_steps, every=n_steps, method=method)
    return method, step, state, generator


def surface_error(method, bias_factor):
    """Return the rms error, kT, of the free energy that the bias stands for, below 10 kT."""
    at = TORUS.nodes
    points = torch.cartesian_prod(at, at)
    exact = torus(points[:, None])[0]
    found = -bias_factor / (bias_factor - 1) * method(points)[0]
    low = exact < exact.min() + 10
    return float((found - exact)[low].std())


def test_the_bias_comes_to_the_free_energy_and_its_frames_to_exact_populations():
    """64 walkers from one valley, over barriers of 8 kT; 25 populations, to 0.02 or better."""
    method, step, state, generator = fill(64, height=0.08, stop=3000, n_steps=3000)
    assert surface_error(method, 8.0) < 0.3
    fixed = method.bias.coefficients
    x, _ = take(step, state, generator, 4000, every=20, method=method)
    assert method.bias.coefficients is fixed
    values = x[50:, :, 0]
    weights = method(values.flatten(0, 1))[0].view(values.shape[:2]).exp()
    p, error = populations(values, weights, 5)
    exact = exact_populations(5)
    z = (p - exact) / error
    assert z.abs().max() < 4


def test_few_walkers_with_high_hills_find_the_surface_of_many():
    few, *_ = fill(8, height=0.4, stop=3000, n_steps=3000)
    assert surface_error(few, 8.0) < 0.6


def test_hills_shrink_where_the_bias_is_high_and_stay_away_from_beyond_a_wall():
    make = lambda bias_factor: Metadynamics(
        first_site, [WALL], widths=[0.2], height=0.5, bias_factor=bias_factor, kT=2.0, every=1
    )
    at = torch.tensor([[1.0]], dtype=F64)
    tempered, plain = make(3.0), make(math.inf)
    heights = []
    for _ in range(3):
        before = tempered(at)[0]
        tempered.add(at)
        heights.append(float(tempered(at)[0] - before) / 0.5)
        plain.add(at)
    total = 0.0
    for height in heights:  # the spline of a hill is good to 1e-3 of it
        assert height == pytest.approx(math.exp(-0.5 * total / (2.0 * 2.0)), rel=2e-3)
        total += height
    assert float(plain(at)[0]) == pytest.approx(1.5, rel=2e-3)
    before = plain.get_state()["coefficients"]
    plain.add(torch.tensor([[-0.1], [2.1], [math.nan]], dtype=F64))
    assert torch.equal(plain.get_state()["coefficients"], before)


def test_no_hill_is_added_before_its_time_or_after_the_last():
    method, step, state, generator = fill(2, height=0.1, stop=60, n_steps=20)
    seen = []
    for _ in run(step, state, generator, n_steps=60, method=method):
        seen.append(method.get_state()["coefficients"])
    changes = [n for n in range(60) if not torch.equal(seen[n], seen[n - 1] if n else 0 * seen[0])]
    assert changes == [0, 20]  # in steps 21 and 41; the one due at 60 is too late


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"height": 0.0}, r"height=0\.0"),
        ({"bias_factor": 1.0}, r"bias_factor=1\.0"),
        ({"every": 0}, "every=0"),
        ({"widths": [0.05]}, r"hills of width 0\.05 on a grid of spacing 0\.105"),
    ],
)
def test_metadynamics_out_of_range_is_refused(wrong, message):
    right = {"widths": [0.3], "height": 1.0, "bias_factor": 5.0, "kT": 1.0, "every": 1}
    with pytest.raises(ValueError, match=message):
        Metadynamics(first_site, [TORUS], **(right | wrong))


# ---------------------------------------------------------------- umbrella windows


def ring(x):
    """A ring with two valleys and barriers of 8 kT."""
    a = x[:, 0, 0]
    return 4 * torch.cos(2 * a) + torch.sin(a), (8 * torch.sin(2 * a) - torch.cos(a))[:, None, None]


def test_windows_and_mbar_recover_the_ring():
    """32 independent sets of 14 windows, 14 populations: Student's t with 31 degrees.

    A new seed would fail in 14 P(|t| > 4) = 0.5 % of cases.
    """
    mbar = pytest.importorskip("pymbar").MBAR
    n_windows, n_sets = 14, 32
    centers = -math.pi + 2 * math.pi / n_windows * torch.arange(n_windows, dtype=F64)
    chains = centers.repeat_interleave(n_sets)[:, None]
    bias = HarmonicBias(chains, torch.tensor([12.0], dtype=F64), (2 * math.pi,))
    field = Biased(ring, first_site, bias)
    generator, masses = seeded(4), torch.ones(1, dtype=F64)
    step = baoab(field, masses, kT=1.0, dt=0.15, friction=2.0)
    state = start(field, chains[:, None], masses, kT=1.0, generator=generator)
    x, _ = take(step, state, generator, 1000, every=20)
    values = x[5:, :, 0, 0].view(-1, n_windows, n_sets).permute(2, 1, 0).flatten(1)  # (set, frame)
    p = []
    for frames in values:
        u = [
            HarmonicBias(c[None], bias.springs, bias.periods)(frames[:, None])[0]
            for c in centers[:, None]
        ]
        counts = [len(frames) // n_windows] * n_windows
        solved = mbar(torch.stack(u).numpy(), counts, solver_protocol="robust")
        w = torch.as_tensor(solved.weights()[:, 0]) * u[0].exp()  # of window 0, of no window
        k = ((frames + math.pi) % (2 * math.pi) / (2 * math.pi) * n_windows).long()
        p.append(torch.zeros(n_windows, dtype=F64).index_add(0, k, w) / w.sum())
    at = -math.pi + (torch.arange(1400, dtype=F64) + 0.5) * 2 * math.pi / 1400
    exact = torch.exp(-ring(at[:, None, None])[0])
    exact = exact.view(n_windows, -1).sum(1) / exact.sum()
    p = torch.stack(p)
    z = (p.mean(0) - exact) / (p.std(0) / math.sqrt(n_sets))
    assert z.abs().max() < 4


# ---------------------------------------------------------------- replica exchange

LEVELS = torch.tensor([1.0, 1.7, 2.8, 5.0], dtype=F64)
GRID = torch.linspace(-4, 4, 8001, dtype=F64)


def tilted(x):
    """Two wells about -1 and 1, the left one lower, with a barrier of 8."""
    s = x[:, 0, 0]
    return 8 * (s**2 - 1) ** 2 + s / 2, -(32 * s * (s**2 - 1) + 0.5)[:, None, None]


def boltzmann(kT):
    """Return the probabilities of `GRID`."""
    p = torch.exp(-tilted(GRID[:, None, None])[0] / kT)
    return p / p.sum()


def equilibrium(n_ladders, seed=0):
    """Return independent chains at their temperatures, and their exchange."""
    method = ReplicaExchange(LEVELS, n_ladders, every=10)
    generator = seeded(seed)
    pick = lambda kT: torch.multinomial(boltzmann(kT), n_ladders, True, generator=generator)
    x = torch.cat([GRID[pick(kT)] for kT in LEVELS])[:, None, None]
    masses = torch.ones(1, dtype=F64)
    state = start(tilted, x, masses, kT=method.kT, generator=generator)
    return method, state


def z_of_mean(samples, exact):
    return float((samples.mean() - exact) / (samples.std() / math.sqrt(samples.numel())))


@pytest.mark.parametrize("turn", [0, 1])
def test_a_swap_keeps_every_distribution_and_accepts_as_theory_says(turn):
    """20 numbers at 4 standard errors."""
    n = 20_000
    method, before = equilibrium(n)
    method.taken = turn * method.every
    after = method.swap(before, seeded(5))
    for level, kT in enumerate(LEVELS):
        p, here = boltzmann(kT), slice(level * n, (level + 1) * n)
        for f in (torch.sign, torch.square, lambda x: tilted(x[:, None, None])[0]):
            assert abs(z_of_mean(f(after.positions[here, 0, 0]), p @ f(GRID))) < 4
        assert abs(z_of_mean(after.velocities[here].square(), kT)) < 4
    energy = tilted(GRID[:, None, None])[0]
    near = torch.arange(0, len(GRID), 20)  # enough for sums of two
    for i in range(len(LEVELS) - 1):
        if i % 2 != turn:
            assert method.tried[i] == 0
            continue
        weights = [boltzmann(kT)[near] / boltzmann(kT)[near].sum() for kT in LEVELS[i : i + 2]]
        gain = (1 / LEVELS[i] - 1 / LEVELS[i + 1]) * (energy[near][:, None] - energy[near])
        exact = float(weights[0] @ gain.clamp(max=0).exp() @ weights[1])
        assert method.tried[i] == n
        z = (float(method.acceptance[i]) - exact) / math.sqrt(exact * (1 - exact) / n)
        assert abs(z) < 4


def test_swapped_chains_carry_all_that_is_theirs():
    method, before = equilibrium(50)
    after = method.swap(before, seeded(1))
    origin = method.walkers.flatten()
    assert not torch.equal(origin, torch.arange(200))
    assert torch.equal(origin % 50, torch.arange(200) % 50)  # ladders do not mix
    for name in ("positions", "forces", "energy"):
        assert torch.equal(getattr(after, name), getattr(before, name)[origin])
    energy, forces = tilted(after.positions)
    assert torch.allclose(energy, after.energy)
    assert torch.allclose(forces, after.forces)
    scaled = lambda state: state.velocities[:, 0, 0] / method.kT.sqrt()
    assert torch.allclose(scaled(after), scaled(before)[origin])


def test_exchange_equilibrates_wells_that_cold_chains_cannot_leave():
    """From the higher well alone; 8 averages at 4 standard errors of 300 independent ladders."""
    n = 300
    generator, masses = seeded(7), torch.ones(1, dtype=F64)
    method = ReplicaExchange(LEVELS, n, every=5)
    step = method.step(baoab(tilted, masses, kT=method.kT, dt=0.04, friction=1.0))
    x = torch.ones(4 * n, 1, 1, dtype=F64)
    state = start(tilted, x, masses, kT=method.kT, generator=generator)
    x, _ = take(step, state, generator, 6000, every=20, method=method)
    x = x[100:, :, 0, 0].view(-1, 4, n)
    for level, kT in enumerate(LEVELS):
        p = boltzmann(kT)
        for f in (lambda s: (s < 0).double(), torch.square):
            assert abs(z_of_mean(f(x[:, level]).mean(0), p @ f(GRID))) < 4


def test_ladders_do_not_see_each_other():
    method, state = equilibrium(3)
    other, moved = equilibrium(3)
    moved.energy[1::3] += 50 * torch.arange(4)
    one, two = method.swap(state, seeded(2)), other.swap(moved, seeded(2))
    for ladder in (0, 2):
        assert torch.equal(one.positions[ladder::3], two.positions[ladder::3])


def test_a_chain_whose_energy_is_no_number_is_not_passed_on():
    method, state = equilibrium(4)
    state.energy[:4] = torch.nan
    after = method.swap(state, seeded())
    assert after.energy[:4].isnan().all()
    assert not after.energy[4:].isnan().any()


@pytest.mark.parametrize("wrong", [{"levels": LEVELS[:1]}, {"n_ladders": 0}, {"every": 0}])
def test_exchange_out_of_range_is_refused(wrong):
    right = {"levels": LEVELS, "n_ladders": 2, "every": 5}
    with pytest.raises(ValueError, match="exchange needs two or more"):
        ReplicaExchange(**(right | wrong))


@pytest.mark.parametrize("make", [baoab, overdamped])
def test_every_chain_has_its_own_temperature(make):
    kT = torch.tensor([0.5, 2.0], dtype=F64).repeat_interleave(3000)
    well = lambda x: (x.square().sum((1, 2)) / 2, -x)
    masses = torch.tensor([1.0, 4.0], dtype=F64)
    generator = seeded(3)
    state = start(well, torch.zeros(6000, 2, 3, dtype=F64), masses, kT=kT, generator=generator)
    step = make(well, masses, kT=kT, dt=0.3, friction=1.0)
    _, state = take(step, state, generator, 300, every=300)
    for half, exact in ((slice(0, 3000), 0.5), (slice(3000, 6000), 2.0)):
        n = state.positions[half].numel()
        z = (float(state.positions[half].square().mean()) / exact - 1) / math.sqrt(2 / n)
        assert abs(z) < 4


# ---------------------------------------------------------------- restarts and blow-ups


def tempered_run(wall=math.inf):
    return fill(6, height=0.2, stop=70, n_steps=1, field=walled(torus, wall))


def exchanged_run(wall=math.inf):
    method, state = equilibrium(5)
    masses = torch.ones(1, dtype=F64)
    step = method.step(baoab(walled(tilted, wall), masses, kT=method.kT, dt=0.04, friction=1.0))
    return method, step, state, seeded(3)


def walled(field, wall):
    """No number beyond the wall."""

    def inner(x):
        beyond = torch.where(x[:, 0, 0] > wall, torch.nan, 0.0)
        energy, forces = field(x)
        return energy + beyond, forces + beyond[:, None, None]

    return inner


@pytest.mark.parametrize("make", [tempered_run, exchanged_run])
def test_a_restart_goes_on_bit_for_bit(make, tmp_path):
    method, step, state, generator = make()
    _, half = take(step, state, generator, 37, every=37, method=method)
    path = tmp_path / "checkpoint.pt"
    noise = generator.get_state()
    sampling.save(path, sampling.Checkpoint(37, half, noise, memory=method.get_state()))
    x, end = take(step, half, generator, 60, method=method)
    after = method.get_state()
    found = sampling.load(path)
    method, step, _, generator = make()
    generator.set_state(found.generator_state)
    method.set_state(found.memory)
    again, end_again = take(step, found.state, generator, 60, method=method)
    assert torch.equal(x, again)
    assert torch.equal(end.velocities, end_again.velocities)
    assert after.keys() == method.get_state().keys()
    for name, value in method.get_state().items():
        assert torch.equal(value, after[name])


@pytest.mark.parametrize(("make", "wall"), [(tempered_run, 2.1), (exchanged_run, 1.55)])
def test_the_memory_before_a_blow_up_is_the_same_whenever_it_is_noticed(make, wall):
    """The steps that are repeated begin with the memory of their time."""

    def last_good(check_every):
        method, step, state, generator = make(wall)
        options = {"n_steps": 900, "every": 900, "check_every": check_every, "method": method}
        with pytest.raises(sampling.Blowup) as e:
            list(run(step, state, generator, **options))
        return e.value.good

    one, other = last_good(1), last_good(50)
    assert one.step == other.step > 20
    assert torch.equal(one.state.positions, other.state.positions)
    for name, value in one.memory.items():
        assert torch.equal(value, other.memory[name])
