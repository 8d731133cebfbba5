"""A double well sampled under a known bias, with weights from a COLVAR, has its own surface."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest

from deepcg.cli.main import main
from deepcg.runtime.errors import InputError
from deepcg.trajectory.reader import iter_frames
from deepcg.units import thermal_energy
from deepcg.workflow.dataset.beads import DataConfig, open_data
from deepcg.workflow.fes.command import FesConfig, fes
from deepcg.workflow.fit.config import FitConfig, absolute

N = 20_000
kT = thermal_energy(300.0)
CV = "distance:0,1;distance:2,3"
FINE = np.linspace(0.2, 0.6, 40_001)


def energy(d: np.ndarray) -> np.ndarray:
    """A double well in a distance, kJ/mol: barrier of 12, one side lower by about 3."""
    s = (d - 0.4) / 0.1
    return 12 * (s**2 - 1) ** 2 + 1.5 * s


def bias(d: np.ndarray) -> np.ndarray:
    """What a run was biased by: it lowers the barrier."""
    return -0.7 * energy(d)


def drawn(u: np.ndarray, total: np.ndarray) -> np.ndarray:
    density = np.exp(-(total - total.min()) / kT)
    return np.interp(u, np.cumsum(density) / density.sum(), FINE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of atoms at known distances in a trajectory that says no times, and its COLVAR."""
    folder, rng = tmp_path_factory.mktemp("biased"), np.random.default_rng(11)
    d = drawn(rng.uniform(size=N), energy(FINE) + bias(FINE))
    e = rng.normal(0.4, 0.02, N)
    x = np.zeros((N, 4, 3), np.float32)
    x[:, 1, 0], x[:, 2, 1], x[:, 3, 1], x[:, 3, 2] = d, 1.0, 1.0, e
    np.savez(folder / "x.npz", positions=x)
    topology = mdtraj.Topology()
    for _ in range(4):
        residue = topology.add_residue("AR", topology.add_chain())
        topology.add_atom("AR", mdtraj.element.argon, residue)
    mdtraj.Trajectory(x[:1], topology).save_pdb(str(folder / "x.pdb"))
    rows = np.column_stack([0.1 * np.arange(N), d, bias(d) + 40])
    text = "\n".join(" ".join(f"{v:.6f}" for v in row) for row in rows)
    (folder / "COLVAR").write_text(f"#! FIELDS time d r.bias\n{text}\n")
    return folder


def surface_of(run: Path, output: Path, *given: str) -> tuple[np.ndarray, np.ndarray]:
    config = FesConfig(run / "x.npz", cv=CV, bins=16, output=output, bias=given, reference=())
    one = fes(config).landscapes[0]
    return one.energy.value, one.grid.edges[0]


def test_the_reweighted_surface_is_that_of_the_double_well(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The population of a well within 4 standard errors (false alarms: 6e-5), and all bins.

    The mean of z^2 of 16 bins exceeds 3 in 1e-4 of seeds (chi^2, the bins taken as independent).
    """
    F, edges = surface_of(run, tmp_path / "fes", str(run / "COLVAR"))
    density = np.exp(-energy(FINE) / kT)
    middle = edges[np.abs(edges - 0.4).argmin()]
    exact = density[middle > FINE].sum() / density.sum()
    p = np.nansum(np.exp(-F / kT), axis=1)
    found = p[: np.abs(edges - 0.4).argmin()].sum() / p.sum()

    d = np.load(run / "x.npz")["positions"][:, 1, 0].astype(float)
    w, left = np.exp(bias(d) / kT), d < middle
    ratio = (w * left).sum() / w.sum()
    standard = np.sqrt((w**2 * (left - ratio) ** 2).sum()) / w.sum()
    assert found == pytest.approx(ratio, abs=2e-3)  # empty bins
    assert abs(found - exact) < 4 * standard
    assert abs(left.mean() - exact) > 20 * standard  # without weights it is another surface

    worth = w.sum() ** 2 / (w**2).sum()
    assert f"they are worth {worth:.4g} of {N} frames" in caplog.text
    assert "row by row, as x.npz does not say its times" in caplog.text

    bins = np.digitize(FINE, edges) - 1
    inside = (bins >= 0) & (bins < len(edges) - 1)
    p_exact = np.bincount(bins[inside], density[inside], len(edges) - 1)
    F_d = -kT * np.log(p / p.sum())
    F_exact = -kT * np.log(p_exact / p_exact.sum())
    member = np.digitize(d, edges)[:, None] - 1 == np.arange(16)
    shares = w @ member / w.sum()
    off = w[:, None] * (member - shares)
    z = (F_d - F_exact) / (kT * np.sqrt(np.square(off).sum(0)) / w.sum() / shares)
    seen = member.sum(0) >= 50
    assert seen.sum() >= 8
    assert np.square(z[seen]).mean() < 3


def test_one_bias_for_each_trajectory(run: Path, tmp_path: Path) -> None:
    one = str(run / "COLVAR")
    with pytest.raises(InputError, match=r"2 biases for 1 trajectories \(x.npz\): give one for"):
        surface_of(run, tmp_path, one, one)
    with pytest.raises(InputError, match="1 biases for 2 trajectories: give one for each, none"):
        DataConfig(also=(run / "x.npz",), bias=(one,))
    data = DataConfig(map=CV, also=(run / "y.npz",), bias=("none", one))
    assert open_data(run / "x.npz", data, 300.0).weights is None
    data = replace(data, bias=(one, "none"))
    weights = open_data(run / "x.npz", data, 300.0).weights
    assert weights is not None
    part = next(iter_frames(open_data(run / "x.npz", data, 300.0), start=5, stop=9))
    np.testing.assert_allclose(part.weights, weights[5:9], rtol=1e-6)


def test_weights_from_two_places_are_refused(run: Path, tmp_path: Path) -> None:
    x = np.load(run / "x.npz")["positions"]
    np.savez(tmp_path / "x.npz", positions=x, weights=np.ones(N))
    data = DataConfig(map=CV, topology=run / "x.pdb", bias=(str(run / "COLVAR"),))
    with pytest.raises(InputError, match=r"has weights of its own, .*: leave out --bias"):
        open_data(tmp_path / "x.npz", data, 300.0)


def test_a_config_keeps_where_the_bias_is(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    data = DataConfig(map=CV, bias=("COLVAR:r.bias",))
    kept = absolute(FitConfig(Path("x.npz"), data=data)).data.bias
    assert kept == (f"{run / 'COLVAR'}:r.bias",)


def test_the_option_of_fit_reaches_the_histogram(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forces of the wells, on the first bond alone: U and the weighted histogram agree."""
    x = np.load(run / "x.npz")["positions"][:2000]
    d = x[:, 1, 0].astype(float)
    slope = np.gradient(energy(FINE), FINE)
    f = np.zeros_like(x)
    f[:, 1, 0] = -np.interp(d, FINE, slope)
    f[:, 0, 0] = -f[:, 1, 0]
    np.savez(tmp_path / "x.npz", positions=x, forces=f)
    lines = (run / "COLVAR").read_text().splitlines()[:2001]
    (tmp_path / "COLVAR").write_text("\n".join(lines) + "\n")
    words = [
        "fit", tmp_path / "x.npz", "--map", "distance:0,1", "--steps", 20, "--threads", 1,
        "--topology", run / "x.pdb", "--bias", tmp_path / "COLVAR", "-o", tmp_path / "run",
        "--constraints", "none",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    assert "frames of x.npz have weights exp(V/kT), V = r.bias" in said.err
    assert "if the frames are not biased" not in said.out
