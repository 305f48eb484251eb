"""What every stage process does alike: logging, errors as one line, progress, one copy at a time."""

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
"""Done; a bug; what the user can mend; what another attempt may mend (EX_TEMPFAIL of sysexits.h); stopped."""
_PR_SET_PDEATHSIG = 1
_MIN_INTERVAL_S = {"json": 0.2, "log": 10.0, "bar": 0.1}
_held: list[Any] = []
_told_of: list[Progress] = []


def entry(main: Callable[[], None]) -> Callable[[], None]:
    """Make a stage's main: what is foreseen is one line and an exit status that says who can mend it; a bug is 1."""

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
        except ParamsError as error:  # one line a mistake
            *others, last = str(error).split("\n")
            for line in others:
                _tell(line)
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
    """Shows what names from outside would have a terminal do, and no secrets of addresses."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(masked(super().format(record)), keep="\n")


def _end(line: str, status: int) -> NoReturn:
    _tell(line)
    sys.exit(status)


def _tell(line: str) -> None:
    sys.stderr.write(f"{visible(masked(line))}\n")


def guard() -> None:
    """Die with the parent, and wait while another process runs the same stage.

    A stage whose `dvc` was killed must not go on writing beside the one that is started next.
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
    _held.append(file)


def _dvc_stage() -> tuple[str, Path]:
    """The stage that DVC runs in this process, and the checkout; no name where DVC did not start it."""
    stage, root = os.environ.get("DVC_STAGE", ""), os.environ.get("DVC_ROOT", "")
    return (stage, Path(root)) if root else ("", Path())


def own_folder(stage: str, dataset: str, root: Path = Path()) -> Path:
    """The folder of a stage's outputs, rid of what a killed run left half-written there."""
    folder = CATALOG[stage].folder(dataset, root)
    remove_leftovers(folder)
    return folder


def tick(num: int) -> None:
    """Say that `num` more of what a shard holds are done, in the midst of it; heard in the stage's own process only."""
    if _told_of:
        _told_of[-1].ahead(num)


class Progress:
    """How far a stage is, told the way BOUNDARYFLOW_PROGRESS asks for.

    `json` prints machine-readable lines on standard output, `bar` draws one bar on standard error,
    `log` writes a line every ten seconds, `off` is silent. Without it: a bar on a terminal, else
    `log`.

    Args:
        stage: Name.
        total: How much there is to do.
        unit: Of what.
    """

    def __init__(self, stage: str, total: int, unit: str) -> None:
        self._stage, self._total, self._unit = stage, total, unit
        self._done, self._ahead, self._started, self._told = 0, 0, time.monotonic(), 0.0
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
        _told_of.append(self)
        self._tell(force=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _told_of.remove(self)
        self._tell(force=True)
        if self._bar is not None:
            self._bar.stop()

    def advance(self, num: int = 1) -> None:
        """Say that `num` more are done, those included that ran ahead."""
        self._done, self._ahead = self._done + num, 0
        self._tell(force=False)

    def ahead(self, num: int) -> None:
        """Say that `num` more are done but not kept yet."""
        self._ahead += num
        self._tell(force=False)

    def _tell(self, *, force: bool) -> None:
        now = time.monotonic()
        if self._style == "off" or (not force and now - self._told < _MIN_INTERVAL_S.get(self._style, 10.0)):
            return
        self._told = now
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
