"""The record of what was delivered to an outbox: which files this project wrote."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from boundaryflow.errors import ManifestError
from boundaryflow.files import file_sha256
from boundaryflow.text import visible

STATE = ".boundaryflow"
OWNER, WRITTEN = f"{STATE}/job.json", f"{STATE}/written.jsonl"
MAX_OWN_BYTES = 2**16
"""Largest file of the state folder that is read whole, apart from the record."""
TABLES = ("metadata.parquet", "checks.parquet", "inbox.parquet", "runs.jsonl")
"""Files that a job keeps up to date in its outbox, beside pictures."""
_MAX_NAME_BYTES, _MAX_LINE_BYTES = 1000, 2**14


@dataclass(frozen=True)
class Content:
    """Size and hash of a file."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Content:
        """Size and hash of bytes."""
        return cls(len(data), hashlib.sha256(data).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> Content:
        """Size and hash of a file."""
        return cls(path.stat().st_size, file_sha256(path))


class Written:
    """The record of an outbox: for each file name the latest content and all earlier ones.

    A line is appended before its file is written. If the process is killed in between, the file still has one of the
    earlier contents, and so counts as written by us.
    """

    def __init__(self, lines: Iterable[bytes] = ()) -> None:
        self.contents: dict[str, Content] = {}
        self._earlier: dict[str, set[Content]] = {}
        for line in lines:
            try:
                name, size, digest = json.loads(line)
            except (ValueError, TypeError, RecursionError):
                continue  # cut short by a power failure: nothing proves that we wrote its file, so it is never removed
            if isinstance(name, str) and isinstance(size, int) and isinstance(digest, str) and is_within(name):
                self._enter(name, Content(size, digest))

    def add(self, name: str, content: Content) -> str:
        """Record a file; returns its line."""
        self._enter(name, content)
        return self.line(name)

    def line(self, name: str) -> str:
        """Line of the record for a name."""
        content = self.contents[name]
        return json.dumps([name, content.size, content.sha256]) + "\n"

    def has(self, name: str, content: Content) -> bool:
        """Whether this content was ever written under the name."""
        return content in self._all(name)

    def is_ours(self, name: str, path: Path) -> bool:
        """Whether a file has a content that was written under the name. It is read only if the size matches."""
        size = path.stat().st_size
        return any(content.size == size for content in self._all(name)) and self.has(name, Content.of_file(path))

    def others(self, wanted: Collection[str], kept: Collection[str]) -> Iterator[str]:
        """Names of recorded files that are neither in `wanted` nor in `kept`."""
        return (name for name in sorted(self.contents) if name not in wanted and name not in kept)

    def _all(self, name: str) -> set[Content]:
        known = self.contents.get(name)
        return self._earlier.get(name, set()) | ({known} if known else set())

    def _enter(self, name: str, content: Content) -> None:
        known = self.contents.get(name)
        if known not in (None, content):
            self._earlier.setdefault(name, set()).add(known)
        self.contents[name] = content


def lines_of(file: IO[bytes]) -> Iterator[bytes]:
    """Lines of a record; one that is too long is split into pieces, none of which is valid JSON."""
    return iter(lambda: file.readline(_MAX_LINE_BYTES), b"")


def is_within(name: str) -> bool:
    """Whether a name is a printable path within the outbox and outside its state folder."""
    parts = PurePosixPath(name).parts
    leads_out = ".." in parts or name.startswith("/") or parts[:1] == (STATE,)
    return bool(parts) and not leads_out and visible(name) == name and len(name.encode()) <= _MAX_NAME_BYTES


def checked(address: str, name: str, data: bytes | None, written: Written) -> bytes | None:
    """The bytes of a file of an outbox.

    Raises:
        ManifestError: They are not as we wrote them.
    """
    if data is not None and not written.has(name, Content.of(data)):
        raise ManifestError(f"outbox {address}: {name} was changed since it was written; take it away, or put it back")
    return data
