"""The progress display on a terminal: a line per stage, redrawn in place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from boundaryflow.text import visible
from flows.dvc_graph import Step
from flows.progress import Board, Outcome, duration

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PLAIN_SPINNER = "|/-\\"
_MARKS = {"done": "green", "up to date": "dim", "restored": "cyan", "failed": "bold red", "stopped": "yellow"}
_MAX_ROWS = 16


class LiveBoard(Board):
    """One line per stage: waiting, running with bar and remaining time, done, up to date, or failed."""

    def __init__(self, root: Path, *, verbose: bool = False, console: Console | None = None) -> None:
        super().__init__(root)
        self._verbose = verbose
        self._console = console or Console(stderr=True)
        self._since = time.monotonic()
        self._note = ""
        self._live = Live(
            get_renderable=self._render, console=self._console, refresh_per_second=5, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        self._since = time.monotonic()
        self._live.start()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._note = "stopped" if kind is not None and not issubclass(kind, Exception) else ""
        self._live.stop()
        super().__exit__(kind, error, trace)

    def begin(self, steps: Sequence[Step]) -> None:
        """Take the stages to draw."""
        super().begin(steps)
        self._note = ""

    def note(self, text: str) -> None:
        """Show it below the stages."""
        self._note = visible(text)

    def printed(self, stage: str, line: str) -> None:
        """Show the line above the stages if verbose."""
        if self._verbose:
            self._console.print(f"[dim]{escape(stage)}[/dim] {escape(visible(line))}", highlight=False)

    def _render(self) -> RenderableType:
        with self.lock:
            table = Table.grid(padding=(0, 1))
            table.add_column(width=1)
            table.add_column(no_wrap=True)
            table.add_column(width=24)
            table.add_column(overflow="ellipsis", no_wrap=True)
            steps = self._shown()
            for step in steps:
                table.add_row(*self._row(step.name))
            hidden = len(self.steps) - len(steps)
            foot = f"{duration(time.monotonic() - self._since)}"
            if hidden:
                foot += f" · {hidden} more stages up to date, done or waiting"
            if self._note:
                foot += f" · {self._note}"
            return Group(table, Text(foot, style="dim"))

    def _shown(self) -> Sequence[Step]:
        if len(self.steps) <= _MAX_ROWS:
            return self.steps
        live = [step for step in self.steps if step.name in self.running or self._outcome_is_bad(step.name)]
        rest = [step for step in self.steps if step not in live and step.name not in self.outcomes]
        chosen = {step.name for step in [*live, *rest][:_MAX_ROWS]}
        return [step for step in self.steps if step.name in chosen]

    def _outcome_is_bad(self, name: str) -> bool:
        return name in self.outcomes and not self.outcomes[name].is_good

    def _row(self, name: str) -> tuple[RenderableType, RenderableType, RenderableType, RenderableType]:
        if name in self.outcomes:
            return self._ended(name, self.outcomes[name])
        if name not in self.running:
            return Text("·", style="dim"), Text(name, style="dim"), Text(""), Text("waiting", style="dim")
        seconds = time.monotonic() - self.running[name]
        spinner = _PLAIN_SPINNER if self._console.legacy_windows or not self._utf8() else _SPINNER
        mark = Text(spinner[int(seconds * 5) % len(spinner)], style="bold cyan")
        progress = self.latest.get(name)
        if progress is None or progress.total <= 0:
            bar = ProgressBar(total=None, pulse=True, width=24, animation_time=time.monotonic())
            return mark, Text(name, style="bold"), bar, Text(f"running for {duration(seconds)}")
        bar = ProgressBar(total=progress.total, completed=progress.done, width=24)
        return mark, Text(name, style="bold"), bar, Text(f"{progress} · {duration(seconds)}")

    def _ended(self, name: str, outcome: Outcome) -> tuple[Text, Text, Text, Text]:
        style = _MARKS.get(outcome.state, "yellow")
        mark = ("✓" if self._utf8() else "+") if outcome.is_good else "!"
        state = f"done in {duration(outcome.seconds)}" if outcome.state == "done" else outcome.state
        return Text(mark, style=style), Text(name), Text(state, style=style), Text(visible(outcome.error), style=style)

    def _utf8(self) -> bool:
        return self._console.encoding.startswith("utf")
