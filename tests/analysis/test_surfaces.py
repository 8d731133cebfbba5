"""Free-energy surfaces side by side: exact answers, errors, files and the command."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from five_atoms import five_atoms
from numpy.typing import NDArray

from deepcg.analysis.style import drawn
from deepcg.analysis.surfaces.comparison import (
    barriers_of,
    basins_of,
    distance,
    distance_of_halves,
    metrics_of,
)
from deepcg.analysis.surfaces.estimates import CVSamples, free_energy_surface_of
from deepcg.analysis.surfaces.joined import apart_in_words
from deepcg.analysis.surfaces.ramachandran import BASINS
from deepcg.analysis.surfaces.surface import FreeEnergySurface, difference, load_free_energy_surface
from deepcg.runtime.errors import InputError
from deepcg.training.config import TrainingConfig
from deepcg.trajectory.frames import CVFrames
from deepcg.units import thermal_energy
from deepcg.workflow.dataset.beads import DataConfig
from deepcg.workflow.fes.command import FesConfig, fes
from deepcg.workflow.fes.sources import default_grid
from deepcg.workflow.fit.command import fit
from deepcg.workflow.fit.config import FitConfig
from free_energy import Grid, Replicates, region_of_bins

PERIOD = 2 * np.pi
KT = thermal_energy(300)
NAMES, UNITS = ("phi ALA 2", "psi ALA 2"), ("rad", "rad")
ON = "dihedral:0,1,2,3;dihedral:1,2,3,4"

Floats = NDArray[np.float64]


def energy(x: Floats, y: Floats) -> Floats:
    """Return U, kJ/mol: another along x than along y."""
    return 5 * np.cos(x) + 2 * np.sin(2 * y) + 3 * np.cos(x - y)


def slopes(x: Floats, y: Floats) -> Floats:
    bend = 3 * np.sin(x - y)
    return np.stack([-5 * np.sin(x) - bend, 4 * np.cos(2 * y) + bend], -1)


def grid(n: int) -> Grid:
    return Grid((np.linspace(-np.pi, np.pi, n + 1),) * 2, (PERIOD, PERIOD))


def exact(n: int) -> Floats:
    points = grid(n).points(5)
    inside = np.exp(-energy(points[..., 0], points[..., 1]) / KT).mean(1).reshape(n, n)
    found: Floats = -KT * np.log(inside / inside.max())
    return found


def frames(n: int, seed: int, *, biased: bool = False, forces: bool = False) -> CVFrames:
    """Return independent frames of exp(-U/kT), or evenly spread ones with weights."""
    rng = np.random.default_rng(seed)
    tries = rng.uniform(-np.pi, np.pi, (n if biased else 60 * n, 2))
    boltzmann = np.exp(-(energy(*tries.T) + 10) / KT)
    kept = tries if biased else tries[rng.random(len(tries)) < boltzmann / boltzmann.max()][:n]
    weights = torch.from_numpy(boltzmann) if biased else None
    noisy = rng.normal(0, 10, kept.shape) - slopes(*kept.T)
    return CVFrames(torch.from_numpy(kept), torch.from_numpy(noisy) if forces else None, weights)


def sampled(name: str, *parts: CVFrames) -> CVSamples:
    return CVSamples(name, NAMES, UNITS, (PERIOD, PERIOD), parts, 300.0, name)


def known(n: int, shift: float = 0.0) -> FreeEnergySurface:
    value = exact(n)
    region = region_of_bins(BASINS, grid(n))
    value = value + shift * (region == 2)
    none = Replicates(value, np.empty((0, n, n)), 1.0)
    return FreeEnergySurface("exact", NAMES, UNITS, grid(n), none, 300.0, "exact")


@pytest.mark.parametrize(("biased", "forces"), [(False, False), (True, False), (True, True)])
def test_surfaces_of_frames_and_their_errors(biased: bool, forces: bool) -> None:
    """Where U is low; z of some 150 bins, of two runs: the mean square is known to 8 %."""
    squares = []
    for seed in range(2):
        parts = [frames(6000, 10 * seed + k, biased=biased, forces=forces) for k in range(2)]
        found = free_energy_surface_of(sampled("it", *parts), grid(24))
        apart = difference(found, known(24), 12.0)
        low = exact(24) < 12
        assert low.sum() > 150
        squares.append(np.nanmean((apart.value / found.error)[low] ** 2))
    assert 0.7 < np.sqrt(np.mean(squares)) < 1.3


def test_forces_make_errors_smaller() -> None:
    low = exact(24) < 12
    errors = [
        np.sqrt(np.nanmean(free_energy_surface_of(sampled("it", part), grid(24)).error[low] ** 2))
        for part in (frames(6000, 1, biased=True), frames(6000, 1, biased=True, forces=True))
    ]
    assert errors[1] < 0.7 * errors[0]


def test_the_first_coordinate_is_the_first_axis(tmp_path: Path) -> None:
    found = free_energy_surface_of(sampled("it", frames(20_000, 3)), grid(12))
    low = exact(12) < 10
    assert np.abs(found.value - exact(12))[low].max() < np.abs(found.value - exact(12).T)[low].max()
    found.save(tmp_path / "it.fes.npz")
    with np.load(tmp_path / "it.fes.npz", allow_pickle=False) as file:
        np.testing.assert_allclose(file["phi"], grid(12).centers[0])
        np.testing.assert_allclose(file["F"], found.value)
        np.testing.assert_allclose(file["error"], found.error)


def test_a_surface_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = free_energy_surface_of(sampled("it", frames(500, 3)), grid(12))
    assert np.isnan(found.value).any()  # nothing breaks where there are no frames
    found.save(tmp_path / "it.fes.npz")
    read = load_free_energy_surface(tmp_path / "it.fes.npz")
    np.testing.assert_allclose(read.value, found.value)
    np.testing.assert_allclose(read.error, found.error, rtol=1e-4)
    assert (read.name, read.names, read.units) == ("it", NAMES, UNITS)
    assert read.grid.periods == (PERIOD, PERIOD)
    (tmp_path / "bad.fes.npz").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match="not a free-energy surface"):
        load_free_energy_surface(tmp_path / "bad.fes.npz")


def test_a_shifted_basin_is_told() -> None:
    """alpha-R raised by 3 kJ/mol: so much is its free energy, to rounding."""
    found = distance(known(36, shift=3.0), known(36), BASINS)
    assert found.basins["alpha-R"].value == pytest.approx(3, abs=1e-9)
    assert found.basins["alpha-L"].value == pytest.approx(0, abs=1e-9)
    assert 0.5 < found.rms.value < 1.5  # a fourth of the bins, less the mean
    assert np.isnan(found.expected)
    assert distance(known(36), known(36), BASINS).rms.value == 0


def test_basins_and_barriers_of_the_exact_surface() -> None:
    own = basins_of(known(36), BASINS)
    assert sum(basin.population.value for basin in own) == pytest.approx(1)
    (there,) = barriers_of(known(36), BASINS, (("PII", "alpha-R"),))
    difference_of_minima = there.forth.value - there.back.value
    regions = region_of_bins(BASINS, grid(36))
    lowest = [exact(36)[regions == k].min() for k in (0, 2)]
    assert difference_of_minima == pytest.approx(lowest[1] - lowest[0], abs=1e-9)
    assert np.isnan(there.forth.error)


def test_verdicts_on_surfaces_and_regions() -> None:
    """Equal ones, and one with alpha-R raised by 3 kJ/mol; seeds are fixed, 5 % are alarms."""
    one, other = (
        free_energy_surface_of(sampled(name, frames(6000, seed)), grid(24))
        for name, seed in (("a", 71), ("b", 72))
    )
    same = distance(one, other, BASINS)
    assert same.tested.category == "no difference seen"
    assert "kJ/mol rms would have been" in same.in_words()
    raised = region_of_bins(BASINS, grid(24)) == 2
    energy_of = one.energy
    moved = Replicates(
        energy_of.value + 3 * raised, energy_of.samples + 3 * raised, energy_of.inflation
    )
    found = distance(replace(one, energy=moved), other, BASINS)
    assert found.tested.category == "differs"
    assert found.tested.test is not None
    assert found.basins_tested["alpha-R"].category == "differs"
    assert abs(found.basins["alpha-R"].value - 3) < 4 * found.basins["alpha-R"].error
    assert "alpha-R +" in found.in_words()
    assert "mostly at phi" in found.in_words()
    few = distance(replace(one, independent=20.0), other, BASINS)
    assert few.tested.category == "too little data"
    assert distance(known(24), known(24), {}).tested.category == "too little data"


def test_basins_that_no_trajectory_joins_are_named() -> None:
    """Frames near alpha-R and near PII, in one run, in two, and in two that MBAR has joined."""

    def stays(*degrees: tuple[float, float]) -> CVFrames:
        rng = np.random.default_rng(80)
        places = np.radians(np.repeat(degrees, 50, axis=0)) + rng.normal(
            0, 0.02, (50 * len(degrees), 2)
        )
        return CVFrames(torch.from_numpy(places), None)

    right, two = (-75.0, -15.0), (-69.0, 153.0)
    assert apart_in_words(sampled("one", stays(right, two)), BASINS) == ""
    apart = sampled("two", stays(right), stays(two))
    assert "no trajectory goes between {PII} and {alpha-R}" in apart_in_words(apart, BASINS)
    assert apart_in_words(replace(apart, on_one_scale=True), BASINS) == ""
    linked = sampled("three", stays(right), stays(two), stays(two, right))
    assert apart_in_words(linked, BASINS) == ""
    left = sampled("left", stays(right, two), stays((57.0, 27.0)))
    assert "{PII, alpha-R} and {alpha-L}" in apart_in_words(left, BASINS)
    assert apart_in_words(apart, {}) == ""


def test_halves_differ_as_their_errors_say() -> None:
    """The rms over some 150 bins, of which a third are independent: within a third."""
    several = sampled("it", *(frames(3000, 40 + k, biased=True) for k in range(4)))
    alone = sampled("it", frames(12_000, 50, biased=True))
    for one in (several, alone):
        found = distance_of_halves(one, grid(24), BASINS)
        assert 0.67 < found.rms.value / found.expected < 1.5
        for basin in found.basins.values():
            assert abs(basin.value) < 4 * basin.error
    first, second = alone.halves()
    assert torch.equal(
        torch.cat([first.trajectories[0].values, second.trajectories[0].values]),
        alone.trajectories[0].values,
    )


def test_metrics_of_equal_ensembles_are_at_their_floors() -> None:
    one, other = sampled("a", frames(20_000, 5)), sampled("b", frames(20_000, 6))
    for metric in metrics_of(one, other):
        # 5 scatters: 1e-6 for each of three
        assert abs(metric.value - metric.floor.value) < 5 * metric.floor.error, metric.name


def test_the_regions_cover_the_plane_once() -> None:
    points = grid(90).points()[:, 0]
    inside = np.stack([region.contains(points, (PERIOD, PERIOD)) for region in BASINS.values()])
    assert (inside.sum(0) == 1).all()
    minima = {"PII": (-69, 153), "C5": (-141, 159), "alpha-R": (-75, -15), "alpha-L": (57, 27)}
    for name, place in minima.items():
        assert BASINS[name].contains(np.radians([place]), (PERIOD, PERIOD)).all()


# -- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("five")
    topology = mdtraj.Topology()
    residue = topology.add_residue("PEN", topology.add_chain())
    atoms = [topology.add_atom(f"C{k}", mdtraj.element.carbon, residue) for k in range(5)]
    for one, other in pairwise(atoms):
        topology.add_bond(one, other)
    for name, seed in (("a", 1), ("b", 2)):
        rng = np.random.default_rng(seed)
        x = five_atoms(rng.uniform(-np.pi, np.pi, (1000, 2)))
        arrays = {"positions": x.astype(np.float32), "forces": rng.normal(0, 20, x.shape)}
        np.savez(folder / f"{name}.npz", **arrays)
        mdtraj.Trajectory(arrays["positions"][:1], topology).save_pdb(str(folder / f"{name}.pdb"))
    return folder


def test_two_trajectories_beside_one_another(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    study = fes(
        FesConfig(
            data / "a.npz", reference=(data / "b.npz",), cv=ON, bins=12, output=tmp_path / "o"
        ),
        tell=said.append,
    )
    assert [one.name for one in study.landscapes] == ["microscopic", "a"]
    assert study.distances[0].excess < 1.0
    assert "kJ/mol rms over 144 bins" in said[0]
    written = {path.name for path in (tmp_path / "o").iterdir()}
    assert written == {
        "report.html", "fes.json", "fes.npz", "surfaces.png", "profiles.png",
        "microscopic.fes.npz", "a.fes.npz",
    }  # fmt: skip
    numbers = json.loads((tmp_path / "o" / "fes.json").read_text())
    assert numbers["surfaces"][0]["frames"] == 1000
    assert set(numbers["distances_from_the_first"]["a"]["metrics"]) == {
        "Jensen-Shannon divergence", "FES-MSE", "PMF error",
    }  # fmt: skip
    assert set(numbers["distances_of_halves"]) == {"microscopic, two halves", "a, two halves"}
    assert "a, two halves: F no difference seen" in said[2]
    again = fes(
        FesConfig(
            tmp_path / "o" / "a.fes.npz",
            reference=(tmp_path / "o" / "microscopic.fes.npz",),
            output=tmp_path / "again",
        )
    )
    assert not again.halves
    assert again.distances[0].rms.value == pytest.approx(study.distances[0].rms.value, rel=1e-4)
    numbers = json.loads((tmp_path / "again" / "fes.json").read_text())
    metrics = numbers["distances_from_the_first"]["a"]["metrics"]
    names = ("Jensen-Shannon divergence", "FES-MSE", "PMF error")
    assert set(metrics) == {f"{name}, 12 x 12 bins" for name in names}
    one, other = (
        np.exp(-(s.value - np.nanmin(s.value)) / thermal_energy(300.0)) for s in again.landscapes
    )
    ratio = np.log(one / one.sum() / (other / other.sum()))
    found = metrics["FES-MSE, 12 x 12 bins"]
    assert found["value"] == pytest.approx((thermal_energy(300.0) / 4.184) ** 2 * (ratio**2).mean())
    assert found["floor"] is None


def test_surfaces_show_themselves_in_a_notebook(data: Path, tmp_path: Path) -> None:
    config = FesConfig(
        data / "a.npz", cv=ON, bins=12, output=tmp_path, names=("<a>",), figures=("png", "pdf")
    )
    study = fes(config)
    written = {path.name for path in tmp_path.iterdir()}
    assert {"surfaces.png", "surfaces.pdf", "profiles.png", "profiles.pdf"} <= written
    (surface,) = study.landscapes
    assert list(surface.axes) == ["dihedral 0-1-2-3", "dihedral 1-2-3-4"]
    assert [len(centers) for centers in surface.axes.values()] == [12, 12]
    for one in (study, surface):
        shown = one._repr_html_()
        assert "&lt;a&gt;" in shown
        assert "<a>" not in shown
        assert len(shown) < 3_000
    shown = surface._repr_html_()
    for words in ("1000 frames", "300 K", "kJ/mol", "rad", "standard error", "6.283"):
        assert words in shown
    figure = surface.plot()
    assert figure.axes[0].get_title(loc="left") == "<a>"
    assert not any("a.npz" in text.get_text() for text in figure.texts)
    assert drawn(study.plot()) == (tmp_path / "surfaces.png").read_bytes()
    profiles = (tmp_path / "profiles.png").read_bytes()
    assert drawn(study.plot("profiles")) == profiles


def test_u_of_the_coordinates_beside_its_data(data: Path, tmp_path: Path) -> None:
    short = TrainingConfig(steps=20, batch_size=64, learning_rate=2e-2, validations=2)
    run = tmp_path / "run"
    config = FitConfig(data / "a.npz", output=run, data=DataConfig(map=ON), training=short)
    fit(replace(config, threads=1))
    study = fes(FesConfig(run, cv=ON))
    assert [one.name for one in study.landscapes] == ["microscopic", "U from the mean force"]
    assert (run / "fes" / "report.html").is_file()
    assert study.landscapes[1].grid.shape == study.landscapes[0].grid.shape
    with pytest.raises(InputError, match=r"surface of \d+ bins, not 18"):
        fes(FesConfig(run, cv=ON, bins=18))


def test_what_cannot_be_compared_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 coordinates.*a surface has two"):
        fes(FesConfig(data / "a.npz", cv="dihedral:0,1,2,3"))
    with pytest.raises(InputError, match="bins is 2"):
        FesConfig(data / "a.npz", bins=2)
    with pytest.raises(InputError, match="3 names for 1"):
        FesConfig(data / "a.npz", names=("a", "b", "c"))
    known(12).save(tmp_path / "x.fes.npz")
    known(18).save(tmp_path / "y.fes.npz")
    with pytest.raises(InputError, match="make both with the same"):
        fes(FesConfig(tmp_path / "x.fes.npz", reference=(tmp_path / "y.fes.npz",)))
    assert default_grid(sampled("it", frames(10, 1)), 7).shape == (7, 7)
