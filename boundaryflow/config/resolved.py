"""What the stages of a data set depend on: its values with the defaults filled in, its weights, what its edits need."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from boundaryflow.config.sections import DatasetParams
from boundaryflow.text import masked_values


def resolved(dataset: DatasetParams, root: Path = Path()) -> dict[str, Any]:
    """The values of a data set as plain ones, without secrets.

    Under `weights` is a hash of each file that it names, and under `needs` what only some ways of editing read.

    Args:
        dataset: A data set of params.yaml.
        root: The checkout, which relative paths start from.
    """
    source = dataset.label.source
    named = {
        "model": dataset.model,
        "labels": source.network,
        "segmenter": dataset.edit.mask.segmenter if dataset.edit.mask else None,
        "judges": dataset.evaluate.judges,
        "clip": dataset.evaluate.clip,
    }
    weights = {what: _hash_of(root, name) for what, name in named.items()}
    needs = {"single_step": dataset.needs_single_step}
    return {**masked_values(dataset.model_dump(mode="json")), "weights": weights, "needs": needs}


def _hash_of(root: Path, name: str | None) -> str | None:
    """SHA-256 of a file, or of all files of a folder; None of what is no path, such as a hub id."""
    if name is None:
        return None
    path = root / name
    if not path.exists() and ".py:" in name:
        path = root / name.partition(":")[0]
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(f"{file.relative_to(path)}\n{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest() if files else None
