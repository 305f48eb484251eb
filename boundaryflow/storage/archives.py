"""Pictures in zip and tar archives and in LMDBs: listed and read in place, never extracted to disk."""

from __future__ import annotations

import bz2
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
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Any, NamedTuple

import lmdb

from boundaryflow.errors import ManifestError
from boundaryflow.files import may_pass

ARCHIVES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tar", ".zip")
MAX_BYTES = 2**30
"""Larger members are set aside unread: no picture is as large, and a small archive may hold one."""
_UNPACK: Mapping[str, Callable[[Path], Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
}
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, OSError, EOFError, ValueError, RuntimeError,
    struct.error, zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What reading a damaged archive ends in. gzip and bz2 raise OSErrors of their own, which have no errno; zipfile raises
RuntimeError where a password is needed, and its kind NotImplementedError for a compression that it does not know."""
_TAR_BLOCK = 512
_OF_SIZE = re.compile(rb"(\d+)-(\d+)")


class UnusableError(ManifestError):
    """One picture cannot be had; the message is the reason alone. The others are not affected."""


def raise_if_disk(error: BaseException) -> None:
    """Raise an error of the disk or the network again: it says nothing against a picture.

    Raises:
        OSError: It is one.
    """
    if isinstance(error, OSError) and may_pass(error):
        raise error


class Member(NamedTuple):
    """A picture in a container.

    Attributes:
        name: Within the container.
        key: What the container reads it by.
        reason: Why it cannot be used; empty if nothing is known against it.
    """

    name: str
    key: Any
    reason: str = ""


def archive_suffix(path: PurePath) -> str:
    """The suffix that makes a file an archive, empty if none does."""
    return next((suffix for suffix in ARCHIVES if path.name.lower().endswith(suffix)), "")


def is_beside(parts: tuple[str, ...]) -> bool:
    """Whether a path is of what systems leave beside pictures: hidden files, and Apple's."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


class ZipPictures:
    """The members of a zip archive."""

    in_order = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def members(self) -> Iterator[Member]:
        archive, _ = self._open()
        for info in archive.infolist():
            if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
                continue
            wrong = "encrypted; unpack it with its password" if info.flag_bits & 1 else _too_large(info.file_size)
            yield from _member(info.filename, info.filename, wrong)

    def read(self, key: Any) -> bytes:
        archive, lock = self._open()
        with _damage_as(_unusable), lock:
            return archive.read(str(key))

    def _open(self) -> tuple[zipfile.ZipFile, threading.Lock]:
        with _damage_as(partial(_refusal, self.path)):
            return _zip_file(self.path, *_version(self.path))


class TarPictures:
    """The members of a tar archive; a compressed one is decoded from its beginning, so it is best read in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.in_order = archive_suffix(path) != ".tar"

    def members(self) -> Iterator[Member]:
        with _damage_as(partial(_refusal, self.path)):
            yield from self._members()

    def _members(self) -> Iterator[Member]:
        unpack = _UNPACK.get(archive_suffix(self.path))
        with (
            unpack(self.path) if unpack else self.path.open("rb") as file,
            tarfile.open(fileobj=file, mode="r:") as archive,
        ):
            for info in archive:
                if info.isreg():
                    yield from _member(info.name, (info.offset_data, info.size), _too_large(info.size))
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue]  # else it keeps all it has seen
            file.seek(archive.offset)
            if file.read(_TAR_BLOCK) != bytes(_TAR_BLOCK):  # tarfile takes a broken header for the end
                raise tarfile.ReadError(f"no header at byte {archive.offset:,}, and no end")
            while file.read(io.DEFAULT_BUFFER_SIZE):  # to the checksum of what it is compressed with
                pass

    def read(self, key: Any) -> bytes:
        offset, size = key
        with _damage_as(_unusable):
            if not self.in_order:
                with self.path.open("rb") as file:
                    file.seek(offset)
                    return file.read(size)
            stream, lock = _stream(self.path, *_version(self.path))
            with lock:
                stream.seek(offset)
                return stream.read(size)


class LmdbPictures:
    """The values of an LMDB.

    Of two layouts. `256-00000` is the picture at 256 pixels of image 0 (StyleMapGAN, DiffAE); then
    `length` is their number, and a key `00000` has that image's original name. Or keys of any form
    (LSUN), each with a picture.
    """

    in_order = False

    def __init__(self, path: Path, image_size: int) -> None:
        self.path, self._size = path, image_size

    def members(self) -> Iterator[Member]:
        try:
            with _environment(self.path).begin() as view:
                keys = [bytes(key) for key in view.cursor().iternext(values=False)]
                of_size = [(match, key) for key in keys if (match := _OF_SIZE.fullmatch(key))]
                if not of_size:
                    yield from (Member(_key_name(key), key) for key in keys if key != b"length")
                    return
                sizes = {int(match[1]) for match, _ in of_size}
                wanted = min((size for size in sizes if size >= self._size), default=max(sizes))
                for match, key in of_size:
                    if int(match[1]) == wanted:
                        yield Member(_original_name(match[2], view.get(match[2])), key)
        except (lmdb.Error, OSError) as error:
            raise_if_disk(error)
            raise ManifestError(
                f"ingest {self.path}: damaged or cut off, no LMDB that can be read ({_line(error)}); fetch it again"
            ) from None

    def read(self, key: Any) -> bytes:
        try:
            with _environment(self.path).begin() as view:
                value = view.get(key)
        except lmdb.Error as error:
            raise UnusableError(f"damaged in its LMDB ({_line(error)})") from None
        if value is None:
            raise UnusableError("no longer in its LMDB")
        return value


def _member(name: str, key: Any, wrong: str) -> Iterator[Member]:
    """A member of an archive under a name that leads nowhere else, unless it is to be passed over."""
    written = name.replace("\\", "/")
    parts = PurePosixPath(written).parts
    if ".." in parts or written.startswith("/") or re.match(r"[A-Za-z]:", written):
        yield Member(written, key, "its path leads out of the archive; pack it again with relative paths")
    elif parts and not is_beside(parts):
        within = "an archive within an archive; unpack it" if archive_suffix(Path(parts[-1])) else ""
        yield Member("/".join(parts), key, within or wrong)


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


def _original_name(index: bytes, original: bytes | None) -> str:
    """The file name that labels know an image of CelebA-HQ by."""
    try:
        name = PurePosixPath((original or index).decode().strip()).name or index.decode()
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


_environments: dict[Path, lmdb.Environment] = {}
_opening = threading.Lock()


def _environment(path: Path) -> lmdb.Environment:
    """An LMDB opened to read, once: a process cannot open it a second time."""
    home = path.resolve()
    with _opening:
        if home not in _environments:
            environment = lmdb.open(str(home), readonly=True, lock=False, readahead=False, subdir=home.is_dir())
            _check_whole(environment, home / "data.mdb" if home.is_dir() else home)
            _environments[home] = environment
        return _environments[home]


def _check_whole(environment: lmdb.Environment, file: Path) -> None:
    """Refuse a file that ends too early: the system kills a process that reads beyond the end of a mapped file."""
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if file.stat().st_size < needed:
        environment.close()
        raise lmdb.CorruptedError(f"{file.stat().st_size:,} bytes, must be {needed:,}")


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def _refusal(path: Path, error: BaseException) -> ManifestError:
    if isinstance(error, PermissionError):
        return ManifestError(f"ingest {path}: cannot be read ({_line(error)}); change its permissions")
    return ManifestError(
        f"ingest {path}: damaged or cut off, not a whole archive ({_line(error)}); fetch it again, or take it away"
    )


def _unusable(error: BaseException) -> UnusableError:
    return UnusableError(f"damaged in its archive ({_line(error)})")


@contextmanager
def _damage_as(error_of: Callable[[BaseException], ManifestError]) -> Generator[None]:
    """Make what reading a damaged archive ends in an error that says so; a disk that fails is no damage."""
    try:
        yield
    except _DAMAGED as error:
        raise_if_disk(error)
        raise error_of(error) from None
