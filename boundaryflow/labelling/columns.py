"""Reads attributes from the cells of a table."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boundaryflow.errors import LabelError
from boundaryflow.labelling.lines import short
from boundaryflow.text import word, words

_WORDS = {"true": 1.0, "yes": 1.0, "t": 1.0, "y": 1.0, "false": 0.0, "no": 0.0, "f": 0.0, "n": 0.0}
UNKNOWN = {"", "nan", "na", "n/a", "none", "null", "?", "<na>", "nat"}
"""Cells, in lower case, that say nothing."""
_MAX_NAMED = 20


@dataclass(frozen=True)
class AttributeColumn:
    """How an attribute is read from a column.

    With neither values nor limits the column holds the attribute itself: 0/1, -1/1, true/false,
    yes/no, or probabilities.

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


def read_values(
    table: pd.DataFrame,
    where: object,
    file_column: str,
    attributes: Mapping[str, AttributeColumn],
    place: Callable[[int], str] = lambda row: f"in row {row + 1}",
    seen: dict[str, set[str]] | None = None,
) -> pd.DataFrame:
    """Probabilities of the attributes, row by row.

    Args:
        table: From `read_annotations`.
        where: The table's file, for messages.
        file_column: Column with file names.
        attributes: Attribute to how it is read.
        place: Row number in the table's index to how a message names the row.
        seen: Filled with the values in columns for which attributes list values.

    Returns:
        `file`, as it is written, then a float64 column per attribute, NaN where unknown.

    Raises:
        LabelError: A column is missing, a row has no file name, or a value is not valid.
    """
    check_columns(table.columns, where, file_column, [file_column, *(a.column for a in attributes.values())])
    files = texts(table[file_column])
    if "" in files:
        raise LabelError(
            f"labels {where}: column {file_column!r} is blank {place(table.index[files.index('')])}; name its image"
        )
    read = {name: _read_column(table[spec.column], where, spec, place) for name, spec in attributes.items()}
    for name, spec in attributes.items():
        if seen is not None and (spec.positive or spec.negative):
            seen.setdefault(name, set()).update(texts(table[spec.column]))
    return pd.DataFrame({"file": files, **read})


def check_met(
    values: pd.DataFrame, where: object, attributes: Mapping[str, AttributeColumn], seen: Mapping[str, set[str]]
) -> None:
    """Refuse an attribute whose listed positive, or negative, values occur in no row.

    Args:
        values: From `read_values`, of all tables.
        where: The file, for messages.
        attributes: Attribute to how it is read.
        seen: From `read_values`.

    Raises:
        LabelError: There is such an attribute; the message lists the values that occur.
    """
    for name, values_met in seen.items():
        for side, wanted, value in (
            ("positive", attributes[name].positive, 1.0),
            ("negative", attributes[name].negative, 0.0),
        ):
            if wanted and not (values[name] == value).any():
                listed, column = " or ".join(map(short, wanted[:5])), attributes[name].column
                hint = nearest(str(wanted[0]), sorted(values_met - {""}))
                raise LabelError(f"labels {where}: {name}: no row says {listed} ({side}) in column {column!r}{hint}")


def check_columns(present: Iterable[object], where: object, file_column: str, columns: Iterable[str]) -> None:
    """Refuse a table without one of the columns; `file_column` need not be among them.

    Raises:
        LabelError: A column is missing.
    """
    names = [str(name) for name in present]
    for column in columns:
        if column not in names:
            others = [name for name in names if column == file_column or name != file_column]
            raise LabelError(f"labels {where}: has no column {column!r}{nearest(column, others)}")


def nearest(name: str, names: Sequence[str]) -> str:
    """End of a message about an unknown name: the closest name, or else the list of names."""
    meant = difflib.get_close_matches(name, names, 1)
    if meant:
        return f", did you mean {short(meant[0])!r}?"
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"; there are {', '.join(map(short, names[:_MAX_NAMED]))}{more}" if names else "; there are none"


def texts(column: pd.Series) -> list[str]:
    """Texts of the cells without surrounding blanks; empty cells give empty texts."""
    return ["" if blank else str(value).strip() for value, blank in zip(column, column.isna(), strict=True)]


def _read_column(
    column: pd.Series, where: object, spec: AttributeColumn, place: Callable[[int], str]
) -> NDArray[np.float64]:
    cells = texts(column)
    if spec.positive or spec.negative:
        sides = {
            text: side for side, of in ((0.0, spec.negative), (1.0, spec.positive)) for v in of for text in words(v)
        }
        by_cell = {cell: sides.get(word(cell), np.nan) for cell in set(cells)}
        return np.array([by_cell[cell] for cell in cells])
    limits = None if spec.above is None or spec.below is None else (spec.above, spec.below)
    meant = "a number" if limits else "0/1, -1/1, true/false, yes/no or a probability"
    known = {cell: _number(cell) for cell in set(cells)}
    numbers = np.array([np.inf if known[cell] is None else known[cell] for cell in cells], np.float64)
    outside = np.isinf(numbers) if limits else (numbers > 1) | ((numbers < 0) & (numbers != -1))
    if outside.any():
        row = int(np.argmax(outside))
        other = "" if limits else "; otherwise say positive and negative, or above and below"
        at = place(column.index[row])
        raise LabelError(
            f"labels {where}: column {spec.column!r} has {short(cells[row])!r} {at}; must be {meant}{other}"
        )
    if limits:
        return np.where(numbers > limits[0], 1.0, np.where(numbers < limits[1], 0.0, np.nan))
    if (numbers == -1).any() and ((numbers > -1) & (numbers < 1)).any():
        raise LabelError(
            f"labels {where}: column {spec.column!r} has -1 and also {cells[int(np.argmax(abs(numbers) < 1))]}, which "
            "may mean without or unknown; say positive and negative values"
        )
    return np.where(numbers == -1, 0.0, numbers)


def _number(cell: str) -> float | None:
    """Number of a cell: NaN if it is empty or unknown, None if it is not a number."""
    text = cell.lower()
    if text in UNKNOWN:
        return float("nan")
    if text in _WORDS:
        return _WORDS[text]
    try:
        return float(text)
    except ValueError:
        return None
