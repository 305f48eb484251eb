"""An inbox: a folder, here or remote, to which pictures are added at any time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from boundaryflow.errors import ManifestError
from boundaryflow.storage.archives import UnusableError, archive_suffix
from boundaryflow.storage.raw import NOT_IMAGES, RawPictures, picture_files
from boundaryflow.storage.remote import RemoteFolder, list_remote

COLUMNS = ("name", "size", "version")


def is_remote(address: str) -> bool:
    """Whether an address is of a remote folder, such as s3://bucket/folder, and not of one on this machine."""
    return "://" in address


def list_inbox(address: str) -> pd.DataFrame:
    """What an inbox holds that may be a picture, without reading any of it.

    Archives are not opened: an inbox is for files.

    Args:
        address: A folder, or the address of a remote one.

    Returns:
        Sorted by name: name within the inbox, size in bytes, version (when it was written, or the store's checksum);
        empty of an inbox that holds nothing.

    Raises:
        ManifestError: There is no such folder, or it cannot be reached.
    """
    if is_remote(address):
        return list_remote(address, may_be_empty=True, what="inbox")[list(COLUMNS)]
    folder = Path(address)
    if not folder.is_dir():
        raise ManifestError(f"inbox {address}: no such folder; make it, or name another one")
    rows: list[tuple[str, int, str]] = []
    for path in picture_files(folder):
        if path.suffix.lower() in NOT_IMAGES or archive_suffix(path):
            continue
        try:
            about = path.stat()
        except FileNotFoundError:  # taken away since
            continue
        rows.append((path.relative_to(folder).as_posix(), about.st_size, _version(about)))
    return pd.DataFrame(sorted(rows), columns=list(COLUMNS))


def open_inbox(address: str, listing: pd.DataFrame) -> RawPictures:
    """The pictures of a listing of `list_inbox`, or of some of its rows."""
    if is_remote(address):
        return RemoteFolder(address, listing)
    return _LocalInbox(Path(address), listing)


class _LocalInbox:
    """Files of a folder in the versions that a listing has."""

    refused: Mapping[str, str] = {}

    def __init__(self, folder: Path, listing: pd.DataFrame) -> None:
        self._folder = folder
        self._versions: dict[str, str] = dict(zip(listing["name"], listing["version"], strict=True))

    @property
    def names(self) -> Sequence[str]:
        return list(self._versions)

    def is_in_order(self, name: str) -> bool:
        return False

    def read(self, name: str) -> bytes:
        """The bytes of a picture; looked at again afterwards, so that a file that is being written is not taken."""
        path = self._folder / name
        try:
            data = path.read_bytes()
            now = _version(path.stat())
        except FileNotFoundError:
            raise UnusableError("no longer there; it was removed after it was listed") from None
        except PermissionError as error:
            raise UnusableError(f"cannot be read ({error.strerror})") from None
        if now != self._versions[name]:
            raise UnusableError("changed after it was listed")
        return data


def _version(about: os.stat_result) -> str:
    return f"mtime_ns {about.st_mtime_ns} size {about.st_size}"
