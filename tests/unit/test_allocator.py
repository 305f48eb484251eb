"""Freed memory is kept: a large block that is freed and asked for again has its pages already."""

from __future__ import annotations

import subprocess
import sys

import pytest

_COUNT = """
import resource, sys
import torch
from boundaryflow.runtime.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(10):
    torch.ones(16, 1 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16, 1 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> int:
    return int(subprocess.run([sys.executable, "-c", _COUNT, how], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="of the C library of Linux")
def test_pages_are_not_cleared_again_and_again() -> None:
    assert _faults("given back") > 10_000
    assert _faults("kept") < 1_000
