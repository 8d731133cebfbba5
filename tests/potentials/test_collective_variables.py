"""U of collective variables: forces, periods, file; and it is found under noise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from deepcg.analysis.surfaces.fitted import FittedSurface, agreement, surface_of
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.model_file import CVModel, load_any, load_model, save_model
from deepcg.runtime.errors import InputError
from deepcg.training.config import TrainingConfig
from deepcg.training.trainer import train
from deepcg.trajectory.frames import CVFrames
from deepcg.units import thermal_energy
from deepcg.workflow.fit.collective_variables import fits_for_errors, judge_each, samples_of
from deepcg.workflow.fit.config import FitConfig
from free_energy import Grid

PERIOD = 2 * np.pi
KT = thermal_energy(300.0)
NOISE = 15.0  # kJ/mol/rad
CONFIG = TrainingConfig(steps=300, batch_size=512, learning_rate=3e-2, validations=2)


def potential(periods: tuple[float | None, ...] = (PERIOD, None)) -> CVPotential:
    torch.manual_seed(0)
    u = CVPotential(periods, widths=(16, 16)).double()
    values = torch.randn(100, len(periods), dtype=torch.float64)
    u.standardize(values * 0.1 + 3.0, torch.full_like(values, 20.0))
    return u


def test_forces_are_minus_the_gradient() -> None:
    u, step = potential(), 1e-5
    values = torch.tensor([[0.3, 3.1], [-2.0, 2.9], [3.14, 3.3]], dtype=torch.float64)
    _, forces = u.forces(values)
    for k in (0, 1):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[k] = step
        slope = (u(values + shift) - u(values - shift)) / (2 * step)
        torch.testing.assert_close(forces[:, k], -slope.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("period", [PERIOD, 1.0, 360.0])
def test_u_has_the_period_of_the_coordinate(period: float) -> None:
    u = potential((period, None))
    values = torch.tensor([[0.3, 3.1], [-0.4, 2.9]], dtype=torch.float64)
    turned = values + torch.tensor([2 * period, 0.0], dtype=torch.float64)
    torch.testing.assert_close(u(turned), u(values))
    half = values + torch.tensor([period / 2, 0.0], dtype=torch.float64)
    assert (u(half) - u(values)).abs().min() > 0.01


def test_the_unit_of_a_straight_coordinate_does_not_matter() -> None:
    """Angstrom for nm: the same U, forces a tenth."""
    metres = torch.randn(50, 1, dtype=torch.float64) * 0.05 + 0.4
    pull = torch.randn(50, 1, dtype=torch.float64) * 300
    energies, forces = [], []
    for unit in (1.0, 10.0):
        torch.manual_seed(1)
        u = CVPotential((None,)).double()
        u.standardize(unit * metres, pull / unit)
        energy, force = u.forces(unit * metres)
        energies.append(energy)
        forces.append(force * unit)
    torch.testing.assert_close(energies[0], energies[1])
    torch.testing.assert_close(forces[0], forces[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_saved_model_gives_the_same_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    before = CVModel(potential().to(dtype), ("phi", "r"), ("rad", "nm"), "dihedrals", 310.0)
    save_model(tmp_path / "model.pt", before)
    after = load_any(tmp_path)
    assert isinstance(after, CVModel)
    values = torch.tensor([[0.3, 3.1], [-2.0, 2.9]], dtype=dtype)
    wanted, found = before.potential.forces(values), after.potential.forces(values)
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert (after.names, after.units, after.mapping) == (("phi", "r"), ("rad", "nm"), "dihedrals")
    assert after.temperature == 310.0
    assert after.potential.periods == (PERIOD, None)
    with pytest.raises(InputError, match=r"collective variables \(phi, r\), not of beads"):
        load_model(tmp_path)


def energy(values: Tensor) -> Tensor:
    """A known U of two angles, kJ/mol, that couples them."""
    phi, psi = values.unbind(-1)
    return 6 * phi.cos() + 4 * (2 * psi).sin() + 5 * (phi - psi).cos()


def trajectories(n: int, *, noise: float = NOISE) -> list[CVFrames]:
    """Two trajectories of n frames each, uniform on the torus, weighted for densities."""
    generator = torch.Generator().manual_seed(4)
    parts = []
    for _ in range(2):
        values = PERIOD * torch.rand(n, 2, generator=generator, dtype=torch.float64) - np.pi
        point = values.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(point).sum(), point)
        forces = noise * torch.randn(n, 2, generator=generator, dtype=torch.float64) - gradient
        parts.append(CVFrames(values, forces, torch.exp(-energy(values) / KT)))
    return parts


@pytest.fixture(scope="module")
def found() -> tuple[FittedSurface, list[CVPotential]]:
    parts = [part.to("cpu", torch.float32) for part in trajectories(6_000)]
    samples = samples_of(parts)
    torch.manual_seed(0)
    u = CVPotential((PERIOD, PERIOD), widths=(16, 16))
    u.standardize(samples.inputs, samples.forces)
    train(u, samples, samples[:500], CONFIG)
    config = FitConfig(Path("x"), training=CONFIG, network_options={"widths": [16, 16]})
    members, starts = fits_for_errors(config, u.periods, parts, samples[:500])
    names, units = ("phi", "psi"), ("rad", "rad")
    return surface_of([u, *members], parts, names, units, KT, starts=starts), [u, *members]


def exact(grid: Grid) -> np.ndarray:
    points = torch.from_numpy(grid.points(5))
    u = -KT * (torch.logsumexp(-energy(points) / KT, -1) - np.log(25))
    return u.reshape(grid.shape).numpy()


def off_by(value: np.ndarray, error: np.ndarray, grid: Grid) -> np.ndarray:
    apart = value - exact(grid)
    return (apart - apart.mean()) / error


def test_u_is_found_under_noise_with_an_honest_error(found: tuple[FittedSurface, list]) -> None:
    """Errors of bins are correlated over some 40 independent regions and known from 8 fits: the
    root mean square of z is 1.2 for honest errors (t of 7), and below 2 but once in 1000."""
    surface, _ = found
    z = off_by(surface.energy.value, surface.energy.error, surface.grid)
    assert 0.4 < np.sqrt((z**2).mean()) < 2
    assert np.nanmax(surface.energy.error) < 1.3  # the largest of 1 296, known to a quarter each


def test_the_histogram_and_the_forces_agree(found: tuple[FittedSurface, list]) -> None:
    surface, _ = found
    z = off_by(surface.histogram.value, surface.histogram.error, surface.grid)
    # 1296 bins of 9 frames: z is t-like, with a bias of the logarithm of 1 / 18 of a kT
    assert np.sqrt(np.nanmean(z**2)) < 1.6
    both = agreement(surface)
    assert both.bins > 300
    assert 0.6 < both.standard_errors < 1.4
    assert "standard errors) rms over" in both.in_words()


def test_the_raw_mean_force_is_that_of_the_bins(found: tuple[FittedSurface, list]) -> None:
    """Over 2592 numbers the rms of z, of t with some 8 blocks in a bin, is 1 to 1.3."""
    surface, _ = found
    points = torch.from_numpy(surface.grid.points(3)).requires_grad_()
    (gradient,) = torch.autograd.grad(energy(points).sum(), points)
    z = (
        surface.mean_force.value + gradient.mean(1).reshape(36, 36, 2).numpy()
    ) / surface.mean_force.error
    many = surface.frames >= 8
    assert 0.9 < np.sqrt((z[many] ** 2).mean()) < 1.4


def test_a_wrong_sign_of_one_force_is_seen(found: tuple[FittedSurface, list]) -> None:
    surface, _ = found
    wrong = replace(surface, energy=replace(surface.energy, value=surface.energy.value[:, ::-1]))
    assert agreement(wrong).standard_errors > 3


def test_the_floor_of_each_coordinate_is_the_variance_of_its_noise(
    found: tuple[FittedSurface, list],
) -> None:
    """6000 frames: within 4 standard errors, 4 * 225 * sqrt(2 / 6000) = 16 (1 in 16 000)."""
    held_out = samples_of([part.to("cpu", torch.float32) for part in trajectories(12_000)])
    held_out = held_out[torch.arange(12_000, 18_000)]
    of_phi, of_psi = judge_each(found[1][0], held_out, held_out, ("rad", "rad"), (None, None))
    for quality in (of_phi, of_psi):
        assert abs(quality.floor.value - NOISE**2) < 16
        assert "(kJ/mol/rad)^2" in quality.in_words()


def test_a_surface_is_saved_by_the_names_of_its_axes(
    found: tuple[FittedSurface, list], tmp_path: Path
) -> None:
    found[0].save(tmp_path / "surface.npz")
    saved = np.load(tmp_path / "surface.npz", allow_pickle=False)
    assert saved["phi"].shape == saved["psi"].shape == (36,)
    assert saved["U"].shape == saved["histogram_error"].shape == (36, 36)
    assert saved["mean_force"].shape == (36, 36, 2)
    assert np.nanmin(saved["U"]) == 0


def test_nothing_is_shown_where_there_are_no_frames() -> None:
    part = trajectories(400)[0]
    part = part[part.values[:, 0] < 0]
    u = CVPotential((PERIOD, PERIOD)).double()
    surface = surface_of([u, u, u], [part], ("phi", "psi"), ("rad", "rad"), KT)
    edges = surface.grid.edges[0]
    width = edges[1] - edges[0]
    # one bin beyond those with frames is near, across pi too
    inner = (edges[:-1] > width) & (edges[1:] < PERIOD / 2 - width)
    assert inner.sum() > 5
    assert np.isnan(surface.energy.value[inner]).all()
    assert np.isnan(surface.mean_force.value[inner]).all()
