"""Which labelled images a boundary is fitted on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boundaryflow.boundary import most_certain

IDS = [f"item{i}" for i in range(8)]
PROBABILITY = np.array([0.9, 0.6, 0.99, 0.8, 0.7, 0.1, 0.4, np.nan])


@pytest.mark.parametrize(
    ("balance", "max_per_class", "chosen"),
    [
        (False, None, [0, 1, 2, 3, 4, 5, 6]),
        (True, None, [0, 2, 5, 6]),
        (False, 3, [0, 2, 3, 5, 6]),
        (True, 3, [0, 2, 5, 6]),
        (True, 1, [2, 5]),
    ],
)
def test_most_certain_of_the_larger_class_are_kept(balance: bool, max_per_class: int | None, chosen: list[int]) -> None:
    found = most_certain(np.arange(7), PROBABILITY, IDS, balance=balance, max_per_class=max_per_class)
    assert found.tolist() == chosen
    assert found.dtype == np.int64


def test_only_the_rows_that_are_offered_count() -> None:
    assert most_certain(np.array([1, 4, 6]), PROBABILITY, IDS, balance=True, max_per_class=None).tolist() == [4, 6]
    rows = np.array([0, 1])  # nothing to balance with: the fit says what is missing
    assert most_certain(rows, PROBABILITY, IDS, balance=True, max_per_class=None).tolist() == [0, 1]


@given(st.permutations(range(40)), st.integers(2, 20))
def test_ties_are_decided_by_the_id_and_not_by_the_order(order: list[int], num: int) -> None:
    ids = [f"item{i:02d}" for i in range(40)]
    probability = np.where(np.arange(40) < 30, 1.0, 0.0)
    whole = most_certain(np.arange(40), probability, ids, balance=False, max_per_class=num)
    mixed = most_certain(np.arange(40), probability[order], [ids[i] for i in order], balance=False, max_per_class=num)
    assert sorted(order[row] for row in mixed) == whole.tolist()
    assert whole.tolist() != [*range(num), *range(30, 30 + min(num, 10))] or num == 30
