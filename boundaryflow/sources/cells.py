"""The columns that annotations have, whatever they are written in: for labels, and for groups of images."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from boundaryflow.config import (
    CsvSource,
    FolderLabels,
    ImageFolderLabels,
    JsonLabels,
    NameLabels,
    PairLabels,
    ParquetLabels,
    WebDatasetLabels,
)
from boundaryflow.config.base import Section
from boundaryflow.errors import LabelError
from boundaryflow.labelling import Wanted, find_tables, in_folder, read_annotations
from boundaryflow.labelling.columns import texts
from boundaryflow.labelling.join import normal
from boundaryflow.labelling.json_labels import json_rows, plain_cells, read_json
from boundaryflow.labelling.lines import refuse, short, text_lines
from boundaryflow.labelling.tables import collected, parquet_rows
from boundaryflow.sources.parquet import class_names, folder_of, row_names
from boundaryflow.sources.webdataset import member_rows

LOG = logging.getLogger(__name__)
FILE = " file"
"""Name of the column of file names in `Cells.table`, which no other column has."""
_AT_ONCE = 2**14
_METADATA = (".csv", ".jsonl", ".parquet")
_NUM_SHOWN = 3

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cells:
    """Columns as they are written.

    Attributes:
        table: A row for each image: `FILE`, its path; then the wanted columns, None where nothing is said.
        where: The file or another name for messages.
        num_left_out: Number of further rows, which belong to no image.
    """

    table: pd.DataFrame
    where: Path | str
    num_left_out: int = 0


@functools.singledispatch
def read_cells(source: Section, raw: Path, columns: Sequence[str], images: Sequence[str]) -> Cells:
    """Read some columns of annotations, by a function for each kind of `TableLabels`.

    Args:
        source: One of `TableLabels`.
        raw: The folder of the images; paths are relative to it.
        columns: The columns.
        images: Paths of all images within `raw`.

    Raises:
        LabelError: A file is missing, damaged or of another form, or lacks a column.
        ManifestError: An archive is damaged.
    """
    raise NotImplementedError(type(source).__name__)


def _of_rows(where: Path | str, rows: Iterable[Row], columns: Sequence[str], images: Sequence[str]) -> Cells:
    """Of rows with `FILE`, the path of an image, in addition to their columns."""
    table = collected(Path(where), rows, Wanted.of(FILE, columns, images))
    if table.empty:
        raise LabelError(f"labels {where}: has no rows")
    return Cells(table, where, table.attrs["num_left_out"])


@read_cells.register
def _of_csv(source: CsvSource, raw: Path, columns: Sequence[str], images: Sequence[str]) -> Cells:
    def read(path: Path) -> pd.DataFrame:
        table = read_annotations(path, Wanted.of(source.file_column, columns, images))
        files = _file_names(table, path, source.file_column)
        in_root = in_folder(files, path.parent.relative_to(raw).as_posix(), images, path)
        return _with_files(table, in_root, columns)

    return _put_together([read(path) for path in find_tables(raw, source.path)], raw / source.path)


@read_cells.register
def _of_image_folder(source: ImageFolderLabels, raw: Path, columns: Sequence[str], images: Sequence[str]) -> Cells:
    def read(path: Path) -> pd.DataFrame:
        table = read_annotations(path, Wanted.of("file_name", columns, images))
        folder = path.parent.relative_to(raw)
        files = [(folder / name).as_posix() for name in _file_names(table, path, "file_name")]
        return _with_files(table, files, columns)

    where = raw / "**/metadata.*"
    paths = [path for path in find_tables(raw, "**/metadata.*") if path.suffix.lower() in _METADATA]
    if not paths:
        raise LabelError(f"labels {where}: there is no metadata.csv, metadata.jsonl or metadata.parquet")
    return _put_together([read(path) for path in paths], where)


def _file_names(table: pd.DataFrame, path: Path, column: str) -> list[str]:
    files = texts(table[column])
    if "" in files:
        row = table.index[files.index("")] + 1
        raise LabelError(f"labels {path}: column {column!r} is blank in row {row}; name its image")
    return [normal(name) for name in files]


def _with_files(table: pd.DataFrame, files: Sequence[str], columns: Sequence[str]) -> pd.DataFrame:
    result = pd.DataFrame({FILE: files, **{name: table[name].to_numpy() for name in columns}}, dtype=object)
    result.attrs.update(table.attrs)
    return result


def _put_together(tables: Sequence[pd.DataFrame], where: Path) -> Cells:
    num_left_out = sum(table.attrs["num_left_out"] for table in tables)
    return Cells(pd.concat(tables, ignore_index=True), where, num_left_out)


@read_cells.register
def _of_folders(source: FolderLabels, raw: Path, columns: Sequence[str], images: Sequence[str]) -> Cells:
    """`folder` is the folder of an image, `folder_1` the topmost above it."""
    above = [PurePosixPath(image).parts[:-1] for image in images]
    table: dict[str, list[str | None]] = {FILE: list(images)}
    for column in columns:
        level = int(column.partition("_")[2] or 0)
        at = level - 1  # -1 is the last
        table[column] = [parts[at] if len(parts) >= max(level, 1) else None for parts in above]
    return Cells(pd.DataFrame(table, dtype=object), "folders")


@read_cells.register
def _of_names(source: NameLabels, raw: Path, columns: Sequence[str], images: Sequence[str]) -> Cells:
    where = f"by the pattern {short(source.pattern)}"
    found = list(_matches(source.pattern, images))
    without = [image for image, groups in zip(images, found, strict=True) if groups is None]
    if len(without) == len(images):
        examples = ", ".join(map(short, without[:_NUM_SHOWN]))
        raise LabelError(f"labels {where}: fits none of {len(images)} images, such as {examples}; check it")
    if without:
        LOG.warning(
            "labels %s: fits %d of %d images and not %d, such as %s; nothing is known of these", where,
            len(images) - len(without), len(images), len(without), ", ".join(map(short, without[:_NUM_SHOWN])),
        )  # fmt: skip
    rows = ({FILE: image, **(groups or {})} for image, groups in zip(images, found, strict=True))
    return _of_rows(where, rows, columns, images)


def _matches(pattern: str, images: Sequence[str]) -> Iterator[dict[str, str] | None]:
    """Named groups of each image; None where the pattern does not fit. RE2 takes linear time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for start in range(0, len(images), _AT_ONCE):
        names = pa.array(images[start : start + _AT_ONCE], pa.string())
        yield from pc.call_function("extract_regex", [names], pc.ExtractRegexOptions(pattern)).to_pylist()


@read_cells.register
def _of_pairs(source: PairLabels, raw: Path, columns: Sequence[str], images: Sequence[str]) -> Cells:
    def rows(path: Path) -> Iterator[Row]:
        with text_lines(path) as lines:
            for number, line in enumerate(lines, 1):
                cells = line.rsplit(maxsplit=1)
                if len(cells) == 1:
                    refuse(path, f"line {number} is {short(line.strip())!r}, must be a file name and a value")
                if cells:
                    yield {FILE: cells[0].strip(), "value": cells[1]}

    every = chain.from_iterable(map(rows, find_tables(raw, source.path)))
    return _of_rows(raw / source.path, every, columns, images)


@read_cells.register
def _of_json(source: JsonLabels, raw: Path, columns: Sequence[str], images: Sequence[str]) -> Cells:
    def rows(path: Path) -> Iterator[Row]:
        content, name = read_json(path), path.relative_to(raw).as_posix()
        if source.per_picture:
            if not isinstance(content, dict):
                refuse(path, "is no object; with per_picture: true, each file has the attributes of its picture")
            yield {**plain_cells(path, name, content, columns), FILE: name.removesuffix(path.suffix)}
            return
        found = [(file, plain_cells(path, file, record, columns))
                 for file, record in json_rows(path, content, source.file_column)]  # fmt: skip
        folder = path.parent.relative_to(raw).as_posix()
        files = in_folder([file for file, _ in found], folder, images, path)
        yield from ({**cells, FILE: file} for file, (_, cells) in zip(files, found, strict=True))

    every = chain.from_iterable(map(rows, find_tables(raw, source.path)))
    return _of_rows(raw / source.path, every, columns, images)


@read_cells.register
def _of_webdataset(source: WebDatasetLabels, raw: Path, columns: Sequence[str], images: Sequence[str]) -> Cells:
    known = frozenset(images)
    every = (
        {**cells, FILE: image}
        for path in find_tables(raw, source.path)
        for image, cells in member_rows(path, path.relative_to(raw).as_posix(), columns, known)
    )
    return _of_rows(raw / source.path, every, columns, images)


@read_cells.register
def _of_parquet(source: ParquetLabels, raw: Path, columns: Sequence[str], images: Sequence[str]) -> Cells:
    def rows(path: Path) -> Iterator[Row]:
        import pyarrow.parquet as pq

        names = row_names(path, folder_of(path.relative_to(raw).as_posix()), source.image_column)
        classes = class_names(pq.read_schema(path))
        cells = parquet_rows(path, Wanted(columns[0], columns, frozenset()))
        for name, row in zip_longest(names, cells):
            if name is None or row is None:
                refuse(path, "is damaged: its columns have different numbers of rows; fetch it again")
            yield {column: _class(cell, classes.get(column)) for column, cell in row.items()} | {FILE: name}

    every = chain.from_iterable(map(rows, find_tables(raw, source.path)))
    return _of_rows(raw / source.path, every, columns, images)


def _class(cell: Any, names: Sequence[str] | None) -> Any:
    """The name of a class for its number; None for -1, which stands for no class, and for what is none."""
    if names is None or not isinstance(cell, int):
        return cell
    return names[cell] if 0 <= cell < len(names) else None
