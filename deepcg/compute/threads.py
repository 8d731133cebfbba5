"""Compiled loops run on as many threads as PyTorch does."""

from __future__ import annotations

import numba
import torch
from numba.core import config


def use_torch_threads() -> None:
    """Let the compiled loops that follow use the number of threads that PyTorch uses."""
    wanted = torch.get_num_threads()
    numba.set_num_threads(min(wanted, int(config.NUMBA_NUM_THREADS)))
    # starting numba's threads resets those of an OpenMP runtime that both share
    if torch.get_num_threads() != wanted:
        torch.set_num_threads(wanted)
