"""The strength that an edit is shown at."""

from __future__ import annotations

import pytest

from boundaryflow.evaluation.best_strength import Means, best_strengths


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
