"""Observables against freud, crystals, the ideal gas and Brownian motion."""

from __future__ import annotations

import re
from itertools import product

import freud
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import sph_harm_y

from deepcg.analysis.structure import (
    Curve,
    Diffusion,
    NotAvailable,
    Sample,
    TrajectorySet,
    angles,
    averaged_steinhardt,
    bonds_within,
    compare_structures,
    cut,
    diffusion,
    distance,
    expected_rms,
    first_minimum,
    first_peak,
    local_structure,
    noise_floor,
    pairs_within,
    radial_distributions,
    radial_edges,
    shell_series,
    velocity_autocorrelation,
)
from deepcg.analysis.structure.local_order import spherical_harmonics
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames

Array = NDArray[np.float64]

TRICLINIC = np.array([[2.1, 0.0, 0.0], [0.6, 1.9, 0.0], [-0.5, 0.7, 2.0]])
CUBE = np.eye(3) * 2.0


def frames_of(
    positions: Array, box: Array, types: NDArray[np.int64] | None = None, dtype: str = "float64"
) -> Frames:
    n_frames, n = positions.shape[:2]
    types = np.zeros(n, dtype=np.int64) if types is None else types
    boxes = np.broadcast_to(box, (n_frames, 3, 3)).copy()
    kind = getattr(torch, dtype)
    return Frames(
        torch.tensor(positions, dtype=kind),
        torch.tensor(boxes, dtype=kind),
        None,
        torch.tensor(types),
    )


def ensemble_of(*replicas: Frames, dt: float = 0.1, name: str = "model") -> TrajectorySet:
    names = ("O", "Na")[: int(replicas[0].types.max()) + 1]
    return TrajectorySet(name, replicas, dt, "made for a test", names)


def sample_of(*replicas: Frames, n_blocks: int = 16, dt: float = 0.1) -> Sample:
    ensemble = ensemble_of(*replicas, dt=dt)
    return Sample(ensemble, ensemble.blocks(n_blocks), 1.0)


def gas(n_frames: int, n: int, box: Array, seed: int) -> Array:
    """Return uniform positions that lie in any of the box's images."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.uniform(-1, 2, (n_frames, n, 3)) @ box)


def crystal(basis: list[list[float]], cell: list[float], repeats: int) -> tuple[Array, Array]:
    """Return positions (1, n, 3) and box (1, 3, 3) of an orthorhombic crystal."""
    offsets = np.array(list(product(range(repeats), repeat=3)))[:, None, :]
    positions = ((np.array(basis) + offsets) * cell).reshape(1, -1, 3)
    return positions, np.diag(np.array(cell) * repeats)[None]


FCC = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]
BCC = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]]
HCP = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 5 / 6, 0.5], [0.0, 1 / 3, 0.5]]
DIAMOND = FCC + [[x + 0.25, y + 0.25, z + 0.25] for x, y, z in FCC]


# freud computes in float32: a pair within 1e-7 nm of a bin edge may change its bin, and there
# are some 10 such pairs in these frames


@pytest.mark.parametrize("box", [CUBE, TRICLINIC], ids=["cube", "triclinic"])
def test_radial_distribution_is_freuds(box: Array) -> None:
    positions = gas(20, 150, box, seed=1)
    edges = radial_edges(0.8)
    (curve,) = radial_distributions(sample_of(frames_of(positions, box)), edges)
    theirs = freud.density.RDF(len(edges) - 1, edges[-1], normalization_mode="finite_size")
    for frame in positions:
        cell = freud.box.Box.from_matrix(box.T)
        theirs.compute((cell, cell.wrap(frame)), reset=False)
    a_pair = 1 / (20 * 150 * 149 / 2 * 4 * np.pi * curve.x**2 * 0.002 / np.linalg.det(box))
    moved = np.abs(curve.y - theirs.rdf) / a_pair
    assert np.median(moved) < 0.01
    assert moved[curve.x > 0.01].max() < 2.5


@pytest.mark.parametrize("box", [CUBE, TRICLINIC], ids=["cube", "triclinic"])
@pytest.mark.parametrize("l", [3, 4, 6])
def test_averaged_steinhardt_is_freuds(box: Array, l: int) -> None:
    positions = gas(1, 150, box, seed=2)
    cell = freud.box.Box.from_matrix(box.T)
    system = freud.AABBQuery(cell, cell.wrap(positions[0]))
    query = {"r_max": 0.6, "exclude_ii": True}
    theirs = freud.order.Steinhardt(l, average=True).compute(system, query).particle_order
    ours = averaged_steinhardt(bonds_within(positions, box[None], 0.6), l)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)  # float32 there


def test_spherical_harmonics_are_scipys() -> None:
    units = np.random.default_rng(3).standard_normal((50, 3))
    units = np.concatenate([units / np.linalg.norm(units, axis=1)[:, None], np.eye(3), -np.eye(3)])
    polar, azimuth = np.arccos(units[:, 2]), np.arctan2(units[:, 1], units[:, 0])
    for l in range(8):
        exact = np.stack([sph_harm_y(l, m, polar, azimuth) for m in range(l + 1)], axis=1)
        np.testing.assert_allclose(spherical_harmonics(units, l), exact, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("basis", "cell", "cutoff", "neighbors", "q4", "q6"),
    [
        (FCC, [1.0, 1.0, 1.0], 0.85, 12, 0.19094, 0.57452),
        (BCC, [1.0, 1.0, 1.0], 1.2, 14, 0.03637, 0.51069),
        (HCP, [1.0, 3**0.5, (8 / 3) ** 0.5], 1.2, 12, 0.09722, 0.48476),
    ],
    ids=["fcc", "bcc", "hcp"],
)
def test_order_of_perfect_crystals_is_known(
    basis: list[list[float]],
    cell: list[float],
    cutoff: float,
    neighbors: int,
    q4: float,
    q6: float,
) -> None:
    bonds = bonds_within(*crystal(basis, cell, 4), cutoff)
    assert set(bonds.coordination) == {neighbors}
    single = [_single_steinhardt(bonds.units[:neighbors], l) for l in (4, 6)]
    np.testing.assert_allclose(single, [q4, q6], rtol=0, atol=6e-6)
    # in lattices with one kind of environments all neighbors have the same q_lm; hcp has two
    # orientations, which share q4 and q6 since l is even
    for l, q in ((4, q4), (6, q6)):
        np.testing.assert_allclose(averaged_steinhardt(bonds, l), q, rtol=0, atol=6e-6)


def _single_steinhardt(units: Array, l: int) -> float:
    q = spherical_harmonics(units, l).mean(0)
    power = np.abs(q) ** 2 @ np.where(np.arange(l + 1) == 0, 1.0, 2.0)
    return float(np.sqrt(4 * np.pi / (2 * l + 1) * power))


def test_angles_of_a_tetrahedral_lattice_are_tetrahedral() -> None:
    found = angles(bonds_within(*crystal(DIAMOND, [0.6, 0.6, 0.6], 3), 0.3))
    assert len(found) == 6 * 8 * 27
    np.testing.assert_allclose(found, np.degrees(np.arccos(-1 / 3)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 11])
@pytest.mark.parametrize("box", [CUBE, TRICLINIC], ids=["cube", "triclinic"])
def test_each_pair_is_found_once_at_its_nearest_image(n: int, box: Array) -> None:
    positions = gas(3, n, box, seed=n)
    found = pairs_within(positions, box[None].repeat(3, 0), 0.8)
    images = np.array(list(product(range(-4, 5), repeat=3))) @ box
    expected = {}
    for f, i, j in product(range(3), range(n), range(n)):
        nearest = np.linalg.norm(positions[f, j] - positions[f, i] + images, axis=1).min()
        if i < j and nearest < 0.8:
            expected[f, i, j] = nearest
    keys = [
        (f, min(i, j), max(i, j))
        for f, i, j in zip(found.frame, found.first, found.second, strict=True)
    ]
    assert sorted(keys) == sorted(expected)
    np.testing.assert_allclose(found.distances, [expected[k] for k in keys], rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=0), found.distances, rtol=1e-12)


def test_a_cutoff_beyond_half_the_box_is_refused() -> None:
    with pytest.raises(ValueError, match="more than half"):
        pairs_within(gas(1, 5, CUBE, 1), CUBE[None], 1.01)


def test_an_ideal_gas_has_no_structure_of_either_kind() -> None:
    types = np.array([0] * 40 + [1] * 20)
    sample = sample_of(frames_of(gas(400, 60, TRICLINIC, seed=5), TRICLINIC, types), n_blocks=32)
    curves = radial_distributions(sample, np.linspace(0.0, 0.8, 41))
    assert [c.name for c in curves] == ["g_OO(r)", "g_O-Na(r)", "g_Na-Na(r)"]
    for curve in curves:
        inside = curve.x > 0.2
        z = (curve.y - 1)[inside] / curve.error[inside]
        # 30 bins, Student's t of 31 blocks: |z| > 5 in 2e-5 of the cases each
        assert np.abs(z).max() < 5
        assert np.abs(z.mean()) < 4 / np.sqrt(len(z))
        assert 0.6 < z.std() < 1.5


def test_boxes_that_breathe_are_each_given_their_own_volume() -> None:
    scale = np.random.default_rng(6).uniform(0.95, 1.05, (300, 1, 1))
    positions = gas(300, 50, CUBE, seed=7) * scale
    frames = Frames(
        torch.tensor(positions),
        torch.tensor(CUBE * scale),
        None,
        torch.zeros(50, dtype=torch.int64),
    )
    (curve,) = radial_distributions(sample_of(frames, n_blocks=20), np.linspace(0, 0.9, 10))
    assert np.abs((curve.y - 1) / curve.error)[2:].max() < 5  # 4 standard errors and Student's t


def test_error_bands_of_the_angle_density_have_the_right_size() -> None:
    # an ideal gas, so that P = sin(angle) / 2 is exact; 40 samples of 46 bins
    z = []
    for seed in range(40):
        frames = frames_of(gas(64, 50, CUBE, seed=100 + seed), CUBE)
        angle = local_structure(sample_of(frames, n_blocks=16), 0.45)[0]
        low, high = angle.x - 1, angle.x + 1
        exact = (np.cos(np.radians(low)) - np.cos(np.radians(high))) / 4
        z.append((angle.y - exact)[22:68] / angle.error[22:68])
    # Student's t of 15 degrees of freedom has std 1.07
    assert 0.85 < np.std(z) < 1.25
    assert abs(np.mean(z)) < 4 / np.sqrt(np.size(z))


def test_densities_integrate_to_one() -> None:
    curves = local_structure(sample_of(frames_of(gas(16, 60, CUBE, seed=8), CUBE)), 0.5)
    for curve in curves:
        assert curve.y.sum() * (curve.x[1] - curve.x[0]) == pytest.approx(1.0, rel=1e-9)


def brownian(d: float, n_frames: int, n: int, dt: float, seed: int, box: Array) -> Frames:
    """Return wrapped Brownian walks."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, np.sqrt(2 * d * dt), (n_frames, n, 3))
    fractions = np.cumsum(steps, 0) @ np.linalg.inv(box)
    return frames_of((fractions % 1) @ box, box)


@pytest.mark.parametrize("box", [CUBE, TRICLINIC], ids=["cube", "triclinic"])
def test_a_brownian_walk_has_its_diffusion_coefficient(box: Array) -> None:
    replicas = [brownian(0.004, 500, 30, 0.5, seed, box) for seed in (9, 10)]
    motion = diffusion(sample_of(*replicas, n_blocks=20, dt=0.5))
    assert isinstance(motion, Diffusion)
    assert abs(motion.coefficient.value - 0.004) < 4 * motion.coefficient.error
    assert motion.coefficient.error < 0.05 * 0.004
    curve = motion.displacement
    exact = 6 * 0.004 * curve.x
    assert (np.abs(curve.y - exact)[1:] < 4.5 * curve.error[1:]).all()
    assert motion.window == pytest.approx((0.2 * curve.x[-1], curve.x[-1]))


def test_displacement_by_fourier_transform_is_the_sum_over_origins() -> None:
    path = np.cumsum(np.random.default_rng(11).normal(0, 0.02, (24, 5, 3)), 0)
    frames = frames_of(np.concatenate([path, path]), np.eye(3) * 9)
    motion = diffusion(Sample(ensemble_of(frames), [frames[:24], frames[24:]], 1.0))
    assert isinstance(motion, Diffusion)
    direct = [((path[k:] - path[: 24 - k]) ** 2).sum(-1).mean() for k in range(13)]
    np.testing.assert_allclose(motion.displacement.y, direct, rtol=0, atol=1e-14)


def test_beads_that_cross_the_box_between_frames_have_no_diffusion() -> None:
    frames = brownian(0.5, 100, 20, 0.5, 12, CUBE)
    motion = diffusion(sample_of(frames, n_blocks=4, dt=0.5))
    assert isinstance(motion, NotAvailable)
    assert "between frames" in motion.reason


def test_velocities_need_dense_frames_and_oscillators_give_a_cosine() -> None:
    dt, omega = 0.004, 40.0
    phases = np.random.default_rng(13).uniform(0, 2 * np.pi, (1, 400, 3))
    t = dt * np.arange(1600)[:, None, None]
    frames = frames_of(1.0 + 0.02 * np.cos(omega * t + phases), CUBE)
    curve = velocity_autocorrelation(sample_of(frames, n_blocks=4, dt=dt))
    assert isinstance(curve, Curve)
    # differences keep the frequency; 1200 random phases leave 1/sqrt(1200)
    np.testing.assert_allclose(curve.y, np.cos(omega * curve.x), rtol=0, atol=4 / 1200**0.5)
    late = velocity_autocorrelation(sample_of(frames, n_blocks=4, dt=0.5))
    assert isinstance(late, NotAvailable)
    assert "500 fs" in late.reason


def made_up_liquid(noise: float = 0.0, seed: int = 14) -> Curve:
    """Return a g(r) like that of water: a peak at 0.276 nm, a shallow minimum at 0.34 nm."""
    x = np.arange(0.001, 0.9, 0.002)
    y = np.where(x > 0.24, 1 + 2.0 * np.exp(-(((x - 0.276) / 0.018) ** 2)), 0.0)
    y -= 0.12 * np.exp(-(((x - 0.345) / 0.03) ** 2))
    y += 0.03 * np.exp(-(((x - 0.45) / 0.03) ** 2))
    blocks = y + noise * np.random.default_rng(seed).standard_normal((16, len(x)))
    return Curve("g_OO(r)", x, blocks, np.ones(16), "r (nm)", "g_OO(r)")


def test_the_first_minimum_is_found_through_noise() -> None:
    exact = first_minimum(made_up_liquid())
    assert exact == pytest.approx(0.345, abs=0.006)  # the foot of the peak pushes it outward
    found = [first_minimum(made_up_liquid(noise=0.08, seed=s)) for s in range(20)]
    np.testing.assert_allclose(found, exact, rtol=0, atol=0.02)
    position, height = first_peak(made_up_liquid())
    assert position == pytest.approx(0.276, abs=5e-4)
    assert height == pytest.approx(3.0, abs=0.02)


def test_a_gas_has_no_first_shell_and_says_so() -> None:
    frames = frames_of(gas(32, 60, CUBE, seed=15), CUBE)
    with pytest.raises(InputError, match="--cutoff"):
        compare_structures(ensemble_of(frames), [ensemble_of(frames, name="other")])


def test_distance_and_floor_are_what_they_say() -> None:
    a, b = made_up_liquid(0.05, 1), made_up_liquid(0.05, 2)
    gap = distance(a, b, (0.3, 0.9))
    inside = a.x >= 0.3
    assert gap.rms == pytest.approx(float(np.sqrt(np.mean((a.y - b.y)[inside] ** 2))), rel=1e-12)
    assert gap.largest == pytest.approx(float(np.abs(a.y - b.y)[inside].max()), rel=1e-12)
    # 300 independent bins: 4 % of a standard error, 3 of them
    assert gap.rms == pytest.approx(0.05 * (2 / 16) ** 0.5, rel=0.13)
    assert expected_rms(a, b, (0.3, 0.9)) == pytest.approx(gap.rms, rel=0.13)
    assert noise_floor(a, (0.3, 0.9)).rms == pytest.approx(0.05 * (2 / 8) ** 0.5, rel=0.13)


def test_blocks_stay_within_replicas_and_lose_no_frame() -> None:
    replicas = [frames_of(gas(n, 5, CUBE, seed=n), CUBE) for n in (7, 50, 23)]
    ensemble = ensemble_of(*replicas)
    blocks = ensemble.blocks(8)
    assert sum(len(b) for b in blocks) == 80
    assert [len(b) for b in blocks] == [7, 10, 10, 10, 10, 10, 11, 12]
    joined = torch.cat([b.positions for b in blocks])
    assert torch.equal(joined, torch.cat([r.positions for r in replicas]))


def test_slow_ensembles_get_fewer_blocks() -> None:
    fast = ensemble_of(frames_of(gas(300, 20, CUBE, seed=16), CUBE))
    slow = ensemble_of(frames_of(gas(15, 20, CUBE, seed=17).repeat(20, axis=0), CUBE))
    samples = [cut(e, [shell_series(r, 0.9) for r in e.replicas]) for e in (fast, slow)]
    assert samples[0].inefficiency < 3
    assert len(samples[0].blocks) > 20
    assert samples[1].inefficiency > 8
    assert len(samples[1].blocks) == 8


def shaken(crystal_of: tuple[Array, Array], width: float, n_frames: int, seed: int) -> Frames:
    positions, box = crystal_of
    rng = np.random.default_rng(seed)
    return frames_of(positions + rng.normal(0, width, (n_frames, *positions.shape[1:])), box[0])


def test_verdicts_tell_the_same_from_the_different_and_from_too_little() -> None:
    """Seeds are fixed; the same is called different in one of 20."""
    lattice = crystal(DIAMOND, [0.65, 0.65, 0.65], 3)
    reference = ensemble_of(shaken(lattice, 0.025, 100, 18), name="reference")
    models = [
        ensemble_of(shaken(lattice, width, n_frames, 19 + k), name=name)
        for k, (name, width, n_frames) in enumerate(
            [("same", 0.025, 100), ("other", 0.035, 100), ("short", 0.035, 30)]
        )
    ]
    found = compare_structures(reference, models, cutoff=0.36)
    angle = found.observables[1]
    assert angle.name == "O-O-O angle"
    same, other, short = angle.agreements
    assert same.category == "no difference seen"
    assert re.search(
        r"no difference seen \(p = 0\.\d+\); one of \S+ 1/degree rms would have", same.verdict
    )
    assert same.tested.test is not None
    assert other.category == "differs"
    assert re.search(
        r"differs by \S+ ± \S+ 1/degree rms \(p < 0.001; .* %.*mostly at", other.verdict
    )
    assert other.distance.rms > same.tested.test.detectable
    assert short.category == "too little data"
    assert re.search(r"short has \d\d independent frames, a verdict needs 40", short.verdict)
    assert found.summaries[2].startswith("short: 0 of 0 observables differ")


def test_a_low_first_peak_is_told_in_its_own_terms() -> None:
    """What three times the distance of two halves hid: a lattice that shakes by 7 % more."""
    lattice = crystal(DIAMOND, [0.65, 0.65, 0.65], 3)
    reference = ensemble_of(shaken(lattice, 0.0250, 200, 31), name="reference")
    broad = ensemble_of(shaken(lattice, 0.0268, 200, 32), name="broad")
    found = compare_structures(reference, [broad], cutoff=0.36)
    radial, (verdict,) = found.observables[0], found.observables[0].agreements
    assert verdict.distance.rms < 3 * radial.floor.rms  # the rule before: "within noise"
    assert verdict.category == "differs"
    assert re.search(r"first peak height -0\.\d+ ± 0\.\d+ \(p", verdict.verdict)
    assert 0.26 < verdict.distance.at < 0.31
    (other,) = (
        compare_structures(
            reference, [ensemble_of(shaken(lattice, 0.0250, 200, 33), name="same")], cutoff=0.36
        )
        .observables[0]
        .agreements
    )
    assert re.search(r"height .* \(p = 0\.\d+; one of 0\.\d+ would have been seen\)", other.verdict)
    heights = next(s for s in found.scalars if s.name.endswith("height"))
    assert heights.tested[0] is not None
    assert heights.tested[0].category == "differs"


def test_the_speed_of_motion_has_a_verdict() -> None:
    paths = [
        brownian(d, 1500, 40, 0.1, seed, CUBE) for seed, d in ((41, 0.15), (42, 0.15), (43, 0.17))
    ]
    reference, same, fast = (
        ensemble_of(path, name=name) for path, name in zip(paths, "abc", strict=True)
    )
    found = compare_structures(reference, [same, fast], cutoff=0.5)
    (speed,) = (s for s in found.scalars if s.name == "diffusion coefficient")
    tested = speed.tested
    assert [t.category for t in tested if t is not None] == ["no difference seen", "differs"]
    first, second = found.motion_in_words()
    assert "b: diffusion coefficient no difference seen" in first
    assert re.search("c: diffusion coefficient differs by .* 10⁻⁵ cm²/s \\(p", second)


def test_results_do_not_depend_on_the_unit_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = frames_of(gas(20, 30, TRICLINIC, seed=20), TRICLINIC)
    whole = local_structure(sample_of(frames, n_blocks=2), 0.5)
    monkeypatch.setattr("deepcg.analysis.structure.trajectory_set.PAIRS_AT_ONCE", 1)
    for a, b in zip(whole, local_structure(sample_of(frames, n_blocks=2), 0.5), strict=True):
        np.testing.assert_array_equal(a.y, b.y)


def test_unusable_ensembles_are_refused_in_one_line() -> None:
    frames = frames_of(gas(20, 5, CUBE, seed=21), CUBE)
    open_frames = Frames(frames.positions, None, None, frames.types)
    weighted = Frames(frames.positions, frames.box, None, frames.types, torch.ones(20))
    for bad, message in [
        (open_frames, "no box"),
        (weighted, "weighted"),
        (frames[:3], "at least 16"),
    ]:
        with pytest.raises(InputError, match=message):
            ensemble_of(bad)
    with pytest.raises(InputError, match="type names"):
        TrajectorySet("x", [Frames(frames.positions, frames.box, None, frames.types + 1)], 1.0, "f")
    other = TrajectorySet("other", [frames], 0.1, "f", ("C",))
    with pytest.raises(InputError, match="map both alike"):
        compare_structures(ensemble_of(frames), [other])
    with pytest.raises(InputError, match="same name"):
        compare_structures(ensemble_of(frames), [ensemble_of(frames)])
    with pytest.raises(InputError, match="half of the shortest box height"):
        compare_structures(ensemble_of(frames), [], cutoff=1.2)
