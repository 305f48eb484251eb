"""Label files: rows, attributes, positives, unknowns."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boundaryflow.errors import LabelError
from boundaryflow.labelling import AttributeColumn, read_annotations, read_celeba, read_hq_mapping, read_values
from boundaryflow.labelling.columns import texts
from boundaryflow.labelling.json_labels import json_rows, plain_cells, read_json
from boundaryflow.labelling.lines import short, text_lines
from boundaryflow.labelling.tables import collected

SUFFIXES = {".csv", ".tsv", ".parquet", ".jsonl", ".ndjson"}
_MAX_VALUES = 12
_MAX_CELLS = 10_000_000
_MAX_COLUMNS = 200
_FILE_COLUMNS = ("file", "file_name", "filename", "filepath", "image", "image_id", "path")
_PICTURE = re.compile(r"(?i)\.(?:jpe?g|png|webp|bmp|tiff?)$")
_NUM_TRIED = 1000
_MOST = 0.9
_PARTITION = {"0": "train", "1": "val", "2": "test"}


def about(path: Path) -> dict[str, Any] | None:
    """A table of labels; None for anything else.

    Raises:
        LabelError: It is one, and damaged.
    """
    if path.is_dir():
        return None
    if path.suffix.lower() in SUFFIXES:
        return _about_table(path)
    if path.suffix.lower() == ".json":
        return _about_json(path)
    return _about_text(path) if path.suffix.lower() == ".txt" else None


def _about_table(path: Path) -> dict[str, Any]:
    return {"what": "a table of labels", **_table_facts(path, read_annotations(path, max_cells=_MAX_CELLS))}


def _about_json(path: Path) -> dict[str, Any] | None:
    """Labels in JSON of any of the forms that kind json reads; None for other JSON."""
    content = read_json(path)
    if isinstance(content, dict):
        plain = not any(isinstance(value, dict) for value in content.values())
        if plain and not any(_PICTURE.search(name) for name in content):
            return {
                "what": "a JSON object, such as the labels of one picture (per_picture: true)",
                "keys": list(content)[:_MAX_VALUES],
            }
        rows = [{"file": name} | plain_cells(path, name, cells, ()) for name, cells in json_rows(path, content, None)]
        what = "JSON labels: an object with a key for each picture (file_column: null)"
    elif isinstance(content, list) and content and all(isinstance(record, dict) for record in content):
        rows, what = [plain_cells(path, "", record, ()) for record in content], "JSON labels: a list of records"
    else:
        return None
    table = collected(path, rows, None, _MAX_CELLS)
    return {"what": what, **_table_facts(path, table)}


def _table_facts(path: Path, table: pd.DataFrame) -> dict[str, Any]:
    file_column = _file_column(table)
    facts: dict[str, Any] = {"rows": len(table)}
    if not table.attrs["is_whole"]:
        facts["rows"] = f"the first {len(table):,} of more"
    facts["file column"] = file_column or "none that is plain; say which one in label.source.file_column"
    if file_column is not None:
        facts["files"] = [short(name) for name in table[file_column].iloc[:3]]
        facts["files named twice"] = len(table) - len(set(texts(table[file_column])))
    columns = [column for column in table.columns if column != file_column]
    shown = {short(column): _about_column(path, table, column) for column in columns[:_MAX_COLUMNS]}
    more = {"further columns": len(columns) - _MAX_COLUMNS} if len(columns) > _MAX_COLUMNS else {}
    return {**facts, "columns": shown, **more}


def _about_text(path: Path) -> dict[str, Any] | None:
    """The text files of CelebA and its offspring."""
    with text_lines(path) as lines:
        first = next((cells for line in lines if (cells := line.split())), [])
    if first == ["idx", "orig_idx", "orig_file"]:
        return {"what": "the mapping from CelebA-HQ to CelebA", "rows": len(read_hq_mapping(path))}
    if len(first) == 2 and first[1] in _PARTITION:  # noqa: PLR2004 - a name and a number
        with text_lines(path) as lines:
            said = Counter(cells[-1] for line in lines if (cells := line.split()))
        counts = {short(_PARTITION.get(part, part)): num for part, num in said.most_common(_MAX_VALUES)}
        return {"what": "CelebA's partition file", "rows": said.total(), "split": counts}
    table = read_celeba(path)
    names = [name for name in table.columns if name != "file"][:_MAX_COLUMNS]
    columns = {short(name): _about_column(path, table, name) for name in names}
    return {
        "what": "annotations in the format of CelebA",
        "rows": len(table),
        "files": [short(name) for name in table["file"].iloc[:3]],
        "attributes": columns,
    }


def _file_column(table: pd.DataFrame) -> str | None:
    """The one column of file names, recognised by its name or by its cells; None if there is not exactly one."""
    named = [c for c in table.columns if str(c).lower() in _FILE_COLUMNS]
    if len(named) == 1:
        return str(named[0])
    some = {c: texts(table[c].iloc[:_NUM_TRIED]) for c in table.columns}
    suffixed = [c for c, cells in some.items() if sum(map(bool, map(_PICTURE.search, cells))) > _MOST * len(cells)]
    return str(suffixed[0]) if len(suffixed) == 1 else None


def _about_column(path: Path, table: pd.DataFrame, column: str) -> str:
    """How a column would be read."""
    plain = table[column].dropna()
    files = [f"{row}" for row in range(len(table))]
    rows = pd.DataFrame({"file": files, column: table[column].to_numpy()}, dtype=object)
    try:
        values = read_values(rows, path, "file", {"it": AttributeColumn(column)})["it"].to_numpy(np.float64)
    except LabelError:
        counts = Counter(texts(plain))
        shown = ", ".join(f"{short(word)} ({num})" for word, num in counts.most_common(_MAX_VALUES))
        more = f", and {len(counts) - _MAX_VALUES} more" if len(counts) > _MAX_VALUES else ""
        return f"no 0/1: {len(counts)} values, {shown}{more}; unknown {len(table) - len(plain)}"
    known = values[~np.isnan(values)]
    kind = "0/1" if np.isin(known, (0, 1)).all() else "probabilities"
    positive, unknown = int((known > 0.5).sum()), int(np.isnan(values).sum())
    return f"{kind}: positive {positive}, negative {len(known) - positive}, unknown {unknown}"
