"""safetensors files whose bytes depend only on their content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from boundaryflow.files import write_bytes
from boundaryflow.formats.tensor_headers import ABOUT, read_header


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a safetensors file with facts about it in its header.

    safetensors writes its metadata entries in an order that differs between processes, so all facts are stored in one
    entry, as JSON.

    Args:
        path: File to write.
        tensors: Name to tensor, on any device, in any layout.
        about: Facts for the header; any JSON values.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    write_bytes(path, save(plain, {ABOUT: json.dumps(dict(about), sort_keys=True, allow_nan=False)}))


def read_about(path: Path) -> dict[str, Any]:
    """Facts in the header of a safetensors file; empty if this project did not write it.

    Raises:
        SafetensorError, OSError: The file cannot be read.
    """
    return read_header(path).about


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a safetensors file, and the facts in its header.

    Raises:
        SafetensorError, OSError: The file cannot be read.
    """
    header = read_header(path)
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in header.shapes}, header.about
