"""Edits that a bench makes once and keeps, so that a run that was cut off goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor

from boundaryflow.formats.tensor_files import read_tensors, write_tensors


def kept(folder: Path, key: list[Any], make: Callable[[], tuple[Tensor, dict[str, Any]]]) -> tuple[Tensor, Any]:
    """Edits and facts about them, made now or found.

    Args:
        folder: Where they are kept.
        key: Everything that they depend on, as JSON has it.
        make: Makes them: [N,...] uint8, and facts that JSON can hold.
    """
    file = folder / f"{sha256(json.dumps(key).encode()).hexdigest()[:24]}.safetensors"
    if not file.exists():
        edited, facts = make()
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(file, {"edited": edited}, facts)
    found, about = read_tensors(file)
    return found["edited"], about
