"""The Prefect server a run talks to: the one PREFECT_API_URL names, or a private one that lives as long as the run."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from boundaryflow.errors import PipelineError
from flows import processes
from flows.environment import LOG_FOLDER

_STARTUP_S = 300.0


def connect(root: Path, note: Callable[[str], None]) -> None:
    """Have a Prefect server answer from now until this process ends.

    Prefect would start a temporary server itself; that one outlives a killed run, is hit by the Ctrl-C meant for
    the run, and writes to the terminal. Ours is in a process group of its own and ends with the process, after Prefect
    has sent its last records.

    Args:
        root: The checkout.
        note: Told what is being waited for.

    Raises:
        PipelineError: The server does not answer.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    url = PREFECT_API_URL.value()
    if url:
        if not answers(url, timeout_s=10):
            raise PipelineError(f"PREFECT_API_URL is {url}: no answer; start that server, or unset the variable")
        return
    note("starting a Prefect server for this run (5 to 15 s; a running one, named by PREFECT_API_URL, saves it)")
    log = root / LOG_FOLDER / "prefect-server.log"
    port = _free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--no-services"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with log.open("w", encoding="utf-8") as output:
        process = processes.start(command, cwd=root, env=os.environ, stdout=output, is_stage=False)
    # Exit handlers run after Prefect's threads have flushed what they hold.
    atexit.register(processes.stop, process)
    import_module("flows.pipeline")  # takes seconds, which the server needs too

    url = f"http://127.0.0.1:{port}/api"
    deadline = time.monotonic() + _STARTUP_S
    while not answers(url, timeout_s=2):
        if process.poll() is not None or time.monotonic() > deadline:
            raise PipelineError(f"the Prefect server for this run did not start; {log} says why")
        time.sleep(0.1)
    temporary_settings({PREFECT_API_URL: url}).__enter__()


def answers(url: str, timeout_s: float) -> bool:
    """Whether something speaks HTTP at a Prefect API address, whatever it says."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=timeout_s):  # noqa: S310 - the user's own URL
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
