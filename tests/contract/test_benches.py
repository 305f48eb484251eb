"""Every bench says what it does, and writes where a committed result lies."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
BENCHES = sorted(path.stem for path in (ROOT / "benches").glob("bench_*.py"))


@pytest.mark.parametrize("name", BENCHES)
def test_bench_says_what_it_does_and_has_a_committed_result(name: str) -> None:
    module: ModuleType = importlib.import_module(f"benches.{name}")
    assert (module.__doc__ or "").strip()
    result: Path = module.RESULT
    assert result.parent == ROOT / "benches/results"
    assert json.loads(result.read_text())["machine"]
