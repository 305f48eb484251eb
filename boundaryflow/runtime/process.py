"""What all stage processes share: logging, errors as one line, progress, and a lock against a second copy."""

from __future__ import annotations

import ctypes
import fcntl
import functools
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from boundaryflow.errors import ParamsError, PipelineError, TransientError
from boundaryflow.files import may_pass, remove_leftovers, try_lock, way_out
from boundaryflow.runtime.metering import keep_cost
from boundaryflow.store.catalog import CATALOG
from boundaryflow.text import masked, visible

LOG = logging.getLogger(__name__)
EXIT_OK, EXIT_FAILED, EXIT_MENDABLE, EXIT_AGAIN, EXIT_INTERRUPTED = 0, 1, 2, 75, 130
"""Success; a bug; an error that the user can fix; a temporary error (EX_TEMPFAIL of sysexits.h); interrupted."""
_PR_SET_PDEATHSIG = 1
_MIN_INTERVAL_S = {"json": 0.2, "log": 10.0, "bar": 0.1}
_LOCKS: list[Any] = []
_DISPLAYS: list[Progress] = []


def entry(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a stage's main: an expected error becomes one line and an exit status (see `EXIT_OK`), a bug a traceback."""

    @functools.wraps(main)
    def wrapped() -> None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Visible("%(message)s"))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        for noisy in ("diffusers", "huggingface_hub", "PIL"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        guard()
        started = time.monotonic()
        try:
            main()
            stage, root = _dvc_stage()
            if stage:
                keep_cost(root, stage, time.monotonic() - started)
        except TransientError as error:
            _end(str(error), EXIT_AGAIN)
        except ParamsError as error:  # one line per mistake
            *others, last = str(error).split("\n")
            for line in others:
                _write_line(line)
            _end(last, EXIT_MENDABLE)
        except PipelineError as error:
            _end(str(error), EXIT_MENDABLE)
        except OSError as error:
            advice = way_out(error)
            if advice is None and not may_pass(error):
                raise
            what = f"{main.__module__.rpartition('.')[2]} {error.filename or Path.cwd()}: {error.strerror}"
            if may_pass(error):
                _end(f"{what}; run it again, and look at the disk or the network if that stays", EXIT_AGAIN)
            _end(f"{what}; {advice}", EXIT_MENDABLE)
        except KeyboardInterrupt:
            sys.exit(EXIT_INTERRUPTED)

    return wrapped


class _Visible(logging.Formatter):
    """Escapes control characters of outside names, and hides passwords in addresses."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(masked(super().format(record)), keep="\n")


def _end(line: str, status: int) -> NoReturn:
    _write_line(line)
    sys.exit(status)


def _write_line(line: str) -> None:
    sys.stderr.write(f"{visible(masked(line))}\n")


def guard() -> None:
    """End with the parent process, and wait while another process runs the same stage.

    A stage whose `dvc` was killed must not write at the same time as the stage process that is started next.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    stage, root = _dvc_stage()
    if not stage:
        return
    folder = root / ".dvc/tmp/boundaryflow/locks"
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / stage.replace("/", "_")).open("a+")
    if not try_lock(file):
        file.seek(0)
        LOG.warning("%s: waiting for another process that runs it (%s)", stage, file.read(200).strip() or "unknown")
        fcntl.flock(file, fcntl.LOCK_EX)
    file.truncate(0)
    file.write(f"process {os.getpid()}, since {datetime.now():%Y-%m-%d %H:%M:%S}\n")
    file.flush()
    _LOCKS.append(file)


def _dvc_stage() -> tuple[str, Path]:
    """The stage that DVC runs in this process, and the checkout; no name where DVC did not start it."""
    stage, root = os.environ.get("DVC_STAGE", ""), os.environ.get("DVC_ROOT", "")
    return (stage, Path(root)) if root else ("", Path())


def own_folder(stage: str, dataset: str, root: Path = Path()) -> Path:
    """The folder of a stage's outputs, after removal of half-written files of killed runs."""
    folder = CATALOG[stage].folder(dataset, root)
    remove_leftovers(folder)
    return folder


def tick(num: int) -> None:
    """Report `num` items as done before their shard is; without effect outside the stage's own process."""
    if _DISPLAYS:
        _DISPLAYS[-1].ahead(num)


class Progress:
    """Shows how far a stage is, in the form that BOUNDARYFLOW_PROGRESS selects.

    `json` prints machine-readable lines on standard output, `bar` draws one bar on standard error,
    `log` writes a line every ten seconds, `off` is silent. Without it: a bar on a terminal, else
    `log`.

    Args:
        stage: Name.
        total: Number of units to do.
        unit: Name of the unit, in the plural.
    """

    def __init__(self, stage: str, total: int, unit: str) -> None:
        self._stage, self._total, self._unit = stage, total, unit
        self._done, self._ahead, self._started, self._shown_at = 0, 0, time.monotonic(), 0.0
        self._style = os.environ.get("BOUNDARYFLOW_PROGRESS") or ("bar" if sys.stderr.isatty() else "log")
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._style == "bar":
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task(f"{self._stage} [{self._unit}]", total=self._total)
        _DISPLAYS.append(self)
        self._show(force=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _DISPLAYS.remove(self)
        self._show(force=True)
        if self._bar is not None:
            self._bar.stop()

    def advance(self, num: int = 1) -> None:
        """Report `num` more as done and stored, those of `ahead` included."""
        self._done, self._ahead = self._done + num, 0
        self._show(force=False)

    def ahead(self, num: int) -> None:
        """Report `num` more as done but not stored yet."""
        self._ahead += num
        self._show(force=False)

    def _show(self, *, force: bool) -> None:
        now = time.monotonic()
        if self._style == "off" or (not force and now - self._shown_at < _MIN_INTERVAL_S.get(self._style, 10.0)):
            return
        self._shown_at = now
        done = self._done + self._ahead
        rate = done / max(now - self._started, 1e-9)
        if self._style == "json":
            facts = {
                "done": done,
                "rate": round(rate, 2),
                "stage": self._stage,
                "total": self._total,
                "unit": self._unit,
            }
            sys.stdout.write(f"PROGRESS {json.dumps(facts, sort_keys=True)}\n")
            sys.stdout.flush()
        elif self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done)
        elif done:
            LOG.info("%s: %d of %d %s, %.1f/s", self._stage, done, self._total, self._unit, rate)
