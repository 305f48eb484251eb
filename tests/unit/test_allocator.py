"""Freed memory is kept: a large block that is freed and asked for again has its pages already."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_COUNT = """
import resource
import numpy as np
from boundaryflow.runtime.allocator import keep_freed_memory

def faults():
    for _ in range(10):
        np.ones((16, 1 << 20), np.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones((16, 1 << 20), np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
assert keep_freed_memory()
print(given_back, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of the C library of Linux")
def test_pages_are_not_cleared_again_and_again() -> None:
    environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}  # it would clear 512 pages at once
    done = subprocess.run([sys.executable, "-c", _COUNT], env=environment, capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert given_back > 10_000
    assert kept < 1_000
