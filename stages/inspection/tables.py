"""Label files: rows, attributes, positives, unknowns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boundaryflow.errors import LabelError
from boundaryflow.labelling import AttributeColumn, read_annotations, read_celeba, read_hq_mapping, read_values

SUFFIXES = {".csv", ".tsv", ".parquet", ".jsonl", ".ndjson"}
_MAX_VALUES = 12
_FILE_COLUMNS = ("file", "file_name", "filename", "filepath", "image", "image_id", "path")
_PICTURE = r"(?i)\.(?:jpe?g|png|webp|bmp|tiff?)$"
_MOST = 0.9
_PARTITION = {"0": "train", "1": "val", "2": "test"}


def about(path: Path) -> dict[str, Any] | None:
    """A table of labels; None for anything else.

    Raises:
        LabelError: It is one, and damaged.
    """
    if not path.is_file():
        return None
    if path.suffix.lower() in SUFFIXES:
        return _about_table(path)
    return _about_text(path) if path.suffix.lower() == ".txt" else None


def _about_table(path: Path) -> dict[str, Any]:
    table = read_annotations(path)
    file_column = _file_column(table)
    facts: dict[str, Any] = {"what": "a table of labels", "rows": len(table)}
    facts["file column"] = file_column or "none that is plain; say which one in label.source.file_column"
    if file_column is not None:
        facts["files"] = [str(name) for name in table[file_column].iloc[:3]]
        facts["files named twice"] = int(table[file_column].duplicated().sum())
    columns = [column for column in table.columns if column != file_column]
    return {**facts, "columns": {str(column): _about_column(path, table, column) for column in columns}}


def _about_text(path: Path) -> dict[str, Any] | None:
    """The text files of CelebA and its offspring."""
    first = next((line.split() for line in _lines(path) if line.split()), [])
    if first == ["idx", "orig_idx", "orig_file"]:
        return {"what": "the mapping from CelebA-HQ to CelebA", "rows": len(read_hq_mapping(path))}
    if len(first) == 2 and first[1] in _PARTITION:  # noqa: PLR2004 - a name and a number
        parts = pd.Series([_PARTITION.get(line.split()[1], line.split()[1]) for line in _lines(path) if line.split()])
        counts = {str(name): int(num) for name, num in parts.value_counts().items()}
        return {"what": "CelebA's partition file", "rows": len(parts), "split": counts}
    table = read_celeba(path)
    columns = {name: _about_column(path, table, name) for name in table.columns if name != "file"}
    return {
        "what": "annotations in the format of CelebA",
        "rows": len(table),
        "files": [str(name) for name in table["file"].iloc[:3]],
        "attributes": columns,
    }


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise LabelError(f"labels {path}: is not UTF-8 text; save it as UTF-8") from None


def _file_column(table: pd.DataFrame) -> str | None:
    """The one column whose cells look like file names, by its name or by theirs."""
    named = [c for c in table.columns if str(c).lower() in _FILE_COLUMNS]
    if len(named) == 1:
        return str(named[0])
    suffixed = [c for c in table.columns if table[c].astype(str).str.contains(_PICTURE).mean() > _MOST]
    return str(suffixed[0]) if len(suffixed) == 1 else None


def _about_column(path: Path, table: pd.DataFrame, column: str) -> str:
    """How a column would be read."""
    plain = table[column].dropna()
    rows = pd.DataFrame({"file": [f"{row}" for row in range(len(table))], column: table[column].to_numpy()})
    try:
        values = read_values(rows, path, "file", {"it": AttributeColumn(column)})["it"].to_numpy(np.float64)
    except LabelError:
        words = plain.astype(str)
        counts = words.value_counts()
        shown = ", ".join(f"{word} ({num})" for word, num in counts.iloc[:_MAX_VALUES].items())
        more = f", and {len(counts) - _MAX_VALUES} more" if len(counts) > _MAX_VALUES else ""
        return f"no 0/1: {len(counts)} values, {shown}{more}; unknown {len(table) - len(plain)}"
    known = values[~np.isnan(values)]
    kind = "0/1" if np.isin(known, (0, 1)).all() else "probabilities"
    positive, unknown = int((known > 0.5).sum()), int(np.isnan(values).sum())
    return f"{kind}: positive {positive}, negative {len(known) - positive}, unknown {unknown}"
