"""Settings that all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_precision():
    """Leave the default precision as it was, whatever a test sets."""
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)
