"""Runs one DVC stage as a process, and interprets its output and exit status; independent of Prefect."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from boundaryflow.errors import PipelineError
from boundaryflow.files import way_out
from boundaryflow.text import visible
from flows import processes
from flows.environment import disk_is_full, log_path
from flows.progress import Board, Outcome, Progress, State

_USER_EXIT = 2
EXIT_AGAIN = 75  # exit status of a temporary error, see boundaryflow/runtime/process.py
MAX_ATTEMPTS = 3
_STAGE_EXIT = re.compile(r"exited with (-?\d+)")
_ERROR_LINE = re.compile(r"^(?:[\w.]+: )?[\w.]*(?:Error|Exception|Interrupt|Exit)\b:? ?")
_DVC_TALK = re.compile(
    r"^(?:Running stage |> |Updating lock file|Generating lock file|To track the changes|To enable auto staging"
    r"|\tgit add|\tdvc config|Use `dvc push`|Stage '.*' (?:didn't change|is cached)|ERROR: |WARNING: |$)"
)
_BUSY = ("Unable to acquire lock", " is busy")
_MISSING = ("missing data", "does not exist", "No such file")
_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "disk is full")
_CRASHES = {signal.SIGBUS, signal.SIGSEGV, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}
"""Signals of crashes, which would occur again in another attempt."""
_SHELL_SAYS = {126: "a shell could not execute a command", 127: "a shell did not find a command"}


class StageFailedError(Exception):
    """A stage ended with an exit status other than 0.

    Attributes:
        outcome: Outcome that is reported.
        attempts: Number of attempts that are worth making in total.
        was_killed: Whether SIGKILL ended it, as the kernel does when memory runs out.
    """

    def __init__(self, stage: str, outcome: Outcome, attempts: int, *, was_killed: bool = False) -> None:
        super().__init__(f"{stage}: {outcome.error}")
        self.outcome = outcome
        self.attempts = attempts
        self.was_killed = was_killed


def run(
    stage: str,
    root: Path,
    board: Board,
    *,
    force: bool = False,
    pull: bool = False,
    halvings: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Have DVC reproduce one stage in a process group of its own and wait for it.

    Args:
        stage: Address in DVC.
        root: The checkout.
        board: Receives its output and progress.
        force: Run it though it is up to date.
        pull: Fetch outputs that DVC's remote has instead of computing them.
        halvings: Number of times to halve the batch size.
        on_progress: Called with its progress.

    Raises:
        StageFailedError: It failed.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item"]
    command += [*(["--force"] if force else []), *(["--pull"] if pull else []), stage]
    return _run(command, stage, root, board, halvings, on_progress)


def run_module(
    name: str,
    arguments: Sequence[str],
    root: Path,
    board: Board,
    *,
    halvings: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Run a job, `python -m boundaryflow.jobs.KIND`, in a process group of its own and wait for it.

    Args:
        name: Its name in the display and the log, `KIND@JOB`.
        arguments: Arguments of its command line.
        root: The checkout.
        board: Receives its output and progress.
        halvings: Number of times to halve the batch size.
        on_progress: Called with its progress.

    Raises:
        StageFailedError: It failed.
    """
    command = [sys.executable, "-m", f"boundaryflow.jobs.{name.partition('@')[0]}", *arguments]
    return _run(command, name, root, board, halvings, on_progress)


def _run(
    command: Sequence[str],
    stage: str,
    root: Path,
    board: Board,
    halvings: int,
    on_progress: Callable[[Progress], None] | None,
) -> Outcome:
    since = time.monotonic()
    path = log_path(root, stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    try:
        with path.open("w", encoding="utf-8") as log:
            process = processes.start(command, cwd=root, env=_environment(halvings))
            try:
                if process.stdout is not None:
                    for line in process.stdout:
                        _take(visible(line.rstrip("\n"), keep="\t"), stage, board, log, lines, on_progress)
                code = process.wait()
            finally:
                processes.stop(process)
    except OSError as error:  # from writing the log
        advice = way_out(error)
        text = f"{path}: {error.strerror}" + (f"; {advice}" if advice else "")
        outcome = Outcome("failed", time.monotonic() - since, text, _USER_EXIT if advice else 1)
        raise StageFailedError(stage, outcome, attempts=1) from None
    seconds = time.monotonic() - since
    if code == 0:
        return Outcome(_good_state(lines), seconds)
    raise _failure(stage, code, lines, seconds, root)


def push(root: Path) -> None:
    """Send the outputs to DVC's default remote.

    Raises:
        PipelineError: DVC could not.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "push", "--quiet"]
    process = processes.start(command, cwd=root, env=_environment())
    try:
        output = process.stdout.read() if process.stdout is not None else ""
        code = process.wait()
    finally:
        processes.stop(process)
    if code:
        said = [line for line in output.splitlines() if line.strip()]
        reason = said[0].removeprefix("ERROR: ").partition(" Having any troubles?")[0] if said else f"status {code}"
        raise PipelineError(f"dvc push: {reason}; the run itself is done, `dvc push` sends it again")


def _environment(halvings: int = 0) -> dict[str, str]:
    """The stage's environment: `python` in a stage's command is this Python, even if its venv is not activated.

    Stages and DVC do not use Prefect, and do not get its password.
    """
    folder = str(Path(sys.executable).parent)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT")},
        **({"BOUNDARYFLOW_BATCH_HALVINGS": str(halvings)} if halvings else {}),
        "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "BOUNDARYFLOW_PROGRESS": "json",
    }


def _take(
    line: str, stage: str, board: Board, log: TextIO, lines: list[str], on_progress: Callable[[Progress], None] | None
) -> None:
    if line.startswith("PROGRESS "):
        progress = parse_progress(line)
        if progress is not None:
            board.progressed(stage, progress)
            if on_progress is not None:
                on_progress(progress)
        return
    log.write(f"{line}\n")
    log.flush()
    if line.strip():
        lines.append(line)
        del lines[:-200]
        if not _DVC_TALK.match(line):
            board.printed(stage, line)


def parse_progress(line: str) -> Progress | None:
    """The progress in a `PROGRESS {...}` line; None if the line has another form, as stages may print anything."""
    try:
        content = json.loads(line.removeprefix("PROGRESS "))
        return Progress(
            done=int(content["done"]),
            total=int(content["total"]),
            unit=visible(str(content.get("unit", ""))),
            rate=float(content.get("rate") or 0.0),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _good_state(lines: list[str]) -> State:
    text = "\n".join(lines)
    if "didn't change, skipping" in text:
        return "up to date"
    return "restored" if "is cached - skipping run" in text else "done"


def _about_signal(number: int) -> str:
    if number == signal.SIGKILL:
        return "out of memory?"
    if number == signal.SIGBUS:
        return "SIGBUS: a file that it had mapped is damaged or was cut, or the disk is full"
    try:
        return signal.Signals(number).name
    except ValueError:
        return "real-time"


def _failure(stage: str, code: int, lines: list[str], seconds: float, root: Path = Path()) -> StageFailedError:
    """The error of a failed stage, from its own output if possible, and whether another attempt can help."""
    dvc_error = next((line for line in reversed(lines) if line.startswith("ERROR: ")), "")
    found = _STAGE_EXIT.search(dvc_error)
    if found:
        code = int(found[1])
    own = [line.strip() for line in lines if not _DVC_TALK.match(line)]
    last = own[-1] if own else ""
    # An expected error is the stage's last line; a traceback may be followed by other output.
    errors = (line for line in reversed(own) if _ERROR_LINE.match(line))
    said = last if code in (_USER_EXIT, EXIT_AGAIN) else next(errors, last)
    dvc_reason = dvc_error.removeprefix("ERROR: ").removeprefix(f"failed to reproduce '{stage}': ")
    if any(word in line for line in [dvc_error, *own[-3:]] for word in _FULL) and code not in (_USER_EXIT, EXIT_AGAIN):
        text = disk_is_full(root.absolute()) or f"{said or dvc_reason}; {way_out(OSError(errno.ENOSPC, ''))}"
        return StageFailedError(stage, Outcome("failed", seconds, text, _USER_EXIT), attempts=1)
    if any(word in dvc_error for word in _BUSY):
        return StageFailedError(stage, Outcome("failed", seconds, dvc_reason, 1), MAX_ATTEMPTS)
    if not found and any(word in dvc_error for word in _MISSING):
        return StageFailedError(stage, Outcome("failed", seconds, dvc_reason, _USER_EXIT), attempts=1)
    number = -code if code < 0 else code - 128
    if number in set(signal.valid_signals()):
        text = f"ended by signal {number} ({_about_signal(number)})"
        attempts = 1 if number in _CRASHES else MAX_ATTEMPTS
        return StageFailedError(stage, Outcome("failed", seconds, text, 1), attempts, was_killed=number == 9)
    words = said if found or not dvc_reason else dvc_reason  # an error in DVC itself
    if code in _SHELL_SAYS:
        words = f"{_SHELL_SAYS[code]} (exit status {code}): {words}".removesuffix(": ")
    outcome = Outcome("failed", seconds, words or f"exit status {code}", code)
    return StageFailedError(stage, outcome, MAX_ATTEMPTS if code == EXIT_AGAIN else 1)
