"""Memory that is freed and wanted again at once, as in every step of a training."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST = 2**30


def keep_freed_memory() -> None:
    """Ask the C library to keep large freed blocks instead of returning them to the system.

    By default glibc maps blocks of megabytes anew each time, and the kernel must clear every
    page: that made training steps up to three times slower. Other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, _LARGEST)
