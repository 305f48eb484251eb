"""One flow per checkout, and DVC lock entries that dead processes left behind."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from boundaryflow.errors import PipelineError
from flows.environment import STATE_FOLDER

_RWLOCK = Path(".dvc/tmp/rwlock")
_POLL_S = 0.5


class FlowBusyError(PipelineError):
    """Another flow works in this checkout."""


@contextmanager
def flow_lock(root: Path, *, wait_s: float = 0, note: Callable[[str], None] | None = None) -> Generator[None]:
    """Hold the checkout's flow lock; the kernel lets it go when the process dies.

    Args:
        root: The checkout.
        wait_s: Seconds to wait for whoever has it.
        note: Told whom is waited for.

    Raises:
        FlowBusyError: Another process holds it, and went on holding it.
    """
    path = root / STATE_FOLDER / "flow.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    with path.open("a+", encoding="utf-8") as file:
        while not _lock(file):
            file.seek(0)
            holder = file.read().strip() or "process unknown"
            if time.monotonic() >= deadline:
                raise FlowBusyError(
                    f"{root}: another boundaryflow run is at work here ({holder}); wait for it (`boundaryflow status`) "
                    "or stop it with Ctrl-C where it runs"
                )
            if note is not None:
                note(f"waiting for another run to end ({holder})")
                note = None
            time.sleep(_POLL_S)
        file.truncate(0)
        file.write(f"process {os.getpid()}, since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
        file.flush()
        yield


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def serve_lock(root: Path) -> Generator[None]:
    """Hold the right to serve a checkout.

    Raises:
        PipelineError: Another process serves it.
    """
    path = root / STATE_FOLDER / "serve.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if not _lock(file):
            raise PipelineError(f"{root}: is served already; stop that `boundaryflow serve` first")
        yield


def flow_holder(root: Path) -> str | None:
    """Who holds the flow lock (`process 12, since ...`), or None when nobody does."""
    path = root / STATE_FOLDER / "flow.lock"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "process unknown"
    return None


def stale_rwlock_entries(root: Path) -> tuple[str, ...]:
    """Paths that DVC takes for busy though no DVC process is behind the entry."""
    entries = _read_rwlock(root)
    stale = [path for path, users in entries.get("write", {}).items() if not _is_dvc(users)]
    for path, users in entries.get("read", {}).items():
        stale += [path for user in users if not _is_dvc(user)]
    return tuple(sorted(set(stale)))


def clear_stale_rwlock(root: Path) -> None:
    """Drop the entries of processes that are gone, also where their id is in use again (a restarted container)."""
    entries = _read_rwlock(root)
    if not stale_rwlock_entries(root):
        return
    kept = {
        "write": {path: user for path, user in entries.get("write", {}).items() if _is_dvc(user)},
        "read": {
            path: alive
            for path, users in entries.get("read", {}).items()
            if (alive := [user for user in users if _is_dvc(user)])
        },
    }
    temporary = root / f"{_RWLOCK}.new"
    temporary.write_text(json.dumps({key: value for key, value in kept.items() if value}))
    temporary.replace(root / _RWLOCK)


def _read_rwlock(root: Path) -> dict[str, Any]:
    try:
        content = json.loads((root / _RWLOCK).read_text() or "{}")
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_dvc(user: dict[str, Any]) -> bool:
    process = int(user.get("pid", 0))
    if process == os.getpid():
        return False
    command = Path(f"/proc/{process}/cmdline")
    if Path("/proc/self").exists():
        try:
            return b"dvc" in command.read_bytes()
        except OSError:
            return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
