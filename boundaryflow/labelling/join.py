"""Rows about images, and the images: joined by file name, and never by position."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from boundaryflow.errors import LabelError
from boundaryflow.labelling.columns import AttributeColumn, read_values

MIN_JOINED = 0.95
_SUFFIX = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")  # no digit first: 1.5 is not 1 with the suffix .5


def match_files(files: Sequence[str], sources: Mapping[str, str]) -> dict[str, str]:
    """Which of the file names in a table stands for which image.

    A name fits the image whose relative path it is; else whose relative path without suffix, else
    whose base name, else whose base name without suffix, where that is unique on both sides. A
    leading `./` and backslashes between folders are fine.

    Args:
        files: Names as they are written.
        sources: Item id to relative path of the image.

    Returns:
        Item id to name as it is written, for images that have one.
    """
    written: dict[str, str] = {}
    for name in files:
        written.setdefault(normal(name), name)
    images = set(sources.values())
    found = {item: written[source] for item, source in sources.items() if source in written}
    shorter: tuple[Callable[[str], str], ...] = (_without_suffix, _base_name, lambda p: _without_suffix(_base_name(p)))
    for shorten in shorter if len(found) < len(sources) else ():
        in_table, in_images = _unique(written, shorten), _unique(images, shorten)
        for item, source in sources.items():
            short = shorten(source)
            if item not in found and in_images.get(short) == source and short in in_table:
                found[item] = written[in_table[short]]
    return found


def normal(name: str) -> str:
    """A relative path as the manifest writes it."""
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def in_folder(files: Sequence[str], folder: str, sources: Mapping[str, str], where: object) -> list[str]:
    """Names of a table that lies in a folder of its own, relative to the folder of all images.

    Args:
        files: Names as they are written: relative to all images' folder, or to the table's.
        folder: The table's folder, relative to all images'; empty or `.` if it is the same.
        sources: Item id to relative path of the image.
        where: The table's file, for messages.

    Raises:
        LabelError: A name fits an image of either folder.
    """
    names, images = [normal(name) for name in files], set(sources.values())
    if folder in ("", "."):
        return names
    found: list[str] = []
    for name in names:
        own = f"{folder}/{name}"
        if name in images and own in images:
            raise LabelError(
                f"labels {where}: {name} may be {name} or {own}; write paths from the root and put the table there"
            )
        found.append(name if name in images else own)
    return found


def join_values(
    values: pd.DataFrame, where: object, sources: Mapping[str, str], *, partial: bool = False
) -> tuple[pd.DataFrame, int]:
    """Labels of each image.

    Args:
        values: `file`, then a column per attribute; of `read_values`.
        where: The file, for messages.
        sources: Item id to relative path of the image.
        partial: One image with a row is enough; else 95 % must have one.

    Returns:
        One row per item, sorted by id: item_id, then a float32 probability per attribute, NaN
        where unknown; and the number of rows that belong to no image.

    Raises:
        LabelError: Two rows for one image disagree, or too few images have a row.
    """
    distinct = values.assign(file=[normal(name) for name in values["file"]]).drop_duplicates()
    twice = distinct["file"].duplicated(keep=False)
    if twice.any():
        name = distinct.loc[twice, "file"].iloc[0]
        raise LabelError(f"labels {where}: rows for {name} contradict one another; keep one of them")
    files = distinct["file"].tolist()
    rows = match_files(files, sources)
    if not rows if partial else len(rows) < MIN_JOINED * len(sources):
        _refuse(where, rows, files, sources, partial)
    by_file = distinct.set_index("file")
    items = sorted(sources)
    joined = by_file.reindex([rows.get(item, "") for item in items])
    labels = {str(name): joined[name].to_numpy(np.float32) for name in by_file.columns}
    return pd.DataFrame({"item_id": items, **labels}), len(files) - len(set(rows.values()))


def join_labels(
    table: pd.DataFrame,
    where: object,
    file_column: str,
    sources: Mapping[str, str],
    attributes: Mapping[str, AttributeColumn],
) -> pd.DataFrame:
    """Labels of each image, from one table beside the images: `read_values`, then `join_values`."""
    return join_values(read_values(table, where, file_column, attributes), where, sources)[0]


def _refuse(
    where: object, rows: Mapping[str, str], files: Sequence[str], sources: Mapping[str, str], partial: bool
) -> None:
    without = sorted(source for item, source in sources.items() if item not in rows)
    stray = sorted(set(files) - set(rows.values()))
    least = "at least one" if partial else f"{MIN_JOINED:.0%}"
    lonely, spare = ", ".join(without[:3]), ", ".join(stray[:3]) or "none"
    raise LabelError(
        f"labels {where}: only {len(rows)} of {len(sources)} images have one of its {len(files)} rows, must be "
        f"{least}; images without a row: {lonely}; rows without an image: {spare}; check the file names"
    )


def _unique(names: Iterable[str], shorten: Callable[[str], str]) -> dict[str, str]:
    """Short name to name, where only one name has it."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(shorten(name), []).append(name)
    return {short: group[0] for short, group in groups.items() if len(group) == 1}


def _base_name(path: str) -> str:
    return path.rpartition("/")[2]


def _without_suffix(path: str) -> str:
    return _SUFFIX.sub("", path)
