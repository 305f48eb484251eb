"""Attributes made of others."""

from __future__ import annotations

import numpy as np
import pandas as pd

from boundaryflow.labelling import Combination, combined

NAN = np.nan
LABELS = pd.DataFrame(
    {
        "item_id": list("abcdef"),
        "young": np.array([1, 0, 0.25, NAN, NAN, NAN], np.float32),
        "male": np.array([1, 1, 0.5, 0.25, 0.75, NAN], np.float32),
    }
)


def test_not_all_and_any_of_known_and_unknown_parts() -> None:
    found = combined(
        LABELS,
        {
            "old": Combination("not", ["young"]),
            "both": Combination("all", ["young", "male"]),
            "either": Combination("any", ["young", "male"]),
        },
    )
    np.testing.assert_array_equal(found["old"], [0, 1, 0.75, NAN, NAN, NAN])
    np.testing.assert_array_equal(found["both"], [1, 0, 0.25, 0.25, NAN, NAN])
    np.testing.assert_array_equal(found["either"], [1, 1, 0.5, NAN, 0.75, NAN])
    assert found["old"].dtype == np.float32
    assert list(LABELS.columns) == ["item_id", "young", "male"]


def test_combinations_of_combinations_wait_for_their_parts() -> None:
    found = combined(LABELS, {"old_man": Combination("all", ["old", "male"]), "old": Combination("not", ["young"])})
    np.testing.assert_array_equal(found["old_man"], [0, 1, 0.5, 0.25, NAN, NAN])
