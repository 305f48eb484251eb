"""Labels from tables that people or other programs made, joined to images by file name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boundaryflow.errors import LabelError

MIN_JOINED = 0.95
_WORDS = {"true": 1.0, "yes": 1.0, "t": 1.0, "false": 0.0, "no": 0.0, "f": 0.0}


@dataclass(frozen=True)
class AttributeColumn:
    """How an attribute is read from a column.

    With neither values nor limits the column holds the attribute itself: 0/1, -1/1, true/false,
    or probabilities.

    Attributes:
        column: Name of the column.
        positive: Values of images with the attribute.
        negative: Values of images without; other values are unknown.
        above: Numbers above have it.
        below: Numbers below do not; between the two is unknown.
    """

    column: str
    positive: Sequence[object] = ()
    negative: Sequence[object] = ()
    above: float | None = None
    below: float | None = None


def read_annotations(path: Path) -> pd.DataFrame:
    """Read a CSV, TSV, Parquet or JSON-lines table, every value as it is written; a blank cell is unknown.

    Raises:
        LabelError: The file is missing, unreadable, or of another kind.
    """
    if not path.is_file():
        raise LabelError(f"labels {path}: no such file; check label.source.path in params.yaml")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix in (".jsonl", ".ndjson"):
            return pd.read_json(path, lines=True, dtype=False)
        if path.suffix in (".csv", ".tsv"):
            separator = "\t" if path.suffix == ".tsv" else ","
            return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, na_values=[""])
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise LabelError(f"labels {path}: cannot be read ({str(error).splitlines()[0]})") from None
    raise LabelError(f"labels {path}: kind {path.suffix!r} is not known; use .csv, .tsv, .parquet or .jsonl")


def join_labels(
    table: pd.DataFrame,
    where: Path,
    file_column: str,
    sources: Mapping[str, str],
    attributes: Mapping[str, AttributeColumn],
) -> pd.DataFrame:
    """Labels of each image, found by file name and never by position.

    A row fits an image whose relative path it names; else whose base name, else whose base name
    without suffix, where that is unique on both sides.

    Args:
        table: Of `read_annotations`.
        where: The table's file, for messages.
        file_column: Column with file names.
        sources: Item id to relative path of the image.
        attributes: Attribute to how it is read.

    Returns:
        One row per item, sorted by id: item_id, then a float32 probability per attribute, NaN
        where unknown.

    Raises:
        LabelError: A column is missing, a value makes no sense, two rows for one image disagree,
            or fewer than 95 % of the images have a row.
    """
    for column in (file_column, *(a.column for a in attributes.values())):
        if column not in table.columns:
            raise LabelError(
                f"labels {where}: has no column {column!r}; there are {', '.join(map(str, table.columns))}"
            )
    read = {name: _read_column(table, where, spec) for name, spec in attributes.items()}
    files = [PurePosixPath(str(name)).as_posix() for name in table[file_column]]
    values = pd.DataFrame({"file": files, **read})
    unlike = values.drop_duplicates().duplicated("file", keep=False)
    if unlike.any():
        name = values.drop_duplicates().loc[unlike, "file"].iloc[0]
        raise LabelError(f"labels {where}: rows for {name} contradict one another; keep one of them")
    rows = _match(values.drop_duplicates("file")["file"].tolist(), sources)
    if len(rows) < MIN_JOINED * len(sources):
        _refuse_join(where, sorted(set(sources.values()) - {sources[item] for item in rows}), files, sources, len(rows))
    by_file = values.drop_duplicates("file").set_index("file")
    result = pd.DataFrame({"item_id": sorted(sources)})
    for name in attributes:
        column = [by_file.at[rows[item], name] if item in rows else np.nan for item in result["item_id"]]
        result[name] = np.array(column, np.float32)
    return result


def _match(files: Sequence[str], sources: Mapping[str, str]) -> dict[str, str]:
    """Item id to the file name in the table that stands for it."""
    exact = set(files)
    found = {item: source for item, source in sources.items() if source in exact}
    for shorten in (lambda p: PurePosixPath(p).name, lambda p: PurePosixPath(p).stem):
        in_table, in_images = _unique(files, shorten), _unique(list(sources.values()), shorten)
        for item, source in sources.items():
            short = shorten(source)
            if item not in found and in_images.get(short) == source and short in in_table:
                found[item] = in_table[short]
    return found


def _unique(names: Sequence[str], shorten: object) -> dict[str, str]:
    """Short name to name, where only one name has it."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(shorten(name), []).append(name)  # type: ignore[operator]
    return {short: group[0] for short, group in groups.items() if len(group) == 1}


def _refuse_join(
    where: Path, unlabelled: Sequence[str], files: Sequence[str], sources: Mapping[str, str], num: int
) -> None:
    stray = sorted(set(files) - set(sources.values()))
    raise LabelError(
        f"labels {where}: only {num} of {len(sources)} images have a row, must be {MIN_JOINED:.0%}; images without: "
        f"{', '.join(unlabelled[:3])}; rows without an image: {', '.join(stray[:3]) or 'none'}; check the file names"
    )


def _read_column(table: pd.DataFrame, where: Path, spec: AttributeColumn) -> NDArray[np.float64]:
    column = table[spec.column]
    if spec.positive or spec.negative:
        words = column.map(_word)
        result = np.full(len(column), np.nan)
        result[words.isin([_word(v) for v in spec.positive])] = 1
        result[words.isin([_word(v) for v in spec.negative])] = 0
        return result
    numbers = np.array([_number(value, where, spec.column, row) for row, value in enumerate(column)])
    if spec.above is not None and spec.below is not None:
        return np.where(numbers > spec.above, 1.0, np.where(numbers < spec.below, 0.0, np.nan))
    if np.nanmin(numbers, initial=0) < 0:
        numbers = np.where(numbers == -1, 0.0, numbers)
    outside = np.flatnonzero(~np.isnan(numbers) & ((numbers < 0) | (numbers > 1)))
    if len(outside):
        raise LabelError(
            f"labels {where}: column {spec.column!r} has {column.iloc[outside[0]]!r} in row {outside[0] + 1}; "
            "must be 0/1, -1/1, true/false or a probability; otherwise say positive and negative, or above and below"
        )
    return numbers


def _word(value: object) -> str:
    """How a value is compared: 4, 4.0 and "4" are the same."""
    text = str(value).strip().lower()
    try:
        return repr(float(text))
    except ValueError:
        return text


def _number(value: object, where: Path, column: str, row: int) -> float:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return float("nan")
    text = str(value).strip().lower()
    if text in ("", "nan", "na", "none", "null", "?"):
        return float("nan")
    if text in _WORDS:
        return _WORDS[text]
    try:
        return float(text)
    except ValueError:
        raise LabelError(
            f"labels {where}: column {column!r} has {value!r} in row {row + 1}, which is no number"
        ) from None
