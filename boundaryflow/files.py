"""Files that are seen whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

_MAY_PASS = {
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE,
    errno.EBUSY, errno.EAGAIN, errno.ENETUNREACH, errno.EHOSTUNREACH,
}  # fmt: skip


def may_pass(error: OSError) -> bool:
    """Whether another attempt may help: a disk or a network that failed, not a file that is not there."""
    return error.errno in _MAY_PASS


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is seen whole or not at all, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # of a write that found no room, say where
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed half-way left in a folder and below it.

    Only for a folder that nobody else writes to at the time.
    """
    for path in folder.rglob("*.tmp"):
        path.unlink()
