"""An outbox: a folder, here or remote, to which one job delivers files whole or not at all.

A folder `.boundaryflow` in it has what is needed to deliver: the lock, half-written files, which job the outbox is of,
and a line for each file that was written, with its size and hash. A file is replaced or removed only where that record
proves it ours. A remote outbox is claimed while it is empty; from then on the address is the job's.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import logging
import os
import stat
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from boundaryflow.errors import ManifestError, PipelineError
from boundaryflow.files import is_remote, read_bytes, remove_leftovers, write_bytes
from boundaryflow.remote import open_remote, refuse
from boundaryflow.text import masked, visible

LOG = logging.getLogger(__name__)
STATE = ".boundaryflow"
_LOCK, _OWNER, _WRITTEN = f"{STATE}/lock", f"{STATE}/job.json", f"{STATE}/written.jsonl"
_MAX_OWN_BYTES, _MAX_NAME_BYTES, _MAX_LINE_BYTES = 2**16, 1000, 2**14
TABLES = ("metadata.parquet", "inbox.parquet", "runs.jsonl")
"""What a job keeps up to date in its outbox, beside pictures."""


class Outbox(Protocol):
    """Files by name, a path with forward slashes within the outbox."""

    def write(self, name: str, data: bytes) -> None:
        """Put a file there, in the place of an earlier one of ours.

        Raises:
            ManifestError: Somebody else's file has the name, or the name leads out of the outbox.
        """
        ...

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, None where there is none."""
        ...

    def remove_others(self, wanted: Collection[str]) -> None:
        """Remove the pictures that were written here earlier, as they were written, and are not among the wanted."""
        ...


@contextmanager
def open_outbox(address: str, job: str) -> Generator[Outbox]:
    """The outbox at an address, for one writer at a time where it is a folder on this machine.

    A remote store has no locks: there, let one schedule deliver to one address.

    Args:
        address: A folder, which is made where it is missing, or the address of a remote one.
        job: Which job delivers, such as `bulk_edit glasses`; an outbox is of one job.

    Raises:
        ManifestError: It is another job's, somebody else delivers there, it holds a table that no job wrote, it is
            remote, of no job yet and not empty, or it cannot be reached.
    """
    if is_remote(address):
        remote = _RemoteOutbox(address)
        _claim(address, job, remote.read_own, remote.put, remote.check_empty)
        try:
            yield remote
        except BaseException:
            with suppress(PipelineError):
                remote.close()
            raise
        remote.close()
        return
    folder = Path(address)
    if folder.exists() and not folder.is_dir():
        raise ManifestError(f"outbox {address}: is no folder; choose another one")
    if folder.is_symlink() and not folder.exists():
        raise ManifestError(f"outbox {address}: is a link that leads nowhere; remove it, or choose another outbox")
    state = folder / STATE
    if state.is_symlink() or (state.exists() and not state.is_dir()):
        raise ManifestError(f"outbox {address}: {STATE} in it is a link or no folder; remove it, or choose another one")
    state.mkdir(parents=True, exist_ok=True)
    with _open_own(folder / _LOCK) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ManifestError(
                f"outbox {address}: another process delivers there; wait for it, or name another outbox"
            ) from None
        remove_leftovers(folder / STATE)
        with _LocalOutbox(folder) as box:
            _claim(address, job, box.read_own, box.put_own, lambda: None)
            box.check_tables()
            yield box


def _claim(
    address: str,
    job: str,
    read: Callable[[str], bytes | None],
    put: Callable[[str, bytes], None],
    check: Callable[[], None],
) -> None:
    """Make an outbox a job's, unless it is another's; `check` refuses one of no job that cannot be made one's own."""
    known = read(_OWNER)
    if known is None:
        check()
        put(_OWNER, json.dumps({"job": job}).encode())
        return
    try:
        owner = str(json.loads(known)["job"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ManifestError(f"outbox {address}: {_OWNER} is damaged; choose another outbox") from None
    if owner != job:
        raise ManifestError(
            f"outbox {address}: is the outbox of {visible(owner)}, and not of {job}; give each job its own folder"
        )


def _open_own(path: Path) -> IO[str]:
    """A file of the state folder, to be written to at its end; no link and no FIFO that somebody put there."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ManifestError(f"outbox {path}: is a link; remove it, or choose another outbox") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ManifestError(f"outbox {path}: is no regular file; remove it, or choose another outbox")
    return os.fdopen(descriptor, "a", encoding="utf-8")


@dataclass(frozen=True)
class _Content:
    """What the record knows of a file's bytes."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> _Content:
        return cls(len(data), hashlib.sha256(data).hexdigest())


class _Written:
    """Name to content of what was written: the last one of a name that was written again, and whether one is earlier.

    A line is written before its file: after a kill in between, the file is still what an earlier line says.
    """

    def __init__(self, lines: Iterable[bytes] = ()) -> None:
        self.contents: dict[str, _Content] = {}
        self._earlier: dict[str, set[_Content]] = {}
        for line in lines:
            try:
                name, size, digest = json.loads(line)
            except (ValueError, TypeError, RecursionError):
                continue  # cut short by a power cut: the file it names is not proved ours, and stays
            if isinstance(name, str) and isinstance(size, int) and isinstance(digest, str) and _is_within(name):
                self._enter(name, _Content(size, digest))

    def add(self, name: str, data: bytes) -> str:
        """Remember a file; returns its line."""
        self._enter(name, _Content.of(data))
        return self.line(name)

    def line(self, name: str) -> str:
        """What the record says of a name."""
        content = self.contents[name]
        return json.dumps([name, content.size, content.sha256]) + "\n"

    def has(self, name: str, content: _Content) -> bool:
        """Whether this was written under the name, now or earlier."""
        return content in self._all(name)

    def is_ours(self, name: str, path: Path) -> bool:
        """Whether a file is as it was written under the name; one of another size is not read."""
        size = path.stat().st_size
        if all(content.size != size for content in self._all(name)):
            return False
        with path.open("rb") as file:
            return self.has(name, _Content(size, hashlib.file_digest(file, "sha256").hexdigest()))

    def others(self, wanted: Collection[str]) -> Iterator[str]:
        """Pictures that are not wanted."""
        return (name for name in sorted(self.contents) if name not in wanted and name not in TABLES)

    def _all(self, name: str) -> set[_Content]:
        known = self.contents.get(name)
        return self._earlier.get(name, set()) | ({known} if known else set())

    def _enter(self, name: str, content: _Content) -> None:
        known = self.contents.get(name)
        if known not in (None, content):
            self._earlier.setdefault(name, set()).add(known)
        self.contents[name] = content


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Lines of a record, in bounded pieces: of one that is too long none can be read as JSON."""
    return iter(lambda: file.readline(_MAX_LINE_BYTES), b"")


def _is_within(name: str) -> bool:
    parts = PurePosixPath(name).parts
    leads_out = ".." in parts or name.startswith("/") or parts[:1] == (STATE,)
    return bool(parts) and not leads_out and visible(name) == name and len(name.encode()) <= _MAX_NAME_BYTES


class _LocalOutbox:
    """Files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._home = folder, folder.resolve()
        record = folder / _WRITTEN
        if record.is_symlink():
            raise ManifestError(f"outbox {record}: is a link; remove it, or choose another outbox")
        with record.open("rb") if record.is_file() else io.BytesIO() as lines:
            self._written = _Written(_lines(lines))
        self._record: IO[str] = io.StringIO()

    def __enter__(self) -> _LocalOutbox:
        self._record = _open_own(self._folder / _WRITTEN)
        self._record.write("\n")  # what a power cut left of a last line ends here
        return self

    def __exit__(self, *_error: object) -> None:
        self._record.close()

    def check_tables(self) -> None:
        """Refuse tables of somebody else's before any work is done."""
        for name in TABLES:
            self._check_ours(name, None)

    def write(self, name: str, data: bytes) -> None:
        if self._check_ours(name, data):
            return  # the very bytes are there already, and stay whose they are
        self._record.write(self._written.add(name, data))  # first, so that no file of ours is without a line
        self._record.flush()
        os.fdatasync(self._record.fileno())
        write_bytes(self._place(name), data, scratch=self._folder / STATE)

    def put_own(self, name: str, data: bytes) -> None:
        """Write a file of the state folder."""
        write_bytes(self._folder / name, data, scratch=self._folder / STATE)

    def read_own(self, name: str) -> bytes | None:
        """A small file of the state folder; a link or anything but a file is refused."""
        path = self._folder / name
        if path.is_symlink():
            raise ManifestError(f"outbox {path}: is a link; remove it, or choose another outbox")
        try:
            return read_bytes(path, _MAX_OWN_BYTES)
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes | None:
        try:
            return self._place(name).read_bytes()
        except FileNotFoundError:
            return None

    def remove_others(self, wanted: Collection[str]) -> None:
        for name in self._written.others(wanted):
            path = self._place(name)
            if path.is_symlink() or not path.is_file():
                continue
            if self._written.is_ours(name, path):
                path.unlink()
            else:
                LOG.warning("outbox %s: %s was changed since it was written, and stays", self._folder, name)

    def _check_ours(self, name: str, data: bytes | None) -> bool:
        """Refuse what is not ours; says whether the file is there already with just these bytes."""
        path = self._place(name)
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise ManifestError(f"outbox {self._folder}: {name} is a link or no file; move it away")
        if path.is_file():
            if data is not None and path.stat().st_size == len(data) and path.read_bytes() == data:
                return True
            if not self._written.is_ours(name, path):
                raise ManifestError(
                    f"outbox {self._folder}: {name} is there, and not as a run wrote it; move it away, or choose "
                    "another folder"
                )
        return False

    def _place(self, name: str) -> Path:
        path = self._folder / name
        if not _is_within(name) or not path.parent.resolve().is_relative_to(self._home):
            raise ManifestError(f"outbox {self._folder}: {visible(name)} leads out of it; move the link away")
        return path


class _RemoteOutbox:
    """Objects of a store, each of which appears whole."""

    def __init__(self, url: str) -> None:
        self._shown = masked(url)
        self._files, root = open_remote(url, "outbox")
        self._root = root.rstrip("/")
        self._written = _Written((self.read(_WRITTEN) or b"").splitlines())

    def close(self) -> None:
        """Keep the record of what was written."""
        self.put(_WRITTEN, "".join(map(self._written.line, sorted(self._written.contents))).encode())

    def check_empty(self) -> None:
        """Refuse an address with files of somebody else's: no record could tell them from ours."""
        try:
            found = self._files.find(self._root, maxdepth=2)
        except FileNotFoundError:
            return
        except Exception as error:  # every driver has exceptions of its own
            refuse(f"outbox {self._shown}", error)
        if found:
            name = visible(str(found[0]).removeprefix(f"{self._root}/"))
            raise ManifestError(f"outbox {self._shown}: is of no job, and holds {name}; choose an empty one")

    def write(self, name: str, data: bytes) -> None:
        if not _is_within(name):
            raise ManifestError(f"outbox {self._shown}: {visible(name)} leads out of it")
        self.put(name, data)
        self._written.add(name, data)

    def put(self, name: str, data: bytes) -> None:
        """Write a file without a word in the record."""
        try:
            self._files.pipe_file(f"{self._root}/{name}", data)
        except Exception as error:  # every driver has exceptions of its own
            refuse(f"outbox {self._shown}: {name}", error)

    def read(self, name: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as error:
            refuse(f"outbox {self._shown}: {name}", error)

    def read_own(self, name: str) -> bytes | None:
        """A small file of the state folder."""
        try:
            data = bytes(self._files.cat_file(f"{self._root}/{name}", end=_MAX_OWN_BYTES + 1))
        except FileNotFoundError:
            return None
        except Exception as error:
            refuse(f"outbox {self._shown}: {name}", error)
        if len(data) > _MAX_OWN_BYTES:
            raise ManifestError(f"outbox {self._shown}: {name} has over {_MAX_OWN_BYTES:,} bytes; choose another one")
        return data

    def remove_others(self, wanted: Collection[str]) -> None:
        for name in self._written.others(wanted):
            there = self.read(name) if self._size(name) == self._written.contents[name].size else None
            if there is None or _Content.of(there) != self._written.contents[name]:
                continue
            try:
                self._files.rm_file(f"{self._root}/{name}")
            except Exception as error:
                refuse(f"outbox {self._shown}: {name}", error)

    def _size(self, name: str) -> int | None:
        try:
            return self._files.info(f"{self._root}/{name}")["size"]
        except FileNotFoundError:
            return None
        except Exception as error:
            refuse(f"outbox {self._shown}: {name}", error)
