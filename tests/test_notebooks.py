"""Notebooks run from top to bottom, in a short form."""

import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.filterwarnings("ignore")  # those of the notebook machinery, not ours
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPCG_SHORT", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_show_their_key_figures_and_are_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("image/png") >= 2
    assert path.stat().st_size < 200_000, "python docs/small_outputs.py makes pictures small"
    assert '"output_type": "error"' not in text
    assert tempfile.gettempdir() + "/" not in text, "outputs name a folder of one machine"
