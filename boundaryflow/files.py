"""Atomic writes, bounded reads, locks, and removal of this project's own temporary files."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from boundaryflow.errors import PipelineError

MAX_SETTINGS_BYTES = 16 * 2**20
"""Limit of the size of a settings file (YAML, JSON); a larger one is refused unread."""
_SCRATCH = re.compile(r"\.boundaryflow-\d+-[0-9a-f]{16}\.tmp")
# A colon begins a password unless a port or a chained address follows it.
_CUT_USER = re.compile(r"://(?!\[)[^/?#@\s]*(?::(?!//|:?\w[\w+.-]*://|\d+[/?#])[^@/?#\s]*[/?#\s]|\s)[^@]*@")
_MAY_PASS = {
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE,
    errno.EBUSY, errno.EAGAIN, errno.ENETUNREACH, errno.EHOSTUNREACH,
}  # fmt: skip
_WAY_OUT = {
    errno.ENOSPC: "free some space (`boundaryflow gc` shows what can go), or use a larger disk",
    errno.EDQUOT: "free some space (`boundaryflow gc` shows what can go), or raise the quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "mount it for writing, or use another folder",
    errno.EACCES: "change its owner or permissions",
    errno.EPERM: "change its owner or permissions",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "the link leads to itself; remove it",
    errno.ENOTDIR: "a file is where a folder is needed; move it away or choose another folder",
    errno.EISDIR: "a folder is where a file is needed; move it away or choose another name",
    errno.EEXIST: "a file is where a folder is needed; move it away or choose another folder",
}
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class RefusedFileError(PipelineError):
    """A path is not a regular file, or the file is larger than allowed; nothing of it was read.

    Attributes:
        reason: The message without the path.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


def is_remote(address: str) -> bool:
    """Whether an address is of a remote folder, such as s3://bucket/folder, and not a local path."""
    return "://" in address


def about_user(address: str) -> str:
    """What is wrong with the user and password in an address, without quoting them; empty if nothing is."""
    if not _CUT_USER.search(address):
        return ""
    return (
        "its user part holds /, #, ? or a blank, so that it ends too early; percent-encode it (/ is %2F), or set the "
        "credentials in the environment"
    )


def may_pass(error: OSError) -> bool:
    """Whether another attempt may help: for a failed disk or network, but not for a missing file."""
    return error.errno in _MAY_PASS


def way_out(error: OSError) -> str | None:
    """What the user can do about an error of the operating system; None if nothing."""
    return _WAY_OUT.get(error.errno or 0)


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of bounded size; never blocks on a FIFO, a socket or a device.

    Args:
        path: The file; links are followed.
        max_bytes: A larger file is refused before anything of it is read.

    Raises:
        RefusedFileError: It is not a regular file, or too large.
        OSError: It cannot be read.
    """
    check_regular(path, max_bytes)
    # Non-blocking, as the file may have been replaced since the check.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise RefusedFileError(path, f"more than {max_bytes:,} bytes, which are too many")
    return data


def check_regular(path: Path, max_bytes: int | None = None) -> os.stat_result:
    """Check that a path is a regular file, without opening it; returns its status.

    Raises:
        RefusedFileError: It is not a regular file, or larger than `max_bytes`.
        OSError: Its status cannot be read.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise RefusedFileError(path, f"{kind_of(about.st_mode)}, not a regular file")
    if max_bytes is not None and about.st_size > max_bytes:
        raise RefusedFileError(path, f"{about.st_size:,} bytes, more than the {max_bytes:,} that are read")
    return about


def kind_of(mode: int) -> str:
    """Kind of a file that is not regular, from its mode."""
    return next((name for test, name in _KINDS if test(mode)), "of an unknown kind")


def try_lock(file: IO[Any], *, shared: bool = False) -> bool:
    """Lock an open file for this process without waiting; the kernel releases the lock when the process ends.

    Args:
        file: Open as long as the lock is needed.
        shared: Other processes may have a shared lock at the same time.

    Returns:
        Whether the lock was obtained.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_bytes(path: Path, data: bytes, *, scratch: Path | None = None, follow: bool = False) -> None:
    """Write a file atomically: it is visible completely or not at all, also after a power cut.

    A replaced file keeps its permissions.

    Args:
        path: The file; its folder is created if missing.
        data: Its content.
        scratch: Folder on the same disk for the temporary file; None for the folder of `path`.
        follow: If `path` is a link, write its target instead of replacing the link.
    """
    path = Path(os.path.realpath(path)) if follow else path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = scratch_path(scratch or path.parent)
    try:
        with temporary.open("xb") as file:
            if path.is_file() and not path.is_symlink():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):  # name the file that the user knows
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scratch_path(folder: Path) -> Path:
    """A new name for a temporary file, by which `leftovers` recognises it."""
    return folder / f".boundaryflow-{os.getpid()}-{secrets.token_hex(8)}.tmp"


def leftovers(folder: Path) -> Iterator[Path]:
    """Temporary files of `write_bytes` in a folder and below it: regular files with a name of `scratch_path`.

    Links below the folder are not followed; the folder itself may be a link.
    """
    for at, _folders, files in os.walk(folder):
        for name in files:
            path = Path(at, name)
            if _SCRATCH.fullmatch(name) and not path.is_symlink() and path.is_file():
                yield path


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes in a folder and below it.

    Only for a folder to which no other process is writing.
    """
    for path in leftovers(folder):
        path.unlink(missing_ok=True)
