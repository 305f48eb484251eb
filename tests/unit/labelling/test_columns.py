"""What cells say: every way people write yes, no and unknown."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from boundaryflow.errors import LabelError
from boundaryflow.labelling import AttributeColumn, read_values


def read(values: list[object], spec: AttributeColumn | None = None) -> list[float]:
    spec = spec or AttributeColumn("smile")
    table = pd.DataFrame({"file": [f"{i}.png" for i in range(len(values))], spec.column: values})
    return read_values(table, "l.csv", "file", {"smile": spec})["smile"].tolist()


@pytest.mark.parametrize(
    "values",
    [
        ["1", "0", "1", "0"],
        ["1", "-1", "1", "-1"],
        ["true", "False", "TRUE", "no"],
        ["Yes", "n", " y ", "NO"],
        [1.0, 0.0, 1.0, 0.0],
        [np.float32(1), np.float32(-1), np.float32(1), np.float32(-1)],
        [True, False, True, False],
    ],
    ids=str,
)
def test_every_spelling_of_yes_and_no(values: list[object]) -> None:
    assert read(values) == [1, 0, 1, 0]


def test_probabilities_and_unknowns_stay_what_they_are() -> None:
    found = read(["0.25", "", "?", None, float("nan"), pd.NA, "N/A", "0.75"])
    np.testing.assert_array_equal(found, [0.25, *[np.nan] * 6, 0.75])


def test_values_and_limits_leave_the_rest_unknown() -> None:
    digits = AttributeColumn("digit", positive=[4], negative=["9"])
    np.testing.assert_array_equal(read(["4", "9", "7", "4.0", "", None], digits), [1, 0, np.nan, 1, np.nan, np.nan])
    words = AttributeColumn("kind", positive=["Cat"], negative=[False])
    np.testing.assert_array_equal(read(["cat", "FALSE", False, "dog"], words), [1, 0, 0, np.nan])
    strokes = AttributeColumn("width", above=3, below=2)
    np.testing.assert_array_equal(read(["3.1", "1.9", "2.5", "", "-7"], strokes), [1, 0, np.nan, np.nan, 0])


LIMITS = AttributeColumn("smile", above=3, below=2)


@pytest.mark.parametrize(
    ("values", "spec", "message"),
    [
        (["1", "0", "7"], None, "column 'smile' has '7' in row 3; must be 0/1, -1/1, true/false, yes/no or a prob"),
        (["1", "0", "maybe"], None, "column 'smile' has 'maybe' in row 3; must be 0/1"),
        (["1", "-0.5"], None, "column 'smile' has '-0.5' in row 2; must be 0/1"),
        (["1", "inf"], None, "column 'smile' has 'inf' in row 2; must be 0/1"),
        (["3", "wide"], LIMITS, "column 'smile' has 'wide' in row 2; must be a number$"),
        (
            ["1", "-1", "0"],
            None,
            "column 'smile' has -1 and also 0, which may mean without or unknown; say positive and",
        ),
    ],
)
def test_value_that_makes_no_sense_is_told_with_its_row(
    values: list[object], spec: AttributeColumn | None, message: str
) -> None:
    with pytest.raises(LabelError, match=message) as caught:
        read(values, spec)
    assert "\n" not in str(caught.value)


def test_missing_column_names_the_nearest_or_all() -> None:
    table = pd.DataFrame({"image": ["a"], "smiling": ["1"]})
    with pytest.raises(LabelError, match=r"labels l.csv: has no column 'images', did you mean 'image'\?"):
        read_values(table, "l.csv", "images", {})
    with pytest.raises(LabelError, match="has no column 'hat'; there are smiling$"):
        read_values(table, "l.csv", "image", {"hat": AttributeColumn("hat")})
    many = pd.DataFrame({f"c{i}": ["1"] for i in range(30)})
    with pytest.raises(LabelError, match="c19 and 10 more$"):
        read_values(many, "l.csv", "zzz", {})
    with pytest.raises(LabelError, match="column 'image' is blank in row 2; name its image"):
        read_values(pd.DataFrame({"image": ["a", None]}), "l.csv", "image", {})
