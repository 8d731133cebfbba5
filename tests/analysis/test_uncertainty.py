"""Where an ensemble knows U: maps, bands, beads, and how spread and error compare."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from deepcg.analysis.style import drawn
from deepcg.analysis.surfaces.fitted import bin_energies
from deepcg.analysis.uncertainty.calibration import calibrate, factor_of, parts_of
from deepcg.analysis.uncertainty.data_error import data_error
from deepcg.analysis.uncertainty.spread import BeadSpread, surface_spread
from deepcg.potentials.collective_variables import CVPotential
from deepcg.potentials.ensemble import member_folder
from deepcg.potentials.model_file import CVModel, save_model
from deepcg.runtime.errors import InputError
from deepcg.units import thermal_energy
from deepcg.workflow.variance import VarianceConfig, variance
from free_energy import Estimate, Grid, grid_over
from free_energy.integration import difference_covariance, difference_solver
from free_energy.neighbors import faces

TURN = 2 * math.pi
KT = thermal_energy(300.0)


def surfaces(n: int) -> list[CVPotential]:
    found = []
    for seed in range(n):
        torch.manual_seed(seed)
        found.append(CVPotential((TURN, TURN), widths=(6,)).double())
    return found


# calibration


def test_the_factor_of_normal_errors_is_found() -> None:
    """Errors 2.5 times as large as the spread says: the quantile of 20 000 of them is off by
    1 % (one standard error: sqrt(p (1 - p) / n) / density / quantile = 0.7 %)."""
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.5, 3, 20_000)
    noise = np.full(20_000, 0.7)
    error = 2.5 * spread * rng.normal(size=20_000) + noise * rng.normal(size=20_000)
    found = calibrate(error, spread, noise)
    assert found.factor == pytest.approx(2.5, rel=0.03)
    assert found.after == pytest.approx((0.6827, 0.9545), abs=0.015)
    assert found.before[0] < 0.4
    assert found.rms_error == pytest.approx(2.5 * math.sqrt((spread**2).mean()), rel=0.03)
    assert found.correlation > 0.3


def test_errors_within_the_noise_of_the_reference_ask_for_nothing() -> None:
    noise = np.ones(1000)
    error = 0.3 * np.random.default_rng(1).normal(size=1000)
    assert factor_of(error, np.ones(1000), noise) == 0.0


def test_parts_of_the_error_are_told_apart() -> None:
    """30 sets of 4 fits at 400 places: each part is known to some 3 %."""
    rng = np.random.default_rng(2)
    truth = rng.normal(size=400)
    bias = 0.5 * rng.normal(size=400)
    fits = (
        truth
        + bias
        + 1.0 * rng.normal(size=(30, 1, 400))  # data
        + 0.7 * rng.normal(size=(30, 4, 400))  # start
    )
    parts = parts_of(fits, truth)
    assert parts.data == pytest.approx(1.0, rel=0.1)
    assert parts.start == pytest.approx(0.7, rel=0.1)
    assert parts.model == pytest.approx(0.5, rel=0.15)
    with pytest.raises(ValueError, match="give two or more of each"):
        parts_of(fits[:1], truth)


# surfaces


def test_sigma_is_the_spread_of_the_forces_at_the_bins() -> None:
    members = surfaces(3)
    values = np.random.default_rng(0).uniform(-math.pi, 0, (500, 2))
    grid = grid_over(values, (TURN, TURN), 12)
    frames = np.bincount(grid.index(values), minlength=144).reshape(12, 12)
    spread = surface_spread(
        members, grid, frames, names=("a", "b"), units=("rad", "rad"), kT=KT, temperature=300.0,
        source="here",
    )  # fmt: skip
    center = torch.tensor([[grid.centers[0][3], grid.centers[1][7]]])
    forces = torch.stack([u.forces(center)[1][0] for u in members])
    expected = ((forces - forces.mean(0)).square().sum() / 2).sqrt()
    assert spread.sigma[3, 7] == pytest.approx(float(expected), rel=1e-6)
    assert spread.unit == "kJ/mol/rad"
    # alike in their zeros where there are frames: they differ by constants elsewhere, too
    for member, energy in zip(members, spread.energies, strict=True):
        inside = np.exp(-energy[spread.seen] / KT).sum() * grid.volume
        assert inside == pytest.approx(1.0)
        assert np.ptp(bin_energies(member, grid, KT) - energy) < 1e-9
    assert spread.seen[:6, :6].all()
    assert not spread.seen[8:11, 8:11].any()
    assert np.isnan(spread.landscape.value[~spread.seen]).all()


def test_coordinates_of_different_units_are_compared_in_mean_forces() -> None:
    torch.manual_seed(0)
    members = [CVPotential((TURN, None), widths=(6,)).double() for _ in range(2)]
    values = np.random.default_rng(0).uniform(0, 1, (100, 2))
    grid = grid_over(values, (TURN, None), 6)
    frames = np.bincount(grid.index(values), minlength=36).reshape(6, 6)
    spread = surface_spread(
        members, grid, frames, names=("a", "b"), units=("rad", "nm"), kT=KT, temperature=300.0,
        source="here",
    )  # fmt: skip
    assert spread.unit == "rms mean forces"
    assert spread.force == pytest.approx(math.sqrt(2))


@pytest.fixture
def plane(tmp_path: Path) -> Path:
    """A run of three members over phi and psi, as a fit leaves it, without a training."""
    run = tmp_path / "plane"
    run.mkdir()
    names = ("phi ALA 2", "psi ALA 2")
    members = [u.float() for u in surfaces(3)]
    for k, potential in enumerate(members):
        member_folder(run, k).mkdir(exist_ok=True)
        model = CVModel(potential, names, ("rad", "rad"), "dihedrals", 300.0)
        save_model(member_folder(run, k) / "model.pt", model)
    values = np.random.default_rng(0).uniform(-math.pi, 0, (3000, 2))
    grid = grid_over(values, (TURN, TURN), 36)
    frames = np.bincount(grid.index(values), minlength=36**2).reshape(36, 36)
    energy = bin_energies(members[0], grid, KT)
    force = np.stack(np.gradient(-energy, *grid.centers), -1)
    np.savez(
        run / "surface.npz",
        names=np.array(names),
        units=np.array(("rad", "rad")),
        periods=np.array((TURN, TURN)),
        members=np.stack([energy] * 2),
        U=energy,
        frames=frames,
        mean_force=force,
        mean_force_error=np.full_like(force, 0.01),
        **dict(zip(names, grid.centers, strict=True)),
    )
    (run / "config.toml").write_text('trajectory = "x.npz"\nmap = "dihedrals"\nensemble = 3\n')
    return run


def test_a_report_of_a_plane(plane: Path) -> None:
    said: list[str] = []
    found = variance(VarianceConfig(plane, reference=plane), tell=said.append)
    folder = plane / "variance"
    names = {"variance-map.png", "surface-band.png", "calibration.png", "report.html"}
    assert names | {"variance.json", "variance.npz"} == {path.name for path in folder.iterdir()}
    page = (folder / "report.html").read_text()
    assert "PII" in page
    assert "<svg" not in page
    assert page.count("data:image/png") == 3
    numbers = json.loads((folder / "variance.json").read_text())
    surface = numbers["surface"]
    assert surface["rms_without_frames"] == pytest.approx(found.surface.outside)  # type: ignore[union-attr]
    assert surface["basins"]["alpha-R"]["energy_kJ_mol"]["error"] > 0
    assert 0 < numbers["calibration"]["before"][0] < 1
    assert said[0].startswith("Sigma is")
    assert said[-1].endswith("report.html")


def test_findings_show_themselves_in_a_notebook(plane: Path) -> None:
    found = variance(VarianceConfig(plane, reference=plane, figures=("svg",)))
    folder = plane / "variance"
    assert {path.suffix for path in folder.iterdir()} == {".svg", ".html", ".json", ".npz"}
    assert b"surface.npz" not in (folder / "variance-map.svg").read_bytes()
    shown = found._repr_html_()
    for words in ("3 members", "kJ/mol/rad rms", "kJ/mol/rad over those without", "PII", " ± "):
        assert words in shown
    assert len(shown) < 4_000
    assert drawn(found.plot(), "svg") == (folder / "variance-map.svg").read_bytes()
    assert drawn(found.plot("calibration"))[:4] == b"\x89PNG"
    assert found.surface is not None
    assert list(found.surface.axes) == ["phi ALA 2", "psi ALA 2"]


def test_one_member_has_no_spread(plane: Path) -> None:
    for k in (1, 2):
        (member_folder(plane, k) / "model.pt").unlink()
    with pytest.raises(InputError, match="has one member, and no spread: add some"):
        variance(VarianceConfig(plane))


# beads


def test_the_worst_frames_come_first() -> None:
    sigma = np.array([[1.0, 2.0], [5.0, 0.0], [3.0, 3.0]])
    spread = BeadSpread("x", sigma, 10 * sigma, np.array([0, 1]), ("A", "B"), "here")
    assert spread.largest(2).tolist() == [1, 2]
    assert spread.of_type(1).tolist() == [2.0, 0.0, 3.0]
    assert spread.relative == pytest.approx(0.1)


# what the frames leave uncertain


def line(n: np.ndarray, noise: float) -> tuple[Grid, np.ndarray]:
    """Return a grid of a straight coordinate, and the error that n frames in its bins leave."""
    grid = Grid((np.linspace(0, 1, len(n) + 1),), (None,))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = noise * np.sqrt((n - 1) / n**2)[:, None]
    density = np.zeros(len(n))
    density[0] = 1.0
    return grid, data_error(grid, n, Estimate(np.zeros((len(n), 1)), error), density)


def test_along_a_line_the_variances_of_differences_add_up() -> None:
    """With U of the first bin as the zero, that of bin k has the variance k h^2 s^2 / n."""
    grid, error = line(np.full(12, 400), noise=30.0)
    h = grid.edges[0][1]
    np.testing.assert_allclose(error, np.sqrt(np.arange(12)) * h * 30.0 / 20.0, rtol=1e-6)


def test_where_there_are_fewer_frames_less_is_known() -> None:
    few = np.full(60, 4000)
    few[28:32] = 40  # a barrier that frames rarely cross
    _, error = line(few, noise=30.0)
    _, even = line(np.full(60, 4000), noise=30.0)
    step = np.diff(error**2) / np.diff(even**2)
    assert step[:15] == pytest.approx(1.0, rel=1e-3)
    assert step[29] > 2.0  # numbers are smoothed over two bins
    assert error[45] > 1.05 * even[45]


def test_single_frames_do_not_tell_the_noise() -> None:
    assert np.isnan(line(np.ones(30, dtype=int), noise=30.0)[1]).all()


@pytest.mark.parametrize("periods", [(TURN, TURN), (None, None)])
def test_the_covariance_is_that_of_surfaces_of_noisy_differences(
    periods: tuple[float | None, ...],
) -> None:
    """2 000 least-squares surfaces: each of 35 variances is known to 3.2 %; 4.5 standard errors
    for the largest deviation, a false alarm in 4 000."""
    edges = np.linspace(-math.pi, math.pi, 7)
    grid = Grid((edges, edges), periods)
    part = np.ones((6, 6), dtype=bool)
    pairs = [faces(grid, axis, part) for axis in (0, 1)]
    first, second = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.2, 5.0, len(first))
    noise = rng.normal(0, 1, (2000, len(first))) / np.sqrt(weights)
    surfaces = difference_solver(grid, first, second, weights, part)(noise).reshape(2000, -1)
    found = (surfaces - surfaces[:, :1]).var(0)[1:]
    expected = difference_covariance(first, second, weights, part).diagonal()[1:]
    assert np.abs(found / expected - 1).max() < 4.5 * math.sqrt(2 / 2000)
