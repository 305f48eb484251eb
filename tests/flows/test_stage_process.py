from __future__ import annotations

import pytest

from flows.progress import Progress
from flows.stage_process import _failure, _good_state, parse_progress

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
    ],
    ids=["user", "bug", "transient", "killed", "dvc killed", "lock", "missing", "silent"],
)
def test_failure_is_told_in_the_stages_own_words(
    lines: list[str], code: int, error: str, exit_code: int, attempts: int
) -> None:
    failure = _failure("a", code, lines, 1.0)
    assert (failure.outcome.error, failure.outcome.exit_code, failure.attempts) == (error, exit_code, attempts)


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
