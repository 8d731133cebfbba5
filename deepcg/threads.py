"""Compiled loops run on as many threads as PyTorch does."""

from __future__ import annotations

import numba
import torch
from numba.core import config


def use_torch_threads() -> None:
    """Let the compiled loops that follow use the number of threads that PyTorch uses."""
    numba.set_num_threads(min(torch.get_num_threads(), config.NUMBA_NUM_THREADS))
