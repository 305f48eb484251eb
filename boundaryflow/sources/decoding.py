"""Reads and decodes raw pictures once each, and keeps their pixels in a file until their shards are written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from boundaryflow.errors import ManifestError
from boundaryflow.files import scratch_path
from boundaryflow.runtime.process import Progress
from boundaryflow.sources.archives import UnusableError
from boundaryflow.sources.encoding import is_synthetic
from boundaryflow.sources.images import decode_image
from boundaryflow.sources.raw import RawPictures

ABOUT = ("width_px", "height_px", "format", "mode")
_AT_ONCE = 64  # pictures in memory
_BYTES_AT_ONCE = 2**29  # of files read ahead by one thread; a single larger file is read alone
_MAX_THREADS = 16  # each has a file of up to MAX_BYTES in memory
_DOWNLOADS = 16  # at once


class Decoded(NamedTuple):
    """Result of reading and decoding a raw picture.

    Attributes:
        name: Name of the picture.
        item: Its id; derived from its name if it could not be read.
        about: Its width, height, format and mode, and if it was decoded, whether it is marked as synthetic; empty if it
            is bad.
        reason: Why it cannot be used; empty if it can.
        was_read: Whether its file was read.
        pixels: [C,S,S] uint8; None if an earlier run has stored them.
    """

    name: str
    item: str
    about: Mapping[str, Any]
    reason: str = ""
    was_read: bool = True
    pixels: NDArray[np.uint8] | None = None


def item_id_of(data: bytes) -> str:
    """Stable id of an image: the first 16 hex digits of the SHA-256 of its file."""
    return hashlib.sha256(data).hexdigest()[:16]


def decode_all(
    raw: RawPictures,
    names: Sequence[str],
    known: Mapping[str, Mapping[str, Any]],
    geometry: Mapping[str, Any],
    num_threads: int,
) -> Iterator[Decoded]:
    """Read pictures and decode those that are new, on several threads.

    Args:
        raw: Source of the pictures.
        names: Names of the pictures, in the order of `raw.names`.
        known: Item to facts of images whose pixels are stored already.
        geometry: Keyword arguments of `decode_image`.
        num_threads: Pictures decoded at once.
    """

    def fetch(name: str) -> bytes | UnusableError:
        try:
            return raw.read(name)
        except UnusableError as error:
            return error

    def one(name: str, fetched: bytes | UnusableError | None) -> Decoded:
        data = fetch(name) if fetched is None else fetched
        if isinstance(data, UnusableError):
            return Decoded(name, item_id_of(name.encode()), {}, str(data), was_read=False)
        item = item_id_of(data)
        if item in known:
            return Decoded(name, item, {key: known[item][key] for key in ABOUT})
        try:
            pixels, about = decode_image(data, **geometry)
        except ManifestError as error:
            return Decoded(name, item, {}, str(error))
        return Decoded(name, item, {**about, "synthetic": is_synthetic(data)}, pixels=pixels)

    with ThreadPoolExecutor(min(num_threads, _MAX_THREADS)) as pool:
        some: list[tuple[str, bytes | UnusableError | None]] = []
        num_bytes = 0
        for name in names:
            fetched = fetch(name) if raw.is_in_order(name) else None
            some.append((name, fetched))
            num_bytes += len(fetched) if isinstance(fetched, bytes) else 0
            if len(some) == _AT_ONCE or num_bytes >= _BYTES_AT_ONCE:
                yield from pool.map(one, *zip(*some, strict=True))
                some, num_bytes = [], 0
        if some:
            yield from pool.map(one, *zip(*some, strict=True))


def decode_into(
    spool: Spool,
    raw: RawPictures,
    names: Sequence[str],
    known: Mapping[str, Mapping[str, Any]],
    geometry: Mapping[str, Any],
    stage: str,
    *,
    is_remote: bool,
) -> list[Decoded]:
    """Decode pictures, add the pixels of the usable ones to a spool, and make the spool readable.

    Args:
        spool: Receives the pixels.
        raw: See `decode_all`.
        names: See `decode_all`.
        known: See `decode_all`.
        geometry: See `decode_all`.
        stage: Name of the stage, for its progress.
        is_remote: Whether pictures are downloaded, which is done with more threads.
    """
    decoded: list[Decoded] = []
    with Progress(stage, len(names), "files") as progress:
        for picture in decode_all(raw, names, known, geometry, _DOWNLOADS if is_remote else os.cpu_count() or 1):
            if picture.pixels is not None:
                spool.add(picture.item, picture.pixels)
            decoded.append(picture._replace(pixels=None))
            progress.advance()
    spool.finish()
    return decoded


def choose(names: Sequence[str], num: int | None) -> list[str]:
    """Choose `num` pictures, equally many from each folder as far as it has them.

    Within a folder, hashes of the names decide. So a small folder of held-out images is represented beside a large
    one, and the same names give the same choice.

    Returns:
        In the order given.
    """
    if num is None or len(names) <= num:
        return list(names)
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(str(PurePosixPath(name).parent), []).append(name)
    ranked = [(rank, name) for inside in folders.values() for rank, name in enumerate(sorted(inside, key=_hash_of))]
    chosen = {name for _, name in sorted(ranked, key=lambda pair: (pair[0], _hash_of(pair[1])))[:num]}
    return [name for name in names if name in chosen]


def _hash_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


class Spool:
    """A file of pixels with a row per image, filled once and then read.

    Attributes:
        path: The file; removed on exit.
        rows: Item to row.
    """

    def __init__(self, folder: Path) -> None:
        self.path = scratch_path(folder)
        self.rows: dict[str, int] = {}
        self._file = self.path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def add(self, item: str, pixels: NDArray[np.uint8]) -> None:
        """Add an image, unless the spool has it."""
        if item not in self.rows:
            self._file.write(pixels.data)
            self.rows[item] = len(self.rows)

    def finish(self) -> None:
        """Make all rows readable."""
        self._file.flush()
