"""An outbox: a folder, here or remote, to which files are delivered whole or not at all."""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from boundaryflow.errors import ManifestError
from boundaryflow.files import remove_leftovers, write_bytes
from boundaryflow.storage.inbox import is_remote
from boundaryflow.storage.remote import open_remote, refuse

_LOCK = ".boundaryflow.lock"


class Outbox(Protocol):
    """Files by name, a path with forward slashes within the outbox."""

    def write(self, name: str, data: bytes) -> None:
        """Put a file there, in the place of one that is."""
        ...

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, None where there is none."""
        ...

    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""
        ...


@contextmanager
def open_outbox(address: str) -> Generator[Outbox]:
    """The outbox at an address, for one writer at a time where it is a folder on this machine.

    A remote store has no locks: there, let one schedule deliver to one address.

    Args:
        address: A folder, which is made where it is missing, or the address of a remote one.

    Raises:
        ManifestError: Somebody else delivers there, or it cannot be reached.
    """
    if is_remote(address):
        yield _RemoteOutbox(address)
        return
    folder = Path(address)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ManifestError(
                f"outbox {address}: another process delivers there; wait for it, or name another outbox"
            ) from None
        remove_leftovers(folder)
        yield _LocalOutbox(folder)


class _LocalOutbox:
    """Files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, data: bytes) -> None:
        write_bytes(self._folder / name, data)

    def read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)


class _RemoteOutbox:
    """Objects of a store, each of which appears whole."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._files, root = open_remote(url, "outbox")
        self._root = root.rstrip("/")

    def write(self, name: str, data: bytes) -> None:
        try:
            self._files.pipe_file(f"{self._root}/{name}", data)
        except Exception as error:  # every driver has exceptions of its own
            refuse(f"outbox {self._url}: {name}", error)

    def read(self, name: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as error:
            refuse(f"outbox {self._url}: {name}", error)

    def remove(self, name: str) -> None:
        try:
            self._files.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return
        except Exception as error:
            refuse(f"outbox {self._url}: {name}", error)
