"""Weights of frames from a COLVAR: which column, which row, and refusals where they are unclear."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from deepcg.runtime.errors import InputError
from deepcg.trajectory.bias_weights import resolved_bias, weights_of_bias
from deepcg.trajectory.formats import TrajectoryFile
from deepcg.units import thermal_energy

N = 6
V = np.array([0.0, 2.0, 1.0, 5.0, 3.0, 0.5])
kT = thermal_energy(300.0)


@dataclass(frozen=True)
class Frames:
    """A trajectory as far as weights need it; ``times`` in ps."""

    times: np.ndarray | None = None
    frame_time: float | None = None
    path: Path = Path("x.xtc")
    n_frames: int = N
    n_atoms: int = 1
    numbers: None = None
    has_positions: bool = True
    has_forces: bool = False

    def blocks(self, chunk: int, start: int, stop: int):
        return iter(())


def colvar(path: Path, times: np.ndarray, **columns: np.ndarray) -> str:
    names = [name.replace("_", ".") for name in columns]
    lines = [f"#! FIELDS time {' '.join(names)}", "#! SET min_phi -pi"]
    table = np.column_stack([times, *columns.values()])
    lines += [" " + " ".join(f"{v:.6f}" for v in row) for row in table]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def weights(text: str, frames: TrajectoryFile, bias: np.ndarray = V) -> None:
    found = weights_of_bias(text, frames, 300.0)
    np.testing.assert_allclose(found, np.exp((bias - bias.max()) / kT), rtol=1e-5)


def test_rows_are_matched_by_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    at = 0.1 * np.arange(60)
    bias = np.full(60, 99.0)
    bias[5:65:10] = V
    text = colvar(tmp_path / "COLVAR", at, opes_bias=bias)
    weights(text, Frames(times=0.5 + np.arange(N, dtype=np.float32)))
    assert "V = opes.bias in kJ/mol (PLUMED's default) at 300 K, matched by time" in caplog.text
    kish = np.exp(V / kT).sum() ** 2 / np.exp(2 * V / kT).sum()
    assert f"worth {kish:.4g} of 6 frames, too few for a surface" in caplog.text


@pytest.mark.parametrize(
    ("first", "n_rows", "begin"),
    [(0.0, 10 * N - 9, 0), (7.5, 10 * N - 9, 0), (0.0, 10 * N + 1, 10)],
)
def test_where_only_the_interval_is_known_the_end_tells_the_beginning(
    tmp_path: Path, first: float, n_rows: int, begin: int
) -> None:
    bias = np.full(n_rows, 99.0)
    bias[begin : begin + 10 * N : 10] = V
    text = colvar(tmp_path / "COLVAR", first + 0.1 * np.arange(n_rows), r_bias=bias)
    weights(text, Frames(frame_time=1.0))


def test_without_times_rows_go_one_to_one_and_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights(colvar(tmp_path / "C", np.arange(N) / 3, r_bias=V), Frames())
    assert "row by row, as x.xtc does not say its times" in caplog.text


@pytest.mark.parametrize(
    ("frames", "n_rows", "step", "says"),
    [
        (Frames(times=np.arange(N) * 1.0), 5, 1.0, r"no row at 5 ps, the time of frame 5 .* at 4"),
        (Frames(times=np.arange(N) * 0.7), N, 1.0, r"no row at 0.7 ps, the time of frame 1"),
        (Frames(times=np.arange(N) * 1e3), 60, 0.1, r"no row at 1000 ps"),
        (Frames(times=np.arange(N) + 100.0), N, 1.0, r"no row at 100 ps, the time of frame 0"),
        (Frames(frame_time=1.0), N - 1, 1.0, r"times 0 to 4 ps, .* 6 frames every 1 ps"),
        (Frames(frame_time=1.0), 100, 0.1, r"let both end at the same time"),
        (Frames(frame_time=1.0), 57, 0.1, r"does not say when the first is"),
        (Frames(), N + 1, 1.0, r"7 rows for the 6 frames of x.xtc, which does not say its times"),
    ],
)
def test_rows_of_other_times_are_refused(
    tmp_path: Path, frames: Frames, n_rows: int, step: float, says: str
) -> None:
    text = colvar(tmp_path / "COLVAR", step * np.arange(n_rows), r_bias=np.zeros(n_rows))
    with pytest.raises(InputError, match=says):
        weights_of_bias(text, frames, 300.0)


def test_the_bias_without_drift_is_preferred(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, at, rct = tmp_path / "COLVAR", np.arange(N), np.arange(N) ** 2.0
    weights(colvar(path, at, metad_bias=V + rct, metad_rbias=V, metad_rct=rct), Frames())
    weights(colvar(path, at, metad_bias=V + rct, metad_rct=rct), Frames())
    assert "metad.bias-metad.rct" in caplog.text
    assert "grows" not in caplog.text
    weights(colvar(path, at, metad_bias=V), Frames())
    assert "metad.bias grows while hills are added; metad.rbias is what weights" in caplog.text


def test_several_biases_are_ambiguous_until_they_are_named(tmp_path: Path) -> None:
    path = tmp_path / "COLVAR"
    text = colvar(path, np.arange(N), phi=V, metad_rbias=V, metad_bias=V + 1, uwall_bias=2 * V)
    with pytest.raises(
        InputError, match=r"several biases, metad.rbias and uwall.bias: .*:metad.rbias\+uwall.bias"
    ):
        weights_of_bias(text, Frames(), 300.0)
    weights(f"{text}:uwall.bias", Frames(), 2 * V)
    weights(f"{text}:metad.rbias+uwall.bias", Frames(), 3 * V)
    with pytest.raises(InputError, match=r"no column 'opes.bias': it has time phi metad.rbias"):
        weights_of_bias(f"{text}:opes.bias", Frames(), 300.0)
    text = colvar(path, np.arange(N), phi=V, psi=V)
    with pytest.raises(InputError, match=r"has no bias: it has time phi psi; print metad.rbias"):
        weights_of_bias(text, Frames(), 300.0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t + " 5.000000 1.0\n", r"row 6 is at 5 ps, after one at 5 ps: a restart"),
        (lambda t: t.rstrip()[:-9] + "\n", r"line 8 has 1 numbers for 2 columns"),
        (lambda t: t.replace("5.000000\n", "nan\n", 1), r"r.bias is nan at frame 3"),
        (lambda t: t.replace("0.500000\n", "o.5\n"), r"line 8 is not of numbers"),
        (lambda t: t + "#! FIELDS time phi\n", r"line 9 names other columns"),
        (lambda t: t.splitlines()[0] + "\n", r"no table of PLUMED, or has no rows"),
        (lambda t: t.replace("FIELDS time", "FIELDS t"), r"no column time: it has t r.bias"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, change, says: str) -> None:
    path = tmp_path / "COLVAR"
    colvar(path, np.arange(N), r_bias=V)
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=says):
        weights_of_bias(str(path), Frames(), 300.0)


def test_what_is_no_colvar_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*nowhere"):
        weights_of_bias(str(tmp_path / "nowhere"), Frames(), 300.0)
    (tmp_path / "HILLS").write_text("#! FIELDS time s sigma_s height biasf\n 1 0.5 0.1 1.2 8\n")
    with pytest.raises(InputError, match=r"no COLVAR but HILLS of PLUMED: hills alone do not"):
        weights_of_bias(str(tmp_path / "HILLS"), Frames(), 300.0)
    (tmp_path / "out.pmf").write_text("# 1\n# 0 1 2 0\n 0.5 1.0\n 1.5 0.0\n")
    with pytest.raises(InputError, match=r"no COLVAR but free energies of Colvars"):
        weights_of_bias(str(tmp_path / "out.pmf"), Frames(), 300.0)


def test_a_bias_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("COLVAR").touch()
    assert resolved_bias("COLVAR") == str(tmp_path / "COLVAR")
    assert resolved_bias("COLVAR:a.bias") == f"{tmp_path / 'COLVAR'}:a.bias"
    assert resolved_bias("none") == "none"
