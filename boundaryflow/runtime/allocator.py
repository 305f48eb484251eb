"""Memory that a network call frees is kept for the next one."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc
_KEPT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory instead of handing it back to the system.

    By default glibc gives every large block back as soon as it is free. A network's activations are such blocks, and
    the system clears each page of them anew at every call: a quarter of the time of one on a CPU
    (`benches/bench_engine.py`). For the whole process, and for good: what it has once used it holds to its end.

    Returns:
        Whether this C library can.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _KEPT), (_M_TOP_PAD, 64 << 20))
    return all([mallopt(option, value) for option, value in wanted])
