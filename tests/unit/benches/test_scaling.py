"""The simulation of many workers gives times that can be counted by hand."""

from __future__ import annotations

import pytest

from benches.scaling import simulate


def test_shards_go_to_the_worker_that_is_free_first() -> None:
    # handed out at 0, 1, 11 and 12 s, done at 11, 12, 22 and 23
    assert simulate([10, 10, 10, 10], workers=2, hand_out_s=1) == 23


def test_one_worker_takes_the_sum() -> None:
    assert simulate([3, 1, 2], workers=1, hand_out_s=0.5) == pytest.approx(7.5)


def test_a_planner_that_is_too_slow_is_the_limit() -> None:
    assert simulate([0.5] * 100, workers=8, hand_out_s=1) == pytest.approx(100.5)


def test_the_last_straggler_is_waited_for() -> None:
    assert simulate([1] * 7 + [30], workers=8, hand_out_s=0) == 30
