"""The lock that allows one flow per checkout, and repair of stale DVC locks."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from boundaryflow.errors import PipelineError
from boundaryflow.files import MAX_SETTINGS_BYTES, RefusedFileError, read_bytes, try_lock, write_bytes
from flows.environment import STATE_FOLDER

LOG = logging.getLogger(__name__)
_RWLOCK = Path(".dvc/tmp/rwlock")
_POLL_S = 0.5


class FlowBusyError(PipelineError):
    """Another flow is running in this checkout."""


@contextmanager
def flow_lock(root: Path, *, wait_s: float = 0, note: Callable[[str], None] | None = None) -> Generator[None]:
    """Hold the checkout's flow lock; the kernel releases it when the process ends.

    Args:
        root: The checkout.
        wait_s: Seconds to wait for the lock.
        note: Receives a message on whom it waits for.

    Raises:
        FlowBusyError: Another process still holds it after `wait_s`.
    """
    path = root / STATE_FOLDER / "flow.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_s
    with path.open("a+", encoding="utf-8") as file:
        while not try_lock(file):
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


@contextmanager
def serve_lock(root: Path) -> Generator[None]:
    """Hold the lock that allows one `boundaryflow serve` per checkout.

    Raises:
        PipelineError: Another process serves it.
    """
    path = root / STATE_FOLDER / "serve.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if not try_lock(file):
            raise PipelineError(f"{root}: is served already; stop that `boundaryflow serve` first")
        yield


def flow_holder(root: Path) -> str | None:
    """Holder of the flow lock (`process 12, since ...`), or None."""
    path = root / STATE_FOLDER / "flow.lock"
    if not path.is_file():
        return None
    with path.open(encoding="utf-8") as file:
        return None if try_lock(file, shared=True) else file.read().strip() or "process unknown"


def stale_rwlock_entries(root: Path) -> tuple[str, ...]:
    """Paths that DVC's rwlock marks as busy although the process of the entry is gone."""
    try:
        entries = _read_rwlock(root)
    except _DamagedError:
        return (f"{_RWLOCK} (damaged)",)
    stale = [path for path, user in entries["write"].items() if not _is_dvc(user)]
    for path, users in entries["read"].items():
        stale += [path for user in users if not _is_dvc(user)]
    return tuple(sorted(set(stale)))


def clear_what_is_stale(root: Path, note: Callable[[str], None] = LOG.warning) -> None:
    """Repair DVC's own files after a power cut, a kill or a restart of a container; called under the flow lock.

    Entries in `rwlock` of processes that are gone are dropped, even if their id is in use again. An unreadable
    `rwlock` or `dvc.lock` is moved away; without it DVC only checks more stages than necessary.

    Args:
        root: The checkout.
        note: Receives a message for each file moved away.

    Raises:
        PipelineError: `rwlock` is damaged while a DVC process is running in this checkout.
    """
    lock = root / "dvc.lock"
    if lock.exists() and not _is_lock_file(lock):
        note(f"dvc.lock was damaged; it lies in {_set_aside(root, lock)} now, and all stages are checked again")
    if not (root / _RWLOCK).exists() or not stale_rwlock_entries(root):
        return
    with _rwlock_guard(root):  # DVC writes the file in place, so it may be incomplete without this lock
        try:
            entries = _read_rwlock(root)
        except _DamagedError:
            at_work = _dvc_at_work(root)
            if at_work:
                raise PipelineError(
                    f"{root / _RWLOCK}: is damaged, and DVC is at work here (process {at_work}); wait for it to end"
                ) from None
            note(f"{_RWLOCK} was damaged; it lies in {_set_aside(root, root / _RWLOCK)} now")
            return
        kept = {
            "write": {path: user for path, user in entries["write"].items() if _is_dvc(user)},
            "read": {
                path: alive
                for path, users in entries["read"].items()
                if (alive := [user for user in users if _is_dvc(user)])
            },
        }
        write_bytes(root / _RWLOCK, json.dumps({key: value for key, value in kept.items() if value}).encode())


def _rwlock_guard(root: Path) -> Any:
    from dvc.config import Config
    from dvc.lock import make_lock

    is_hardlink = bool(Config(str(root / ".dvc")).get("core", {}).get("hardlink_lock", False))
    path = str(root / f"{_RWLOCK}.lock")
    return make_lock(path, tmp_dir=str(root / ".dvc/tmp"), hardlink_lock=is_hardlink, wait=True)


class _DamagedError(Exception):
    """DVC could not read the file either."""


def _read_rwlock(root: Path) -> dict[str, Any]:
    """`{"write": {path: user}, "read": {path: [user, ...]}}`, a user being `{"pid": ..., "cmd": ...}`."""
    try:
        content = json.loads(read_bytes(root / _RWLOCK, MAX_SETTINGS_BYTES))
    except FileNotFoundError:
        content = {}
    except (ValueError, RecursionError, RefusedFileError):
        raise _DamagedError from None
    found: dict[str, Any] = content if isinstance(content, dict) else {"write": None}
    found = {"write": found.get("write", {}), "read": found.get("read", {})}
    try:
        users = [*found["write"].values(), *(user for users in found["read"].values() for user in users)]
        if all(isinstance(user["pid"], int) and isinstance(user["cmd"], str) for user in users):
            return found
    except (AttributeError, TypeError, KeyError):
        pass
    raise _DamagedError


def _is_lock_file(path: Path) -> bool:
    """Whether DVC can read its `dvc.lock`, by its own rules; a merge conflict is for the user to resolve."""
    data = read_bytes(path, MAX_SETTINGS_BYTES)
    if b"<<<<<<< " in data:
        return True
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import ParseError, parse_yaml
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(data.decode(), str(path)))
    except (ParseError, Invalid, UnicodeDecodeError, RecursionError):
        return False
    return True


def _set_aside(root: Path, path: Path) -> Path:
    target = root / STATE_FOLDER / "damaged" / f"{path.name}-{datetime.now():%Y%m%d-%H%M%S}"
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)
    return target.relative_to(root)


def _dvc_at_work(root: Path) -> int:
    """Id of a DVC process in a checkout; 0 if there is none."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")).is_relative_to(root) and _is_dvc({"pid": int(entry.name)}):
                return int(entry.name)
        except OSError:  # it has ended, or is another user's
            continue
    return 0


def _is_dvc(user: Mapping[str, Any]) -> bool:
    process = int(user["pid"])
    if process == os.getpid():
        return False
    if Path("/proc/self").exists():
        try:
            return _runs_dvc(Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").split("\0"))
        except OSError:
            return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _runs_dvc(words: Sequence[str]) -> bool:
    """Whether a command line is DVC's: `dvc ...`, `python .../dvc ...`, `python -m dvc ...`."""
    program, *rest = (Path(word).name for word in words)
    if not program.startswith("python"):
        return program == "dvc"
    for number, word in enumerate(rest):
        if word == "-m":
            return rest[number + 1 : number + 2] == ["dvc"]
        if not word.startswith("-"):
            return word == "dvc"
    return False
