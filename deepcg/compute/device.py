"""Where to compute."""

from __future__ import annotations

import torch

from deepcg.runtime.errors import InputError, pick

DEVICES = ("auto", "cpu", "cuda")


def device_of(name: str, threads: int | None = None) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``, and set the number of CPU threads.

    Raises
    ------
    InputError
        If there is no such device, or it was asked for CUDA and there is none.
    """
    pick(dict.fromkeys(DEVICES), name, "device")
    if threads is not None:
        if threads < 1:
            raise InputError(f"{threads} threads: use 1 or more")
        torch.set_num_threads(threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here: use --device auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
