"""The Prefect server of a run: the one that the user names, or a private one that ends with the run."""

from __future__ import annotations

import atexit
import base64
import errno
import http.client
import logging
import os
import secrets
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from boundaryflow.errors import PipelineError
from boundaryflow.text import masked
from flows import environment, processes
from flows.environment import LOG_FOLDER, STATE_FOLDER

_STARTUP_S = 300.0
_ENTERED: list[Any] = []
_OURS_TO_SET = ("PREFECT_SERVER_API_", "PREFECT_SERVER_CORS_", "PREFECT_SERVER_UI_", "PREFECT_UI_")


class Server(NamedTuple):
    """A private server.

    Attributes:
        url: Address of its API.
        password: `USER:PASSWORD`, generated at each start and readable by this user only.
    """

    url: str
    password: str


def connect(root: Path, note: Callable[[str], None]) -> None:
    """Provide a Prefect server until this process ends.

    The temporary server that Prefect itself would start outlives a killed run, receives the run's Ctrl-C, and writes to
    the terminal. The private one is in its own process group and ends with this process, after Prefect has sent its
    last records.

    Args:
        root: The checkout.
        note: Receives messages on what it waits for.

    Raises:
        PipelineError: The server does not answer, or refuses the password.
    """
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, PREFECT_API_URL, temporary_settings

    logging.raiseExceptions = False  # otherwise Prefect reports each unsent log record on the terminal
    url = PREFECT_API_URL.value()
    if url:
        note(f"using the Prefect server at {masked(url)}, {environment.url_source()}")
        check(url)
        return
    note("starting a Prefect server for this run (5 to 15 s; a running one, named by PREFECT_API_URL, saves it)")
    with listening_socket(0) as own:
        started = start(root, own, meanwhile=lambda: import_module("flows.pipeline"))
    values: dict[Any, str] = {PREFECT_API_URL: started.url, PREFECT_API_AUTH_STRING: started.password}
    settings = temporary_settings(values, restore_defaults={PREFECT_API_KEY})
    settings.__enter__()
    _ENTERED.append(settings)  # without a reference the settings are reset, and Prefect starts its own server


def start(
    root: Path, own: socket.socket, *, has_page: bool = False, meanwhile: Callable[[], object] = lambda: None
) -> Server:
    """Start a server on the loopback interface that ends with this process and that only this user can use.

    Args:
        root: The checkout.
        own: From `listening_socket`; as it is bound already, no other program can take the server's port.
        has_page: Whether it serves the web page and schedules runs.
        meanwhile: Called while it starts, which takes seconds.

    Raises:
        PipelineError: It does not start.
    """
    log, port = root / LOG_FOLDER / "prefect-server.log", int(own.getsockname()[1])
    server = Server(f"http://127.0.0.1:{port}/api", f"boundaryflow:{secrets.token_urlsafe(32)}")
    words = [str(own.fileno()), str(port), "page" if has_page else "api"]
    command = [sys.executable, "-m", "flows.prefect_server", *words]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        env = _server_environment(server, port, has_page=has_page)
        process = processes.start(command, cwd=root, env=env, stdout=output, is_stage=False, pass_fds=[own.fileno()])
    own.close()  # so that requests fail instead of waiting if the server dies
    # Exit handlers run after Prefect's threads have sent their records.
    atexit.register(processes.stop, process)
    meanwhile()
    deadline = time.monotonic() + _STARTUP_S
    while refusal(server.url, timeout_s=5, password=server.password):
        if process.poll() is not None or time.monotonic() > deadline:
            reason = environment.disk_is_full(root) or f"{log} says why"
            raise PipelineError(f"the Prefect server for this run did not start; {reason}")
        time.sleep(0.1)
    return server


def _server_environment(server: Server, port: int, *, has_page: bool) -> Mapping[str, str]:
    """The environment of a private server; unlike a command line, only its user can read it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in environment.SERVER_NAMES and not name.startswith(_OURS_TO_SET)
    }
    code = [str(Path(__file__).parents[1]), *filter(None, [kept.get("PYTHONPATH")])]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(code),
        "PREFECT_SERVER_API_AUTH_STRING": server.password,
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}",
        "PREFECT_SERVER_UI_API_URL": server.url,
        "PREFECT_SERVER_UI_ENABLED": str(has_page),
    }


_OR_PREFECT = ", or, if a Prefect server that you trust runs there, set PREFECT_API_URL to its address"


def listening_socket(port: int, or_else: str = _OR_PREFECT) -> socket.socket:
    """Bind a port of the loopback interface; 0 for any free one.

    Args:
        port: The port.
        or_else: What the user can do besides choosing another port, for the message.

    Raises:
        PipelineError: Another program uses it, or this user may not bind it.
    """
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        own.bind(("127.0.0.1", port))
        own.listen(128)
    except OSError as error:
        own.close()
        reason = (
            "is in use by another program" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
        )
        raise PipelineError(f"port {port} of 127.0.0.1 {reason}; choose another with --port{or_else}") from None
    return own


def keep_password(root: Path, server: Server) -> Path:
    """Write the password to a file that only this user can read, for signing in to the page; returns its path."""
    path = root / STATE_FOLDER / "prefect-password"
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(f"{server.password}\n")
    atexit.register(path.unlink, missing_ok=True)
    return path


def check(url: str) -> None:
    """Refuse a server that does not answer, or refuses the password.

    Raises:
        PipelineError: One line with the remedy.
    """
    reason, where = refusal(url, timeout_s=10), f"{environment.url_source()} is {masked(url)}"
    if reason in ("401", "403"):
        raise PipelineError(
            f"{where}: the server requires another password (status "
            f"{reason}); set PREFECT_API_AUTH_STRING to its USER:PASSWORD"
        )
    if reason:
        raise PipelineError(f"{where}: no answer ({reason}); start that server, or unset the variable")


def refusal(url: str, timeout_s: float, password: str | None = None) -> str:
    """Why a Prefect API cannot be used: the HTTP status or the error, without secrets; empty if it can.

    Args:
        url: Address of the API.
        timeout_s: Limit for the whole response; a socket's timeout applies to each part of it.
        password: `USER:PASSWORD`; None for the one that the user has set.
    """
    reasons: list[str] = []
    asking = threading.Thread(target=lambda: reasons.append(_refusal(url, timeout_s, password)), daemon=True)
    asking.start()
    asking.join(timeout_s)
    return reasons[0] if reasons else f"timed out after {timeout_s:g} s"


def _refusal(url: str, timeout_s: float, password: str | None) -> str:
    if "@" in url:
        return "the address has a user in it; put USER:PASSWORD into PREFECT_API_AUTH_STRING instead"
    key = None if password else os.environ.get("PREFECT_API_KEY")
    password = password or os.environ.get("PREFECT_API_AUTH_STRING")
    try:
        request = urllib.request.Request(f"{url.rstrip('/')}/admin/version")  # noqa: S310 - the user's own URL
        if password:
            request.add_header("Authorization", f"Basic {base64.b64encode(password.encode()).decode()}")
        elif key:
            request.add_header("Authorization", f"Bearer {key}")
        with _opener(url).open(request, timeout=timeout_s):
            return ""
    except urllib.error.HTTPError as error:
        if 300 <= error.code < 400:
            return f"status {error.code}: it sends us to another address; name that one, if it is trusted"
        # Another service with the same API may lack this page; only a refused password matters.
        return str(error.code) if error.code in (401, 403) or error.code >= 500 else ""
    except http.client.InvalidURL:  # its text may contain the password
        return "the address is not valid; it has to look like http://127.0.0.1:4200/api"
    except http.client.HTTPException as error:
        return f"another program than a Prefect server is there: {type(error).__name__}"
    except (OSError, ValueError) as error:
        return masked(str(getattr(error, "reason", error))) or type(error).__name__


def _opener(url: str) -> urllib.request.OpenerDirector:
    """An opener without redirects, which would send the password elsewhere, and without a proxy for this machine."""
    is_here = urllib.parse.urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    return urllib.request.build_opener(_NoRedirect, *([urllib.request.ProxyHandler({})] if is_here else []))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        return None
