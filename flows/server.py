"""The Prefect server a run talks to: the one PREFECT_API_URL names, or a private one that lives as long as the run."""

from __future__ import annotations

import atexit
import base64
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from boundaryflow.errors import PipelineError
from flows import processes
from flows.environment import LOG_FOLDER

_STARTUP_S = 300.0
_ENTERED: list[Any] = []


def connect(root: Path, note: Callable[[str], None]) -> None:
    """Have a Prefect server answer from now until this process ends.

    Prefect would start a temporary server itself; that one outlives a killed run, is hit by the Ctrl-C meant for
    the run, and writes to the terminal. Ours is in a process group of its own and ends with the process, after Prefect
    has sent its last records.

    Args:
        root: The checkout.
        note: Told what is being waited for.

    Raises:
        PipelineError: The server does not answer, or refuses us.
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    url = PREFECT_API_URL.value()
    if url:
        check(url)
        return
    note("starting a Prefect server for this run (5 to 15 s; a running one, named by PREFECT_API_URL, saves it)")
    url = start(root, free_port(), "--no-ui", "--no-services", meanwhile=lambda: import_module("flows.pipeline"))
    settings = temporary_settings({PREFECT_API_URL: url})
    settings.__enter__()
    _ENTERED.append(settings)  # one that nobody holds is left at once, and then Prefect starts a server of its own


def start(root: Path, port: int, *options: str, meanwhile: Callable[[], object] = lambda: None) -> str:
    """Start a server on the loopback interface that ends with this process.

    Args:
        root: The checkout.
        port: Its port.
        options: Of `prefect server start`.
        meanwhile: Called while it starts, which takes seconds.

    Returns:
        Its address.

    Raises:
        PipelineError: It does not start.
    """
    log = root / LOG_FOLDER / "prefect-server.log"
    command = [sys.executable, "-m", "prefect", "server", "start", *options]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with log.open("w", encoding="utf-8") as output:
        process = processes.start(command, cwd=root, env=os.environ, stdout=output, is_stage=False)
    # Exit handlers run after Prefect's threads have flushed what they hold.
    atexit.register(processes.stop, process)
    meanwhile()
    url = f"http://127.0.0.1:{port}/api"
    deadline = time.monotonic() + _STARTUP_S
    while refusal(url, timeout_s=2):
        if process.poll() is not None or time.monotonic() > deadline:
            raise PipelineError(f"the Prefect server for this run did not start; {log} says why")
        time.sleep(0.1)
    return url


def check(url: str) -> None:
    """Refuse a server that does not answer, or does not let us in.

    Raises:
        PipelineError: One line with the way out.
    """
    reason = refusal(url, timeout_s=10)
    if reason in ("401", "403"):
        raise PipelineError(
            f"PREFECT_API_URL is {url}: the server lets nobody in without a password, or not with this one (status "
            f"{reason}); set PREFECT_API_AUTH_STRING to its USER:PASSWORD"
        )
    if reason:
        raise PipelineError(f"PREFECT_API_URL is {url}: no answer ({reason}); start that server, or unset the variable")


def refusal(url: str, timeout_s: float) -> str:
    """Why a Prefect API cannot be used: the HTTP status or the error; empty if it can."""
    request = urllib.request.Request(f"{url.rstrip('/')}/admin/version")  # noqa: S310 - the user's own URL
    password, key = os.environ.get("PREFECT_API_AUTH_STRING"), os.environ.get("PREFECT_API_KEY")
    if password:
        request.add_header("Authorization", f"Basic {base64.b64encode(password.encode()).decode()}")
    elif key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310
            return ""
    except urllib.error.HTTPError as error:
        # Another service of the same API may lack this page; what counts is whether it lets us in.
        return str(error.code) if error.code in (401, 403) or error.code >= 500 else ""
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__


def free_port() -> int:
    """A port of the loopback interface that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
