"""Reads an LMDB for its parent process, as a damaged page crashes the process that reads it.

boundaryflow.sources.lmdb_process runs this file as an isolated script, so it imports nothing of this project.
A request is a letter, a length and a key; a reply is a letter, a length and bytes. See `serve`.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import BinaryIO

import lmdb

HEAD = struct.Struct("<cI")
_FRAME = 2**20


def serve(path: Path, max_bytes: int, requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests until the end of input.

    Request `k` (all keys): replies `k` with some keys, each preceded by its length in two bytes; an empty one ends the
    list. Request `g` (a value): reply `v` and the value, `n` if there is none, or `l` and its length if it is too
    large. Errors: `e` and LMDB's message, or `o` and an errno.
    """

    def reply(kind: bytes, data: bytes = b"") -> None:
        replies.write(HEAD.pack(kind, len(data)))
        replies.write(data)
        replies.flush()

    environment: lmdb.Environment | None = None
    while head := requests.read(HEAD.size):
        kind, length = HEAD.unpack(head)
        key = requests.read(length)
        try:
            environment = environment or _opened(path)
            with environment.begin(buffers=True) as view:
                if kind == b"g":
                    value = view.get(key)
                    if value is None:
                        reply(b"n")
                    elif len(value) > max_bytes:
                        reply(b"l", str(len(value)).encode())
                    else:
                        reply(b"v", bytes(value))  # a missing page crashes the process here, before the reply
                    continue
                frame, most = bytearray(), _file(path).stat().st_size // 8
                for num, item in enumerate(view.cursor().iternext(values=False)):
                    if num >= most:
                        raise lmdb.CorruptedError(f"more than {most:,} keys, for which it has no room")
                    frame += struct.pack("<H", len(item)) + bytes(item)
                    if len(frame) > _FRAME:
                        reply(b"k", bytes(frame))
                        frame.clear()
                if frame:
                    reply(b"k", bytes(frame))
                reply(b"k")
        except lmdb.MemoryError:
            reply(b"o", str(errno.ENOMEM).encode())
        except lmdb.Error as error:
            reply(b"e", str(error).encode("utf-8", "replace"))
        except OSError as error:
            reply(b"o", str(error.errno or 0).encode())


def _file(path: Path) -> Path:
    return path / "data.mdb" if path.is_dir() else path


def _opened(path: Path) -> lmdb.Environment:
    environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, subdir=path.is_dir())
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = _file(path).stat().st_size
    if size < needed:
        environment.close()
        raise lmdb.CorruptedError(f"{size:,} bytes, must be {needed:,}")
    return environment


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(Path(os.fsdecode(sys.argv[1])), int(sys.argv[2]), sys.stdin.buffer, sys.stdout.buffer)
