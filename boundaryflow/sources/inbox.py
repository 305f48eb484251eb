"""An inbox: a local or remote folder, to which pictures may be added at any time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from boundaryflow.errors import ManifestError
from boundaryflow.files import RefusedFileError, is_remote, read_bytes
from boundaryflow.sources.archives import MAX_BYTES, UnusableError, raise_if_disk
from boundaryflow.sources.raw import RawPictures, survey
from boundaryflow.sources.remote import COLUMNS, RemoteFolder, list_remote
from boundaryflow.sources.walking import path_of


def list_inbox(address: str) -> pd.DataFrame:
    """List the files of an inbox that may be pictures, without reading them.

    Archives are not opened. Other users may write to an inbox, so links that lead out of it are not followed.

    Args:
        address: A folder, or the address of a remote folder.

    Returns:
        Sorted by name: name within the inbox, size in bytes, version (time of writing, or the store's checksum), and
        reason why it cannot be read, or empty. No rows for an empty inbox.

    Raises:
        ManifestError: There is no such folder, or it cannot be reached.
    """
    if is_remote(address):
        return list_remote(address, may_be_empty=True, what="inbox")
    folder = Path(address)
    if not folder.is_dir():
        raise ManifestError(f"inbox {address}: no such folder; make it, or name another one")
    rows = [
        (file.name, file.size, _version(file.mtime_ns, file.size), file.reason)
        for file in survey(folder, follow_out=False, what="inbox")
        if file.kind in ("picture", "refused")
    ]
    return pd.DataFrame(sorted(rows), columns=list(COLUMNS))


def open_inbox(address: str, listing: pd.DataFrame) -> RawPictures:
    """The pictures of a table of `list_inbox`, or of some of its rows."""
    if is_remote(address):
        return RemoteFolder(address, listing)
    return _LocalInbox(Path(address), listing)


class _LocalInbox:
    """Files of a folder, in the versions of a listing."""

    refused: Mapping[str, str] = {}

    def __init__(self, folder: Path, listing: pd.DataFrame) -> None:
        self._folder = folder
        self._listed: dict[str, tuple[str, str]] = {
            name: (version, reason)
            for name, version, reason in zip(listing["name"], listing["version"], listing["reason"], strict=True)
        }

    @property
    def names(self) -> Sequence[str]:
        return list(self._listed)

    def is_in_order(self, name: str) -> bool:
        return False

    def read(self, name: str) -> bytes:
        """The bytes of a picture. Its version is checked again afterwards, so that a file being written is not used."""
        version, reason = self._listed[name]
        if reason:
            raise UnusableError(reason)
        try:
            path = path_of(self._folder, name).resolve(strict=True)
            if not path.is_relative_to(self._folder.resolve()):
                raise UnusableError("a link that leads out of the folder")
            data = read_bytes(path, MAX_BYTES)
            about = path.stat()
        except FileNotFoundError:
            raise UnusableError("no longer there; it was removed after it was listed") from None
        except RefusedFileError as refused:
            raise UnusableError(refused.reason) from None
        except OSError as error:
            raise_if_disk(error)
            raise UnusableError(f"cannot be read ({error.strerror})") from None
        if _version(about.st_mtime_ns, about.st_size) != version:
            raise UnusableError("changed after it was listed")
        return data


def _version(mtime_ns: int, size: int) -> str:
    return f"mtime_ns {mtime_ns} size {size}"
