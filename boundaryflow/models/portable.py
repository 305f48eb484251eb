"""The files of a model that travel: those which `load_model` needs to open the same model elsewhere, data only."""

from __future__ import annotations

import json
import re
from pathlib import Path

from boundaryflow.errors import CheckpointError
from boundaryflow.files import MAX_SETTINGS_BYTES, RefusedFileError, read_bytes
from boundaryflow.models.checkpoints import open_checkpoint
from boundaryflow.models.custom import names_python_model
from boundaryflow.models.sharded import is_index, shards_of
from boundaryflow.models.stated import SIDECAR

_CARDS = ("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt")
_LICENCE = re.compile(r"^(?:\|\s*)?(licen[cs]e[^:|]{0,40}?)\s*[:|]\s*(.+?)\s*\|?$", re.IGNORECASE | re.MULTILINE)
_MAX_LINES, _MAX_LINE = 5, 300


def model_files(source: str) -> dict[str, bytes]:
    """Name to content of the files of a folder that is the same model as this one, its card among them.

    Args:
        source: See `load_model`.

    Raises:
        CheckpointError: The model is code of the user's or a torch file, or cannot be opened.
    """
    if names_python_model(source):
        raise CheckpointError(f"model {source}: is code, and a bundle holds data only; leave the model out of it")
    checkpoint = open_checkpoint(source)
    weights = [checkpoint.file, *(shards_of(checkpoint.file) if is_index(checkpoint.file) else ())]
    if checkpoint.kind != "diffusers folder" or weights[-1].suffix != ".safetensors":
        raise CheckpointError(
            f"model {source}: is a torch file, and a bundle holds safetensors only; leave the model out of it, or "
            "convert it (`boundaryflow import-checkpoint`), name that folder in params.yaml, and run again"
        )
    folder = checkpoint.file.parent
    settings = [path for path in (folder / "config.json", folder / SIDECAR) if path.exists()]
    found = {path.name: path.read_bytes() for path in (*weights, *settings)}
    found["scheduler_config.json"] = (json.dumps(dict(checkpoint.schedule), indent=2, sort_keys=True) + "\n").encode()
    for name in _CARDS:
        card = next((place / name for place in (folder, Path(checkpoint.source)) if (place / name).is_file()), None)
        if card is not None:
            found[name] = card.read_bytes()
    return found


def stated_licence(source: str) -> list[str]:
    """What the card of a model folder says about licences, line by line; empty where it says nothing."""
    card = Path(source) / "README.md"
    try:
        text = read_bytes(card, MAX_SETTINGS_BYTES).decode("utf-8", "replace")
    except (OSError, RefusedFileError):
        return []
    return [f"{what}: {said}"[:_MAX_LINE] for what, said in _LICENCE.findall(text)][:_MAX_LINES]
