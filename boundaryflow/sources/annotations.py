"""Annotations of a data set: tables beside the images, or the names of the images' folders."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from boundaryflow.config import (
    Annotations,
    CelebaSource,
    ColumnRule,
    CsvSource,
    FolderLabels,
    ImageFolderLabels,
    JsonLabels,
    LongSource,
    NameLabels,
    PairLabels,
    ParquetLabels,
    PromptRule,
    ThresholdRule,
    ValueRule,
    WebDatasetLabels,
)
from boundaryflow.config.base import Section
from boundaryflow.errors import LabelError
from boundaryflow.labelling import (
    AttributeColumn,
    Wanted,
    find_tables,
    image_names,
    in_folder,
    join_values,
    nearest,
    pivot_long,
    read_annotations,
    read_celeba,
    read_hq_mapping,
    read_values,
    word,
)
from boundaryflow.labelling.columns import check_met
from boundaryflow.labelling.lines import short
from boundaryflow.sources.cells import FILE, read_cells
from boundaryflow.text import words


def read_labels(
    raw: Path,
    source: Annotations,
    rules: Mapping[str, PromptRule | ValueRule | ThresholdRule | ColumnRule],
    sources: Mapping[str, str],
    *,
    partial: bool = False,
    copies: Mapping[str, str] | None = None,
) -> tuple[pd.DataFrame, int]:
    """Read the annotations of the images.

    Args:
        raw: The folder of the images; paths are relative to it.
        source: Source of the annotations.
        rules: Attribute to how it is read; the column defaults to the attribute's name.
        sources: Item id to path of the image within `raw`.
        partial: One image with a row is enough; otherwise 95 % must have one.
        copies: Paths of further copies of the same pictures to their item ids.

    Returns:
        One row per item, sorted by id: item_id, then a float32 probability per attribute, NaN
        where unknown; and the number of rows that belong to no image.

    Raises:
        LabelError: A file is missing, damaged or of another form, or does not belong to the images.
    """
    attributes = {name: _column(name, rule) for name, rule in rules.items()}
    _check_sides(attributes)
    images = [*sources.values(), *(copies or ())]
    found = read_kind(source, raw, attributes, images)
    labels = join_values(
        found.values, found.where, sources, partial=partial, copies=copies, num_left_out=found.num_left_out
    )
    if found.seen is not None:
        check_met(found.values, found.where, attributes, found.seen)
    return labels


@dataclass(frozen=True)
class SourceValues:
    """Annotations as read from a source.

    Attributes:
        values: A row for each image: `file`, its path; then a probability per attribute, NaN where unknown.
        where: The file or another name for messages.
        num_left_out: Number of further rows, which belong to no image.
        seen: Attribute to the values that occur, to report listed values that do not; None if already checked.
    """

    values: pd.DataFrame
    where: Path | str
    num_left_out: int = 0
    seen: Mapping[str, set[str]] | None = None


@functools.singledispatch
def read_kind(
    source: Section, raw: Path, attributes: Mapping[str, AttributeColumn], images: Sequence[str]
) -> SourceValues:
    """Read a source, by a function for each kind of `Annotations`, chosen by the type of the first argument.

    Args:
        source: One of `Annotations`.
        raw: The folder of the images; paths are relative to it.
        attributes: Attribute to how it is read.
        images: Paths of all images within `raw`.
    """
    raise NotImplementedError(type(source).__name__)


@read_kind.register
def _read_tables(
    source: CsvSource | LongSource, raw: Path, attributes: Mapping[str, AttributeColumn], images: Sequence[str]
) -> SourceValues:
    seen = dict[str, set[str]]()
    tables = [_from_table(raw, path, source, attributes, images, seen) for path in find_tables(raw, source.path)]
    values = pd.concat([of_table for of_table, _num in tables], ignore_index=True)
    return SourceValues(values, raw / source.path, sum(num for _values, num in tables), seen)


def _check_sides(attributes: Mapping[str, AttributeColumn]) -> None:
    for name, spec in attributes.items():
        both = {spelling for value in spec.positive for spelling in words(value)}
        for value in spec.negative:
            if words(value) & both:
                raise LabelError(f"labels: {name}: {value!r} is also among the positive values; keep one")


def _column(name: str, rule: PromptRule | ValueRule | ThresholdRule | ColumnRule) -> AttributeColumn:
    if isinstance(rule, ValueRule):
        return AttributeColumn(rule.column, positive=rule.positive, negative=rule.negative)
    if isinstance(rule, ThresholdRule):
        return AttributeColumn(rule.column, above=rule.above, below=rule.below)
    return AttributeColumn((rule.column if isinstance(rule, ColumnRule) else None) or name)


def _from_table(
    raw: Path,
    path: Path,
    source: CsvSource | LongSource,
    attributes: Mapping[str, AttributeColumn],
    images: Sequence[str],
    seen: dict[str, set[str]],
) -> tuple[pd.DataFrame, int]:
    """Values row by row, and the number of further rows, which belong to no image."""
    if isinstance(source, LongSource):
        table = read_annotations(
            path, Wanted.of(source.file_column, [source.attribute_column, source.value_column], images)
        )
        wide = pivot_long(table, path, source.file_column, source.attribute_column, source.value_column)
        files = wide[source.file_column].tolist()
        values = read_values(wide, path, source.file_column, attributes, lambda row: f"for {short(files[row])}", seen)
    else:
        columns = [spec.column for spec in attributes.values()]
        table = read_annotations(path, Wanted.of(source.file_column, columns, images))
        values = read_values(table, path, source.file_column, attributes, seen=seen)
    folder = path.parent.relative_to(raw).as_posix() if path.is_relative_to(raw) else ""
    return values.assign(file=in_folder(values["file"].tolist(), folder, images, path)), table.attrs["num_left_out"]


@read_kind.register
def _read_celeba(
    source: CelebaSource, raw: Path, attributes: Mapping[str, AttributeColumn], images: Sequence[str]
) -> SourceValues:
    path, seen = raw / source.path, dict[str, set[str]]()
    table = read_celeba(path)
    mapping = None if source.mapping is None else read_hq_mapping(raw / source.mapping)
    files = table["file"].tolist()
    values = read_values(table, path, "file", attributes, lambda row: f"for {short(files[row])}", seen)
    names = pd.Series(image_names(files, images, path, mapping), values.index, object)
    return SourceValues(values.assign(file=names).dropna(subset="file"), path, seen=seen)


@read_kind.register
def _read_folders(
    source: FolderLabels, raw: Path, attributes: Mapping[str, AttributeColumn], images: Sequence[str]
) -> SourceValues:
    cells = read_cells(source, raw, [spec.column for spec in attributes.values()], images)
    for name, spec in attributes.items():
        names = sorted(set(cells.table[spec.column].dropna()) - {""})
        for value in (*spec.positive, *spec.negative):
            if words(value).isdisjoint(map(word, names)):
                raise LabelError(f"labels: {name}: no folder is named {str(value)!r}{nearest(str(value), names)}")
    return SourceValues(read_values(cells.table, "folders", FILE, attributes), "folders")


@read_kind.register
def _read_cells(
    source: NameLabels | PairLabels | ImageFolderLabels | JsonLabels | WebDatasetLabels | ParquetLabels,
    raw: Path,
    attributes: Mapping[str, AttributeColumn],
    images: Sequence[str],
) -> SourceValues:
    columns = list(dict.fromkeys(spec.column for spec in attributes.values()))
    cells, seen = read_cells(source, raw, columns, images), dict[str, set[str]]()
    files = cells.table[FILE].tolist()
    place = {row: f"for {short(file)}" for row, file in zip(cells.table.index, files, strict=True)}
    values = read_values(cells.table, cells.where, FILE, attributes, place.__getitem__, seen)
    return SourceValues(values, cells.where, cells.num_left_out, seen)
