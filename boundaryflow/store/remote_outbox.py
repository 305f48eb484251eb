"""An outbox in a store; see `outbox`."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from boundaryflow.errors import ManifestError
from boundaryflow.remote import open_remote, refuse
from boundaryflow.store.outbox_record import (
    MAX_OWN_BYTES,
    OWNER,
    TABLES,
    WRITTEN,
    Content,
    Written,
    checked,
    is_within,
)
from boundaryflow.text import masked, visible


class RemoteOutbox:
    """Objects of a store, each of which appears whole."""

    def __init__(self, url: str) -> None:
        self._shown = masked(url)
        self._files, root = open_remote(url, "outbox")
        self._root = root.rstrip("/")
        self._written = Written((self.read(WRITTEN) or b"").splitlines())
        self._is_gone = False

    def close(self) -> None:
        """Save the record of what was written."""
        if self._is_gone:
            return
        self.put(WRITTEN, "".join(map(self._written.line, sorted(self._written.contents))).encode())

    def check_empty(self) -> None:
        """Refuse an address with files: without a record nothing shows which of them we wrote."""
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
        if not is_within(name):
            raise ManifestError(f"outbox {self._shown}: {visible(name)} leads out of it")
        self.put(name, data)
        self._written.add(name, Content.of(data))
        if name in TABLES:
            self.close()  # a killed process has a record of all that its tables name

    def put(self, name: str, data: bytes) -> None:
        """Write a file without recording it."""
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
            data = bytes(self._files.cat_file(f"{self._root}/{name}", end=MAX_OWN_BYTES + 1))
        except FileNotFoundError:
            return None
        except Exception as error:
            refuse(f"outbox {self._shown}: {name}", error)
        if len(data) > MAX_OWN_BYTES:
            raise ManifestError(f"outbox {self._shown}: {name} has over {MAX_OWN_BYTES:,} bytes; choose another one")
        return data

    def read_ours(self, name: str) -> bytes | None:
        return checked(self._shown, name, self.read(name), self._written)

    def put_own(self, name: str, data: bytes) -> None:
        self.put(name, data)

    def remove_others(self, wanted: Collection[str]) -> None:
        self._remove(self._written.others(wanted, TABLES))

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            data = self.read(name) if self._size(name) == self._written.contents[name].size else None
            if data is not None and Content.of(data) == self._written.contents[name]:
                self._remove_file(name)

    def _remove_file(self, name: str) -> None:
        try:
            self._files.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return
        except Exception as error:
            refuse(f"outbox {self._shown}: {name}", error)

    def dissolve(self) -> None:
        self._remove(self._written.contents)
        self._is_gone = True
        for name in (WRITTEN, OWNER):  # the owner last: without it, what is left could not be claimed again
            self._remove_file(name)

    def _size(self, name: str) -> int | None:
        try:
            return self._files.info(f"{self._root}/{name}")["size"]
        except FileNotFoundError:
            return None
        except Exception as error:
            refuse(f"outbox {self._shown}: {name}", error)
