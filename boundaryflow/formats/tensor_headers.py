"""Headers of safetensors files, checked against the file's size before anything else is read; works without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from boundaryflow.files import MAX_SETTINGS_BYTES, RefusedFileError, check_regular
from boundaryflow.text import visible

ABOUT = "boundaryflow"
"""The one entry of the metadata that this project writes, as JSON."""
_DTYPES = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8",
           "BOOL", "C64"}  # fmt: skip
_LENGTH = 8  # bytes of the header's length


@dataclass(frozen=True)
class TensorHeader:
    """Header of a safetensors file.

    Attributes:
        shapes: Name of each tensor to its shape.
        about: Facts that this project wrote; empty for other files.
    """

    shapes: dict[str, tuple[int, ...]]
    about: dict[str, Any]


def read_header(path: Path) -> TensorHeader:
    """Read the header of a safetensors file.

    Raises:
        SafetensorError: It is not a complete safetensors file.
        OSError: It cannot be read.
    """
    try:
        size = check_regular(path).st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH), "little")
            if length > size - _LENGTH:
                raise SafetensorError("cut off")
            if length > MAX_SETTINGS_BYTES:
                raise SafetensorError(
                    f"its header has {length:,} bytes, more than the {MAX_SETTINGS_BYTES:,} that are read"
                )
            header = parse_json_object(file.read(length))
        facts = header.pop("__metadata__", {})
        shapes = {name: _shape(visible(name), entry, size - _LENGTH - length) for name, entry in header.items()}
        if max((entry["data_offsets"][1] for entry in header.values()), default=0) != size - _LENGTH - length:
            raise SafetensorError("cut off")
        about = facts.get(ABOUT, "{}") if isinstance(facts, dict) else None
        if not isinstance(about, str):
            raise SafetensorError("its metadata values are not strings")
        return TensorHeader(shapes, parse_json_object(about.encode()))
    except RefusedFileError as error:
        raise SafetensorError(error.reason) from None
    except ValueError as error:
        raise SafetensorError(f"its header {error}") from None


def parse_json_object(data: bytes) -> dict[str, Any]:
    """A JSON object from untrusted bytes. NaN and infinity are refused: they are not JSON.

    Raises:
        ValueError: It is not one; the message continues a sentence whose subject is the data.
    """
    try:
        content = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON at line {error.lineno}") from None
    except RecursionError:
        raise ValueError("is nested too deep") from None
    except ValueError as error:  # not UTF-8, a number of thousands of digits, NaN
        raise ValueError(f"is not JSON: {str(error).partition(';')[0]}") from None
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__}, must be a JSON object")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it has {name}, which is not a number")


def _shape(name: str, entry: Any, length: int) -> tuple[int, ...]:
    """Shape of one tensor, after checks of its entry and of the range of its bytes."""
    sound = isinstance(entry, dict) and all(
        isinstance(entry.get(key), list) and all(type(n) is int and n >= 0 for n in entry[key])
        for key in ("shape", "data_offsets")
    )
    if not sound or len(entry["data_offsets"]) != 2:  # noqa: PLR2004 - begin and end
        raise SafetensorError(f"the entry of tensor {name} is damaged")
    begin, end = entry["data_offsets"]
    if not begin <= end <= length:
        raise SafetensorError("cut off")
    if entry.get("dtype") not in _DTYPES:
        raise SafetensorError(f"tensor {name} is of type {visible(str(entry.get('dtype'))[:40])}, which is not read")
    return tuple(entry["shape"])
