from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from flows.dvc_graph import Step
from flows.live import LiveBoard
from flows.progress import Board, LogBoard, Outcome, Progress, duration

_STEPS = tuple(Step(name, (), "never run", (), False) for name in ("a@toy", "b@toy", "c@toy", "d@toy"))


def _play(board: Board) -> None:
    board.begin(_STEPS)
    board.finished("a@toy", Outcome("up to date"))
    board.started("b@toy")
    board.printed("b@toy", "shard 1/2")
    board.progressed("b@toy", Progress(3, 12, "images", 1.5))
    board.finished("c@toy", Outcome("failed", 2.0, "ParamsError: no", 2))


def test_log_board_writes_a_line_per_event_and_a_pulse(tmp_path: Path) -> None:
    stream = io.StringIO()
    with LogBoard(tmp_path, stream=stream, heartbeat_s=0.05) as board:
        _play(board)
        time.sleep(0.2)
    text = stream.getvalue()
    for line in (
        "4 stages, 4 to run, 0 up to date",
        "a@toy: up to date",
        "b@toy: running\n",
        "b@toy: running for 0.1 s, 3/12 images, 1.5 images/s, 6.0 s left",
        "c@toy: FAILED after 2.0 s: ParamsError: no",
    ):
        assert line in text
    assert "shard 1/2" not in text


def test_log_board_verbose_shows_what_stages_print(tmp_path: Path) -> None:
    stream = io.StringIO()
    with LogBoard(tmp_path, verbose=True, stream=stream) as board:
        _play(board)
    assert "b@toy | shard 1/2" in stream.getvalue()


def test_live_board_has_a_line_per_stage(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    board = LiveBoard(tmp_path, console=console)
    with board:
        _play(board)
        with console.capture() as capture:
            console.print(board._render())
    lines = capture.get().splitlines()
    assert [
        "up to date" in lines[0],
        "3/12 images" in lines[1],
        "ParamsError: no" in lines[2],
        "waiting" in lines[3],
    ] == [True] * 4


def test_live_board_many_stages_shows_those_that_matter(tmp_path: Path) -> None:
    steps = tuple(Step(f"s{index}@toy", (), "", (), True) for index in range(60))
    board = LiveBoard(tmp_path, console=Console(file=io.StringIO(), width=100))
    board.begin(steps)
    for step in steps[:50]:
        board.finished(step.name, Outcome("up to date"))
    board.started("s59@toy")
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as capture:
        console.print(board._render())
    assert "s59@toy" in capture.get()
    assert len(capture.get().splitlines()) <= 17


def test_board_keeps_a_record_for_status(tmp_path: Path) -> None:
    with Board(tmp_path) as board:
        _play(board)
        record = json.loads((tmp_path / ".dvc/tmp/boundaryflow/run.json").read_text())
    assert record["running"] == ["b@toy"]
    assert record["finished"] == {"a@toy": "up to date", "c@toy": "failed"}


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (59.6, "1 min 0 s"), (190, "3 min 10 s"), (7500, "2 h 5 min")]
)
def test_duration_is_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text
