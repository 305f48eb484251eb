"""The strength that an edit is shown at."""

from __future__ import annotations

import pandas as pd
import pytest

from boundaryflow.evaluation.best_strength import Means, best_strengths, cross_fitted


@pytest.mark.parametrize(
    ("by_strength", "expected"),
    [
        ({0.0: {"target_success": 1.0}, 0.5: {"target_success": 0.2}, 1.0: {"target_success": 0.1}}, 0.5),
        ({0.5: {"target_success": 1.0}, 1.0: {"target_success": 1.0}, 1.5: {"target_success": 1.0}}, 1.0),
        ({0.5: {"target_success": 0.5}, 1.0: {"target_success": 0.9}, 1.5: {"target_success": 1.0}}, 1.0),
        ({0.5: {"target_success": 0.5}, 1.0: {"target_success": 0.8}, 1.5: {"target_success": 0.85}}, 1.5),
        ({0.5: {"clean_success": 0.5, "target_success": 0.5}, 1.0: {"clean_success": 0.1, "target_success": 1.0}}, 1.0),
        ({0.5: {"target_success": 1.0}, 1.5: {"target_success": 1.0}}, 0.5),
        ({-1.0: {"target_success": 1.0}, 2.0: {"target_success": 1.0}}, 2.0),
        ({1.0: {"counterfactual_recovery": 0.1}, 2.0: {"counterfactual_recovery": 0.2}}, 2.0),
        ({1.0: {"target_success": 0.5}, 2.0: {"target_success": None}}, 1.0),
        ({1.0: {}, 2.0: {}}, 2.0),
        ({0.0: {}}, 0.0),
    ],
)
def test_best_strength(by_strength: dict[float, Means], expected: float) -> None:
    assert best_strengths({"hat": by_strength})[0] == {"hat": expected}


def test_edit_without_value_of_the_deciding_metric_is_shown_at_its_largest() -> None:
    best, rule = best_strengths(
        {"hat": {1.0: {"target_success": 0.5}}, "beard": {1.0: {}, 2.0: {"counterfactual_recovery": 0.1}}}
    )
    assert best == {"hat": 1.0, "beard": 2.0}
    assert "target success" in rule


def _judged(success: dict[str, dict[float, bool]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"item_id": item, "edit": "hat", "strength": strength, "target_success": reached}
            for item, of in success.items()
            for strength, reached in of.items()
        ]
    )


def test_an_image_is_measured_at_the_strength_that_other_images_chose() -> None:
    """Each image succeeds at one strength alone: whichever it is, the other one chose the strength that fails here."""
    table = _judged({"a": {0.5: True, 1.0: False}, "b": {0.5: False, 1.0: True}})
    chosen = cross_fitted(table)
    assert dict(zip(chosen["item_id"], chosen["strength"], strict=True)) == {"a": 1.0, "b": 0.5}
    assert not chosen["target_success"].any()


def test_each_image_appears_once_and_halves_that_agree_change_nothing() -> None:
    table = _judged({f"{k}": {0.5: k % 3 == 0, 1.0: True, 1.5: True} for k in range(9)})
    chosen = cross_fitted(table)
    assert sorted(chosen["item_id"]) == sorted({str(k) for k in range(9)})
    assert set(chosen["strength"]) == {1.0}


def test_single_image_is_shown_at_its_best_strength() -> None:
    chosen = cross_fitted(_judged({"a": {0.0: False, 0.5: False, 2.0: True}}))
    assert list(chosen["strength"]) == [2.0]


def test_without_a_judge_the_largest_strength_is_shown() -> None:
    table = _judged({"a": {0.5: True, 1.0: True}, "b": {0.5: True, 1.0: True}}).drop(columns="target_success")
    assert list(cross_fitted(table)["strength"]) == [1.0, 1.0]


def test_cross_fitting_decides_by_one_metric_for_all_edits() -> None:
    hat = _judged({"a": {1.0: True, 2.0: True}, "b": {1.0: True, 2.0: True}})
    beard = hat.assign(edit="beard", target_success=None, counterfactual_recovery=1 / hat["strength"])
    chosen = cross_fitted(pd.concat([hat, beard], ignore_index=True)).set_index(["edit", "item_id"])["strength"]
    assert chosen["hat"].tolist() == [1.0, 1.0]
    assert chosen["beard"].tolist() == [2.0, 2.0]  # the largest, as `best_strengths` has it
