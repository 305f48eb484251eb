from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boundaryflow.augmentation.balance import Group, phi, to_equal_counts, to_independence

BOTH, FIRST, SECOND, NEITHER = (True, True), (True, False), (False, True), (False, False)


def _table(a: int, b: int, c: int, d: int) -> dict[Group, int]:
    return {BOTH: a, FIRST: b, SECOND: c, NEITHER: d}


def test_equal_counts_adds_what_the_smaller_side_lacks() -> None:
    assert to_equal_counts({(True,): 30, (False,): 100}) == {(True,): 70, (False,): 0}
    assert to_equal_counts({(True,): 5}) == {(True,): 0, (False,): 5}


def test_independence_of_a_symmetric_table_fills_the_rare_groups() -> None:
    assert to_independence(_table(475, 25, 25, 475)) == _table(0, 450, 450, 0)
    assert to_independence(_table(25, 475, 475, 25)) == _table(450, 0, 0, 450)


def test_independent_table_needs_nothing() -> None:
    assert to_independence(_table(10, 20, 30, 60)) == _table(0, 0, 0, 0)


def test_group_that_is_large_already_is_left_alone() -> None:
    assert to_independence(_table(100, 300, 3, 40)) == _table(0, 0, 10, 0)
    assert to_independence(_table(100, 300, 1, 4)) == _table(0, 0, 0, 0), "one more would be further off"


def test_table_with_nothing_to_go_by_is_refused() -> None:
    with pytest.raises(ValueError, match="no image has both"):
        to_independence(_table(10, 0, 5, 0))


@given(*[st.integers(1, 12) for _ in range(4)])
def test_no_fewer_images_leave_less_correlation(a: int, b: int, c: int, d: int) -> None:
    table = _table(a, b, c, d)
    added = to_independence(table)
    after = abs(phi({group: table[group] + added[group] for group in table}))
    assert after <= abs(phi(table)) + 1e-9
    rare, common = ((BOTH, NEITHER), (FIRST, SECOND)) if a * d < b * c else ((FIRST, SECOND), (BOTH, NEITHER))
    assert added[common[0]] == added[common[1]] == 0
    wanted = table[common[0]] * table[common[1]]
    enough = [
        x + y
        for x, y in itertools.product(range(150), repeat=2)
        if (table[rare[0]] + x) * (table[rare[1]] + y) >= wanted
    ]
    assert sum(added.values()) <= min(enough) + 1, "whole images may take one more than the product asks for"


def test_phi_is_the_correlation() -> None:
    assert phi(_table(475, 25, 25, 475)) == pytest.approx(0.9)
    assert phi(_table(10, 20, 30, 60)) == 0
    assert phi(_table(0, 10, 0, 10)) == 0
