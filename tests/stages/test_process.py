"""What a stage says of how far it is."""

from __future__ import annotations

import json

import pytest

from stages import process


def test_what_runs_ahead_within_a_shard_shows_and_is_not_counted_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOUNDARYFLOW_PROGRESS", "json")
    monkeypatch.setitem(process._MIN_INTERVAL_S, "json", 0.0)  # noqa: SLF001
    process.tick(5)  # nobody listens
    with process.Progress("edit", 12, "images") as progress:
        process.tick(2)
        process.tick(3)
        progress.advance(6)
        process.tick(4)
        progress.advance(6)
    process.tick(5)
    lines = [json.loads(line.removeprefix("PROGRESS ")) for line in capsys.readouterr().out.splitlines()]
    assert [line["done"] for line in lines] == [0, 2, 5, 6, 10, 12, 12]


def test_a_stage_that_fails_leaves_no_listener() -> None:
    with pytest.raises(ValueError, match="broken"), process.Progress("edit", 12, "images"):
        raise ValueError("broken")
    process.tick(1)
    assert not process._told_of  # noqa: SLF001
