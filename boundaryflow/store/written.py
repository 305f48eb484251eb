"""The record of what was written to an outbox: name, size and SHA-256 of each file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from boundaryflow.text import visible

STATE = ".boundaryflow"
"""Folder of an outbox that has what is needed to deliver."""
TABLES = ("metadata.parquet", "inbox.parquet", "runs.jsonl")
"""What a job keeps up to date in its outbox, beside pictures."""
_MAX_NAME_BYTES, _MAX_LINE_BYTES = 1000, 2**14


@dataclass(frozen=True)
class Content:
    """What the record knows of a file's bytes."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Content:
        """What the record says of these bytes."""
        return cls(len(data), hashlib.sha256(data).hexdigest())


class Written:
    """Name to content of what was written: the last one of a name that was written again, and whether one is earlier.

    A line is written before its file: after a kill in between, the file is still what an earlier line says.
    """

    def __init__(self, lines: Iterable[bytes] = ()) -> None:
        self.contents: dict[str, Content] = {}
        self._earlier: dict[str, set[Content]] = {}
        for line in lines:
            try:
                name, size, digest = json.loads(line)
            except (ValueError, TypeError, RecursionError):
                continue  # cut short by a power cut: the file it names is not proved ours, and stays
            if isinstance(name, str) and isinstance(size, int) and isinstance(digest, str) and is_within(name):
                self._enter(name, Content(size, digest))

    def add(self, name: str, data: bytes) -> str:
        """Remember a file; returns its line."""
        self._enter(name, Content.of(data))
        return self.line(name)

    def line(self, name: str) -> str:
        """What the record says of a name."""
        content = self.contents[name]
        return json.dumps([name, content.size, content.sha256]) + "\n"

    def has(self, name: str, content: Content) -> bool:
        """Whether this was written under the name, now or earlier."""
        return content in self._all(name)

    def is_ours(self, name: str, path: Path) -> bool:
        """Whether a file is as it was written under the name; one of another size is not read."""
        size = path.stat().st_size
        if all(content.size != size for content in self._all(name)):
            return False
        with path.open("rb") as file:
            return self.has(name, Content(size, hashlib.file_digest(file, "sha256").hexdigest()))

    def others(self, wanted: Collection[str]) -> Iterator[str]:
        """Pictures that are not wanted."""
        return (name for name in sorted(self.contents) if name not in wanted and name not in TABLES)

    def _all(self, name: str) -> set[Content]:
        known = self.contents.get(name)
        return self._earlier.get(name, set()) | ({known} if known else set())

    def _enter(self, name: str, content: Content) -> None:
        known = self.contents.get(name)
        if known not in (None, content):
            self._earlier.setdefault(name, set()).add(known)
        self.contents[name] = content


def lines_of(file: IO[bytes]) -> Iterator[bytes]:
    """Lines of a record, in bounded pieces: of one that is too long none can be read as JSON."""
    return iter(lambda: file.readline(_MAX_LINE_BYTES), b"")


def is_within(name: str) -> bool:
    """Whether a name stays within the outbox, outside its state folder, and can be shown and stored as it is."""
    parts = PurePosixPath(name).parts
    leads_out = ".." in parts or name.startswith("/") or parts[:1] == (STATE,)
    return bool(parts) and not leads_out and visible(name) == name and len(name.encode()) <= _MAX_NAME_BYTES
