"""Files of bounded size for each split: Parquet and tar, written aside, and named when all of them are complete."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from boundaryflow.store.outbox import LocalOutbox

_Row = TypeVar("_Row")
_Added = TypeVar("_Added", contravariant=True)
_GROUP_BYTES = 32 * 2**20
_BLOCK, _END = 512, 10_240  # of a tar file: its blocks, and the most that ends it


class ShardFile(Protocol[_Added]):
    """A file that rows are added to."""

    @property
    def size(self) -> int:
        """Bytes that it has, or will have, as far as they are known."""
        ...

    def add(self, row: _Added, size: int) -> None:
        """Add a row of about `size` bytes."""
        ...

    def close(self) -> None:
        """Complete the file, and flush it to the disk."""
        ...


@contextmanager
def naming(folder: Path) -> Generator[None]:
    """Let errors of the operating system name a folder, where they name nothing."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(folder)) from error


class Shards(Generic[_Row]):
    """Rows in files of bounded size, for each split.

    Args:
        box: Where to.
        start: Begins a file at a path.
        name: From split, number and count of its files, the name of a file.
        max_bytes: A file is larger only if a single row is; None for one file per split.
    """

    def __init__(
        self,
        box: LocalOutbox,
        start: Callable[[Path], ShardFile[_Row]],
        name: Callable[[str, int, int], str],
        max_bytes: int | None = None,
    ) -> None:
        self._box, self._start, self._name, self._max = box, start, name, max_bytes
        self._open: dict[str, ShardFile[_Row]] = {}
        self._paths: dict[str, list[Path]] = {}

    def add(self, split: str, row: _Row, size: int = 0) -> None:
        """Add a row of about `size` bytes to a split."""
        file = self._open.get(split)
        if file and self._max and file.size + size > self._max:
            self._open.pop(split).close()
            file = None
        if file is None:
            paths = self._paths.setdefault(split, [])
            paths.append(self._box.scratch())
            file = self._open[split] = self._start(paths[-1])
        file.add(row, size)

    def publish(self) -> list[str]:
        """Complete all files, and only then give them their names, which are returned."""
        self.close()
        names: list[str] = []
        for split, paths in self._paths.items():
            for number, path in enumerate(paths):
                names.append(self._name(split, number, len(paths)))
                self._box.publish(names[-1], path)
        return names

    def close(self) -> None:
        """Close what is open."""
        with ExitStack() as stack:  # closes the others also after an error
            while self._open:
                stack.callback(self._open.popitem()[1].close)


class ParquetFile:
    """A Parquet file, in groups of rows.

    Args:
        path: The file.
        schema: Its columns.
        group_rows: Most rows of a group; with pictures of 32 MiB it is complete, too.
        plain: Columns of pictures, in which no value comes twice.
    """

    def __init__(self, path: Path, schema: pa.Schema, group_rows: int, plain: Sequence[str] = ()) -> None:
        self._schema, self._group_rows, self._rows = schema, group_rows, list[Mapping[str, Any]]()
        self._in_group = self.size = 0
        self._file = path.open("xb")
        self._writer = pq.ParquetWriter(
            self._file,
            schema,
            compression="zstd",
            use_dictionary=[name for name in schema.names if name not in plain],  # pyright: ignore[reportArgumentType]
            write_page_index=True,
        )

    def add(self, row: Mapping[str, Any], size: int) -> None:
        """Add a row with pictures of `size` bytes; NaN becomes null."""
        self._rows.append({name: None if value != value else value for name, value in row.items()})  # noqa: PLR0124
        self._in_group, self.size = self._in_group + size, self.size + size
        if len(self._rows) == self._group_rows or self._in_group >= _GROUP_BYTES:
            self._write()

    def _write(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows, self._in_group = [], 0

    def close(self) -> None:
        """Complete the file, and flush it to the disk."""
        with self._file:
            try:
                self._write()
            finally:
                self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())


class TarShard:
    """A tar file, of which equal members give equal bytes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - until `close`

    @property
    def size(self) -> int:
        return self._file.tell() + _END

    def add(self, row: Mapping[str, bytes], size: int) -> None:
        """Add the files of a sample, by name; their size is known afterwards."""
        for name, data in sorted(row.items()):
            about = tarfile.TarInfo(name)  # time, owner and group are 0 unless stated
            about.size = len(data)
            self._tar.addfile(about, io.BytesIO(data))

    def close(self) -> None:
        with self._file:
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())


def tar_size(members: Mapping[str, bytes]) -> int:
    """Bytes that files take in a tar file, unless their names are long."""
    return sum(_BLOCK + -(-len(data) // _BLOCK) * _BLOCK for data in members.values())
