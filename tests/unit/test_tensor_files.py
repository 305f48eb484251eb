"""Tensor files: the same bytes from every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from boundaryflow.formats.tensor_files import read_about, read_tensors, write_tensors

SCRIPT = """
import sys, torch
from pathlib import Path
from boundaryflow.formats.tensor_files import write_tensors
names = sys.argv[2].split(",")
write_tensors(Path(sys.argv[1]), {n: torch.arange(4.0) for n in names}, {n: [n, 1] for n in names})
"""


def test_bytes_depend_on_neither_the_process_nor_the_order(tmp_path: Path) -> None:
    seen: set[bytes] = set()
    for seed, names in enumerate(["a,b,c,d", "d,c,b,a", "b,a,d,c"]):
        path = tmp_path / f"{seed}.safetensors"
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        subprocess.run([sys.executable, "-c", SCRIPT, path, names], env=environment, check=True)
        seen.add(path.read_bytes())
    assert len(seen) == 1


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensor = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).T
    write_tensors(path, {"t": tensor}, {"items": ["é", "b"], "nested": {"k": 1.5}})
    tensors, about = read_tensors(path)
    torch.testing.assert_close(tensors["t"], tensor, rtol=0, atol=0)
    assert about == read_about(path) == {"items": ["é", "b"], "nested": {"k": 1.5}}
    assert list(tmp_path.iterdir()) == [path]
