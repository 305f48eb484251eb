"""Every bench says what it does, and writes where a committed result lies."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from benches.augmentation.hair_arms import training_sets
from benches.augmentation.hair_check import accepted
from benches.augmentation.hair_edits import ROUTES, Edits
from benches.augmentation.sets import Pictures
from benches.augmentation.worst_group import WorstGroup
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


def test_worst_group_is_of_each_training_and_the_same_answers_differ_by_nothing() -> None:
    group = np.repeat(np.arange(4), 10)
    half = np.ones((2, 40), bool)
    half[0, :5], half[1, 30:35] = False, False  # each training has another worst group
    worst = WorstGroup({"half": half, "the same": half, "all": np.ones((2, 40), bool)}, group)
    value, (low, high) = worst.of("half")
    assert value == 0.5
    assert 0.1 < low < 0.5 < high < 0.9
    assert worst.beyond("the same", "half") == (0.0, [0.0, 0.0])
    assert worst.beyond("all", "half", "the same")[0] == 0.5


def _edits(brightness: list[list[int]]) -> Edits:
    pictures = torch.tensor(brightness, dtype=torch.uint8)[..., None, None, None].expand(-1, -1, 3, 2, 2)
    return Edits(np.arange(len(brightness)), pictures, torch.zeros(0))


def test_weakest_edit_that_shows_the_change_and_keeps_the_hair_is_taken() -> None:
    seen = np.array(
        [
            [[0.9, 0.7], [0.9, 0.9]],  # blond still, a man at both strengths
            [[0.9, 0.3], [0.6, 0.9]],  # a man at the second
            [[0.4, 0.9], [0.3, 0.9]],  # no longer blond
        ]
    )
    pictures = accepted(_edits([[1, 2], [3, 4], [5, 6]]), ROUTES[0], seen, (1.0, 1.5), 0.6)
    assert pictures.images_u8[:, 0, 0, 0].tolist() == [1, 4]
    assert pictures.group.tolist() == [3, 3]
    assert pictures.synthetic.all()
    assert len(accepted(_edits([[1, 2]]), ROUTES[1], seen[:1], (1.0, 1.5), 0.6).label) == 0


def test_as_many_copies_of_a_rare_group_as_edits() -> None:
    has = np.array([False, False, True, True])
    real = Pictures(
        torch.zeros(4, 3, 2, 2, dtype=torch.uint8), has, np.array([False, True, False, True]), ~(has | True)
    )
    edits = real.take(np.array([3, 3, 3, 0]))
    sets = training_sets(real, {"edits": edits})
    assert np.bincount(sets["copies"].group).tolist() == np.bincount(sets["edits"].group).tolist() == [2, 1, 1, 4]
