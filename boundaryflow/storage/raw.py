"""Raw pictures, wherever they lie: names, and for each name the bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from boundaryflow.errors import ManifestError
from boundaryflow.storage.archives import (
    LmdbPictures,
    Member,
    TarPictures,
    UnusableError,
    ZipPictures,
    archive_suffix,
    is_beside,
    raise_if_disk,
)

NOT_IMAGES = frozenset(
    (
        ".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet", ".md", ".yaml", ".yml", ".html", ".xml",
        ".db", ".cls", ".pkl", ".pickle", ".npy", ".npz",
    )
)  # fmt: skip
"""Suffixes of tables, texts and arrays that lie beside pictures."""


class RawPictures(Protocol):
    """Pictures by name. A name is a path with forward slashes that stays the same wherever the folder is moved."""

    @property
    def names(self) -> Sequence[str]:
        """All names, in the order in which they are read fastest."""
        ...

    @property
    def refused(self) -> Mapping[str, str]:
        """Names of what cannot be used to the reason, found without reading it; these are not in `names`."""
        ...

    def is_in_order(self, name: str) -> bool:
        """Whether reading is slow unless one thread does it in the order of `names`."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of a picture; may be called by many threads.

        Raises:
            UnusableError: The reason it cannot be read, without its name.
            ManifestError: None of the pictures can be read.
        """
        ...


class _Container(Protocol):
    """Where pictures lie: files of a folder, an archive, an LMDB."""

    @property
    def in_order(self) -> bool: ...
    def members(self) -> Iterator[Member]: ...
    def read(self, key: Any) -> bytes: ...


class RawFolder:
    """Pictures in a folder on this machine: files, and archives and LMDBs as if they were folders.

    Files that may be images are taken: no hidden ones, no tables or texts beside them, nothing
    outside the folder that a link inside it leads to. `images.zip` stands for a folder `images`, a
    folder with `data.mdb` for one of the LMDB's pictures.

    Args:
        folder: Where; may itself be a link.
        image_size: Side in pixels that is asked for, of which an LMDB may have several.

    Raises:
        ManifestError: The folder is missing, holds no picture, or an archive or LMDB is damaged.
    """

    def __init__(self, folder: Path, image_size: int) -> None:
        if not folder.is_dir():
            raise ManifestError(f"ingest {folder}: no such folder; put images there, or link to where they are")
        self.folder, self._image_size = folder, image_size
        self._places: dict[str, tuple[_Container, Any]] = {}
        self.refused: dict[str, str] = {}
        self._beside: list[str] = []
        for base, container in self._containers():
            self._add(base, container)
        if not self._places and not self.refused:
            raise ManifestError(
                f"ingest {folder}: holds no images{self._what_there_is()}; put some there (docs/datasets.md says how)"
            )

    def __reduce__(self) -> tuple[type[RawFolder], tuple[Path, int]]:
        return RawFolder, (self.folder, self._image_size)

    @property
    def names(self) -> Sequence[str]:
        return list(self._places)

    def is_in_order(self, name: str) -> bool:
        return self._places[name][0].in_order

    def read(self, name: str) -> bytes:
        container, key = self._places[name]
        return container.read(key)

    def _containers(self) -> Iterator[tuple[str, _Container]]:
        """What holds pictures, and the name of the folder it stands for."""
        loose: list[str] = []
        for path in picture_files(self.folder):
            name = path.relative_to(self.folder).as_posix()
            if path.name == "data.mdb":
                yield os.path.dirname(name), LmdbPictures(path.parent, self._image_size)
            elif path.name == "lock.mdb" or path.name.endswith(".lmdb-lock"):
                continue
            elif path.suffix.lower() == ".lmdb":
                yield name, LmdbPictures(path, self._image_size)
            elif suffix := archive_suffix(path):
                kind = ZipPictures if suffix == ".zip" else TarPictures
                yield name[: -len(suffix)], kind(path)
            elif path.suffix.lower() in NOT_IMAGES:
                self._beside += [] if path.suffix.lower() == ".md" else [name]
            else:
                loose.append(name)
        yield "", _LooseFiles(self.folder, loose)

    def _add(self, base: str, container: _Container) -> None:
        before = len(self._places) + len(self.refused)
        for inner, key, reason in container.members():
            if os.path.splitext(inner)[1].lower() in NOT_IMAGES:
                continue
            name = f"{base}/{inner}" if base else inner
            if reason:
                self.refused[name] = reason
            elif name in self._places and self._places[name][0] is not container:
                self.refused[f"{name} (again)"] = "another picture has this name; take the archive or the folder away"
            else:
                self._places[name] = container, key  # of an archive's members of one name the last counts
        if len(self._places) + len(self.refused) == before and not isinstance(container, _LooseFiles):
            self._beside.append(f"{base or self.folder.name} (without a picture)")

    def _what_there_is(self) -> str:
        more = f" and {len(self._beside) - 3} more" if len(self._beside) > 3 else ""
        return f", only {', '.join(self._beside[:3])}{more}" if self._beside else ""


class _LooseFiles:
    """Files of their own."""

    in_order = False

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._names = folder, names

    def members(self) -> Iterator[Member]:
        return (Member(name, name) for name in self._names)

    def read(self, key: Any) -> bytes:
        try:
            return (self._folder / key).read_bytes()
        except OSError as error:
            raise_if_disk(error)
            raise UnusableError(f"cannot be read ({error.strerror})") from None


def picture_files(folder: Path) -> Iterator[Path]:
    """Every file that is neither hidden nor outside the folder, sorted by folder and name."""
    home = folder.resolve()

    def unreadable(error: OSError) -> None:
        raise ManifestError(f"ingest {error.filename}: cannot be read ({error.strerror}); change its permissions")

    for at, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not is_beside((name,)))
        for name in sorted(files):
            path = Path(at, name)
            is_inside = not path.is_symlink() or path.resolve().is_relative_to(home)
            if is_inside and path.is_file() and not is_beside((name,)):
                yield path
