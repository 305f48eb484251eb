"""LMDBs are read in separate processes, as a damaged page crashes the process that reads it."""

from __future__ import annotations

import atexit
import os
import selectors
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from boundaryflow.sources import lmdb_reader

CALL_S = 60.0
"""Time limit of a reader for a reply, or for the next part of one."""
_MAX_READERS = 4


class ReaderError(Exception):
    """The LMDB cannot be read; the message says why."""


class _Reader:
    """A process that reads one LMDB; used by one thread at a time."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        command = [sys.executable, "-P", lmdb_reader.__file__, str(path), str(max_bytes)]
        self._process = subprocess.Popen(  # noqa: S603 - our own file
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )

    def request(self, kind: bytes, key: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Send a request and yield its replies."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(lmdb_reader.HEAD.pack(kind, len(key)) + key)
        except BrokenPipeError:
            raise self._ended() from None
        is_last = False
        while not is_last:
            deadline = time.monotonic() + CALL_S
            answer, length = lmdb_reader.HEAD.unpack(self._read(lmdb_reader.HEAD.size, deadline))
            data = self._read(length, deadline)
            is_last = answer != b"k" or not data
            yield answer, data

    def _read(self, num: int, deadline: float) -> bytes:
        assert self._process.stdout is not None
        parts: list[bytes] = []
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while num:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.close()
                    raise ReaderError(f"its reader did not answer for {CALL_S:g} s")
                part = os.read(self._process.stdout.fileno(), min(num, 2**20))
                if not part:
                    raise self._ended()
                parts.append(part)
                num -= len(part)
        return b"".join(parts)

    def _ended(self) -> ReaderError:
        status = self._process.wait(CALL_S)
        return ReaderError(f"its reader ended by signal {-status}" if status < 0 else f"its reader ended with {status}")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


_readers: dict[tuple[Path, int, int], _Reader] = {}
_lock = threading.Lock()


def keys_of(path: Path, max_bytes: int) -> list[bytes]:
    """All keys of an LMDB, in its order.

    Raises:
        ReaderError: It is damaged.
        OSError: It cannot be opened.
    """
    keys: list[bytes] = []
    for _kind, data in _request(path, max_bytes, b"k"):
        at = 0
        while at < len(data):
            (length,) = struct.unpack_from("<H", data, at)
            keys.append(data[at + 2 : at + 2 + length])
            at += 2 + length
    return keys


def value_of(path: Path, key: bytes, max_bytes: int) -> bytes | int | None:
    """A value of an LMDB; its length if that is more than `max_bytes`, None if there is none.

    Raises:
        ReaderError: It is damaged.
        OSError: It cannot be opened.
    """
    ((kind, data),) = _request(path, max_bytes, b"g", key)
    return data if kind == b"v" else int(data) if kind == b"l" else None


def _request(path: Path, max_bytes: int, kind: bytes, key: bytes = b"") -> list[tuple[bytes, bytes]]:
    home = path.resolve()
    about = (home / "data.mdb" if home.is_dir() else home).stat()
    version = (home, about.st_mtime_ns, about.st_size)
    with _lock:
        if version not in _readers:
            while len(_readers) >= _MAX_READERS:
                _readers.pop(next(iter(_readers))).close()
            _readers[version] = _Reader(home, max_bytes)
        try:
            replies = list(_readers[version].request(kind, key))
        except BaseException:  # the rest of this reply would be read as the next one
            _readers.pop(version).close()
            raise
    last, content = replies[-1]
    if last == b"e":
        raise ReaderError(content.decode("utf-8", "replace"))
    if last == b"o":
        raise OSError(int(content), os.strerror(int(content)))
    return replies


def _close_all() -> None:
    while _readers:
        _readers.popitem()[1].close()


def _forget() -> None:
    """In a forked process, drop the parent's readers."""
    global _lock  # noqa: PLW0603
    _readers.clear()
    _lock = threading.Lock()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget)
