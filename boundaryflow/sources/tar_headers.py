"""Lists the files of a tar archive from headers of bounded size; tarfile would read a long name of gigabytes."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import IO

_BLOCK = 512
_MAX_HEADER = 64 * 1024
"""Limit of bytes of a long name or of extended attributes; file systems have no longer paths."""
_PAX_RECORD = re.compile(rb"(\d{1,20}) ([^=\n]+)=")


def tar_files(file: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each regular file; the stream is left at the end of the archive.

    A file of a truncated archive may extend beyond its end; reading it then gives too few bytes.

    Raises:
        tarfile.ReadError: It is not a tar archive, is damaged, or has unsupported parts.
    """
    at, more = 0, {}
    while True:
        file.seek(at)
        block = file.read(_BLOCK)
        if block == bytes(_BLOCK):
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError):
            raise tarfile.ReadError(f"no header at byte {at:,}, and no end") from None
        start = at + _BLOCK
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            text = _extended(file, info.size, at).partition(b"\0")[0]
            more = more if info.type == tarfile.GNUTYPE_LONGLINK else {**more, b"path": text}
        elif info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            more = {**more, **_records(_extended(file, info.size, at), at)}
        elif info.type == tarfile.XGLTYPE:
            _records(_extended(file, info.size, at), at)
        else:
            name, size = _name(info, more), _size(info, more, at)
            if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith(b"GNU.sparse") for key in more):
                raise tarfile.ReadError(f"sparse file at byte {at:,}, which is not read; pack it without --sparse")
            has_content = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
            info.size = size if has_content else 0
            if info.isreg():
                yield name, start, size
            more = {}
        at = start + -(-info.size // _BLOCK) * _BLOCK


def _extended(file: IO[bytes], size: int, at: int) -> bytes:
    if not 0 <= size <= _MAX_HEADER:
        raise tarfile.ReadError(f"header of {size:,} bytes at byte {at:,}")
    data = file.read(size)
    if len(data) < size:
        raise tarfile.ReadError(f"ends in the header at byte {at:,}")
    return data


def _records(data: bytes, at: int) -> dict[bytes, bytes]:
    """The extended attributes: `LENGTH KEY=VALUE` and a newline each."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data) and data[position]:
        found = _PAX_RECORD.match(data, position)
        end = position + int(found[1]) if found else 0
        if found is None or not found.end() < end <= len(data):
            raise tarfile.ReadError(f"extended header at byte {at:,} that cannot be read")
        records[found[2]] = data[found.end() : end - 1]
        position = end
    return records


def _name(info: tarfile.TarInfo, more: Mapping[bytes, bytes]) -> str:
    return more[b"path"].decode("utf-8", "surrogateescape") if b"path" in more else info.name


def _size(info: tarfile.TarInfo, more: Mapping[bytes, bytes], at: int) -> int:
    stated = more.get(b"size", b"")
    size = int(stated) if stated.isdigit() and len(stated) < 20 else info.size
    if size < 0:
        raise tarfile.ReadError(f"size of {size:,} bytes at byte {at:,}")
    return size
