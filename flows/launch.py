"""Run one command so that it ends with its parent process: `python launch.py PARENT_PID COMMAND...`.

The command gets its own process group. The launcher has the kernel send it SIGTERM when its parent dies; on SIGTERM,
and when the command has ended, it kills the rest of the group: a shell between DVC and a stage, the stage, its workers.
It is run as a script, without the package, as it has to start in milliseconds; setting up signals between fork and exec
in a process with threads would not be safe.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType

_PR_SET_PDEATHSIG = 1


class _EndedError(Exception):
    """SIGTERM: the parent died or ends the command."""


def main() -> int:
    """Start the command, wait, and return its exit status (128 + n if signal n ended it)."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    signal.signal(signal.SIGTERM, _on_term)
    child = 0
    try:
        _die_with_parent(signal.SIGTERM)
        if os.getppid() != parent:
            return 1
        child = os.fork()
        if child == 0:
            _become(command)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    except _EndedError:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not child:
        return 1
    _kill_group(child)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _become(command: list[str]) -> None:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with_parent(signal.SIGKILL)
    os.execv(command[0], command)  # noqa: S606 - no shell is what is wanted


def _kill_group(child: int) -> None:
    for kill, target in ((os.killpg, child), (os.kill, child)):  # the group may not exist yet
        try:
            kill(target, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _die_with_parent(number: signal.Signals) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))


def _on_term(_number: int, _frame: FrameType | None) -> None:
    raise _EndedError


if __name__ == "__main__":
    sys.exit(main())
