"""Entry points in forked children of this process, which has imported already what a new one needs seconds for."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


class Forked:
    """`python -m MODULE ARGUMENTS`, but in a fork and a session of its own; what it started ends with it.

    What depends on a new interpreter (imports, hash seeds, worker processes that import again) needs a real one.

    Args:
        module: Has `main`.
        arguments: The words after it.
        cwd: Where.
        extra: Environment variables to set.
    """

    def __init__(self, module: str, arguments: Sequence[str], cwd: Path, **extra: str) -> None:
        self._said = cwd / f".said-{time.monotonic_ns()}"
        self.returncode: int | None = None
        self._said.touch()
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(_run(importlib.import_module(module).main, [module, *arguments], cwd, extra, self._said))

    def poll(self) -> int | None:
        """Exit status, minus the signal that ended it; None while it runs."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int:
        """The same, when it has ended."""
        status = self._reap(0)
        assert status is not None
        return status

    def kill(self) -> bool:
        """Kill it and what it started; False where it had ended before."""
        if self.poll() is not None:
            return False
        os.killpg(self.pid, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL

    def said(self) -> str:
        """All that it printed, when it has ended."""
        self.wait()
        return self._said.read_text()

    def _reap(self, how: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
        return self.returncode


def _run(entry: Callable[[], object], words: list[str], cwd: Path, extra: Mapping[str, str], said: Path) -> int:
    """Exit status of an entry point; prints where `said` is."""
    status = 0
    try:
        os.setsid()
        os.chdir(cwd)
        os.environ.update(extra)
        for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
            os.dup2(os.open(os.devnull if number == 0 else said, flags | os.O_APPEND), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False, buffering=1) for number in (1, 2))
        sys.argv = words
        signal.signal(signal.SIGINT, signal.default_int_handler)
        warnings.resetwarnings()
        logging.getLogger().handlers.clear()  # those of pytest
        entry()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - printed as Python would
        status = 1
        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    return status
