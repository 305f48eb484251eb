"""Pictures in a remote folder, through fsspec: s3://, gs://, https:// and so on.

The protocol's driver finds credentials and endpoints: for S3 the environment
variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL, or its files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from boundaryflow.errors import ManifestError
from boundaryflow.remote import open_remote, refuse
from boundaryflow.sources.archives import MAX_BYTES, UnusableError, archive_suffix, is_beside
from boundaryflow.sources.suffixes import may_be_picture
from boundaryflow.sources.walking import NOT_UTF8
from boundaryflow.text import masked, visible

COLUMNS = ("name", "size", "version", "reason")
UNKNOWN_SIZE = -1
_VERSIONS = (
    "ETag", "etag", "md5Hash", "checksum", "content_md5", "Content-MD5", "Digest", "mtime", "LastModified",
    "last_modified", "Last-Modified", "created",
)  # fmt: skip
_LOOK_UPS = 16  # at once


def list_remote(url: str, *, may_be_empty: bool = False, what: str = "ingest") -> pd.DataFrame:
    """List the files of a remote folder that may be pictures.

    Archives, LMDBs, hidden files, tables, texts and videos are skipped.

    Args:
        url: Its address.
        may_be_empty: Accept a folder without pictures, or one that does not exist in an existing bucket.
        what: Prefix of messages.

    Returns:
        Sorted by name: name within the folder; size in bytes, or `UNKNOWN_SIZE`; version (the store's checksum, or
        the time of writing; empty if the store gives neither); reason why it cannot be used, empty if none is known.

    Raises:
        ManifestError: The folder cannot be reached or holds no picture.
    """
    files, root = open_remote(url, what)
    prefix = f"{root.rstrip('/')}/"
    try:
        found: Any = files.find(root, detail=True)
        if not found:
            files.ls(root.partition("/")[0])  # some drivers list nothing for a missing bucket
        chosen = {
            path.removeprefix(prefix): about
            for path, about in sorted(found.items())
            if path.startswith(prefix) and about.get("type", "file") == "file" and _is_taken(path.removeprefix(prefix))
        }
        chosen = _looked_up(files, prefix, chosen)
    except Exception as error:  # every driver has exceptions of its own
        refuse(f"{what} {url}", error)
    if not chosen and not may_be_empty:
        others = f"; {len(found)} other files are there" if found else ""
        raise ManifestError(
            f"ingest {masked(url)}: holds no images{others}; check the address (archives are not opened there)"
        )
    return pd.DataFrame([_row(name, about) for name, about in chosen.items()], columns=list(COLUMNS))


def _looked_up(files: Any, prefix: str, chosen: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The same, with a request per file where the listing has neither size nor version (web servers)."""
    bare = [name for name, about in chosen.items() if about.get("size") is None and not _version_of(about)]
    if not bare:
        return dict(chosen)
    with ThreadPoolExecutor(_LOOK_UPS) as pool:
        looked_up = pool.map(lambda name: files.info(f"{prefix}{name}"), bare)
        return {**chosen, **dict(zip(bare, looked_up, strict=True))}


def _row(name: str, about: Mapping[str, Any]) -> dict[str, Any]:
    size = UNKNOWN_SIZE if about.get("size") is None else int(about["size"])
    reason = _wrong_with(name) or (f"{size:,} bytes are too many for a picture" if size > MAX_BYTES else "")
    return {"name": visible(name) if reason else name, "size": size, "version": _version_of(about), "reason": reason}


def _wrong_with(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        return NOT_UTF8
    if name.startswith("/") or {".", "..", ""} & set(name.split("/")):
        return "its name leads out of the folder; rename it"
    return "its name has control characters; rename it" if any(c < " " or c == "\x7f" for c in name) else ""


class RemoteFolder:
    """The pictures of a listing.

    Attributes:
        url: The remote folder, without secrets: for messages and tables.
        refused: Empty; `read` raises the reasons of the listing.
    """

    refused: Mapping[str, str] = {}

    def __init__(self, url: str, listing: pd.DataFrame) -> None:
        self.url = masked(url)
        self._files, self._root = open_remote(url, "ingest")
        self._listed = {
            str(name): (int(size), str(version), str(reason))
            for name, size, version, reason in zip(*(listing[column] for column in COLUMNS), strict=True)
        }

    @property
    def names(self) -> Sequence[str]:
        return list(self._listed)

    def version(self, name: str) -> str:
        """Version of the content in the listing."""
        return self._listed[name][1]

    def is_in_order(self, name: str) -> bool:
        return False

    def read(self, name: str) -> bytes:
        """Download a picture, and check its version afterwards.

        Raises:
            UnusableError: It differs from the listing.
            ManifestError: The remote folder cannot be reached.
        """
        path = f"{self._root.rstrip('/')}/{name}"
        size, version, reason = self._listed[name]
        if reason:
            raise UnusableError(reason)
        try:
            data = self._download(path, size)
            now = self._files.info(path)
        except FileNotFoundError:
            raise UnusableError("no longer there; it was removed after it was listed") from None
        except Exception as error:
            refuse(f"ingest {self.url}: {name}", error)
        if len(data) > MAX_BYTES:
            raise UnusableError(f"more than {MAX_BYTES:,} bytes are too many for a picture")
        if size not in (UNKNOWN_SIZE, len(data)) or not _is_version(version, now):
            raise UnusableError("changed after it was listed")
        return data

    def _download(self, path: str, size: int) -> bytes:
        """The file; of one whose size is unknown at most `MAX_BYTES` + 1 bytes."""
        if size != UNKNOWN_SIZE:
            return self._files.cat_file(path)
        with self._files.open(path, "rb", block_size=0) as file:
            return file.read(MAX_BYTES + 1)


def _is_taken(name: str) -> bool:
    path = PurePosixPath(name)
    is_one = may_be_picture(name) and not archive_suffix(path) and path.suffix.lower() != ".lmdb"
    return is_one and not name.endswith("/") and not is_beside(tuple(part for part in path.parts if part != ".."))


def _version_of(about: Mapping[str, Any]) -> str:
    """Version of the content, with its kind: `ETag 9b2c`; empty if the store gives none."""
    key = next((key for key in _VERSIONS if about.get(key)), "" if about.get("size") is None else "size")
    return f"{key} {_plain(about[key])}" if key else ""


def _is_version(version: str, about: Mapping[str, Any]) -> bool:
    """Whether the content still has this version, as far as the store reports it."""
    key, _, value = version.partition(" ")
    return not key or about.get(key) is None or _plain(about[key]) == value


def _plain(value: Any) -> str:
    """A time in one form: some drivers give a number in a listing, and a date for a single file."""
    seconds = value.timestamp() if isinstance(value, datetime) else value
    return f"{seconds:.3f}" if isinstance(seconds, float) else str(seconds).strip('"')
