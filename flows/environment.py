"""Paths of the checkout and of run-time files, and the environment of Prefect and DVC."""

from __future__ import annotations

import errno
import math
import os
import shutil
import tomllib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boundaryflow.errors import ParamsError, PipelineError
from boundaryflow.files import MAX_SETTINGS_BYTES, RefusedFileError, read_bytes, way_out, write_bytes

STATE_FOLDER = Path(".dvc/tmp/boundaryflow")
LOG_FOLDER = STATE_FOLDER / "logs"
LONG_WAIT_S = 7 * 24 * 3600.0
"""Time limit of a run that waits for another one, in seconds."""
SERVER_NAMES = ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")
"""Prefect's settings of the server's address and password."""
_MIN_FREE_MIB = 8.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PROFILE: list[str] = []
"""The Prefect profile that PREFECT_API_URL was taken from; empty if it was in the environment or is not set."""

# Prefect logs to a file and to its server, as the terminal shows the progress display.
_PREFECT_LOGGING = """\
version: 1
disable_existing_loggers: false
formatters:
  plain: {{format: "%(asctime)s %(levelname)-7s %(name)s: %(message)s"}}
handlers:
  file: {{class: logging.FileHandler, filename: {log_file}, delay: true, formatter: plain}}
  api: {{class: prefect.logging.handlers.APILogHandler}}
loggers:
  prefect: {{level: "${{PREFECT_LOGGING_LEVEL}}", handlers: [file], propagate: false}}
  prefect.flow_runs: {{level: INFO, handlers: [api]}}
  prefect.task_runs: {{level: INFO, handlers: [api]}}
  prefect.server: {{level: "${{PREFECT_SERVER_LOGGING_LEVEL}}"}}
"""


def find_root(start: Path | None = None) -> Path:
    """The folder with dvc.yaml and params.yaml: `start` (the current folder) or one above it.

    Raises:
        PipelineError: There is none.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
            return folder
    raise PipelineError(
        f"{start}: no dvc.yaml and params.yaml in this folder or one above; change into a boundaryflow checkout"
    )


def check_conflicts(root: Path) -> None:
    """Refuse files of the graph that have a git merge conflict or are not regular files.

    Raises:
        PipelineError: It names the file and the line.
    """
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        try:
            lines = read_bytes(root / name, MAX_SETTINGS_BYTES).splitlines()
        except OSError:
            continue  # the code that reads it reports that
        at = next((number for number, line in enumerate(lines, 1) if line.startswith(b"<<<<<<< ")), None)
        if at is not None:
            taken = "take either side with `git checkout --ours dvc.lock` (or --theirs)"
            way_out = taken if name == "dvc.lock" else "resolve it in an editor"
            raise PipelineError(f"{root / name}: merge conflict in line {at}; {way_out}, then `boundaryflow run`")


def log_path(root: Path, stage: str) -> Path:
    """The log file of a stage's output."""
    return root / LOG_FOLDER / f"{stage.replace('/', '_').replace(':', '_')}.log"


def num_parallel() -> int:
    """How many stages may run at once: BOUNDARYFLOW_PARALLEL, or 1 on up to two cores and 2 on more.

    Raises:
        ParamsError: The variable is not a whole number from 1 to 64.
    """
    value = os.environ.get("BOUNDARYFLOW_PARALLEL", "")
    if not value:
        return 1 if num_cores() <= 2 else 2
    if not value.isdecimal() or not 1 <= int(value) <= 64:
        raise ParamsError(
            f"BOUNDARYFLOW_PARALLEL is {value!r}, must be a whole number from 1 to 64 (stages that run at once)"
        )
    return int(value)


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def uses_gpu() -> bool:
    """Whether stages on this machine run their networks on a GPU, as far as known without importing torch."""
    device = os.environ.get("BOUNDARYFLOW_DEVICE", "auto")
    return device.startswith("cuda") or (device == "auto" and Path("/dev/nvidia0").exists())


def checked_wait(wait_s: Any) -> float:
    """Seconds that a run may wait for another one, as a caller of a flow gives them.

    Raises:
        ParamsError: It is no number, or too large.
    """
    if isinstance(wait_s, int | float) and 0 <= wait_s <= LONG_WAIT_S:
        return float(wait_s)
    raise ParamsError(f"wait_s must be a number of seconds from 0 to {LONG_WAIT_S:g}")


def retry_delay_s() -> float:
    """Seconds before the first further attempt of a stage: BOUNDARYFLOW_RETRY_DELAY_S, or 2.

    Raises:
        ParamsError: The variable is not a number from 0 to 3600.
    """
    return _seconds("BOUNDARYFLOW_RETRY_DELAY_S", "2", 3600.0)


def _seconds(name: str, default: str, most: float) -> float:
    value = os.environ.get(name) or default
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= most:
        raise ParamsError(f"{name} is {value!r}, must be a number of seconds from 0 to {most:g}")
    return seconds


def disk_is_full(root: Path) -> str:
    """Error message if the disk of a checkout is full; empty if it is not."""
    free_mib = shutil.disk_usage(root).free / 2**20
    if free_mib >= _MIN_FREE_MIB:
        return ""
    return f"the disk is full ({free_mib:.1f} MiB free at {root}); {way_out(OSError(errno.ENOSPC, ''))}"


@contextmanager
def full_disk_is_one_line(root: Path) -> Generator[None]:
    """Turn Prefect's errors into one line if the disk is full, as its server and client then fail in many ways.

    Raises:
        PipelineError: Something failed, and the checkout's disk is full.
    """
    try:
        yield
    except (PipelineError, OSError):
        raise
    except Exception:
        if reason := disk_is_full(root):
            raise PipelineError(reason) from None
        raise


def prepare(root: Path) -> None:
    """Set what Prefect and DVC read from the environment; call before either is imported.

    The user's own settings, in a Prefect profile too, are kept. Telemetry is off, Prefect's files are in the checkout,
    its log goes to a file, and requests to this machine bypass a proxy. In a read-only checkout nothing is written
    here; a command that has to write fails later.
    """
    _take_server_of_profile()
    _bypass_proxy()
    defaults = {
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        # After 2 and 4 s; with Prefect's own five retries every request takes a minute where the server died.
        "PREFECT_CLIENT_MAX_RETRIES": "2",
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    }
    settings = root / STATE_FOLDER / "prefect_logging.yml"
    if _write_logging(settings, root / LOG_FOLDER):
        defaults["PREFECT_LOGGING_SETTINGS_PATH"] = str(settings)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _write_logging(settings: Path, logs: Path) -> bool:
    """Write Prefect's logging settings to a file; returns whether the file exists."""
    # The file is YAML; Prefect substitutes its settings for $ references.
    log_file = str(logs / "prefect.log").replace("'", "''").replace("$", "$$")
    text = _PREFECT_LOGGING.format(log_file=f"'{log_file}'").encode("utf-8", "surrogateescape")
    try:
        logs.mkdir(parents=True, exist_ok=True)
        if not settings.is_file() or settings.read_bytes() != text:
            write_bytes(settings, text)
    except OSError:
        return False
    return True


def server_url() -> str:
    """Address of the Prefect server that the user names, in the environment or in a profile; empty for none."""
    return os.environ.get("PREFECT_API_URL", "")


def url_source() -> str:
    """Where `server_url` comes from, for messages."""
    return _PROFILE[0] if _PROFILE else "PREFECT_API_URL"


def _take_server_of_profile() -> None:
    """Take the server from the user's active Prefect profile, as `prefect` does, unless the environment sets one."""
    if "PREFECT_API_URL" in os.environ:
        return
    home = Path(os.environ.get("PREFECT_HOME") or Path("~/.prefect").expanduser())
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    try:
        content: dict[str, Any] = tomllib.loads(read_bytes(path, MAX_SETTINGS_BYTES).decode())
        name = os.environ.get("PREFECT_PROFILE") or content.get("active")
        profile = content.get("profiles", {}).get(name, {})
        found = {key: profile[key] for key in SERVER_NAMES if isinstance(profile.get(key), str)}
    except (OSError, ValueError, AttributeError, TypeError, RefusedFileError):
        return  # Prefect reports what is wrong when it reads it
    if found.get("PREFECT_API_URL"):
        _PROFILE[:] = [f"PREFECT_API_URL of the Prefect profile {name!r} ({path})"]
        for key, value in found.items():
            os.environ.setdefault(key, value)


def _bypass_proxy() -> None:
    """If a proxy is set, exempt this machine from it, here and in child processes."""
    if not any(os.environ.get(name) for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")):
        return
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in known.split(",") if host.strip()]
    if "*" not in hosts:
        hosts += [host for host in _LOOPBACK if host not in hosts]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)
