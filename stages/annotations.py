"""Annotations of a data set, of whatever kind: files beside the images, or the folders they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pandas as pd

from boundaryflow.errors import LabelError
from boundaryflow.labelling import (
    AttributeColumn,
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
from stages.params import (
    Annotations,
    CelebaSource,
    ColumnRule,
    CsvSource,
    FolderLabels,
    LongSource,
    PromptRule,
    ThresholdRule,
    ValueRule,
)

FOLDER = "folder"  # the column that folders as labels are read from


def read_labels(
    raw: Path,
    source: Annotations,
    rules: Mapping[str, PromptRule | ValueRule | ThresholdRule | ColumnRule],
    sources: Mapping[str, str],
    *,
    partial: bool = False,
) -> tuple[pd.DataFrame, int]:
    """What people have said of the images.

    Args:
        raw: The folder of the images, from which paths are written.
        source: Where it is said.
        rules: Attribute to how it is read; a rule without a column stands for the attribute's own.
        sources: Item id to path of the image within `raw`.
        partial: One image with a row is enough; else 95 % must have one.

    Returns:
        One row per item, sorted by id: item_id, then a float32 probability per attribute, NaN
        where unknown; and the number of rows that belong to no image.

    Raises:
        LabelError: A file is missing, damaged or of another form, or does not belong to the images.
    """
    attributes = {name: _column(name, rule) for name, rule in rules.items()}
    if isinstance(source, FolderLabels):
        return _from_folders(attributes, sources)
    where = raw / source.path
    if isinstance(source, CelebaSource):
        return join_values(_from_celeba(raw, source, attributes, sources), where, sources, partial=partial)
    values = [_from_table(raw, path, source, attributes, sources) for path in find_tables(raw, source.path)]
    return join_values(pd.concat(values, ignore_index=True), where, sources, partial=partial)


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
    sources: Mapping[str, str],
) -> pd.DataFrame:
    table = read_annotations(path)
    if isinstance(source, LongSource):
        wide = pivot_long(table, path, source.file_column, source.attribute_column, source.value_column)
        files = wide[source.file_column].tolist()
        values = read_values(wide, path, source.file_column, attributes, lambda row: f"for {files[row]}")
    else:
        values = read_values(table, path, source.file_column, attributes)
    folder = path.parent.relative_to(raw).as_posix() if path.is_relative_to(raw) else ""
    return values.assign(file=in_folder(values["file"].tolist(), folder, sources, path))


def _from_celeba(
    raw: Path, source: CelebaSource, attributes: Mapping[str, AttributeColumn], sources: Mapping[str, str]
) -> pd.DataFrame:
    path = raw / source.path
    table = read_celeba(path)
    mapping = None if source.mapping is None else read_hq_mapping(raw / source.mapping)
    files = table["file"].tolist()
    values = read_values(table, path, "file", attributes, lambda row: f"for {files[row]}")
    names = pd.Series(image_names(files, sources, path, mapping), values.index, object)
    return values.assign(file=names).dropna(subset="file")


def _from_folders(attributes: Mapping[str, AttributeColumn], sources: Mapping[str, str]) -> tuple[pd.DataFrame, int]:
    files = list(sources.values())
    folders = [PurePosixPath(source).parent.name for source in files]
    there = sorted(set(folders) - {""})
    for name, spec in attributes.items():
        for value in (*spec.positive, *spec.negative):
            if word(value) not in map(word, there):
                raise LabelError(f"labels: {name}: no folder is named {str(value)!r}{nearest(str(value), there)}")
    table = pd.DataFrame({"file": files, FOLDER: folders}, dtype=object)
    return join_values(read_values(table, "folders", "file", attributes), "folders", sources)
