"""Reads users' tables strictly, every value as written."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from boundaryflow.errors import LabelError
from boundaryflow.labelling.columns import check_columns, texts
from boundaryflow.labelling.join import key
from boundaryflow.labelling.lines import once, open_table, refuse, short, text_lines
from boundaryflow.text import visible, word

_READ = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
_GLOB = frozenset("*?[")
_T = TypeVar("_T")


_MAX_COLUMNS, _MAX_CELLS = 10_000, 50_000_000
_MAX_CELL = 2**17  # limit of bytes in a cell, as in the csv module
_MAX_TEXT, _SHORT = 2**28, 256  # limit of all characters beyond the first so many of each text
_MAX_CHUNK_BYTES, _MAX_GROUP_BYTES, _BATCH_BYTES = 2**28, 2**29, 2**26
_NUM_STRAYS = 3
_BATCH_ROWS = 2**14


@dataclass(frozen=True)
class Wanted:
    """The part of a table to keep: some columns, and the rows that may match images.

    Attributes:
        file_column: Column with file names.
        columns: All columns to read.
        keys: `join.key` of the images.
    """

    file_column: str
    columns: Sequence[str]
    keys: frozenset[str]

    @classmethod
    def of(cls, file_column: str, columns: Sequence[str], images: Iterable[str]) -> Wanted:
        """Keep these columns and that of file names, and rows that may match images with these relative paths."""
        return cls(file_column, [file_column, *columns], frozenset(map(key, images)))


def read_annotations(path: Path, wanted: Wanted | None = None, *, max_cells: int | None = None) -> pd.DataFrame:
    """Read a CSV, TSV, Parquet or JSON-lines table, every value as written; a blank cell is None.

    Args:
        path: The table.
        wanted: The part to keep; None for everything.
        max_cells: Stop reading after so many cells; None to read all, and refuse a very large table.

    Returns:
        The table, indexed by row number. A few rows that match no image are kept for messages;
        `attrs["num_left_out"]` counts the rest. `attrs["is_whole"]`: `max_cells` was not reached.

    Raises:
        LabelError: The file is missing, unreadable, damaged, empty, too large or of another kind, or lacks a column.
    """
    kind = path.suffix.lower()
    if path.is_file() and kind in (".xlsx", ".xls", ".ods"):
        raise LabelError(f"labels {path}: is a spreadsheet ({kind}); save it as CSV")
    if kind not in _READ:
        open_table(path).close()
        raise LabelError(f"labels {path}: kind {kind!r} is not known; use .csv, .tsv, .parquet or .jsonl")
    if kind == ".parquet":
        rows = parquet_rows(path, wanted)
    elif kind in (".jsonl", ".ndjson"):
        rows = _json_rows(path)
    else:
        rows = _separated_rows(path, "\t" if kind == ".tsv" else ",", wanted)
    with closing(rows):
        table = collected(path, rows, wanted, max_cells)
    if table.empty:
        raise LabelError(f"labels {path}: has no rows")
    return table


def find_tables(root: Path, pattern: str) -> list[Path]:
    """The files that a path, or a pattern such as `*/metadata.csv`, names within a folder.

    Raises:
        LabelError: A pattern names no file.
    """
    path = root / pattern
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise LabelError(f"labels {pattern}: must be relative to {root} and stay in it, without ..")
    if not _GLOB & set(pattern) or path.is_file():
        return [path]
    try:
        found = sorted(path for path in root.glob(pattern) if path.is_file())
    except ValueError as error:
        raise LabelError(f"labels {path}: is not a valid pattern ({error})") from None
    if not found:
        raise LabelError(f"labels {path}: no file fits this pattern; check it")
    return found


def pivot_long(
    table: pd.DataFrame, where: object, file_column: str, attribute_column: str, value_column: str
) -> pd.DataFrame:
    """Convert a table with a row per image and attribute to one with a row per image.

    Args:
        table: From `read_annotations`.
        where: The table's file, for messages.
        file_column: Column with file names.
        attribute_column: Column with the names of the attributes.
        value_column: Column with the value of the attribute.

    Returns:
        `file_column`, then a column per attribute; None for pairs that have no row.

    Raises:
        LabelError: A column is missing, a cell is blank, or two rows contradict one another.
    """
    check_columns(table.columns, where, "", (file_column, attribute_column, value_column))
    files, attributes, values = (texts(table[c]) for c in (file_column, attribute_column, value_column))
    by_attribute: dict[str, dict[str, str | None]] = {}
    rows: dict[str, dict[str, str | None]] = {}
    for row, file, attribute, value in zip(table.index, files, attributes, values, strict=True):
        if not file or not attribute:
            blank = attribute_column if file else file_column
            raise LabelError(f"labels {where}: column {blank!r} is blank in row {row + 1}; fill it in")
        of_attribute = by_attribute.setdefault(attribute, {})
        if file in of_attribute and word(of_attribute[file]) != word(value or None):
            raise LabelError(
                f"labels {where}: {short(attribute)!r} of {short(file)} is {short(of_attribute[file] or 'blank')} and, "
                f"in row {row + 1}, {short(value or 'blank')}; keep one of them"
            )
        of_attribute[file] = rows.setdefault(file, {})[attribute] = value or None
    if file_column in by_attribute:
        raise LabelError(f"labels {where}: an attribute has the name of the file column, {file_column!r}; rename one")
    wide = {attribute: [of.get(file) for file in rows] for attribute, of in by_attribute.items()}
    return pd.DataFrame({file_column: list(rows), **wide}, dtype=object)


def collected(
    path: Path, rows: Iterable[Mapping[str, Any] | None], wanted: Wanted | None, max_cells: int | None = None
) -> pd.DataFrame:
    """Collect rows by column, with each distinct text in memory once.

    Args:
        path: What they are of, for messages.
        rows: Rows in order; None for one that matches no image.
        wanted: As for `read_annotations`.
        max_cells: As for `read_annotations`.

    Returns:
        As `read_annotations`.

    Raises:
        LabelError: There are too many cells or columns or too long texts, or a column is missing.
    """
    columns: dict[str, list[Any]] = {name: [] for name in wanted.columns} if wanted else {}
    names: dict[str, None] = {}
    numbers: list[int] = []
    known: dict[str, str] = {}
    num_strays, num_left_out, is_whole, num_spare = 0, 0, True, _MAX_TEXT
    for number, row in enumerate(rows):
        if row is None:
            num_left_out += 1
            continue
        if not row.keys() <= names.keys():
            names |= dict.fromkeys(row)
            if len(names) > _MAX_COLUMNS:
                refuse(path, f"has more than {_MAX_COLUMNS:,} columns, which are too many")
            columns |= {} if wanted else {name: [None] * len(numbers) for name in names if name not in columns}
        file = row.get(wanted.file_column) if wanted else None
        if wanted and file is not None and key(str(file).strip()) not in wanted.keys:
            num_strays += 1
            if num_strays > _NUM_STRAYS:
                num_left_out += 1
                continue
        if (len(numbers) + 1) * len(columns) > (max_cells or _MAX_CELLS):
            if max_cells is None:
                refuse(path, f"has more than {_MAX_CELLS:,} cells, which are too many; remove columns or rows")
            is_whole = False
            break
        numbers.append(number)
        for name, cells in columns.items():
            cell = row.get(name)
            if isinstance(cell, str):
                num_spare -= max(0, len(cell) - _SHORT)
                cell = known.setdefault(cell, cell)
            cells.append(cell)
        if num_spare < 0:
            refuse(path, f"has more than {_MAX_TEXT:,} characters of long texts; remove columns or shorten them")
    if wanted and names:
        check_columns(names, path, wanted.file_column, wanted.columns)
    table = pd.DataFrame(columns, numbers, dtype=object)
    table.attrs.update(num_left_out=num_left_out, is_whole=is_whole)
    return table


def parquet_rows(path: Path, wanted: Wanted | None) -> Generator[Mapping[str, Any]]:
    """All rows of a Parquet table, read with Arrow alone, which ignores pandas' metadata on index and types.

    Raises:
        LabelError: It is damaged, or lacks a column.
    """
    import pyarrow.parquet as pq

    with open_table(path) as data:
        columns = _guarded(path, lambda: _plain_columns(path, pq.read_schema(data), wanted))
        data.seek(0)
        # Dictionary-encoded texts, so that a repeated text is in memory once.
        of_text = [name for name, is_text in columns.items() if is_text]
        batches = _guarded(path, lambda: _parquet_batches(path, pq.ParquetFile(data, read_dictionary=of_text), columns))
        while (rows := _guarded(path, lambda: next(batches, None))) is not None:
            yield from rows


def _plain_columns(path: Path, schema: Any, wanted: Wanted | None) -> dict[str, bool]:
    """Columns to read, and whether they contain texts; without `wanted` all except nested and binary ones."""
    from pyarrow import types

    _check_names(path, schema.names)
    if wanted is not None:
        check_columns(schema.names, path, wanted.file_column, wanted.columns)
    columns: dict[str, bool] = {}
    for field in schema:
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
        is_plain = is_text or types.is_primitive(kind) or types.is_decimal(kind) or types.is_null(kind)
        if wanted is not None and field.name in wanted.columns and not is_plain:
            what = "is nested" if types.is_nested(kind) else "is not a column of strings or numbers"
            refuse(path, f"column {short(field.name)!r} {what} ({short(kind)}), must hold a text or number in each row")
        if is_plain and (wanted is None or field.name in wanted.columns):
            columns[field.name] = is_text
    return columns


def _parquet_batches(path: Path, file: Any, columns: Mapping[str, bool]) -> Iterator[list[dict[str, Any]]]:
    for group in range(file.metadata.num_row_groups):
        about = file.metadata.row_group(group)
        sizes = _sizes(about, columns)
        for what, size, most in (
            ("a column has", max(sizes, default=0), _MAX_CHUNK_BYTES),
            ("the columns that are read have", sum(sizes), _MAX_GROUP_BYTES),
        ):
            if min(sizes, default=0) < 0 or size > most:
                refuse(path, f"{what} {size:,} bytes in one row group, at most {most:,} are read; save smaller groups")
        num_rows = min(_BATCH_ROWS, max(1, _BATCH_BYTES * about.num_rows // max(1, sum(sizes))))
        for batch in file.iter_batches(num_rows, row_groups=[group], columns=list(columns), use_threads=False):
            cells = [
                _cells(path, name, batch.column(name)) if is_text else batch.column(name).to_pylist()
                for name, is_text in columns.items()
            ]
            yield [dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True)]


def _sizes(about: Any, columns: Mapping[str, bool]) -> list[int]:
    """Bytes of the columns of a row group, or of the whole group if that is little enough.

    Columns are asked last, as Arrow aborts the process where what a damaged file says of one contradicts itself.
    """
    if 0 <= about.total_byte_size <= _MAX_CHUNK_BYTES:
        return [about.total_byte_size]
    chunks = [about.column(at) for at in range(about.num_columns)]
    return [chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in columns]


def _cells(path: Path, name: str, column: Any) -> list[Any]:
    """Cells of a column, with each distinct text in memory once."""
    import pyarrow.compute as pc

    column = column if hasattr(column, "dictionary") else column.dictionary_encode()
    used = column.indices.unique().drop_null()
    texts = column.dictionary.take(used)
    most = max(pc.call_function("binary_length", [texts]).drop_null().to_pylist(), default=0)
    if most > _MAX_CELL:
        refuse(path, f"column {short(name)!r} has a cell of {most:,} bytes, at most {_MAX_CELL:,} are read")
    values = dict(zip(used.to_pylist(), texts.to_pylist(), strict=True))
    return [values.get(at) for at in column.indices.to_pylist()]


def _guarded(path: Path, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except LabelError:
        raise
    except Exception as error:  # Arrow raises its own errors and those of its converters
        reason = visible((str(error) or type(error).__name__).splitlines()[0])[:200]
        refuse(path, f"cannot be read ({reason})")


def _separated_rows(path: Path, separator: str, wanted: Wanted | None) -> Generator[Mapping[str, Any] | None]:
    """Rows as mappings; after the first few, None for rows that match no image."""
    with text_lines(path) as lines:
        yield from _separated(path, csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True), wanted)


def _separated(path: Path, reader: Any, wanted: Wanted | None) -> Generator[Mapping[str, Any] | None]:
    names: list[str] = []
    at: int | None = None
    num_strays = 0
    try:
        for cells in reader:
            if not any(cells):
                continue
            if not names:
                names = [cell.strip() for cell in cells]
                at = names.index(wanted.file_column) if wanted and wanted.file_column in names else None
                _check_names(path, names, reader.dialect.delimiter)
            elif len(cells) != len(names):
                refuse(path, f"line {reader.line_num} has {len(cells)} values, the line of names has {len(names)}")
            else:
                if wanted and at is not None and cells[at] and key(cells[at].strip()) not in wanted.keys:
                    num_strays += 1
                    if num_strays > _NUM_STRAYS:
                        yield None  # without making a mapping, as there may be millions
                        continue
                yield {name: cell or None for name, cell in zip(names, cells, strict=True) if name}
    except csv.Error as error:
        refuse(path, f"line {reader.line_num} cannot be read ({error})")


def _check_names(path: Path, names: Sequence[str], separator: str = "") -> None:
    twice = next((name for name, num in Counter(names).items() if name and num > 1), None)
    if twice is not None:
        refuse(path, f"has the column {short(twice)!r} twice; rename one")
    other = next((mark for mark in (";", "\t", ",") if mark != separator and separator and mark in names[0]), None)
    if len(names) == 1 and other:
        refuse(path, f"its columns are separated by {other!r}, must be by {separator!r}; save it again")


def _json_rows(path: Path) -> Generator[Mapping[str, Any]]:
    with text_lines(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line, object_pairs_hook=partial(once, path, f"line {number} "))
            except (ValueError, RecursionError):
                refuse(path, f"line {number} is not JSON; every line must be one object")
            if not isinstance(record, dict):
                refuse(path, f"line {number} is no JSON object; every line must be one")
            yield record
