"""Keep memory that a network call frees for the next call."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc
_KEPT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory instead of returning it to the system.

    By default glibc returns every large block when it is freed. A network's activations are such blocks, and the
    system clears each of their pages again at every call, which takes a quarter of a call's time on a CPU
    (`benches/bench_engine.py`). This applies to the whole process and is permanent: its memory never shrinks.

    Returns:
        Whether this C library supports it.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEPT), (_M_TOP_PAD, 64 << 20))
    return all([mallopt(option, value) for option, value in wanted])
