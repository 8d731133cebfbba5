"""What the manual says about adding a network, a mapping, an estimator, an observable is enough."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from pages import ROOT, python_blocks
from toy_project import SHORT_RUN, SHORT_TRAINING, copied, kept_registries

import deepcg


@pytest.fixture
def folder(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project, as the working directory and a place of modules."""
    place = copied(project, tmp_path)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    return place


def add(page: str, folder: Path) -> None:
    """Write the first block of a page as one file, and import it."""
    code = python_blocks(ROOT / "docs" / "extend" / f"{page}.md")[0].text
    (folder / f"own_{page}.py").write_text(code, encoding="utf-8")
    importlib.invalidate_caches()
    importlib.import_module(f"own_{page}")


def taken_through(folder: Path, **settings: object) -> dict[str, object]:
    """Fit, sample and compare; return the report."""
    run = folder / "runs" / "own"
    data = deepcg.DataConfig(
        map=str(settings.pop("map", "oxygens")),
        estimator=str(settings.pop("estimator", "least-noise")),
    )
    deepcg.fit(
        deepcg.FitConfig(
            folder / "runs" / "water" / "traj.dcd",
            data=data,
            cutoff=0.5,
            training=SHORT_TRAINING,
            threads=1,
            output=run,
            **settings,
        )
    )
    deepcg.sample(deepcg.SampleConfig(run, replicas=2, dynamics=SHORT_RUN, threads=1))
    deepcg.compare(deepcg.CompareConfig(run))
    return json.loads((run / "report" / "report.json").read_text())


def test_a_network_is_one_file(folder: Path) -> None:
    with kept_registries():
        add("network", folder)
        assert "gaussians" in deepcg.NETWORKS
        report = taken_through(folder, network="gaussians")
        assert deepcg.load(folder / "runs" / "own").bead_names == ("O",) * 64
    assert report["systems"][1]["name"] == "CG, gaussians"


def test_a_mapping_is_one_file(folder: Path) -> None:
    with kept_registries():
        add("mapping", folder)
        taken_through(folder, map="middles", network="pair-spline")
        assert deepcg.load(folder / "runs" / "own").bead_names == ("M",) * 64


def test_an_estimator_is_one_file(folder: Path) -> None:
    with kept_registries():
        add("estimator", folder)
        taken_through(folder, estimator="net-force", network="pair-spline")


def test_an_observable_is_one_file(folder: Path) -> None:
    with kept_registries():
        add("observable", folder)
        deepcg.compare(deepcg.CompareConfig(folder / "runs" / "cg"))
    report = folder / "runs" / "cg" / "report"
    assert "nearest neighbor" in json.loads((report / "report.json").read_text())["observables"]
    assert (report / "nearest-neighbor.png").exists()
    assert "The nearest neighbor." in (report / "report.html").read_text()
