"""The report: strict JSON, a page that needs nothing else, figures of known content."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from deepcg.analysis.learning_curve import learning_curve_figure
from deepcg.analysis.structure import Comparison, TrajectorySet
from deepcg.analysis.structure.figures import observable_figure
from deepcg.analysis.structure.report import TrainingSummary, compare, write_report
from deepcg.analysis.style import check_formats, drawn, png
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import read_json
from deepcg.trajectory.frames import Frames

PICTURES = [
    "O-O-O-angle.png",
    "S-k.png",
    "averaged-q3.png",
    "averaged-q4.png",
    "averaged-q6.png",
    "coordination-number.png",
    "diffusion.png",
    "equilateral-triplets.png",
    "g_OO.png",
    "learning-curve.png",
    "tetrahedral-order.png",
]
ROWS = [
    {"step": float(k), "train": 2.0 + 3 / k, "validation": 2.1 + 3 / k, "learning_rate": 1e-3 / k}
    for k in range(1, 40)
]


def shaken(seed: int, width: float, n_frames: int = 80) -> Frames:
    """Return a liquid-like set: beads that jitter about a cubic lattice."""
    rng = np.random.default_rng(seed)
    lattice = np.stack(np.meshgrid(*[np.arange(5) * 0.31] * 3), -1).reshape(-1, 3)
    positions = lattice + rng.normal(0, width, (n_frames, 125, 3))
    return Frames(
        torch.tensor(positions, dtype=torch.float32),
        torch.eye(3).expand(n_frames, 3, 3) * 1.55,
        None,
        torch.zeros(125, dtype=torch.int64),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    folder = tmp_path_factory.mktemp("run") / "report"
    reference = TrajectorySet("TIP3P <ref>", [shaken(1, 0.02)], 0.5, "traj.dcd", ("O",), 12.0)
    models = [
        TrajectorySet(
            "CG", [shaken(2, 0.02, 40), shaken(3, 0.02, 40)], 0.5, "samples", ("O",), 85.0
        ),
        TrajectorySet("pair spline", [shaken(4, 0.03)], 0.5, "spline", ("O",)),
    ]
    training = TrainingSummary(
        [*ROWS, {"step": 40.0, "train": np.nan}], 2.0, {"R²": "0.6"}, "60 %."
    )
    tables = {"Files": {"traj.dcd": "sha256 00ff"}}
    comparison = compare(reference, models, folder, training=training, provenance=tables)
    return comparison, folder


class Tags(HTMLParser):
    """Collects tags and checks that they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_all_files_are_written_and_nothing_else(made: tuple[Comparison, Path]) -> None:
    _, folder = made
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [*PICTURES, "report.html", "report.json"]
    )


def test_the_json_is_strict_and_holds_the_curves(made: tuple[Comparison, Path]) -> None:
    comparison, folder = made

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    text = (folder / "report.json").read_text(encoding="utf-8")
    numbers = json.loads(text, parse_constant=refuse)
    radial = numbers["observables"]["g_OO(r)"]
    assert radial["models"]["CG"]["rms"] == comparison.observables[0].agreements[0].distance.rms
    assert radial["models"]["pair spline"]["category"] == "differs"
    assert radial["models"]["pair spline"]["p"] < 0.001
    assert radial["models"]["CG"]["p"] > 0.001
    assert radial["models"]["CG"]["detectable_rms"] > 0
    height = numbers["scalars"]["first peak of g_OO(r): height"]
    assert height["against_the_reference"]["pair spline"]["category"] == "differs"
    assert len(radial["curves"]["TIP3P <ref>"]["x"]) == len(radial["curves"]["CG"]["error"])
    assert numbers["systems"][1]["replicas"] == 2
    assert numbers["provenance"]["Files"] == {"traj.dcd": "sha256 00ff"}
    assert "torch" in numbers["provenance"]["Versions"]
    assert "reason" in numbers["velocity autocorrelation"]["CG"]


def test_numbers_that_are_not_finite_become_null(
    made: tuple[Comparison, Path], tmp_path: Path
) -> None:
    training = TrainingSummary([], float("nan"))
    write_report(made[0], tmp_path, training=training)
    assert read_json(tmp_path / "report.json")["training"]["noise_floor"] is None


def test_the_page_needs_no_other_file_and_no_network(made: tuple[Comparison, Path]) -> None:
    page = (made[1] / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    links = [(t, v) for t, name, v in tags.attributes if name in ("src", "href", "srcset")]
    assert len(links) == len(PICTURES)
    assert all(t == "img" and v and v.startswith("data:image/png;base64,") for t, v in links)
    assert not re.search(r"https?:|@import|url\(|<script|<link", page)
    assert 'name="viewport"' in page


def test_the_page_escapes_names_and_says_what_it_found(made: tuple[Comparison, Path]) -> None:
    page = (made[1] / "report.html").read_text(encoding="utf-8")
    assert "<ref>" not in page
    assert "TIP3P &lt;ref&gt;" in page
    for words in (
        "g<sub>OO</sub>(r): differs by",
        " 1/degree rms",
        "p &lt; 0.001",
        " nm</td>",
        "no difference seen",
        "would have been",
        "differs by",
        "observables differ at p &lt;= 0.05; of equal ensembles",
        "60 %.",
        "sha256 00ff",
        "not available (frames are 500 fs apart",
        "85",
        "7.08",
    ):
        assert words in page


def test_every_figure_carries_names_units_and_counts_and_no_files(
    made: tuple[Comparison, Path],
) -> None:
    comparison, _ = made
    for observable in comparison.observables:
        figure = observable_figure(observable, comparison.samples)
        above, below = figure.axes
        legend = above.get_legend()
        assert legend is not None
        legends = [t.get_text() for t in legend.get_texts()]
        assert legends[0].startswith("TIP3P <ref> (80 frames, ")
        assert legends[1].startswith("CG (80 frames, ")
        assert above.get_ylabel()
        assert below.get_xlabel()
        notes = " ".join(t.get_text() for t in figure.texts)
        assert notes == "bands: ± 1 standard error from blocks in time"
        assert len(above.collections) == len(below.collections) == 3  # one band each


def test_figures_are_the_same_bytes_for_the_same_data(made: tuple[Comparison, Path]) -> None:
    comparison, folder = made
    again = png(observable_figure(comparison.observables[0], comparison.samples))
    assert again == (folder / "g_OO.png").read_bytes()


@pytest.mark.parametrize(("name", "begin"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_figures_are_written_in_the_formats_that_are_asked_for(
    made: tuple[Comparison, Path], tmp_path: Path, name: str, begin: bytes
) -> None:
    for k in range(2):
        write_report(made[0], tmp_path / str(k), formats=("png", name))
    one, other = ((tmp_path / k / f"g_OO.{name}").read_bytes() for k in "01")
    assert one == other
    assert one.startswith(begin)
    assert (tmp_path / "0" / "g_OO.png").read_bytes() == (made[1] / "g_OO.png").read_bytes()
    with pytest.raises(InputError, match="unknown format of figures 'jpg'"):
        check_formats(("png", "jpg"))


def test_a_comparison_shows_itself_in_a_notebook(made: tuple[Comparison, Path]) -> None:
    comparison, folder = made
    shown = comparison._repr_html_()
    tags = Tags()
    tags.feed(shown)
    assert tags.open == []
    assert "TIP3P &lt;ref&gt;" in shown
    assert "<ref>" not in shown
    assert len(shown) < 10_000
    for words in (
        "pair spline",
        "differs",
        "1/degree",
        "10⁻⁵ cm²/s",
        " ± ",
        "would have been seen",
    ):
        assert words in shown
    assert drawn(comparison.plot()) == (folder / "g_OO.png").read_bytes()
    assert drawn(comparison.plot("diffusion")) == (folder / "diffusion.png").read_bytes()
    with pytest.raises(InputError, match="unknown figure 'velocities'"):
        comparison.plot("velocities")


@pytest.mark.parametrize("rows", [[], ROWS[:1], ROWS, [{"step": 1.0, "validation": 3.0}] * 5])
def test_learning_curves_of_any_length_are_drawn(rows: list[dict[str, float]]) -> None:
    assert png(learning_curve_figure(rows, noise_floor=2.0))[:4] == b"\x89PNG"
