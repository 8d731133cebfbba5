"""In what precision PyTorch multiplies matrices of float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

EXACT = "highest"

MATMUL = (EXACT, "high", "medium")
"""As ``torch.set_float32_matmul_precision`` has it."""


@contextmanager
def multiplied_in(precision: str) -> Iterator[None]:
    """Multiply matrices in one of ``MATMUL``, and afterwards as before."""
    former = torch.get_float32_matmul_precision()
    if former == precision:
        yield
        return
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(former)
