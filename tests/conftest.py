"""Settings that all tests share."""

import os

# As the command line does, and before OpenMP is loaded: tests may share their cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch


@pytest.fixture(autouse=True)
def one_precision():
    """Leave the default precision as it was, whatever a test sets."""
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)
