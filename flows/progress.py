"""Progress of a run as log lines, or silent. `live.py` has the display for terminals."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TextIO

from boundaryflow.text import visible
from flows.dvc_graph import Step
from flows.environment import STATE_FOLDER

State = Literal["done", "up to date", "restored", "failed", "stopped", "not run"]
HEARTBEAT_S = 10.0
_WRITE_EVERY_S = 2.0


@dataclass(frozen=True)
class Progress:
    """Progress of a stage; `rate` in units per second, 0 if unknown."""

    done: int
    total: int
    unit: str
    rate: float

    @property
    def remaining_s(self) -> float | None:
        """Remaining seconds at this rate; None if unknown."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None

    def __str__(self) -> str:
        text = f"{self.done}/{self.total} {self.unit}".rstrip()
        if self.rate > 0:
            text += f", {self.rate:.3g} {self.unit or 'steps'}/s"
        left = self.remaining_s
        return text if left is None or self.done >= self.total else f"{text}, {duration(left)} left"


@dataclass(frozen=True)
class Outcome:
    """Outcome of a stage.

    Attributes:
        state: Final state.
        seconds: Wall time, DVC's own included.
        error: Error message if it failed.
        exit_code: Its exit status; 0 unless it failed.
    """

    state: State
    seconds: float = 0.0
    error: str = ""
    exit_code: int = 0

    @property
    def is_good(self) -> bool:
        """Whether the stage's outputs are in place."""
        return self.state in ("done", "up to date", "restored")


class Board:
    """Collects progress and outcomes of all stages, without showing them. Methods are thread-safe.

    It keeps `run.json` in the checkout's state folder up to date, which `boundaryflow status` reads.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.outcomes: dict[str, Outcome] = {}
        self.steps: tuple[Step, ...] = ()
        self.running: dict[str, float] = {}
        self.latest: dict[str, Progress] = {}
        self.kills: dict[str, int] = {}
        self._written = 0.0
        self.lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write_state()

    def begin(self, steps: Sequence[Step]) -> None:
        """The planned stages, in order."""
        with self.lock:
            self.steps = tuple(steps)
            self._write_state()

    def note(self, text: str) -> None:
        """A message that concerns no stage."""

    def started(self, stage: str, attempt: int = 1) -> None:
        """A stage's process starts."""
        with self.lock:
            self.running[stage] = time.monotonic()
            self.outcomes.pop(stage, None)
            self.latest.pop(stage, None)
            self._write_state()

    def progressed(self, stage: str, progress: Progress) -> None:
        """A stage reported its progress."""
        with self.lock:
            self.latest[stage] = progress
            if time.monotonic() - self._written > _WRITE_EVERY_S:
                self._write_state()

    def printed(self, stage: str, line: str) -> None:
        """A stage printed a line."""

    def retrying(self, stage: str, outcome: Outcome) -> None:
        """An attempt failed and another will follow."""
        self.note(f"{stage}: failed, will be tried again: {outcome.error}")

    def finished(self, stage: str, outcome: Outcome) -> None:
        """A stage ended, or will not run."""
        with self.lock:
            self.running.pop(stage, None)
            self.outcomes[stage] = outcome
            self._write_state()

    def _write_state(self) -> None:
        self._written = time.monotonic()
        path = self.root / STATE_FOLDER / "run.json"
        state = {
            "pid": os.getpid(),
            "planned": [step.name for step in self.steps],
            "running": sorted(self.running),
            "finished": {name: outcome.state for name, outcome in self.outcomes.items()},
            "seconds": {name: round(outcome.seconds, 1) for name, outcome in self.outcomes.items()},
            "errors": {name: outcome.error for name, outcome in self.outcomes.items() if outcome.state == "failed"},
            "progress": {name: str(self.latest[name]) for name in self.running if name in self.latest},
        }
        with suppress(OSError):  # a full disk; only `status` needs the file
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".new")
            temporary.write_text(json.dumps(state), encoding="utf-8")
            temporary.replace(path)


class LogBoard(Board):
    """One line per event, and one per running stage at most every ten seconds."""

    def __init__(
        self, root: Path, *, verbose: bool = False, stream: TextIO | None = None, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        super().__init__(root)
        self._verbose = verbose
        self._stream = stream or sys.stderr
        self._heartbeat_s = heartbeat_s
        self._closed = threading.Event()
        self._pulse = threading.Thread(target=self._beat, name="boundaryflow-progress", daemon=True)

    def __enter__(self) -> Self:
        self._pulse.start()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._pulse.join()
        super().__exit__(kind, error, trace)

    def begin(self, steps: Sequence[Step]) -> None:
        """Print the number of stages and how many are stale."""
        if tuple(steps) != self.steps:
            num_dirty = sum(step.is_dirty for step in steps)
            self._say(f"{len(steps)} stages, {num_dirty} to run, {len(steps) - num_dirty} up to date")
        super().begin(steps)

    def note(self, text: str) -> None:
        """Print it."""
        self._say(text)

    def started(self, stage: str, attempt: int = 1) -> None:
        """Print that a stage starts."""
        super().started(stage, attempt)
        self._say(f"{stage}: running" + (f" (attempt {attempt})" if attempt > 1 else ""))

    def printed(self, stage: str, line: str) -> None:
        """Print the line if verbose."""
        if self._verbose:
            self._say(f"{stage} | {line}")

    def finished(self, stage: str, outcome: Outcome) -> None:
        """Print how the stage ended."""
        super().finished(stage, outcome)
        self._say(f"{stage}: {outcome_text(outcome)}")

    def _beat(self) -> None:
        while not self._closed.wait(self._heartbeat_s):
            with self.lock:
                running, latest = dict(self.running), dict(self.latest)
            for stage, since in running.items():
                seconds = time.monotonic() - since
                progress = f", {latest[stage]}" if stage in latest else ""
                self._say(f"{stage}: running for {duration(seconds)}{progress}")

    def _say(self, text: str) -> None:
        with self.lock:
            self._stream.write(f"{datetime.now():%H:%M:%S} {visible(text)}\n")
            self._stream.flush()


def outcome_text(outcome: Outcome) -> str:
    """An outcome as text."""
    if outcome.state == "done":
        return f"done in {duration(outcome.seconds)}"
    if outcome.state == "failed":
        return f"FAILED after {duration(outcome.seconds)}: {outcome.error}"
    if outcome.state == "restored":
        return "restored from DVC's cache"
    return f"{outcome.state}: {outcome.error}" if outcome.error else outcome.state


def duration(seconds: float) -> str:
    """A duration as text: `4.2 s`, `3 min 10 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


_BOARDS: list[Board] = []


def use(board: Board) -> None:
    """Make this the board of the run in this process."""
    _BOARDS[:] = [board]


def current(root: Path) -> Board:
    """The board of the run in this process; a `LogBoard` if none was set, as in a flow started by Prefect."""
    if not _BOARDS:
        _BOARDS.append(LogBoard(root))
    return _BOARDS[0]


def forget() -> None:
    """Clear the current board."""
    _BOARDS.clear()
