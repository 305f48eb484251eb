"""Tables that people or other programs made: read strictly, every value as it is written."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from boundaryflow.errors import LabelError
from boundaryflow.labelling.columns import nearest, texts, word

_READ = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
_GLOB = frozenset("*?[")


def read_annotations(path: Path) -> pd.DataFrame:
    """Read a CSV, TSV, Parquet or JSON-lines table, every value as it is written; a blank cell is None.

    Raises:
        LabelError: The file is missing, unreadable, damaged, empty or of another kind.
    """
    kind = path.suffix.lower()
    if path.is_file() and kind in (".xlsx", ".xls", ".ods"):
        raise LabelError(f"labels {path}: is a spreadsheet ({kind}); save it as CSV")
    if path.is_file() and kind not in _READ:
        raise LabelError(f"labels {path}: kind {kind!r} is not known; use .csv, .tsv, .parquet or .jsonl")
    if kind == ".parquet":
        table = _read_parquet(path)
    elif kind in (".jsonl", ".ndjson"):
        table = _read_json_lines(path, read_text(path))
    else:
        table = _read_separated(path, read_text(path), "\t" if kind == ".tsv" else ",")
    if table.empty:
        raise LabelError(f"labels {path}: has no rows")
    return table


def find_tables(root: Path, pattern: str) -> list[Path]:
    """The files that a path, or a pattern such as `*/metadata.csv`, names within a folder.

    Raises:
        LabelError: A pattern names no file.
    """
    path = root / pattern
    if not _GLOB & set(pattern) or path.is_file():
        return [path]
    if Path(pattern).is_absolute():
        raise LabelError(f"labels {pattern}: a pattern must be relative to {root}")
    found = sorted(path for path in root.glob(pattern) if path.is_file())
    if not found:
        raise LabelError(f"labels {path}: no file fits this pattern; check the path in params.yaml")
    return found


def pivot_long(
    table: pd.DataFrame, where: object, file_column: str, attribute_column: str, value_column: str
) -> pd.DataFrame:
    """A table with a row per image and attribute, as one with a row per image.

    Args:
        table: Of `read_annotations`.
        where: The table's file, for messages.
        file_column: Column with file names.
        attribute_column: Column with the names of the attributes.
        value_column: Column with what is said of the attribute.

    Returns:
        `file_column`, then a column per attribute; None for pairs that have no row.

    Raises:
        LabelError: A column is missing, a cell is blank, or two rows contradict one another.
    """
    for column in (file_column, attribute_column, value_column):
        if column not in table.columns:
            raise LabelError(
                f"labels {where}: has no column {column!r}{nearest(column, [str(name) for name in table.columns])}"
            )
    files, attributes, values = (texts(table[c]) for c in (file_column, attribute_column, value_column))
    said: dict[str, dict[str, str | None]] = {}
    rows: dict[str, dict[str, str | None]] = {}
    for row, (file, attribute, value) in enumerate(zip(files, attributes, values, strict=True)):
        if not file or not attribute:
            blank = attribute_column if file else file_column
            raise LabelError(f"labels {where}: column {blank!r} is blank in row {row + 1}; fill it in")
        of_attribute = said.setdefault(attribute, {})
        if file in of_attribute and word(of_attribute[file]) != word(value or None):
            raise LabelError(
                f"labels {where}: {attribute!r} of {file} is {of_attribute[file] or 'blank'} and, in row {row + 1}, "
                f"{value or 'blank'}; keep one of them"
            )
        of_attribute[file] = rows.setdefault(file, {})[attribute] = value or None
    if file_column in said:
        raise LabelError(f"labels {where}: an attribute has the name of the file column, {file_column!r}; rename one")
    wide = {attribute: [of.get(file) for file in rows] for attribute, of in said.items()}
    return pd.DataFrame({file_column: list(rows), **wide}, dtype=object)


def read_text(path: Path) -> str:
    """A text file as UTF-8, with or without byte order mark, that is what it seems to be.

    Raises:
        LabelError: It is missing, a folder, empty, in another encoding, a Git LFS pointer or a web page.
    """
    data = _read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(path, f"is not UTF-8 (byte 0x{data[error.start]:02x} at {error.start}); save it as UTF-8")
    if not text.strip():
        _refuse(path, "is empty")
    return text


def _read_bytes(path: Path) -> bytes:
    if path.is_dir():
        _refuse(path, "is a folder; give the file with the labels")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        _refuse(path, "no such file; check the path in params.yaml")
    except OSError as error:
        _refuse(path, f"cannot be read ({error.strerror})")
    start = data[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"version https://git-lfs"):
        _refuse(path, "is a Git LFS pointer and not the file itself; fetch it with `git lfs pull`")
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        _refuse(path, "is a web page and not a table; download the file itself")
    return data


def _read_parquet(path: Path) -> pd.DataFrame:
    data = _read_bytes(path)
    try:
        return pd.read_parquet(io.BytesIO(data))
    except (ValueError, OSError) as error:
        _refuse(path, f"cannot be read ({str(error).splitlines()[0]})")


def _read_separated(path: Path, text: str, separator: str) -> pd.DataFrame:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    names: list[str] = []
    rows: list[list[str | None]] = []
    try:
        for cells in reader:
            if not any(cells):
                continue
            if not names:
                names = [cell.strip() for cell in cells]
                _check_names(path, names, separator)
            elif len(cells) != len(names):
                _refuse(path, f"line {reader.line_num} has {len(cells)} values, the line of names has {len(names)}")
            else:
                rows.append([cell or None for cell in cells])
    except csv.Error as error:
        _refuse(path, f"line {reader.line_num} cannot be read ({error})")
    columns = {name: [row[at] for row in rows] for at, name in enumerate(names) if name}
    return pd.DataFrame(columns, dtype=object)


def _check_names(path: Path, names: list[str], separator: str) -> None:
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        _refuse(path, f"has the column {twice!r} twice; rename one")
    other = next((mark for mark in (";", "\t", ",") if mark != separator and mark in names[0]), None)
    if len(names) == 1 and other:
        _refuse(path, f"its columns are separated by {other!r}, must be by {separator!r}; save it again")


def _read_json_lines(path: Path, text: str) -> pd.DataFrame:
    records: list[dict[str, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            _refuse(path, f"line {number} is not JSON; every line must be one object")
        if not isinstance(record, dict):
            _refuse(path, f"line {number} is no JSON object; every line must be one")
        records.append(record)
    return pd.DataFrame(records, dtype=object)


def _refuse(path: Path, what: str) -> NoReturn:
    raise LabelError(f"labels {path}: {what}")
