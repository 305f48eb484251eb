"""Labels in JSON: one object of all pictures, a list of records, or a file for each picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from boundaryflow.errors import LabelError
from boundaryflow.files import RefusedFileError, read_bytes
from boundaryflow.labelling.columns import nearest
from boundaryflow.labelling.lines import once, open_table, refuse, short

VALUE = "value"
"""The column of values where a picture has one and no object."""
MAX_BYTES = 2**27
"""A larger JSON file is refused, as it is in memory at once; JSON lines have no such limit."""
_MAX_KEYS = 12


def read_json(path: Path, max_bytes: int = MAX_BYTES) -> Any:
    """The content of a JSON file.

    Raises:
        LabelError: It is missing, too large, no JSON, nested too deeply, or has a key twice in an object.
    """
    open_table(path).close()
    try:
        data = read_bytes(path, max_bytes)
    except RefusedFileError as error:
        refuse(path, f"is {error.reason}; save it as JSON lines (.jsonl) and read it with kind csv")
    return parse_json(path, data)


def parse_json(path: Path, data: bytes, place: str = "") -> Any:
    """The content of JSON in UTF-8.

    Args:
        path: The file, for messages.
        data: Its bytes, or those of a member of it.
        place: The member, for messages: followed by a blank.

    Raises:
        LabelError: It is no JSON, nested too deeply, or has a key twice in an object.
    """
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=partial(once, path, place))
    except LabelError:
        raise
    except UnicodeDecodeError as error:
        refuse(path, f"{place}is not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8")
    except json.JSONDecodeError as error:
        refuse(path, f"{place}is not JSON (line {error.lineno}: {error.msg}); save it again")
    except RecursionError:
        refuse(path, f"{place}is nested too deeply; an object of a picture has texts, numbers and booleans")
    except ValueError as error:  # a number of thousands of digits
        refuse(path, f"{place}is not JSON ({str(error).partition(';')[0][:100]})")


def json_rows(path: Path, content: Any, file_column: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """File names, as they are written, and columns of the pictures of a JSON file.

    Args:
        path: The file, for messages.
        content: An object with a value or an object for each picture, or a list of objects.
        file_column: Key of the file names in a list; None for an object.

    Raises:
        LabelError: It has another form.
    """
    if isinstance(content, dict):
        if file_column is not None:
            refuse(path, "is an object, whose keys are the file names; set file_column to null")
        for name, value in content.items():
            yield str(name), value if isinstance(value, dict) else {VALUE: value}
        return
    if not isinstance(content, list):
        refuse(path, "is neither an object nor a list of objects")
    for number, record in enumerate(content, 1):
        if not isinstance(record, dict):
            refuse(path, f"record {number} is no object; a list must be of objects")
        if file_column is None:
            keys = ", ".join(map(short, list(record)[:_MAX_KEYS]))
            refuse(path, f"is a list; give the key of the file names as file_column (there are {keys or 'none'})")
        name = record.get(file_column)
        if not isinstance(name, str | int) or isinstance(name, bool) or name == "":
            known = nearest(file_column, list(record)) if file_column not in record else ""
            refuse(path, f"record {number} has no file name in {short(file_column)!r}{known}")
        yield str(name), record


def plain_cells(
    path: Path, name: str, record: Mapping[str, Any], columns: Sequence[str]
) -> dict[str, str | int | float | bool | None]:
    """The cells of some columns; other columns may be nested.

    Raises:
        LabelError: A cell is nested.
    """
    for column in columns:
        if isinstance(record.get(column), dict | list):
            refuse(path, f"{short(column)!r} of {short(name)} is nested, must be a text, a number or a boolean")
    return {str(key): value for key, value in record.items() if not isinstance(value, dict | list)}
