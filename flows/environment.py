"""Where the checkout is, where run-time files go, and the environment Prefect and DVC are given."""

from __future__ import annotations

import os
from pathlib import Path

from boundaryflow.errors import ParamsError, PipelineError

STATE_FOLDER = Path(".dvc/tmp/boundaryflow")
LOG_FOLDER = STATE_FOLDER / "logs"
LONG_WAIT_S = 7 * 24 * 3600.0
"""How long a run that may wait for another one waits."""

# Prefect writes what it has to say into a file and to its server; the terminal belongs to the progress display.
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


def log_path(root: Path, stage: str) -> Path:
    """The file that takes all a stage prints."""
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
    """Whether stages on this machine run their networks on a GPU, as far as can be told without loading torch."""
    device = os.environ.get("BOUNDARYFLOW_DEVICE", "auto")
    return device.startswith("cuda") or (device == "auto" and Path("/dev/nvidia0").exists())


def prepare(root: Path) -> None:
    """Set what Prefect and DVC read from the environment; call before either is imported.

    What the user has set stays. Telemetry is off, Prefect's files are in the checkout, its log is a file.
    """
    logs = root / LOG_FOLDER
    logs.mkdir(parents=True, exist_ok=True)
    settings = root / STATE_FOLDER / "prefect_logging.yml"
    log_file = str(logs / "prefect.log").replace("'", "''")
    settings.write_text(_PREFECT_LOGGING.format(log_file=f"'{log_file}'"))
    defaults = {
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_SETTINGS_PATH": str(settings),
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
