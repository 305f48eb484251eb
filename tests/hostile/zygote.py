"""A process that has imported all that is slow to import, and forks one child for each command: `Zygote.run`.

Importing torch takes seconds, a fork milliseconds. Each child has a limit on its memory and its time, and reports what
it tried to write, to start or to connect to outside of what it is allowed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_MODULES = (
    "boundaryflow.jobs.augment", "boundaryflow.jobs.bulk_edit", "boundaryflow.jobs.bundle",
    "boundaryflow.jobs.export", "boundaryflow.jobs.inspection", "boundaryflow.jobs.pictures",
    "boundaryflow.labelling.clip_labels", "clip",
    "diffusers", "dvc.repo", "flows.cli", "flows.doctor", "flows.dvc_graph", "flows.gc", "flows.status", "lmdb",
    "pandas", "PIL.Image", "stages.ingest", "stages.label", "torch",
)  # fmt: skip
_CHANGES = {
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.truncate", "os.chmod", "os.chown",
    "shutil.rmtree", "shutil.move", "os.mknod",
}  # fmt: skip
_STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"}
_MAX_FILE_BYTES = 2**30
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Zygote:
    """Starts the process; `run` has it fork a child for a command."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.zygote"],
            env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, **command: Any) -> dict[str, Any]:
        """Run one command; see `_child` for what it takes. Gives its status, seconds and peak memory in bytes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def main() -> None:
    """Fork a child for each line of standard input."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in _MODULES:
        importlib.import_module(name)
    gc.freeze()  # else each child's first collection copies every page that the imports made
    for line in sys.stdin:
        command = json.loads(line)
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _child(**command)
        status, usage = _wait(child, started + command["limit_s"])
        facts = {"status": status, "seconds": time.monotonic() - started, "peak_bytes": usage * 1024}
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()


def _wait(child: int, deadline: float) -> tuple[int | None, int]:
    """Exit status, None where the child had to be killed; and its peak memory in KiB."""
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # what it started
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None, usage.ru_maxrss
        time.sleep(0.002)


def _child(
    command: Sequence[str], cwd: str, env: Mapping[str, str], output: str, errors: str, seen: str,
    allowed: Sequence[str], memory_bytes: int, limit_s: float,
) -> None:  # fmt: skip
    """Run a command and exit with its status.

    Args:
        command: `boundaryflow` or `stages.NAME`, and arguments.
        cwd: Where.
        env: Environment variables to set.
        output: File for its standard output.
        errors: The same for its errors.
        seen: File for what it tried outside of what is allowed, a line each.
        allowed: Folders in which it may write.
        memory_bytes: Of address space, beyond what is taken already.
        limit_s: Not used here.
    """
    status = 1
    try:
        os.setsid()
        os.environ.update(env)
        os.chdir(cwd)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        _watch(seen, [os.path.realpath(folder) for folder in allowed])
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory_bytes,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_FILE_BYTES,) * 2)
        status = _run(command)
    except BaseException:  # noqa: BLE001 - it is printed as Python would
        import traceback

        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _run(command: Sequence[str]) -> int:
    name, *arguments = command
    try:
        if name == "boundaryflow":
            from flows.cli import main as entry

            entry(arguments)
        else:
            sys.argv = [name, *arguments]
            importlib.import_module(name).main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 0


def _watch(seen: str, allowed: Sequence[str]) -> None:
    log = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def outside(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False  # a file descriptor
        text = os.path.realpath(os.fsdecode(path))
        return not any(text == folder or text.startswith(folder + "/") for folder in (*allowed, "/dev", "/proc"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        strange = False
        if event == "open":
            strange = bool((arguments[2] or 0) & _WRITES) and outside(arguments[0])
        elif event in _CHANGES:
            strange = any(outside(path) for path in arguments[:2] if isinstance(path, str | bytes | os.PathLike))
        elif event in _STARTS:
            program = os.path.basename(os.fspath(arguments[0]))
            strange = program not in ("git", "uname") and os.fspath(arguments[0]) != sys.executable
        elif event == "socket.connect":
            strange = not isinstance(arguments[1], tuple) or arguments[1][0] not in ("127.0.0.1", "localhost", "::1")
        if strange:
            os.write(log, f"{event} {arguments!r}\n".encode("utf-8", "backslashreplace"))

    sys.addaudithook(hook)


if __name__ == "__main__":
    main()
