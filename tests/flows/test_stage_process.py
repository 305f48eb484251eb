from __future__ import annotations

import io
from pathlib import Path

import pytest

from flows import environment, stage_process
from flows.progress import Board, LogBoard, Progress
from flows.stage_process import _failure, _good_state, parse_progress

_SIGBUS = "ended by signal 7 (SIGBUS: a file that it had mapped is damaged or was cut, or the disk is full)"
_DVC_ERROR = "ERROR: failed to reproduce 'a': failed to run: python -m stages.a, exited with {}"


@pytest.mark.parametrize(
    ("lines", "code", "error", "exit_code", "attempts"),
    [
        (["IOError: item bad", "params.yaml: x is 0", _DVC_ERROR.format(2)], 255, "params.yaml: x is 0", 2, 1),
        (["Traceback (most recent call last):", "ValueError: bad", _DVC_ERROR.format(1)], 255, "ValueError: bad", 1, 1),
        (
            ["TransientError: s3://a: cannot be reached", _DVC_ERROR.format(75)],
            255,
            "TransientError: s3://a: cannot be reached",
            75,
            3,
        ),
        (["shard 1/2", _DVC_ERROR.format(-9)], 255, "ended by signal 9 (out of memory?)", 1, 3),
        (["shard 1/2"], 137, "ended by signal 9 (out of memory?)", 1, 3),
        (["ERROR: Unable to acquire lock."], 255, "Unable to acquire lock.", 1, 3),
        (
            ["ERROR: failed to reproduce 'a': missing data 'source': data/raw"],
            255,
            "missing data 'source': data/raw",
            2,
            1,
        ),
        ([], 7, "exit status 7", 7, 1),
        ([_DVC_ERROR.format(-15)], 255, "ended by signal 15 (SIGTERM)", 1, 3),
        ([_DVC_ERROR.format(-7)], 255, _SIGBUS, 1, 1),
        ([_DVC_ERROR.format(139)], 255, "ended by signal 11 (SIGSEGV)", 1, 1),
        (
            ["sh: 1: pyton: not found", _DVC_ERROR.format(127)],
            255,
            "a shell did not find a command (exit status 127): sh: 1: pyton: not found",
            127,
            1,
        ),
        ([_DVC_ERROR.format(126)], 255, "a shell could not execute a command (exit status 126)", 126, 1),
        (
            ["AttributeError: x", "ERROR: failed to reproduce 'a': Replacement index 0"],
            255,
            "Replacement index 0",
            255,
            1,
        ),
    ],
    ids=[
        "user",
        "bug",
        "transient",
        "killed",
        "dvc killed",
        "lock",
        "missing",
        "silent",
        "terminated",
        "bus",
        "segv",
        "not found",
        "not executable",
        "dvc itself",
    ],
)
def test_failure_is_told_in_the_stages_own_words(
    lines: list[str], code: int, error: str, exit_code: int, attempts: int
) -> None:
    failure = _failure("a", code, lines, 1.0)
    assert (failure.outcome.error, failure.outcome.exit_code, failure.attempts) == (error, exit_code, attempts)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["OSError: [Errno 28] No space left on device", _DVC_ERROR.format(1)], 255),
        (["ERROR: unexpected error - [Errno 28] No space left on device: 'dvc.lock'"], 255),
        (["ERROR: unexpected error - database or disk is full"], 255),
        (["OSError: [Errno 122] Disk quota exceeded: 'x'"], 1),
    ],
    ids=["stage", "dvc", "sqlite", "quota"],
)
def test_full_disk_is_told_as_that_and_not_tried_again(
    lines: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = _failure("a", code, lines, 1.0, tmp_path)
    assert (failure.outcome.exit_code, failure.attempts) == (2, 1)
    assert "free some space (`boundaryflow gc` shows what can go)" in failure.outcome.error
    monkeypatch.setattr(environment, "_MIN_FREE_MIB", 1e12)
    full = _failure("a", code, lines, 1.0, tmp_path).outcome.error
    assert full.startswith("the disk is full (")
    assert f"MiB free at {tmp_path}); free some space" in full


def test_what_a_stage_prints_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    board = LogBoard(tmp_path, verbose=True, stream=io.StringIO())
    script = tmp_path / "boundaryflow" / "jobs" / "evil.py"
    script.parent.mkdir(parents=True)
    for folder in (script.parent, script.parent.parent):
        (folder / "__init__.py").touch()
    script.write_text('print(\'\\x1b[2Jgone\'); print(\'PROGRESS {"done": 1, "total": 2, "unit": "\\\\u001bx"}\'); 1/0')
    with pytest.raises(stage_process.StageFailedError, match="ZeroDivisionError"):
        stage_process.run_module("evil@some", [], tmp_path, board)
    assert "\\x1b[2Jgone" in board._stream.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in board._stream.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in (tmp_path / environment.LOG_FOLDER / "evil@some.log").read_text()
    assert board.latest["evil@some"].unit == "\\x1bx"


def test_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    log = tmp_path / environment.LOG_FOLDER / "a@b.log"
    log.mkdir(parents=True)
    with pytest.raises(stage_process.StageFailedError, match=r"a@b\.log: Is a directory; a folder is where") as told:
        stage_process.run_module("a@b", [], tmp_path, Board(tmp_path))
    assert (told.value.outcome.exit_code, told.value.attempts) == (2, 1)


def test_good_state_is_dvcs_word() -> None:
    assert _good_state(["Stage 'a' didn't change, skipping"]) == "up to date"
    assert _good_state(["Stage 'a' is cached - skipping run, checking out outputs"]) == "restored"
    assert _good_state(["Running stage 'a':"]) == "done"


def test_parse_progress_reads_a_report_and_passes_over_anything_else() -> None:
    line = 'PROGRESS {"stage": "a", "done": 3, "total": 12, "unit": "images", "rate": 1.5}'
    assert parse_progress(line) == Progress(3, 12, "images", 1.5)
    assert str(parse_progress(line)) == "3/12 images, 1.5 images/s, 6.0 s left"
    assert parse_progress('PROGRESS {"done": 3, "total": 12, "rate": null}') == Progress(3, 12, "", 0.0)
    for other in ("PROGRESS was made", "PROGRESS []", 'PROGRESS {"done": "x", "total": 1}'):
        assert parse_progress(other) is None
