"""Pictures in a remote folder, through fsspec: s3://, gs://, https:// and so on.

Credentials and endpoints are what the protocol's own driver finds: for S3 the environment
variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL, or its files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, NoReturn

import fsspec
import pandas as pd

from boundaryflow.errors import ManifestError, TransientError
from boundaryflow.storage.archives import UnusableError, archive_suffix, is_beside
from boundaryflow.storage.raw import NOT_IMAGES

LISTING = "listing/1"
_VERSIONS = ("ETag", "etag", "md5Hash", "checksum", "content_md5", "mtime", "LastModified", "last_modified", "created")


def list_remote(url: str, *, may_be_empty: bool = False, what: str = "ingest") -> pd.DataFrame:
    """What a remote folder holds that may be a picture.

    Archives and LMDBs in it are passed over, as are hidden files, tables and texts.

    Args:
        url: Its address.
        may_be_empty: No picture, or no such folder in a bucket that is there, is fine.
        what: What messages call it.

    Returns:
        Sorted by name: url, name within the folder, size in bytes, version (of the content: the
        store's own checksum, or when it was written).

    Raises:
        ManifestError: The folder cannot be reached or holds no picture.
    """
    files, root = open_remote(url, what)
    try:
        found: Any = files.find(root, detail=True)
        if not found:
            files.ls(root.partition("/")[0])  # of a bucket that is not there some drivers find nothing
    except Exception as error:  # every driver has exceptions of its own
        refuse(f"{what} {url}", error)
    prefix = f"{root.rstrip('/')}/"
    rows = [
        {
            "url": url,
            "name": path.removeprefix(prefix),
            "size": int(about.get("size") or 0),
            "version": _version_of(about),
        }
        for path, about in sorted(found.items())
        if path.startswith(prefix)
        and about.get("type", "file") == "file"
        and _may_be_picture(path.removeprefix(prefix))
    ]
    if not rows and not may_be_empty:
        what = f"; {len(found)} other files are there" if found else ""
        raise ManifestError(f"ingest {url}: holds no images{what}; check the address (archives are not opened there)")
    return pd.DataFrame(rows, columns=["url", "name", "size", "version"])


class RemoteFolder:
    """The pictures of a listing.

    Attributes:
        url: The remote folder.
        refused: Nothing; see `RawPictures`.
    """

    refused: Mapping[str, str] = {}

    def __init__(self, url: str, listing: pd.DataFrame) -> None:
        self.url = url
        self._files, self._root = open_remote(url, "ingest")
        self._listed = {
            str(name): (int(size), str(version))
            for name, size, version in zip(listing["name"], listing["size"], listing["version"], strict=True)
        }

    @property
    def names(self) -> Sequence[str]:
        return list(self._listed)

    def version(self, name: str) -> str:
        """What the listing says of the content."""
        return self._listed[name][1]

    def is_in_order(self, name: str) -> bool:
        return False

    def read(self, name: str) -> bytes:
        """Download a picture; the version is looked up afterwards, so it is of these bytes.

        Raises:
            UnusableError: It is not what the listing says.
            ManifestError: The remote folder cannot be reached.
        """
        path = f"{self._root.rstrip('/')}/{name}"
        size, version = self._listed[name]
        try:
            data: bytes = self._files.cat_file(path)
            now = self._files.info(path)
        except FileNotFoundError:
            raise UnusableError("no longer there; it was removed after it was listed") from None
        except Exception as error:
            refuse(f"ingest {self.url}: {name}", error)
        if len(data) != size or not _is_version(version, now):
            raise UnusableError("changed after it was listed")
        return data


def open_remote(url: str, what: str) -> tuple[Any, str]:
    """The driver of a remote folder and its path there.

    The driver is made anew: one from fsspec's cache may have the credentials of an earlier environment.

    Args:
        url: Its address.
        what: What messages call it.

    Raises:
        ManifestError: It is no such address, or cannot be reached.
    """
    if "://" not in url:
        raise ManifestError(f"{what} {url}: is no address of a remote folder, such as s3://bucket/folder")
    try:
        return fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise ManifestError(f"{what} {url}: {_line(error)}; see fsspec's list of protocols") from None
    except Exception as error:
        refuse(f"{what} {url}", error)


def _may_be_picture(name: str) -> bool:
    path = PurePosixPath(name)
    return not (
        is_beside(path.parts)
        or path.suffix.lower() in {*NOT_IMAGES, ".mdb", ".lmdb"}
        or archive_suffix(path)
        or name.endswith("/")
    )


def _version_of(about: Mapping[str, Any]) -> str:
    """What tells one content from another, and what it is: `ETag 9b2c`."""
    key = next((key for key in _VERSIONS if about.get(key)), "size")
    return f"{key} {_plain(about.get(key))}"


def _is_version(version: str, about: Mapping[str, Any]) -> bool:
    """Whether it is still that version, as far as the store says."""
    key, _, value = version.partition(" ")
    return about.get(key) is None or _plain(about[key]) == value


def _plain(value: Any) -> str:
    """A time in one form: some drivers list it as a number, and look it up as a date."""
    seconds = value.timestamp() if isinstance(value, datetime) else value
    return f"{seconds:.3f}" if isinstance(seconds, float) else str(seconds).strip('"')


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def refuse(where: str, error: BaseException) -> NoReturn:
    """Say in one line what a driver's error is about.

    Args:
        where: What failed, such as `ingest s3://bucket/folder`.
        error: Of the driver.

    Raises:
        ManifestError: There is no such place, or we may not enter.
        TransientError: It cannot be reached.
    """
    if isinstance(error, FileNotFoundError):
        raise ManifestError(f"{where}: no such bucket or folder; check the address") from None
    if isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
        raise ManifestError(
            f"{where}: access is denied ({_line(error)}); set the credentials in the environment, for S3 "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    raise TransientError(
        f"{where}: cannot be reached ({_line(error)}); check the network and the address (of another S3 than "
        "Amazon's: AWS_ENDPOINT_URL), and run again"
    ) from None
