"""Pictures embedded in Parquet files, as Hugging Face keeps them: a column of structs {bytes, path}, or of bytes.

They are read row group by row group and a few rows at a time, so memory does not depend on the size of a file. It holds
a page, and of what Arrow writes a page may be the whole row group.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from boundaryflow.errors import ManifestError
from boundaryflow.sources.archives import MAX_BYTES, Member, UnusableError, is_beside, raise_if_disk
from boundaryflow.sources.suffixes import PICTURES
from boundaryflow.text import visible

_SHARD = re.compile(r"(.+)-(\d{5,}-of-\d{5,})")
_MAX_GROUP_BYTES = 2**30
"""Limit of bytes in one row group, which may be in memory twice; `datasets` writes 100 in one."""
_MAX_EXPANDED = 2**28, 200
"""Limits of a file when unpacked: bytes, and multiples of its size. Pictures are packed already."""
_BATCH_BYTES, _BATCH_ROWS = 2**25, 64
_PATHS_AT_ONCE = 2**14
_MAX_PATH, _MAX_FEATURES = 1024, 2**20
_MAX_SHOWN = 8


def folder_of(name: str) -> str:
    """The folder that a file's pictures count as lying in: `data/train-00000-of-00002.parquet` is of `data/train`.

    Example:
        >>> folder_of("data/train-00000-of-00002.parquet")
        'data/train/00000-of-00002'
        >>> folder_of("faces.parquet")
        'faces'
    """
    stem = name.removesuffix(PurePosixPath(name).suffix)
    shard = _SHARD.fullmatch(stem)
    return f"{shard[1]}/{shard[2]}" if shard else stem


class ParquetPictures:
    """The pictures in a column of a Parquet file.

    A picture is called by the path beside its bytes, if that is a picture's, stays within the folder, and is that of
    one row only; otherwise by the number of its row, from 0.

    Args:
        path: The file.
        column: The column; None for the only one that may be it.
    """

    in_order = True

    def __init__(self, path: Path, column: str | None = None) -> None:
        self.path, self._column = path, column

    def members(self) -> Iterator[Member]:
        """The pictures row by row; only paths are read."""
        with damage_told(self.path):
            file = _open(self.path)
            bytes_at, path_at = picture_leaves(self.path, file.schema_arrow, self._column)
            _check_sizes(self.path, file.metadata)
            paths = list(_paths(file, path_at)) if path_at else [None] * int(file.metadata.num_rows)
        names = [_safe(path) for path in paths]
        count = Counter(names)
        own = {name for name, num in count.items() if name is not None and num == 1}
        for row, name in enumerate(names):
            number = f"{row:08d}"
            yield Member(name if name in own else number, (bytes_at, row))

    def read(self, key: Any) -> bytes:
        """The bytes of a picture.

        Raises:
            UnusableError: The row has none.
            ManifestError: The file is damaged.
        """
        bytes_at, row = key
        with damage_told(self.path):
            about = self.path.stat()
            rows, lock = _rows(self.path, about.st_mtime_ns, about.st_size, bytes_at)
            with lock:
                data = rows.of(row)
        if data is None:
            raise UnusableError("has no bytes in its Parquet file, only a path or nothing; embed the pictures")
        if len(data) > MAX_BYTES:
            raise UnusableError(f"{len(data):,} bytes are too many for a picture")
        return data


def picture_columns(schema: Any) -> list[str]:
    """Columns that may hold pictures: structs with bytes if there are some, otherwise those of bytes."""
    structs = [field.name for field in schema if _leaf(field) and _is_struct(field.type)]
    return structs or [field.name for field in schema if _leaf(field)]


def has_pictures(path: Path) -> bool:
    """Whether a file is Parquet with a column that may hold pictures."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return bool(picture_columns(pq.read_schema(path)))
    except (pa.ArrowException, OSError, ValueError):
        return False


def picture_leaves(path: Path, schema: Any, column: str | None) -> tuple[str, str]:
    """Leaf columns of the bytes and of the paths of pictures; the second is empty where there are none.

    Raises:
        ManifestError: There is no such column, or there are several to choose from.
    """
    known = ", ".join(visible(name) for name in schema.names[:_MAX_SHOWN])
    names = [column] if column is not None else picture_columns(schema)
    if len(names) > 1:
        raise ManifestError(f"ingest {path}: {' and '.join(names[:3])} may be pictures; name one as image_column")
    if not names or schema.names.count(names[0]) != 1:
        wanted = f"column {visible(str(column))!r}" if column is not None else "column of pictures (bytes)"
        raise ManifestError(f"ingest {path}: has no {wanted}; there are {known or 'none'}")
    field = schema.field(names[0])
    leaf = _leaf(field)
    if not leaf:
        raise ManifestError(
            f"ingest {path}: column {visible(field.name)!r} is of {visible(str(field.type))[:60]}, must be binary, or "
            "structs with bytes; name the column of pictures as image_column"
        )
    has_path = _is_struct(field.type) and any(
        field.type.field(at).name == "path" and _is_text(field.type.field(at).type)
        for at in range(field.type.num_fields)
    )
    return leaf, f"{field.name}.path" if has_path else ""


def class_names(schema: Any) -> dict[str, list[str]]:
    """Columns of numbers that stand for classes, and the names of these, as `datasets` writes them (ClassLabel)."""
    written = (schema.metadata or {}).get(b"huggingface", b"")
    try:
        features: Any = json.loads(written[:_MAX_FEATURES])["info"]["features"]
        found = {name: feature.get("names") for name, feature in features.items() if feature["_type"] == "ClassLabel"}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
    return {str(name): [str(n) for n in names] for name, names in found.items() if isinstance(names, list)}


def row_names(path: Path, folder: str, column: str | None) -> list[str]:
    """Names of the pictures of all rows of a file, as `RawFolder` has them."""
    return [f"{folder}/{member.name}" for member in ParquetPictures(path, column).members()]


@contextmanager
def damage_told(path: Path) -> Generator[None]:
    """Tell in one line what Arrow finds wrong with a file; errors of the disk are raised as they are.

    Raises:
        ManifestError: The file is damaged.
    """
    try:
        yield
    except (ManifestError, MemoryError):
        raise
    except Exception as error:  # Arrow raises its own errors and those of its converters
        raise_if_disk(error)
        reason = visible((str(error) or type(error).__name__).splitlines()[0])[:200].rstrip(".")
        raise ManifestError(
            f"ingest {path}: damaged or incomplete Parquet file ({reason}); fetch it again, or remove it"
        ) from None


class _Rows:
    """The bytes of pictures, read forwards a few rows at a time; a step back begins the row group again."""

    def __init__(self, path: Path, leaf: str) -> None:
        self._file, self._leaf = _open(path), leaf
        about = self._file.metadata
        self._starts = [0]
        for group in range(about.num_row_groups):
            self._starts.append(self._starts[-1] + about.row_group(group).num_rows)
        self._group = -1
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None
        self._start = 0

    def of(self, row: int) -> bytes | None:
        """The bytes of a row."""
        group = next(at for at, end in enumerate(self._starts[1:]) if row < end)
        if group != self._group or row < self._start:
            self._begin(group)
        while self._batch is None or row >= self._start + len(self._batch):
            batch = _bytes_of(next(self._batches))
            self._start += 0 if self._batch is None else len(self._batch)
            self._batch = batch
        value = self._batch[row - self._start]
        return value.as_py() if value.is_valid else None

    def _begin(self, group: int) -> None:
        about = self._file.metadata.row_group(group)
        num_rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES * about.num_rows // max(1, about.total_byte_size)))
        self._batches = self._file.iter_batches(num_rows, row_groups=[group], columns=[self._leaf], use_threads=False)
        self._group, self._batch, self._start = group, None, self._starts[group]


def _bytes_of(batch: Any) -> Any:
    """The array of bytes of a batch with one leaf column."""
    from pyarrow import types

    column = batch.column(0)
    column = column.flatten()[0] if types.is_struct(column.type) else column  # null where the struct is
    return column.dictionary_decode() if types.is_dictionary(column.type) else column


@lru_cache(maxsize=2)
def _rows(path: Path, _mtime_ns: int, _size: int, leaf: str) -> tuple[_Rows, threading.Lock]:
    return _Rows(path, leaf), threading.Lock()


def _open(path: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False)


def _check_sizes(path: Path, about: Any) -> None:
    """Refuse a file that takes more memory than its size lets expect, or has a row group that is too large.

    Single columns are not asked: Arrow aborts the process where what a damaged file says of one contradicts itself.
    """
    sizes = [about.row_group(at).total_byte_size for at in range(about.num_row_groups)]
    for what, size, most, way_out in (
        ("a row group has", max(sizes, default=0), _MAX_GROUP_BYTES, "save smaller row groups"),
        (
            "the row groups have",
            sum(sizes),
            max(_MAX_EXPANDED[0], path.stat().st_size * _MAX_EXPANDED[1]),
            "save it again",
        ),
    ):
        if min(sizes, default=0) < 0 or size > most:
            raise ManifestError(f"ingest {path}: {what} {size:,} bytes, at most {most:,} are read; {way_out}")


def _paths(file: Any, leaf: str) -> Iterator[str | None]:
    for batch in file.iter_batches(_PATHS_AT_ONCE, columns=[leaf], use_threads=False):
        yield from _bytes_of(batch).to_pylist()


def _safe(path: str | None) -> str | None:
    """A path that may name a picture within a folder; None if it may not."""
    if path is None or len(path) > _MAX_PATH or not path.isprintable():
        return None
    written = path.replace("\\", "/")
    parts = PurePosixPath(written).parts
    leads_out = ".." in parts or written.startswith("/") or re.match(r"[A-Za-z]:", written)
    is_name = bool(parts) and not leads_out and not is_beside(parts)
    return "/".join(parts) if is_name and PurePosixPath(written).suffix.lower() in PICTURES else None


def _leaf(field: Any) -> str:
    """The leaf column of a field's bytes; empty if it has none."""
    if _is_bytes(field.type):
        return str(field.name)
    if _is_struct(field.type):
        inner: Mapping[str, Any] = {
            field.type.field(at).name: field.type.field(at).type for at in range(field.type.num_fields)
        }
        return f"{field.name}.bytes" if "bytes" in inner and _is_bytes(inner["bytes"]) else ""
    return ""


def _is_struct(kind: Any) -> bool:
    from pyarrow import types

    return types.is_struct(kind)


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
