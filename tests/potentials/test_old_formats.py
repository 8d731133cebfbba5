"""Files of every format that was released are read; those in tests/data/formats never change."""

import json
from pathlib import Path

import pytest
import torch
from paths import FORMATS

from deepcg.potentials.beads import energy_and_forces
from deepcg.potentials.model_file import (
    BEADS,
    MOLECULES,
    VARIABLES,
    CVModel,
    Model,
    load_any,
)
from deepcg.runtime.errors import InputError
from deepcg.runtime.files import write_tensors


@pytest.fixture(scope="module")
def expected() -> dict[str, list]:
    """Energies that the version which wrote a file got from it."""
    return json.loads((FORMATS / "expected.json").read_text())


@pytest.mark.parametrize("version", [BEADS, MOLECULES])
def test_models_of_beads_have_the_energies_they_had(version: int, expected) -> None:
    model = load_any(FORMATS / f"model-{version}.pt")
    assert isinstance(model, Model)
    positions = torch.tensor(expected["positions"], dtype=torch.float64)
    energy, _ = energy_and_forces(model.potential, positions, None)
    assert energy.tolist() == pytest.approx(expected[f"model-{version}.pt"], rel=1e-12)


def test_models_of_variables_have_the_energies_they_had(expected) -> None:
    model = load_any(FORMATS / f"model-{VARIABLES}.pt")
    assert isinstance(model, CVModel)
    energy, _ = model.potential.forces(torch.tensor(expected["values"], dtype=torch.float64))
    assert energy.tolist() == pytest.approx(expected[f"model-{VARIABLES}.pt"], rel=1e-12)


@pytest.mark.parametrize("version", [MOLECULES + 1, 0, "1", None])
def test_formats_that_are_not_known_say_so(version, tmp_path: Path) -> None:
    content = torch.load(FORMATS / "model-1.pt", weights_only=True)
    write_tensors(tmp_path / "model.pt", content | {"format": version})
    with pytest.raises(InputError, match=f"has format {version}, this version reads 1 to 3"):
        load_any(tmp_path)


def test_every_format_has_a_file() -> None:
    found = {path.name for path in FORMATS.glob("model-*.pt")}
    assert found == {f"model-{version}.pt" for version in (BEADS, VARIABLES, MOLECULES)}
