"""Pictures in zip and tar archives and in LMDBs: listed and read in place, never extracted to disk."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Any, NamedTuple

from boundaryflow.errors import ManifestError
from boundaryflow.files import may_pass
from boundaryflow.sources.lmdb_process import ReaderError, keys_of, value_of
from boundaryflow.sources.tar_headers import tar_files

ARCHIVES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tar", ".zip")
UNREADABLE_ARCHIVES = frozenset(
    (".7z", ".rar", ".zst", ".gz", ".bz2", ".xz", ".lz4", ".lz", ".lzma", ".z", ".cab", ".iso", ".dmg")
)
"""Suffixes of archives that are not read."""
MAX_BYTES = 2**28
"""Larger files, members and values are rejected unread: no picture is as large, but archives may expand so far."""
_MAX_EXPANDED = 2**28, 200
"""Limits of a compressed tar when unpacked: bytes, and multiples of its packed size."""
_MAX_NAMES = 10_000, 64
"""Limit of pictures in an archive: this number, plus one per this many bytes of the archive."""
_MAX_XZ_BYTES = 2**29
"""Limit of memory for unpacking xz, in bytes."""
_UNPACK: Mapping[str, Callable[[Path], Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, ValueError, RuntimeError,
    OverflowError, struct.error, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""Errors that reading a damaged archive may raise. OSErrors of gzip and bz2 have no errno; zipfile raises RuntimeError
if a password is needed, and its subclass NotImplementedError for an unknown compression."""
_OF_SIZE = re.compile(rb"(\d{1,9})-(\d{1,18})")
_MAX_NAME = 4096


class UnusableError(ManifestError):
    """One picture cannot be read; the message is only the reason. Other pictures are not affected."""


def raise_if_disk(error: BaseException) -> None:
    """Raise an error of the disk or the network again, as the picture itself may be fine.

    Raises:
        OSError: The error is of the disk or the network.
    """
    if isinstance(error, OSError) and may_pass(error):
        raise error


class Member(NamedTuple):
    """A picture in a container.

    Attributes:
        name: Path within the container.
        key: Key for the container's `read`.
        reason: Why it cannot be used; empty if no reason is known.
    """

    name: str
    key: Any
    reason: str = ""


def archive_suffix(path: PurePath) -> str:
    """The archive suffix of a file name; empty if it has none."""
    return next((suffix for suffix in ARCHIVES if path.name.lower().endswith(suffix)), "")


def is_beside(parts: tuple[str, ...]) -> bool:
    """Whether a path is a hidden file or one of macOS's own files beside pictures."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


class ZipPictures:
    """The members of a zip archive."""

    in_order = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def members(self) -> Iterator[Member]:
        archive, _ = self._open()
        with _damage_as(partial(_refusal, self.path)):
            _check_apart(archive)
        for info in archive.infolist():
            if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
                continue
            wrong = "encrypted; unpack it with its password" if info.flag_bits & 1 else _too_large(info.file_size)
            yield from _member(info.filename, info.filename, wrong)

    def read(self, key: Any) -> bytes:
        archive, lock = self._open()
        with _damage_as(_unusable), lock:
            info = archive.getinfo(str(key))
            # Only these two bound the output of a partial read; 4 kB of bzip2 may expand to 80 MB.
            part = 2**20 if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else 4096
            with archive.open(info) as file:
                data = b"".join(iter(partial(file.read, part), b""))
            if len(data) != info.file_size:
                raise EOFError(f"{len(data):,} bytes of {info.file_size:,}")
        return data

    def _open(self) -> tuple[zipfile.ZipFile, threading.Lock]:
        with _damage_as(partial(_refusal, self.path)):
            return _zip_file(self.path, *_version(self.path))


class TarPictures:
    """The members of a tar archive; a compressed one is decoded from its beginning, so reading in order is fastest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.in_order = archive_suffix(path) != ".tar"

    def members(self) -> Iterator[Member]:
        with _damage_as(partial(_refusal, self.path)):
            yield from self._members()

    def _members(self) -> Iterator[Member]:
        suffix = archive_suffix(self.path)
        unpack, packed = _UNPACK.get(suffix), self.path.stat().st_size
        if suffix == ".tar.xz":
            _check_xz(self.path)
        num = 0
        with unpack(self.path) if unpack else self.path.open("rb") as file:
            for name, offset, size in tar_files(file):
                num += 1
                if num > _MAX_NAMES[0] + packed // _MAX_NAMES[1]:
                    raise tarfile.ReadError(f"more than {num - 1:,} files in {packed:,} bytes")
                if unpack:
                    _check_expansion(packed, offset + size)
                yield from _member(name, (offset, size), _too_large(size))
            while file.read(io.DEFAULT_BUFFER_SIZE):  # up to the checksum of the compression
                if unpack:
                    _check_expansion(packed, file.tell())

    def read(self, key: Any) -> bytes:
        offset, size = key
        with _damage_as(_unusable):
            if not self.in_order:
                with self.path.open("rb") as file:
                    file.seek(offset)
                    data = file.read(min(size, MAX_BYTES))
            else:
                stream, lock = _stream(self.path, *_version(self.path))
                with lock:
                    stream.seek(offset)
                    data = stream.read(min(size, MAX_BYTES))
            if len(data) != size:
                raise EOFError(f"{len(data):,} bytes of {size:,}")
        return data


class LmdbPictures:
    """The values of an LMDB.

    Two layouts are known. With keys such as `256-00000`, the picture of image 0 at 256 pixels (StyleMapGAN, DiffAE),
    the key `length` has the number of images and the key `00000` the original name of image 0. With keys of any other
    form (LSUN), each value is a picture.
    """

    in_order = False

    def __init__(self, path: Path, image_size: int) -> None:
        self.path, self._size = path, image_size

    def members(self) -> Iterator[Member]:
        try:
            keys = keys_of(self.path, MAX_BYTES)
            of_size = [(match, key) for key in keys if (match := _OF_SIZE.fullmatch(key))]
            if not of_size:
                yield from (Member(_key_name(key), key) for key in keys if key != b"length")
                return
            sizes = {int(match[1]) for match, _ in of_size}
            wanted = min((size for size in sizes if size >= self._size), default=max(sizes))
            for match, key in of_size:
                if int(match[1]) == wanted:
                    yield Member(_original_name(match[2], value_of(self.path, match[2], MAX_BYTES)), key)
        except (ReaderError, OSError) as error:
            raise _bad_lmdb(self.path, error) from None

    def read(self, key: Any) -> bytes:
        try:
            value = value_of(self.path, key, MAX_BYTES)
        except (ReaderError, OSError) as error:
            raise _bad_lmdb(self.path, error) from None
        if isinstance(value, int):
            raise UnusableError(_too_large(value))
        if value is None:
            raise UnusableError("no longer in its LMDB")
        return value


def _member(name: str, key: Any, wrong: str) -> Iterator[Member]:
    """A member of an archive with a path inside it, unless it is to be skipped."""
    written = name.replace("\\", "/")
    parts = PurePosixPath(written).parts
    if ".." in parts or written.startswith("/") or re.match(r"[A-Za-z]:", written):
        yield Member(written, key, "its path leads out of the archive; pack it again with relative paths")
    elif parts and not is_beside(parts) and parts[-1] != "lock.mdb":
        yield Member("/".join(parts), key, _within(parts[-1]) or wrong)


def _within(name: str) -> str:
    """Why a member of this name cannot be read from within the archive."""
    suffix = PurePosixPath(name.lower()).suffix
    if suffix in (".mdb", ".lmdb"):
        return "an LMDB in an archive; unpack it"
    is_archive = suffix in UNREADABLE_ARCHIVES or archive_suffix(PurePosixPath(name))
    return "an archive within an archive; unpack it" if is_archive else ""


def _too_large(size: int) -> str:
    return f"{size:,} bytes are too many for a picture" if size > MAX_BYTES else ""


def _key_name(key: bytes) -> str:
    try:
        name = key.decode()
    except UnicodeDecodeError:
        return key.hex()
    parts = PurePosixPath(name).parts
    safe = name.isprintable() and "/".join(parts) == name and ".." not in parts
    return name if safe else key.hex()


def _original_name(index: bytes, original: bytes | int | None) -> str:
    """The file name by which annotations refer to an image of CelebA-HQ."""
    stated = original if isinstance(original, bytes) and len(original) <= _MAX_NAME else index
    try:
        name = PurePosixPath(stated.decode().strip()).name or index.decode()
    except UnicodeDecodeError:
        name = index.decode()
    return name if PurePosixPath(name).suffix else f"{name}.jpg"


def _version(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_mtime_ns, about.st_size


@lru_cache(maxsize=64)
def _zip_file(path: Path, _mtime_ns: int, _size: int) -> tuple[zipfile.ZipFile, threading.Lock]:
    return zipfile.ZipFile(path), threading.Lock()


@lru_cache(maxsize=4)
def _stream(path: Path, _mtime_ns: int, _size: int) -> tuple[IO[bytes], threading.Lock]:
    return _UNPACK[archive_suffix(path)](path), threading.Lock()


def _check_apart(archive: zipfile.ZipFile) -> None:
    """Refuse an archive whose members overlap: a few bytes would be unpacked many times (a zip bomb)."""
    places = sorted((info.header_offset, info.header_offset + info.compress_size) for info in archive.infolist())
    for (_, end), (start, _) in pairwise(places):
        if end > start:
            raise zipfile.BadZipFile(f"members overlap at byte {start:,}")


def _check_expansion(packed: int, unpacked: int) -> None:
    if unpacked > max(_MAX_EXPANDED[0], packed * _MAX_EXPANDED[1]):
        raise tarfile.ReadError(f"{unpacked:,} bytes or more in {packed:,}")


def _check_xz(path: Path) -> None:
    """Refuse xz that needs gigabytes of memory; lzma.open sets no limit."""
    with path.open("rb") as file:
        lzma.LZMADecompressor(memlimit=_MAX_XZ_BYTES).decompress(file.read(io.DEFAULT_BUFFER_SIZE), max_length=1)


def _bad_lmdb(path: Path, error: Exception) -> ManifestError:
    raise_if_disk(error)
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return ManifestError(f"ingest {path}: its map does not fit into the address space; raise the limit (ulimit -v)")
    return ManifestError(
        f"ingest {path}: damaged or cut off, no LMDB that can be read ({_line(error)}); fetch it again"
    )


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def _refusal(path: Path, error: BaseException) -> ManifestError:
    if isinstance(error, PermissionError):
        return ManifestError(f"ingest {path}: cannot be read ({_line(error)}); change its permissions")
    return ManifestError(f"ingest {path}: damaged or incomplete archive ({_line(error)}); fetch it again, or remove it")


def _unusable(error: BaseException) -> UnusableError:
    return UnusableError(f"damaged in its archive ({_line(error)})")


@contextmanager
def _damage_as(error_of: Callable[[BaseException], ManifestError]) -> Generator[None]:
    """Turn errors of damaged archives into the error of `error_of`; errors of the disk are raised as they are."""
    try:
        yield
    except _DAMAGED as error:
        raise_if_disk(error)
        raise error_of(error) from None
