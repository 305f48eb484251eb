"""The files in data/raw/NAME, or in a remote folder, with hashes of their content.

DVC depends on this listing and not on the folder, which may contain what DVC cannot hash: a FIFO, a broken link, a name
that is not UTF-8. The stage runs every time, which is cheap: a file whose size, time and inode are unchanged is not
read again. `boundaryflow run` and `status` compare without writing, by `difference`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from boundaryflow.config import FolderSource, ParquetSource, RemoteSource, files_beside_images, load_params
from boundaryflow.config.base import Section
from boundaryflow.config.image_sources import ImageKind
from boundaryflow.errors import ManifestError, PipelineError
from boundaryflow.files import RefusedFileError, check_regular, write_bytes
from boundaryflow.runtime.process import own_folder
from boundaryflow.sources.archives import MAX_BYTES, raise_if_disk
from boundaryflow.sources.raw import Found, Wanted, survey
from boundaryflow.sources.walking import path_of
from boundaryflow.store.catalog.listing import LISTING, PICTURES, TABLES
from boundaryflow.store.catalog.raw import RAW
from boundaryflow.text import masked, visible

LOG = logging.getLogger(__name__)
_COLUMNS = ("name", "kind", "size", "version", "reason")
_CONTAINERS = ("archive", "lmdb", "parquet")
"""Kinds of files that hold pictures, and may hold labels as well."""
_READ = ("picture", *_CONTAINERS)
_SETTLED_NS = 2 * 10**9  # a file written more recently than this may change again without a change of its time stamp
_BLOCK = 2**20
_GLOB = set("*?[")


class Listing(NamedTuple):
    """The raw files of a data set.

    Attributes:
        source: The folder, or the address of the remote folder without secrets.
        pictures: Pictures, archives and LMDBs, skipped and refused files; None if a remote folder was not listed.
        tables: Files that labels and splits may be read from.
    """

    source: str
    pictures: Sequence[Found] | None
    tables: Sequence[Found]


def pictures_path(dataset: str) -> Path:
    """The table of the pictures of a data set."""
    return LISTING.folder(dataset) / PICTURES.file


def look(dataset: str, *, ask_remote: bool = True) -> Listing:
    """List the current raw files; only the cache of their hashes is written.

    Args:
        dataset: Name of the data set; the current folder is the checkout.
        ask_remote: Also list a remote folder.

    Raises:
        PipelineError: The folder is missing or cannot be read or reached, or params.yaml is wrong.
    """
    params = load_params(check_files=False).dataset(dataset)
    source, raw = params.ingest.source, RAW.folder(dataset)
    found = survey_of(raw, source) if isinstance(source, FolderSource | ParquetSource) or raw.is_dir() else []
    named = files_beside_images(params)
    tables = [file for file in found if file.kind == "table" or _is_named(file.name, named)]
    tables += _hidden(raw, named, {file.name for file in tables})
    memory = Memory(dataset, raw)
    listed_tables = memory.with_versions(tables)
    beside = {file.name for file in tables if file.kind not in _CONTAINERS}
    pictures = list_kind(source, [file for file in found if file.name not in beside], memory, ask_remote)
    memory.keep()
    return Listing(source.place(dataset), pictures, listed_tables)


def survey_of(raw: Path, source: ImageKind) -> list[Found]:
    """Entries of a data set's folder; the files that a `ParquetSource` names are of kind `parquet`.

    Raises:
        ManifestError: The folder is missing or cannot be read.
    """
    found = survey(raw)
    if not isinstance(source, ParquetSource):
        return found
    names = {path.relative_to(raw).as_posix() for path in raw.glob(source.path)}
    if not any(file.name in names for file in found):
        raise ManifestError(f"ingest {raw / source.path}: no such file; check ingest.source.path")
    return [file._replace(kind="parquet") if file.name in names and not file.reason else file for file in found]


@functools.singledispatch
def list_kind(
    source: Section,
    others: Sequence[Found],
    memory: Memory,
    ask_remote: bool,
) -> Sequence[Found] | None:
    """The pictures of a source, by a function for each kind of `ListedSource`; none for drawn faces.

    Args:
        source: One of `ImageSource`.
        others: Files in data/raw/NAME, except those of labels and splits.
        memory: Cache of hashes.
        ask_remote: Whether remote folders are listed; if not, None is returned for them.
    """
    return []


@list_kind.register(FolderSource)
def _list_folder(
    source: FolderSource,
    others: Sequence[Found],
    memory: Memory,
    ask_remote: bool,
) -> Sequence[Found] | None:
    return _of_folder(others, Wanted(source.include, source.exclude), memory)


@list_kind.register(ParquetSource)
def _list_parquet(
    source: ParquetSource,
    others: Sequence[Found],
    memory: Memory,
    ask_remote: bool,
) -> Sequence[Found] | None:
    embedded = [file for file in others if file.kind == "parquet"]
    return _of_folder(embedded, Wanted(source.include, source.exclude), memory)


def _of_folder(others: Sequence[Found], wanted: Wanted, memory: Memory) -> Sequence[Found]:
    read = memory.with_versions([f for f in others if f.kind in _READ and (f.kind != "picture" or wanted(f.name))])
    refused = [file for file in others if file.kind == "refused" and wanted(file.name)]
    passed = [Found(file.name, "passed", reason=file.reason) for file in others if file.kind == "passed"]
    return sorted([*read, *refused, *passed])


@list_kind.register(RemoteSource)
def _list_remote(
    source: RemoteSource,
    others: Sequence[Found],
    memory: Memory,
    ask_remote: bool,
) -> Sequence[Found] | None:
    from boundaryflow.sources.remote import COLUMNS, list_remote

    if not ask_remote:
        return None
    wanted, table = Wanted(source.include, source.exclude), list_remote(source.url)
    columns = (table[name] for name in COLUMNS)
    found = [
        Found(name, "picture", int(size), reason, version)
        for name, size, version, reason in zip(*columns, strict=True)
        if wanted(name)
    ]
    if not found:
        raise ManifestError(
            f"ingest {masked(source.url)}: `include` and `exclude` of ingest.source leave none of {len(table)} pictures"
        )
    return found


def difference(dataset: str, *, ask_remote: bool = True) -> str:
    """How the raw files differ from the listing, or why they cannot be listed; empty if they do not differ."""
    folder = LISTING.folder(dataset)
    try:
        now, before = look(dataset, ask_remote=ask_remote), LISTING.read_facts(dataset)
        for what, files, of in (("pictures", now.pictures, PICTURES), ("tables", now.tables, TABLES)):
            if files is not None and before.get(what) != _digest(files):
                return f"{now.source}: {_words(what, files, of.read(folder))}"
    except PipelineError as error:
        return visible(" ".join(str(error).split()))
    except OSError as error:
        return visible(f"{error.filename or dataset}: {error.strerror}")
    return "" if before.get("source") == now.source else f"is of {before.get('source')}"


def write(dataset: str, listing: Listing) -> None:
    """Write the listing of a data set."""
    import pandas as pd

    from boundaryflow.store.tables import write_json

    folder = own_folder("listing", dataset)
    facts: dict[str, Any] = {"source": listing.source}
    for what, files, of in (("pictures", listing.pictures or (), PICTURES), ("tables", listing.tables, TABLES)):
        table = pd.DataFrame([_row(file) for file in files], columns=list(_COLUMNS))
        table = table.astype({column: "int64" if column == "size" else "str" for column in _COLUMNS})
        of.write(folder, table)
        facts |= {what: _digest(files), f"num_{what}": sum(file.kind in (*_READ, "table") for file in files)}
    write_json(folder / LISTING.facts, facts)


def read_found(table: Any) -> list[Found]:
    """The rows of a table of `write`."""
    columns = (table[name] for name in _COLUMNS)
    return [
        Found(name, kind, int(size), reason, version)
        for name, kind, size, version, reason in zip(*columns, strict=True)
    ]


def _row(file: Found) -> tuple[str, str, int, str, str]:
    return file.name, file.kind, file.size, file.version, file.reason


def _digest(files: Sequence[Found]) -> str:
    return hashlib.sha256(json.dumps([_row(file) for file in files]).encode()).hexdigest()


def _words(what: str, now: Sequence[Found], table: Any) -> str:
    new, old = ({file.name: _row(file) for file in files} for files in (now, read_found(table)))
    changed = sum(new[name] != old[name] for name in new.keys() & old.keys())
    counts = {"new": len(new.keys() - old.keys()), "removed": len(old.keys() - new.keys()), "changed": changed}
    return f"{what}: {', '.join(f'{num} {how}' for how, num in counts.items() if num)}"


def _is_named(name: str, patterns: Sequence[str]) -> bool:
    """Whether params.yaml names this file, by a path or a pattern."""
    return any(
        PurePosixPath(name).match(pattern) if _GLOB & set(pattern) else name == os.path.normpath(pattern)
        for pattern in patterns
        if pattern
    )


def _hidden(raw: Path, named: Sequence[str], known: set[str]) -> list[Found]:
    """Hidden files that params.yaml names; `walk` skips them."""
    found: list[Found] = []
    paths = {os.path.normpath(pattern) for pattern in named if pattern and not _GLOB & set(pattern)}
    for name in sorted(paths - known):
        if os.path.isabs(name) or name.startswith("..") or not (raw / name).exists():
            continue
        try:
            about = check_regular(raw / name)
        except RefusedFileError as refused:
            found.append(Found(name, "table", reason=refused.reason))
        else:
            found.append(Found(name, "table", about.st_size, "", "", about.st_mtime_ns, about.st_ino))
    return found


class Memory:
    """A cache of hashes of files, valid while a file's size, time and inode are unchanged."""

    def __init__(self, dataset: str, raw: Path) -> None:
        self._raw, self._path = raw, Path(".dvc/tmp/boundaryflow/listing") / f"{dataset}.json"
        self._before: dict[str, list[Any]] = {}
        self._now: dict[str, list[Any]] = {}
        with suppress(OSError, ValueError, TypeError):  # missing or damaged: all files are read
            self._before = dict(json.loads(self._path.read_bytes()))

    def with_versions(self, files: Sequence[Found]) -> list[Found]:
        """Files with the SHA-256 of their content, or the reason why they cannot be read."""
        known = [self._known(file) for file in files]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            read = pool.map(self._read, [file for file, done in zip(files, known, strict=True) if done is None])
            return [done or next(read) for done in known]

    def _known(self, file: Found) -> Found | None:
        if file.kind not in _CONTAINERS and file.size > MAX_BYTES:
            return file._replace(reason=f"{file.size:,} bytes are too many for a table")
        if file.reason:
            return file
        key = [file.size, file.mtime_ns, file.inode]
        before = self._now.get(file.name) or self._before.get(file.name)
        if not isinstance(before, list) or before[:3] != key:
            return None
        self._now[file.name] = before
        return file._replace(version=str(before[-1]))

    def _read(self, file: Found) -> Found:
        started = time.time_ns()
        try:
            version = _sha256(path_of(self._raw, file.name), file.size)
        except RefusedFileError as refused:
            return file._replace(kind="refused", reason=refused.reason)
        except OSError as error:
            raise_if_disk(error)
            return file._replace(kind="refused", reason=f"cannot be read ({error.strerror})")
        if started - file.mtime_ns > _SETTLED_NS:
            self._now[file.name] = [file.size, file.mtime_ns, file.inode, version]
        return file._replace(version=version)

    def keep(self) -> None:
        """Write the cache, unless the checkout is read-only."""
        if self._now == self._before or not Path(".dvc").is_dir():
            return
        try:
            write_bytes(self._path, json.dumps(self._now, sort_keys=True).encode())
        except OSError as error:
            LOG.debug("%s: not written (%s)", self._path, error.strerror)


def _sha256(path: Path, size: int) -> str:
    check_regular(path)
    digest, left = hashlib.sha256(), size
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
