"""The registry of running child processes, with which a stopped run ends them all.

It is a separate module, as Prefect may serialise functions of a flow's module by value, and that module's globals would
then exist twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_LAUNCHER = Path(__file__).with_name("launch.py")
_GRACE_S = 10.0
_LOCK = threading.Lock()
_LIVE: dict[int, subprocess.Popen[str]] = {}
_STOP = threading.Event()


def start(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[str] = subprocess.PIPE,
    is_stage: bool = True,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[str]:
    """Start a command that, with its children, ends with this process.

    Args:
        command: Program by its full path, and arguments.
        cwd: Its working folder.
        env: Its environment; None for this process's.
        stdout: Receives its output and errors.
        is_stage: Whether `stop_all` ends it; the run's server, needed to the end, is stopped by `stop`.
        pass_fds: File descriptors that it inherits.

    Raises:
        RuntimeError: The run is being stopped.
    """
    launch = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *command]
    with _LOCK:
        if is_stage and _STOP.is_set():
            raise RuntimeError("the run is being stopped, no process is started")
        process = subprocess.Popen(  # noqa: S603 - the command is ours
            launch,
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            pass_fds=tuple(pass_fds),
        )
        if is_stage:
            _LIVE[process.pid] = process
    return process


def stop(process: subprocess.Popen[str]) -> None:
    """End a command with all its children, if it is still running, and close its pipe."""
    _terminate(process)
    try:
        process.wait(timeout=_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
    with _LOCK:
        _LIVE.pop(process.pid, None)


def stop_all() -> None:
    """End every stage and refuse new ones until `reset`."""
    _STOP.set()
    with _LOCK:
        alive = list(_LIVE.values())
    for process in alive:
        _terminate(process)


def stopping() -> bool:
    """Whether `stop_all` was called."""
    return _STOP.is_set()


def reset() -> None:
    """Allow processes to be started again."""
    _STOP.clear()


def _terminate(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()  # the launcher kills the command's group
