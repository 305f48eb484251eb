"""An outbox: a folder, here or remote, to which one job delivers files, each written atomically.

Its folder `.boundaryflow` holds the lock, half-written files, the name of the job that owns the outbox, and a record of
every file written, with size and hash. A file is replaced or removed only if the record proves that we wrote it. A job
can claim a remote outbox only while it is empty.
"""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import stat
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NoReturn, Protocol

from boundaryflow.errors import ManifestError, PipelineError
from boundaryflow.files import is_remote, read_bytes, remove_leftovers, scratch_path, try_lock, write_bytes
from boundaryflow.store.outbox_record import (
    MAX_OWN_BYTES,
    OWNER,
    STATE,
    TABLES,
    WRITTEN,
    Content,
    Written,
    checked,
    is_within,
    lines_of,
)
from boundaryflow.store.remote_outbox import RemoteOutbox
from boundaryflow.text import visible

LOG = logging.getLogger(__name__)
_LOCK = f"{STATE}/lock"


class Outbox(Protocol):
    """Files by name, a path with forward slashes within the outbox."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file, or replace one that we wrote.

        Raises:
            ManifestError: A file of this name exists that we did not write, or the name leads out of the outbox.
        """
        ...

    def read(self, name: str) -> bytes | None:
        """Bytes of a file; None if it does not exist."""
        ...

    def read_ours(self, name: str) -> bytes | None:
        """The same of a file that we wrote.

        Raises:
            ManifestError: It was changed since.
        """
        ...

    def put_own(self, name: str, data: bytes) -> None:
        """Write a small file of the state folder."""
        ...

    def read_own(self, name: str) -> bytes | None:
        """Bytes of a small file of the state folder; None if it does not exist."""
        ...

    def remove_others(self, wanted: Collection[str]) -> None:
        """Remove the pictures that we wrote, that are unchanged since, and that are not in `wanted`."""
        ...

    def dissolve(self) -> None:
        """Remove all that we wrote and that is unchanged since, and the state folder; nothing may be written then."""
        ...


@contextmanager
def open_outbox(address: str, job: str) -> Generator[Outbox]:
    """The outbox at an address, for one writer at a time where it is a folder on this machine.

    A remote store has no locks: there, let one schedule deliver to one address.

    Args:
        address: A local folder, which is created if missing, or a remote address.
        job: Job that delivers, such as `bulk_edit glasses`; an outbox belongs to one job.

    Raises:
        ManifestError: It belongs to another job, another process delivers there, it holds a table that no job wrote,
            it is remote, unclaimed and not empty, or it cannot be reached.
    """
    if is_remote(address):
        remote = RemoteOutbox(address)
        _claim(address, job, remote.read_own, remote.put, remote.check_empty)
        try:
            yield remote
        except BaseException:
            with suppress(PipelineError):
                remote.close()
            raise
        remote.close()
        return
    with open_folder(Path(address), job) as box:
        yield box


@contextmanager
def open_folder(folder: Path, job: str) -> Generator[LocalOutbox]:
    """The outbox that is a folder on this machine; see `open_outbox`."""
    address = str(folder)
    if folder.exists() and not folder.is_dir():
        raise ManifestError(f"outbox {address}: is not a folder; choose another one")
    if folder.is_symlink() and not folder.exists():
        raise ManifestError(f"outbox {address}: is a link that leads nowhere; remove it, or choose another outbox")
    state = folder / STATE
    if state.is_symlink() or (state.exists() and not state.is_dir()):
        raise ManifestError(f"outbox {address}: {STATE} in it is a link or not a folder; remove it, or choose another")
    state.mkdir(parents=True, exist_ok=True)
    with _open_own(folder / _LOCK) as lock:
        if not try_lock(lock):
            raise ManifestError(f"outbox {address}: another process delivers there; wait for it, or name another one")
        remove_leftovers(state)
        with LocalOutbox(folder) as box:
            _claim(address, job, box.read_own, box.put_own, lambda: None)
            box.check_tables()
            try:
                yield box
            finally:
                remove_leftovers(state)


def _claim(
    address: str,
    job: str,
    read: Callable[[str], bytes | None],
    put: Callable[[str, bytes], None],
    check: Callable[[], None],
) -> None:
    """Record the job as the owner of an outbox; `check` refuses an unclaimed outbox that cannot be claimed."""
    known = read(OWNER)
    if known is None:
        check()
        put(OWNER, json.dumps({"job": job}).encode())
        return
    try:
        owner = str(json.loads(known)["job"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ManifestError(f"outbox {address}: {OWNER} is damaged; choose another outbox") from None
    if owner != job:
        raise ManifestError(
            f"outbox {address}: is the outbox of {visible(owner)}, and not of {job}; give each job its own folder"
        )


def _open_own(path: Path) -> IO[str]:
    """Open a file of the state folder for appending; a link or FIFO is refused."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ManifestError(f"outbox {path}: is a link; remove it, or choose another outbox") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ManifestError(f"outbox {path}: is not a regular file; remove it, or choose another outbox")
    return os.fdopen(descriptor, "a", encoding="utf-8")


class LocalOutbox:
    """Files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._home = folder, folder.resolve()
        record = folder / WRITTEN
        if record.is_symlink():
            raise ManifestError(f"outbox {record}: is a link; remove it, or choose another outbox")
        with record.open("rb") if record.is_file() else io.BytesIO() as lines:
            self._written = Written(lines_of(lines))
        self._record: IO[str] = io.StringIO()

    def __enter__(self) -> LocalOutbox:
        self._record = _open_own(self._folder / WRITTEN)
        self._record.write("\n")  # ends a last line that a power failure cut short
        return self

    def __exit__(self, *_error: object) -> None:
        self._record.close()

    def check_tables(self) -> None:
        """Refuse tables that we did not write, before any work is done."""
        for name in TABLES:
            self._check_ours(name, None)

    def write(self, name: str, data: bytes) -> None:
        if self._check_ours(name, data):
            return  # identical bytes exist already; they do not become ours
        self._enter(name, Content.of(data))
        write_bytes(self._place(name), data, scratch=self._folder / STATE)

    def scratch(self) -> Path:
        """A new path for a file to be published later; what is not published is gone when the outbox is closed."""
        return scratch_path(self._folder / STATE)

    def publish(self, name: str, path: Path) -> None:
        """Give a file of `scratch`, complete and flushed to the disk, its name; see `write`."""
        self._check_ours(name, None)
        self._enter(name, Content.of_file(path))
        place = self._place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)

    def _enter(self, name: str, content: Content) -> None:
        """Record a file before it is there, so that each of our files has a line."""
        self._record.write(self._written.add(name, content))
        self._record.flush()
        os.fdatasync(self._record.fileno())

    def check_free(self, pattern: str) -> None:
        """Refuse files that match a pattern of `Path.glob` and are not as a run wrote them, before any work is done."""
        for path in sorted(self._folder.glob(pattern)):
            self._check_ours(path.relative_to(self._folder).as_posix(), None)

    def put_own(self, name: str, data: bytes) -> None:
        write_bytes(self._folder / name, data, scratch=self._folder / STATE)

    def read_own(self, name: str) -> bytes | None:
        """See `Outbox`; a link or anything but a file is refused."""
        path = self._folder / name
        if path.is_symlink():
            raise ManifestError(f"outbox {path}: is a link; remove it, or choose another outbox")
        try:
            return read_bytes(path, MAX_OWN_BYTES)
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes | None:
        try:
            return self._place(name).read_bytes()
        except FileNotFoundError:
            return None

    def read_ours(self, name: str) -> bytes | None:
        return checked(str(self._folder), name, self.read(name), self._written)

    def remove_others(self, wanted: Collection[str], kept: Collection[str] = TABLES) -> None:
        self._remove(self._written.others(wanted, kept))

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            path = self._place(name)
            if path.is_symlink() or not path.is_file():
                continue
            if self._written.is_ours(name, path):
                path.unlink()
                self._remove_empty(path.parent)
            else:
                LOG.warning("outbox %s: %s was changed since it was written, and stays", self._folder, name)

    def dissolve(self) -> None:
        self._remove(self._written.contents)
        for name in self._written.contents:
            self._remove_empty((self._folder / name).parent)  # a killed process may have left it
        for name in (WRITTEN, OWNER, _LOCK):  # what is removed after the record needs none to be found again
            (self._folder / name).unlink(missing_ok=True)
        self._remove_empty(self._folder / STATE)
        with suppress(OSError):  # it holds files of others
            self._folder.rmdir()

    def _remove_empty(self, folder: Path) -> None:
        """Remove a folder from which a file was removed, and those above it, while they are empty."""
        with suppress(OSError):  # not empty, or a link
            while folder != self._folder:
                folder.rmdir()
                folder = folder.parent

    def _check_ours(self, name: str, data: bytes | None) -> bool:
        """Refuse a file that we did not write; returns whether it exists with exactly these bytes."""
        path = self._place(name)
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise ManifestError(f"outbox {self._folder}: {name} is a link or not a file; move it away")
        if path.is_file():
            if data is not None and path.stat().st_size == len(data) and path.read_bytes() == data:
                return True
            if not self._written.is_ours(name, path):
                self._refuse(name)
        return False

    def _refuse(self, name: str) -> NoReturn:
        raise ManifestError(
            f"outbox {self._folder}: {visible(name)} exists, and is not as a run wrote it; move it away, or choose "
            "another folder"
        )

    def _place(self, name: str) -> Path:
        path = self._folder / name
        if not is_within(name) or not path.parent.resolve().is_relative_to(self._home):
            raise ManifestError(f"outbox {self._folder}: {visible(name)} leads out of it; move the link away")
        return path
