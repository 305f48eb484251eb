"""Every bench says what it does, and writes where a committed result lies."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from benches.bars import bar, beside

ROOT = Path(__file__).parents[2]
BENCHES = sorted(path.stem for path in (ROOT / "benches").glob("bench_*.py"))


@pytest.mark.parametrize("name", BENCHES)
def test_bench_says_what_it_does_and_has_a_committed_result(name: str) -> None:
    module: ModuleType = importlib.import_module(f"benches.{name}")
    assert (module.__doc__ or "").strip()
    result: Path = module.RESULT
    assert result.parent == ROOT / "benches/results"
    assert json.loads(result.read_text())["machine"]


def test_guard_tells_of_a_drop_and_of_nothing_else() -> None:
    before = [bar("speed", 10, 1, ">="), bar("other speed", 10, 1, ">="), bar("seconds", 8, 10, "<=")]
    now = [bar("speed", 8.4, 1, ">="), bar("other speed", 8.6, 1, ">="), bar("seconds", 9.3, 10, "<=")]
    table, dropped = beside([*now, bar("new", 1, 1, ">=")], before)
    assert dropped == ["speed", "seconds"]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert rows[0] == ["speed", "8.4", "10", "-16%", "WORSE"]
    assert rows[3] == ["new", "1", "", "", ""]


def test_small_times_are_not_worse_as_long_as_they_are_far_from_the_limit() -> None:
    assert beside([bar("s", 2.0, 10, "<=")], [bar("s", 1.0, 10, "<=")])[1] == []
