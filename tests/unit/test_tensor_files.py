"""Tensor files: the same bytes from every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from boundaryflow.formats.tensor_files import read_about, read_tensors, write_tensors
from tests.conftest import ROOT

_ORDERS = ("a,b,c,d", "d,c,b,a", "b,a,d,c")


def write_in_all_orders(folder: Path) -> None:
    for number, order in enumerate(_ORDERS):
        names = order.split(",")
        tensors, about = {n: torch.arange(4.0) for n in names}, {n: [n, 1] for n in names}
        write_tensors(folder / f"{number}.safetensors", tensors, about)


def test_bytes_depend_on_neither_the_process_nor_the_order(tmp_path: Path) -> None:
    folders = [tmp_path / "here", tmp_path / "elsewhere"]
    for folder in folders:
        folder.mkdir()
    write_in_all_orders(folders[0])
    code = "import sys; from pathlib import Path; from tests.unit.test_tensor_files import write_in_all_orders as write"
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", f"{code}; write(Path(sys.argv[1]))", folders[1]]
    subprocess.run(words, env=environment, check=True)
    written = [path.read_bytes() for folder in folders for path in folder.iterdir()]
    assert len(written) == 6
    assert len(set(written)) == 1


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensor = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).T
    write_tensors(path, {"t": tensor}, {"items": ["é", "b"], "nested": {"k": 1.5}})
    tensors, about = read_tensors(path)
    torch.testing.assert_close(tensors["t"], tensor, rtol=0, atol=0)
    assert about == read_about(path) == {"items": ["é", "b"], "nested": {"k": 1.5}}
    assert list(tmp_path.iterdir()) == [path]
