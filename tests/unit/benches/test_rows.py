"""The bench of rows tells a step in proportion to the rows from one that grows faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benches.bench_pipeline import curve_table
from benches.pipeline import rows


def _found(cpu_s: Callable[[int], float]) -> list[dict[str, Any]]:
    steps = ("label", "plan", *rows.PARTS)
    return [
        {"num": num, **{step: {"cpu_s": cpu_s(num), "seconds": 2 * cpu_s(num), "peak_mib": 512.0} for step in steps}}
        for num in rows.ROWS
    ]


def test_time_in_proportion_is_no_growth_whatever_the_start_takes() -> None:
    growth, memory = rows.bars(_found(lambda num: 3 + num / 1e5))
    assert growth["value"] == pytest.approx(1)
    assert growth["met"]
    assert memory["value"] == 0.5


def test_time_with_the_square_of_the_rows_is_told() -> None:
    growth, _memory = rows.bars(_found(lambda num: 3 + (num / 1e5) ** 2))
    assert growth["value"] == pytest.approx(10)
    assert not growth["met"]


def test_curve_has_seconds_and_memory_of_every_size() -> None:
    line = curve_table(["gc"], _found(lambda num: num / 1e5)).splitlines()[2]
    assert [cell.strip() for cell in line.split("|")[1:-1]] == ["gc", "0.2", "2.0", "20.0", "512", "512", "512"]
