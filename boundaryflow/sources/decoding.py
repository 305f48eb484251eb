"""Which raw pictures can be used: each is read and decoded once, and its pixels kept until its shard is written."""

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
from boundaryflow.sources.images import decode_image, is_synthetic
from boundaryflow.sources.raw import RawPictures

ABOUT = ("width_px", "height_px", "format", "mode")
_AT_ONCE = 64  # pictures in memory
_BYTES_AT_ONCE = 2**29  # of files that one thread reads ahead, unless a single one is larger
_MAX_THREADS = 16  # each has a file of up to MAX_BYTES in memory
_DOWNLOADS = 16  # at once


class Decoded(NamedTuple):
    """What was found out about a raw picture.

    Attributes:
        name: Of the picture.
        item: Its id; one made of its name where it could not be read.
        about: Its width, height, format and mode, and of one that was decoded whether it is marked as synthetic;
            empty of a bad one.
        reason: Why it cannot be used, empty if it can.
        was_read: Whether its bytes were had.
        pixels: [C,S,S] uint8, None where they are known already.
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
        raw: Where they are.
        names: Which, in the order of `raw.names`.
        known: Item to facts of images whose pixels are there.
        geometry: What `decode_image` is to make of them.
        num_threads: How many pictures are worked on at once.
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
    """Judge pictures, and put the pixels of those that can be used into a spool, which is readable then.

    Args:
        spool: Where pixels go.
        raw: See `decode_all`.
        names: See there.
        known: See there.
        geometry: See there.
        stage: Whose progress is told.
        is_remote: Whether pictures are downloaded: then more of them at once.
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
    """So many of the pictures, as many from each folder as from any other, where it has them.

    Within a folder a hash of the name decides. So a small folder of held-out images is not lost
    beside a large one, and the same names give the same choice.

    Returns:
        In the order given.
    """
    if num is None or len(names) <= num:
        return list(names)
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(str(PurePosixPath(name).parent), []).append(name)
    ranked = [(rank, name) for inside in folders.values() for rank, name in enumerate(sorted(inside, key=_lot))]
    chosen = {name for _, name in sorted(ranked, key=lambda pair: (pair[0], _lot(pair[1])))[:num]}
    return [name for name in names if name in chosen]


def _lot(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


class Spool:
    """A file of pixels, to which each new image adds a row.

    Attributes:
        path: The file; removed in the end.
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
        """Add an image, unless it is there."""
        if item not in self.rows:
            self._file.write(pixels.data)
            self.rows[item] = len(self.rows)

    def finish(self) -> None:
        """Make all rows readable."""
        self._file.flush()
