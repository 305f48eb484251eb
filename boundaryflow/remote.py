"""Remote folders through fsspec: the driver of an address, and what its errors mean in one line.

Credentials and endpoints are what the protocol's own driver finds: for S3 the environment
variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL, or its files.
"""

from __future__ import annotations

from typing import Any, NoReturn

import fsspec

from boundaryflow.errors import ManifestError, TransientError
from boundaryflow.files import about_user
from boundaryflow.text import masked


def open_remote(url: str, what: str) -> tuple[Any, str]:
    """The driver of a remote folder and its path there.

    The driver is made again: one from fsspec's cache may have the credentials of an earlier environment.

    Args:
        url: Its address.
        what: What messages call it.

    Raises:
        ManifestError: It is no such address, or cannot be reached.
    """
    if "://" not in url:
        raise ManifestError(f"{what} {masked(url)}: is not the address of a remote folder, such as s3://bucket/folder")
    if fault := about_user(url):
        raise ManifestError(f"{what} {masked(url)}: {fault}")
    try:
        return fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise ManifestError(f"{what} {masked(url)}: {_line(error)}; see fsspec's list of protocols") from None
    except Exception as error:
        refuse(f"{what} {url}", error)


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return masked(error.strerror)
    return masked(" ".join(str(error).split()).rstrip(".")) or type(error).__name__


def refuse(where: str, error: BaseException) -> NoReturn:
    """Say in one line what a driver's error is about.

    Args:
        where: What failed, such as `ingest s3://bucket/folder`.
        error: Of the driver.

    Raises:
        ManifestError: There is no such place, or we may not enter.
        TransientError: It cannot be reached.
    """
    where = masked(where)
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
