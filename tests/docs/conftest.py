"""The project that pages and extensions are tried on."""

from pathlib import Path

import pytest
from toy_project import make_project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Water, a fit and samples in ``runs/``; tests take a copy."""
    return make_project(tmp_path_factory.mktemp("manual"))
