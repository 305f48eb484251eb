"""Reads text files of users a line at a time, so that the size of a file does not matter; what is wrong with one."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from boundaryflow.errors import LabelError
from boundaryflow.files import RefusedFileError, check_regular
from boundaryflow.text import visible

MAX_LINE = 2**24
"""Limit of characters in a line; a file with a longer one is refused."""

_NO_TABLE = (
    ((b"version https://git-lfs",), "is a Git LFS pointer and not the file itself; fetch it with `git lfs pull`"),
    ((b"<!doctype", b"<html", b"<head", b"<?xml"), "is a web page and not a table; download the file itself"),
)


@contextmanager
def text_lines(path: Path) -> Generator[Iterator[str]]:
    """Lines of a UTF-8 file, with or without byte order mark, each with its end of line. The file is closed on exit.

    Raises:
        LabelError: See `open_table`; a line is too long, in another encoding, or has a NUL; no line says anything.
    """
    # An undecodable byte becomes a surrogate, so that its line can be reported.
    with io.TextIOWrapper(open_table(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        yield _checked_lines(path, text)


def _checked_lines(path: Path, text: io.TextIOWrapper) -> Iterator[str]:
    is_blank = True
    for number, line in enumerate(iter(lambda: text.readline(MAX_LINE + 1), ""), 1):
        if len(line) > MAX_LINE:
            refuse(path, f"line {number} is longer than {MAX_LINE:,} characters, which are too many")
        byte = None if line.isascii() else next((ord(c) for c in line if 0xDC80 <= ord(c) <= 0xDCFF), None)
        if byte is not None:
            refuse(path, f"is not UTF-8 (byte 0x{byte - 0xDC00:02x} in line {number}); save it as UTF-8")
        if "\0" in line:
            refuse(path, f"line {number} has a NUL byte; it is not a text file, or is damaged")
        if is_blank and line.strip():
            is_blank = False
        yield line
    if is_blank:
        refuse(path, "is empty")


def open_table(path: Path) -> BinaryIO:
    """Open a regular file, and refuse common wrong content by its first bytes.

    Raises:
        LabelError: It is missing, a folder, no regular file, a Git LFS pointer or a web page.
    """
    if path.is_dir():
        refuse(path, "is a folder; give the file with the labels")
    try:
        check_regular(path)
        file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115 - handed out
    except FileNotFoundError:
        refuse(path, "no such file; check the path")
    except RefusedFileError as error:
        refuse(path, f"is {error.reason}")
    except OSError as error:
        refuse(path, f"cannot be read ({error.strerror})")
    start = file.read(200).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    file.seek(0)
    for marks, what in _NO_TABLE:
        if start.startswith(marks):
            file.close()
            refuse(path, what)
    return file


def short(cell: object, most: int = 60) -> str:
    """Text of a cell, shortened for messages."""
    text = visible(str(cell)[: most + 1])
    return text if len(text) <= most else f"{text[:most]}..."


def refuse(path: Path, what: str) -> NoReturn:
    """Raise the error of a file of labels."""
    raise LabelError(f"labels {path}: {what}")


def once(path: Path, place: str, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object from its keys and values: the `object_pairs_hook` of `json.loads`.

    Raises:
        LabelError: A key is there twice.
    """
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = next(name for name, num in Counter(name for name, _value in pairs).items() if num > 1)
        refuse(path, f"{place}has the key {short(twice)!r} twice; keep one of them")
    return record
