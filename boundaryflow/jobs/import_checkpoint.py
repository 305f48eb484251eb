"""`boundaryflow import-checkpoint`: a checkpoint to a diffusers folder, and the report on it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from boundaryflow.config.places import check_output
from boundaryflow.models.importing import describe, import_checkpoint
from boundaryflow.models.stated import Stated, read_stated


def convert(source: str, target: Path, stated: Mapping[str, Any]) -> Iterator[str]:
    """Convert a checkpoint; yields the lines of the report.

    Args:
        source: See `boundaryflow.models.open_checkpoint`.
        target: Folder to create.
        stated: Fields of `Stated`; they override those of the checkpoint's sidecar.

    Raises:
        CheckpointError: The checkpoint cannot be used, or the folder is not empty.
        ManifestError: The folder is reserved for something else.
    """
    check_output(target, "DST", may_be="data/pretrained")
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    path = Path(source)
    known = read_stated(path) if path.is_file() else None
    if stated:
        known = replace(known or Stated(), **stated)
    facts = describe(import_checkpoint(source, target, known))
    yield f"{facts['family']}, {facts['parameters']:,} parameters, images of {facts['image size']} pixels"
    for line in facts["assumed"]:
        yield f"taken for granted: {line}"
    yield f"{target}: config.json, weights, schedule and README.md"
