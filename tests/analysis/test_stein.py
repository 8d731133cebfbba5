"""Stein's identities on systems whose free energy is known; z is a distance in standard errors.

Where the model is right, statistical tests accept |z| < 4, by normal numbers: with a new seed
each assertion fails by chance once in 16 000 times, and some times as often where the error comes
from 20 blocks. Where it is wrong they ask for |z| > 5. The seeds are fixed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepcg.analysis.structure import TrajectorySet, compare_structures
from deepcg.analysis.structure.report import write_report
from deepcg.analysis.structure.stein import (
    Identity,
    axes,
    configurational,
    contact,
    hat,
    implied_radial,
    laplacian,
    pair_identity,
    radial_forces,
    radial_slopes,
    random_signs,
    virial,
)
from deepcg.analysis.structure.stein_checks import SteinChecks, check
from deepcg.geometry.neighbor_list import Neighbors
from deepcg.potentials.beads import NetworkPotential, energy_and_forces
from deepcg.potentials.verlet_list import force_field
from deepcg.runtime.errors import InputError
from deepcg.trajectory.frames import Frames
from free_energy import Estimate
from sampling import baoab, run, start

F64 = torch.float64
KT = 2.5
WINDOWS = {"contact": contact(0.3), "hat": hat(0.3, 0.05), "virial": virial(0.45)}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def z(estimate: Estimate[float], exact: float = 1.0) -> float:
    return (estimate.value - exact) / estimate.error


class Spheres(nn.Module):
    """u_i = 1/2 sum_j height (1 - (r_ij / cutoff)^2)^3 with height 4 kT: soft, smooth spheres."""

    def __init__(self, cutoff: float, height: float = 4 * KT) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.height = nn.Parameter(torch.tensor(height, dtype=F64))

    def forward(self, neighbors: Neighbors, types: Tensor) -> Tensor:
        near = (1 - neighbors.displacement.square().sum(-1) / self.cutoff**2).clamp(min=0)
        return 0.5 * self.height * (near**3).sum(-1)


def spheres(types: Tensor, height: float = 4 * KT) -> NetworkPotential:
    return NetworkPotential([Spheres(0.45, height)], 0.45, types)


def cube(n: int, side: float) -> Tensor:
    return (torch.eye(3, dtype=F64) * side).expand(n, 3, 3)


def with_forces(frames: Frames, potential: NetworkPotential) -> Frames:
    return replace(frames, forces=energy_and_forces(potential, frames.positions, frames.box)[1])


@pytest.fixture(scope="module")
def two() -> Frames:
    """Two spheres in a periodic box, sampled exactly: one at rest, the other by rejection."""
    generator = seeded(1)
    places = 1.2 * torch.rand(150_000, 3, generator=generator, dtype=F64)
    nearest = (places - 1.2 * (places / 1.2).round()).square().sum(1)
    boltzmann = (-4 * (1 - nearest / 0.45**2).clamp(min=0) ** 3).exp()
    places = places[torch.rand(150_000, generator=generator, dtype=F64) < boltzmann]
    positions = torch.stack([torch.zeros_like(places), places], 1)
    return Frames(positions, cube(len(places), 1.2), None, torch.tensor([0, 1]))


@pytest.fixture(scope="module")
def fluid() -> Frames:
    """48 soft spheres by Langevin dynamics of 16 replicas."""
    side, types = 1.0, torch.zeros(48, dtype=torch.int64)
    generator, masses = seeded(2), torch.ones(48, dtype=F64)
    forces = force_field(spheres(types), cube(1, side)[0], skin=0.03)
    x = side * torch.rand(16, 48, 3, generator=generator, dtype=F64)
    step = baoab(forces, masses, kT=KT, dt=0.008, friction=20.0)  # ω dt = 0.2
    state = start(forces, x, masses, kT=KT, generator=generator)
    seen = [s.positions for _, s in run(step, state, generator, n_steps=1000, every=25)][8:]
    positions = torch.stack(seen, 1).flatten(0, 1)  # replica by replica
    return Frames(positions, cube(len(positions), side), None, types)


def harmonic(n: int, seed: int) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """Return forces, n coordinates (n, 2, 3) and the stiffness of a harmonic system at KT."""
    root = torch.randn(6, 6, generator=seeded(5), dtype=F64)
    stiffness = root @ root.T + torch.eye(6, dtype=F64)
    spread = torch.linalg.cholesky(KT * torch.linalg.inv(stiffness))
    x = torch.randn(n, 6, generator=seeded(seed), dtype=F64) @ spread.T
    return lambda r: -(r.flatten(1) @ stiffness).view_as(r), x.view(n, 2, 3), stiffness


def test_the_laplacian_along_all_axes_is_the_trace():
    forces, x, stiffness = harmonic(10, 1)
    found = laplacian(forces, x, axes(x))
    torch.testing.assert_close(found, stiffness.trace().expand(10), rtol=1e-9, atol=0)


def test_random_directions_have_the_trace_as_mean_and_the_stated_variance():
    forces, x, stiffness = harmonic(20_000, 1)
    found = laplacian(forces, x, random_signs(x, 2, seeded(3)))
    variance = 2 * (stiffness.square().sum() - stiffness.diagonal().square().sum()) / 2
    assert abs(found.mean() - stiffness.trace()) < 4 * (variance / len(x)).sqrt()
    assert found.var() == pytest.approx(float(variance), rel=0.1)


def test_the_error_of_the_differences_is_the_stated_one():
    x = torch.linspace(-1, 1, 9, dtype=F64)[:, None]
    found = laplacian(lambda r: -4 * r**3, x, axes(x), step=0.1)  # U = x^4
    torch.testing.assert_close(found, 12 * x[:, 0] ** 2 + 0.1**2 / 6 * 24, rtol=1e-9, atol=1e-9)


def test_each_coordinate_may_have_a_step_of_its_own():
    forces, x, stiffness = harmonic(4, 1)
    step = torch.logspace(-5, -2, 6, dtype=F64).view(2, 3)
    found = laplacian(forces, x, axes(x), step=step)
    torch.testing.assert_close(found, stiffness.trace().expand(4), rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1.0, 1.1])
def test_the_configurational_temperature_of_a_harmonic_system(scale: float):
    forces, x, _ = harmonic(4000, 1)
    ratio = configurational(lambda r: scale * forces(r), x, axes(x), KT).ratio
    assert abs(z(ratio, scale)) < 4
    assert (abs(z(ratio)) > 5) == (scale != 1)


def test_the_error_of_a_ratio_is_neither_too_small_nor_too_large():
    """The spread of 200 z is known to 5 %: a right one is refused once in 10 000 times.

    From 20 blocks z has the spread of Student's t of 19 degrees of freedom, 1.06.
    """
    all_z = []
    for seed in range(200):
        forces, x, _ = harmonic(100, seed)
        all_z.append(z(configurational(forces, x, axes(x), KT).ratio))
    assert 0.85 < np.std(all_z) < 1.27
    assert abs(np.mean(all_z)) < 4 * np.std(all_z) / math.sqrt(200) + 0.1  # a ratio is biased


def test_the_temperature_of_a_torsion():
    angles = torch.from_numpy(np.random.default_rng(1).vonmises(0, 6 / KT, (20_000, 1)))
    for scale in (1.0, 1.1):  # U = -6 cos x
        found = configurational(lambda x, s=scale: -6 * s * x.sin(), angles, axes(angles), KT)
        assert abs(z(found.ratio, scale)) < 4
        assert (abs(found.deviation) > 5) == (scale != 1)


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_have_the_slope_that_they_say(name: str):
    r, h = np.linspace(0.1, 0.6, 300), 1e-7  # no point is as near as h to a kink
    numeric = (WINDOWS[name](r + h)[0] - WINDOWS[name](r - h)[0]) / (2 * h)
    np.testing.assert_allclose(WINDOWS[name](r)[1], numeric, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("scale", [1.0, 1.1])
def test_radial_fields_on_two_spheres(two: Frames, name: str, scale: float):
    pairs = radial_forces(with_forces(two, spheres(two.types, scale * 4 * KT)), 0.6)
    found = pair_identity(name, pairs, WINDOWS[name], KT)
    assert abs(z(found.ratio, scale)) < 4
    if scale != 1 and name == "virial":  # the others see few of the frames
        assert abs(found.deviation) > 5


def test_the_slope_of_g_by_the_model_and_by_the_data(two: Frames):
    """Of 8 windows each once: a false alarm in 2000 times."""
    pairs = radial_forces(with_forces(two, spheres(two.types)), 0.6)
    r = np.arange(0.15, 0.5, 0.05)
    found = radial_slopes(pairs, r, 0.02, KT)
    assert (np.abs(found.difference.value) < 4 * found.difference.error + 1e-9).all()
    x = r / 0.45
    exact = 4 * KT * 6 * x / 0.45 * np.maximum(0, 1 - x**2) ** 2
    np.testing.assert_allclose(found.model.value, exact, atol=0.02 * exact.max())
    wrong = radial_forces(with_forces(two, spheres(two.types, 4.4 * KT)), 0.6)
    gap = radial_slopes(wrong, r, 0.02, KT).difference
    np.testing.assert_allclose(gap.value, 0.1 * exact, atol=4 * gap.error.max())


def test_forces_imply_the_exact_g(two: Frames):
    """20 distances, all of them once: a false alarm in less than 800 times."""
    pairs = radial_forces(with_forces(two, spheres(two.types)), 0.6)
    r = np.arange(0.02, 0.5, 0.025)
    values = implied_radial(pairs, np.full(len(two), 1.2**3), 1.0, r, 0.6, KT)
    mean, error = values.mean(0), values.std(0, ddof=1) / math.sqrt(len(two))
    fine = (np.arange(100_000) + 0.5) * 0.45 / 100_000
    hole = np.sum(4 * np.pi * fine**2 * -np.expm1(-4 * (1 - (fine / 0.45) ** 2) ** 3)) * 0.45e-5
    bulk = 1.2**3 / (1.2**3 - hole)
    exact = bulk * np.exp(-4 * np.maximum(0, 1 - (r / 0.45) ** 2) ** 3)
    assert (np.abs(mean - exact) < 4 * error).all()
    assert error.max() < 0.05


def test_pairs_are_told_apart_by_type(two: Frames):
    pairs = radial_forces(with_forces(two[:100], spheres(two.types)), 0.6)
    assert len(pairs.between(1, 0).distance) == len(pairs.distance) > 0
    assert len(pairs.between(0, 0).distance) == 0


def test_open_boundaries(two: Frames):
    inside = replace(two, positions=two.positions - 0.6, box=None)[:50]
    pairs = radial_forces(with_forces(inside, spheres(two.types)), 3.0)
    assert len(pairs.distance) == 50


@pytest.fixture(scope="module")
def checked(fluid: Frames) -> SteinChecks:
    return check(spheres(fluid.types), fluid, KT)


def test_a_right_model_of_a_fluid_passes(checked: SteinChecks):
    names = [i.name for i in checked.identities]
    assert names[0] == "configurational temperature"
    assert len(names) == 3
    assert all(abs(i.deviation) < 4 for i in checked.identities)
    assert "no error is seen" in checked.verdict


def test_a_wrong_model_of_a_fluid_is_seen(fluid: Frames):
    found = check(spheres(fluid.types, 1.1 * 4 * KT), fluid, KT)
    assert abs(found.worst) > 5
    assert "an error of its forces is seen" in found.verdict


def test_the_g_of_a_fluid(checked: SteinChecks, fluid: Frames):
    """Against the histogram of all frames; 4 of the errors of both, at 14 distances."""
    (implied,) = checked.radial
    pairs = radial_forces(with_forces(fluid, spheres(fluid.types)), 0.499)
    edges = np.arange(0.13, 0.42, 0.02)
    counts = np.stack(
        [np.histogram(pairs.distance[pairs.frame == k], edges)[0] for k in range(len(fluid))]
    )
    g = counts / (4 / 3 * np.pi * np.diff(edges**3) * 48 * 47 / 2)
    error = g.reshape(16, -1, g.shape[1]).mean(1).std(0, ddof=1) / 4
    there = np.searchsorted(implied.x, (edges[1:] + edges[:-1]) / 2)
    gap = np.abs(implied.y[there] - g.mean(0))
    assert (gap < 4 * np.hypot(error, implied.error[there]) + 0.01).all()  # bins are wide
    assert g.mean(0).max() - g.mean(0).min() > 0.5


def test_the_report_shows_the_checks(checked: SteinChecks, fluid: Frames, tmp_path: Path):
    ensembles = [TrajectorySet(name, [fluid[:64]], 1.0, "", ("bead",)) for name in ("micro", "CG")]
    comparison = compare_structures(ensembles[0], ensembles[1:], cutoff=0.4)
    page = write_report(comparison, tmp_path, checks={"CG": checked}).read_text(encoding="utf-8")
    assert "<td>CG</td><td>configurational temperature</td>" in page
    assert (tmp_path / "forces-g_bead-bead.png").is_file()
    saved = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    saved = saved["noise-free checks on the microscopic frames"]["CG"]
    ratio = checked.identities[0].ratio
    assert saved["ratios"]["configurational temperature"]["error"] == ratio.error
    assert checked.slopes is not None
    assert checked.slopes.worst[0] in saved["kT_dlng_dr_kJ_mol_nm"]["r_nm"]


def test_a_model_of_another_number_of_beads_is_checked(fluid: Frames):
    other = spheres(torch.zeros(7, dtype=torch.int64))
    assert check(other, fluid[:16], KT).n_frames == 16


def test_one_bead_has_no_pairs():
    frames = Frames(torch.randn(16, 1, 3, dtype=F64), None, None, torch.zeros(1, dtype=torch.int64))

    class Well(Spheres):
        def forward(self, neighbors: Neighbors, types: Tensor) -> Tensor:
            return super().forward(neighbors, types) * 0

    found = check(NetworkPotential([Well(0.45)], 0.45, frames.types), frames, KT)
    assert (len(found.identities), found.slopes, found.radial) == (1, None, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[:10], "10 frames are too few"),
        (lambda f: replace(f, weights=torch.ones(len(f), dtype=F64)), "are weighted"),
        (lambda f: replace(f, box=f.box * 0.8), "reduce the cutoff"),
    ],
)
def test_frames_that_cannot_be_used(fluid: Frames, change: Callable, message: str):
    with pytest.raises(InputError, match=message):
        check(spheres(fluid.types), change(fluid), KT)


def test_frames_without_forces_and_empty_windows(two: Frames):
    with pytest.raises(InputError, match="no forces of a model"):
        radial_forces(two, 0.6)
    pairs = radial_forces(with_forces(two[:100], spheres(two.types)), 0.6)
    with pytest.raises(InputError, match=r"no two beads are 0\.001 nm apart"):
        radial_slopes(pairs, np.array([0.001, 0.5]), 1e-4, KT)


def test_the_two_sides_may_vanish_together():
    rng = np.random.default_rng(0)
    assert abs(Identity("", rng.normal(size=400), rng.normal(size=400)).deviation) < 4
