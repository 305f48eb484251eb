"""Parquet files with pictures in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from boundaryflow.jobs.inspection.images import picture_facts
from boundaryflow.labelling.lines import short
from boundaryflow.sources.parquet import (
    ParquetPictures,
    class_names,
    damage_told,
    folder_of,
    has_pictures,
    picture_columns,
)
from boundaryflow.text import visible

_MAX_COLUMNS = 200
_MAX_CLASSES = 12


def about(path: Path) -> dict[str, Any] | None:
    """A Parquet file with pictures; None for anything else, also for Parquet without.

    Raises:
        ManifestError: It has pictures, and is damaged.
    """
    if path.is_dir() or path.suffix.lower() != ".parquet" or not has_pictures(path):
        return None  # a damaged one is told by those who read tables
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    columns = picture_columns(schema)
    source = ParquetPictures(path, columns[0])
    with damage_told(path):
        keys = {member.name: member.key for member in source.members()}
    classes = class_names(schema)
    described = {
        short(field.name): ", ".join(map(short, classes[field.name][:_MAX_CLASSES]))
        if field.name in classes
        else visible(str(field.type))[:60]
        for field in list(schema)[:_MAX_COLUMNS]
        if field.name not in columns
    }
    return {
        "what": "a Parquet file of pictures (ingest.source: {kind: parquet, ...})",
        "image_column": [short(name) for name in columns],
        "folder": folder_of(path.name),
        **picture_facts(list(keys), [], lambda name: source.read(keys[name])),
        "other columns (label.source: {kind: parquet, ...})": described,
    }
