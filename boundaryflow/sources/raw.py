"""Raw pictures of folders, archives and LMDBs: names, and the bytes of each."""

from __future__ import annotations

import codecs
import fnmatch
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

from boundaryflow.errors import ManifestError
from boundaryflow.files import RefusedFileError, read_bytes
from boundaryflow.sources.archives import (
    MAX_BYTES,
    LmdbPictures,
    Member,
    TarPictures,
    UnusableError,
    ZipPictures,
    archive_suffix,
    raise_if_disk,
)
from boundaryflow.sources.parquet import ParquetPictures, folder_of
from boundaryflow.sources.suffixes import Kind, kind_by_name, may_be_picture
from boundaryflow.sources.walking import path_of, walk

_HEAD = 512
"""Bytes from which a file without suffix is recognised as text."""


class Found(NamedTuple):
    """An entry of a folder.

    Attributes:
        name: Path within the folder, with forward slashes.
        kind: Its kind; `passed` is not a picture, `refused` may be one that cannot be used. `survey` never takes a
            file for `parquet`, which holds pictures.
        size: In bytes.
        reason: Why it is skipped or refused; empty if its suffix says so.
        version: SHA-256 of its content; empty if not computed.
        mtime_ns: Time of writing; 0 if unknown.
        inode: Number of its inode; 0 if unknown.
    """

    name: str
    kind: Kind
    size: int = 0
    reason: str = ""
    version: str = ""
    mtime_ns: int = 0
    inode: int = 0


@dataclass(frozen=True)
class Wanted:
    """Selects pictures by patterns of names.

    `*` stands for any characters, `/` included, `?` for one, `[abc]` for one of these; `**/` also for no folder at
    all. Capitals matter.

    Attributes:
        include: Only names that match one of these; empty for all.
        exclude: No name that matches one of these.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def __call__(self, name: str) -> bool:
        """Whether a picture is selected."""
        is_in = not self.include or any(fits(name, pattern) for pattern in self.include)
        return is_in and not any(fits(name, pattern) for pattern in self.exclude)


def fits(name: str, pattern: str) -> bool:
    """Whether a name matches a pattern of `Wanted`."""
    return _expression(pattern).fullmatch(name) is not None


@lru_cache(maxsize=256)
def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(?:(?<=/)|^)(?:\*\*/)+", pattern)
    return re.compile("(?:.*/)?".join(f"(?s:{fnmatch.translate(part)[4:-3]})" for part in parts), re.DOTALL)


class RawPictures(Protocol):
    """Pictures by name. A name is a path with forward slashes that stays the same wherever the folder is moved."""

    @property
    def names(self) -> Sequence[str]:
        """All names, in the fastest order of reading."""
        ...

    @property
    def refused(self) -> Mapping[str, str]:
        """Names of unusable pictures to the reason, as far as known without reading; they are not in `names`."""
        ...

    def is_in_order(self, name: str) -> bool:
        """Whether reading is slow unless one thread reads in the order of `names`."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of a picture; may be called by many threads.

        Raises:
            UnusableError: The reason it cannot be read, without its name.
            ManifestError: None of the pictures can be read.
        """
        ...


class _Container(Protocol):
    """A container of pictures: files of a folder, an archive, an LMDB."""

    @property
    def in_order(self) -> bool: ...
    def members(self) -> Iterator[Member]: ...
    def read(self, key: Any) -> bytes: ...


class RawFolder:
    """Pictures in a folder on this machine: files, and archives and LMDBs as if they were folders.

    All files that may be images are used, but no hidden files, tables or texts. Links are followed. `images.zip` counts
    as a folder `images`, and a folder with `data.mdb` as a folder of the LMDB's pictures.

    Args:
        folder: The folder; may itself be a link.
        image_size: Requested side in pixels, as an LMDB may have several sizes.
        wanted: Selects pictures.
        found: Entries from `survey`; a file with a version is read in this version only. None to survey the folder.
        image_column: Column of the pictures in entries of kind `parquet`; None for the only one that may be it.

    Attributes:
        unmatched: Patterns of `wanted` that match no picture.

    Raises:
        ManifestError: The folder is missing, holds no picture, or an archive or LMDB is damaged.
    """

    def __init__(
        self,
        folder: Path,
        image_size: int,
        wanted: Wanted | None = None,
        found: Sequence[Found] | None = None,
        image_column: str | None = None,
    ) -> None:
        self.folder, self._image_size, self._wanted = folder, image_size, wanted or Wanted()
        self._image_column = image_column
        self._places: dict[str, tuple[_Container, Any]] = {}
        self.refused: dict[str, str] = {}
        self.unmatched = {*self._wanted.include, *self._wanted.exclude}
        self._beside: list[str] = []
        for base, container in self._containers(survey(folder) if found is None else found):
            self._add(base, container)
        if not self._places and not self.refused:
            raise ManifestError(
                f"ingest {folder}: holds no images{self._what_there_is()}; put some there (docs/datasets.md says how)"
            )

    @property
    def names(self) -> Sequence[str]:
        return list(self._places)

    def is_in_order(self, name: str) -> bool:
        return self._places[name][0].in_order

    def read(self, name: str) -> bytes:
        container, key = self._places[name]
        return container.read(key)

    def _containers(self, found: Sequence[Found]) -> Iterator[tuple[str, _Container]]:
        """Containers of pictures, each with the name of the folder that it counts as."""
        loose: dict[str, str] = {}
        for file in found:
            path = path_of(self.folder, file.name)
            if file.kind in ("archive", "lmdb", "parquet") and file.version and path.stat().st_size != file.size:
                raise ManifestError(f"ingest {path}: changed after it was listed; run again")
            if file.kind == "lmdb":
                is_folder = path.name == "data.mdb"
                yield (
                    os.path.dirname(file.name) if is_folder else file.name,
                    LmdbPictures(path.parent if is_folder else path, self._image_size),
                )
            elif file.kind == "parquet":
                yield folder_of(file.name), ParquetPictures(path, self._image_column)
            elif file.kind == "archive":
                suffix = archive_suffix(path)
                yield file.name[: -len(suffix)], (ZipPictures if suffix == ".zip" else TarPictures)(path)
            elif file.kind == "picture":
                loose[file.name] = file.version
            elif file.kind == "refused":
                if self._is_wanted(file.name):
                    self.refused[file.name] = file.reason
            elif path.suffix.lower() != ".md":
                self._beside.append(file.name)
        yield "", _LooseFiles(self.folder, loose)

    def _add(self, base: str, container: _Container) -> None:
        before = len(self._places) + len(self.refused)
        for inner, key, reason in container.members():
            name = f"{base}/{inner}" if base else inner
            if not may_be_picture(inner) or not self._is_wanted(name):
                continue
            if reason:
                self.refused[name] = reason
            elif name in self._places and self._places[name][0] is not container:
                self.refused[f"{name} (again)"] = "another picture has this name; take the archive or the folder away"
            else:
                self._places[name] = (
                    container,
                    key,
                )  # the last of members with one name counts, as in unpacking
        if len(self._places) + len(self.refused) == before and not isinstance(container, _LooseFiles):
            self._beside.append(f"{base or self.folder.name} (without a picture)")

    def _is_wanted(self, name: str) -> bool:
        self.unmatched -= {pattern for pattern in self.unmatched if fits(name, pattern)}
        return self._wanted(name)

    def _what_there_is(self) -> str:
        more = f" and {len(self._beside) - 3} more" if len(self._beside) > 3 else ""
        what = f", only {', '.join(self._beside[:3])}{more}" if self._beside else ""
        if any(name.lower().endswith(".parquet") for name in self._beside):
            what += " (pictures within Parquet files are read by ingest.source kind parquet)"
        has_patterns = self._wanted.include or self._wanted.exclude
        return f"{what}, as `include` and `exclude` of ingest.source leave it" if has_patterns else what


class _LooseFiles:
    """Single files in given versions; an empty version means any."""

    in_order = False

    def __init__(self, folder: Path, versions: Mapping[str, str]) -> None:
        self._folder, self._versions = folder, versions

    def members(self) -> Iterator[Member]:
        return (Member(name, name) for name in self._versions)

    def read(self, key: Any) -> bytes:
        version = self._versions[key]
        try:
            data = read_bytes(path_of(self._folder, key), MAX_BYTES)
        except RefusedFileError as refused:
            raise UnusableError(refused.reason) from None
        except FileNotFoundError as error:
            gone = "no longer there; it was removed after it was listed"
            raise UnusableError(gone if version else f"cannot be read ({error.strerror})") from None
        except OSError as error:
            raise_if_disk(error)
            raise UnusableError(f"cannot be read ({error.strerror})") from None
        if version and hashlib.sha256(data).hexdigest() != version:
            raise UnusableError("changed after it was listed")
        return data


def survey(folder: Path, *, follow_out: bool = True, what: str = "ingest") -> list[Found]:
    """Entries of a folder and of those below it, classified by name; only files without suffix are read.

    Args:
        folder: The folder; may itself be a link.
        follow_out: See `walk`.
        what: Prefix of messages.

    Raises:
        ManifestError: The folder is missing or cannot be read.
    """
    if not folder.is_dir():
        raise ManifestError(f"{what} {folder}: no such folder; put images there, or link to where they are")
    found: list[Found] = []
    for entry in walk(folder, follow_out=follow_out, what=what):
        kind, reason = kind_by_name(entry.name, entry.size)
        if entry.special:
            kind, reason = "passed", entry.special
        elif entry.wrong:
            kind, reason = ("passed" if kind in ("table", "passed") else "refused"), entry.wrong
        elif kind == "picture" and not PurePosixPath(entry.name).suffix:
            kind, reason = _look_into(Path(entry.path))
        if not entry.name.lower().endswith(("lock.mdb", ".lmdb-lock")):
            found.append(Found(entry.name, kind, entry.size, reason, "", entry.mtime_ns, entry.inode))
    return found


def _look_into(path: Path) -> tuple[Kind, str]:
    """Whether a file without suffix is a text."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise_if_disk(error)
        return "refused", f"cannot be read ({error.strerror})"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be incomplete
    except UnicodeDecodeError:
        return "picture", ""
    is_text = bool(text) and not any(character < " " and character not in "\t\n\r\f" for character in text)
    return ("passed", "") if is_text else ("picture", "")
