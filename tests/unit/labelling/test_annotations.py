"""Labels from tables: every way people write them, joined by name and never by position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from boundaryflow.errors import LabelError
from boundaryflow.labelling import AttributeColumn, join_labels, read_annotations

SOURCES = {f"id{i}": f"set/{i:03d}.png" for i in range(4)}
WHERE = Path("labels.csv")


def join(
    rows: dict[str, list[object]], spec: AttributeColumn | None = None, sources: dict[str, str] = SOURCES
) -> list[float]:
    spec = spec or AttributeColumn("smile")
    return join_labels(pd.DataFrame(rows), WHERE, "file", sources, {"smile": spec})["smile"].tolist()


@pytest.mark.parametrize(
    "values",
    [
        ["1", "0", "1", "0"],
        ["1", "-1", "1", "-1"],
        ["true", "False", "TRUE", "no"],
        [1.0, 0.0, 1.0, 0.0],
        [True, False, True, False],
    ],
)
def test_every_spelling_of_yes_and_no(values: list[object]) -> None:
    assert join({"file": list(SOURCES.values()), "smile": values}) == [1, 0, 1, 0]


def test_probabilities_and_unknowns_stay_what_they_are() -> None:
    found = join({"file": list(SOURCES.values()), "smile": ["0.25", "", "?", "0.75"]})
    np.testing.assert_array_equal(found, np.array([0.25, np.nan, np.nan, 0.75], np.float32))


@pytest.mark.parametrize(
    "files",
    [
        ["set/003.png", "set/002.png", "set/001.png", "set/000.png"],
        ["003.png", "002.png", "001.png", "000.png"],
        ["003", "002", "001", "000"],
        ["003.jpg", "002.jpg", "001.jpg", "000.jpg"],
    ],
)
def test_rows_find_their_image_whatever_their_order_or_suffix(files: list[str]) -> None:
    assert join({"file": list(files), "smile": ["1", "0", "0", "0"]}) == [0, 0, 0, 1]


def test_ambiguous_short_names_are_not_guessed() -> None:
    sources = {"a": "x/1.png", "b": "y/1.png"}
    with pytest.raises(LabelError, match="only 0 of 2 images have a row"):
        join({"file": ["1.png", "2.png"], "smile": ["1", "0"]}, sources=sources)


def test_values_and_limits_leave_the_rest_unknown() -> None:
    files = list(SOURCES.values())
    digits = AttributeColumn("digit", positive=[4], negative=["9"])
    np.testing.assert_array_equal(
        join({"file": list(files), "digit": ["4", "9", "7", "4.0"]}, digits), [1, 0, np.nan, 1]
    )
    strokes = AttributeColumn("width", above=3, below=2)
    np.testing.assert_array_equal(
        join({"file": list(files), "width": ["3.1", "1.9", "2.5", "x"[:0]]}, strokes), [1, 0, np.nan, np.nan]
    )


@pytest.mark.parametrize(
    ("rows", "spec", "message"),
    [
        ({"name": ["a"], "smile": ["1"]}, None, "has no column 'file'; there are name, smile"),
        ({"file": ["a"], "grin": ["1"]}, None, "has no column 'smile'"),
        ({"file": list(SOURCES.values()), "smile": ["1", "0", "7", "0"]}, None, "has '7' in row 3; must be 0/1"),
        (
            {"file": list(SOURCES.values()), "smile": ["1", "0", "maybe", "0"]},
            None,
            "has 'maybe' in row 3, which is no number",
        ),
        ({"file": ["set/000.png", "set/000.png"], "smile": ["1", "0"]}, None, "rows for set/000.png contradict"),
        (
            {"file": ["q", "set/000.png"], "smile": ["1", "0"]},
            None,
            r"only 1 of 4 images have a row, must be 95%; images without: set/001.png",
        ),
    ],
)
def test_mistakes_are_one_clear_line(rows: dict[str, list[object]], spec: AttributeColumn | None, message: str) -> None:
    with pytest.raises(LabelError, match=message) as caught:
        join(rows, spec)
    assert "\n" not in str(caught.value)


def test_tables_of_all_kinds_are_read_alike(tmp_path: Path) -> None:
    table = pd.DataFrame({"file": ["a.png", "b.png"], "smile": [1, 0]})
    table.to_csv(tmp_path / "l.csv", index=False)
    table.to_csv(tmp_path / "l.tsv", index=False, sep="\t")
    table.to_parquet(tmp_path / "l.parquet")
    table.to_json(tmp_path / "l.jsonl", orient="records", lines=True)
    for name in ("l.csv", "l.tsv", "l.parquet", "l.jsonl"):
        found = join_labels(
            read_annotations(tmp_path / name),
            tmp_path / name,
            "file",
            {"x": "a.png", "y": "b.png"},
            {"smile": AttributeColumn("smile")},
        )
        assert found["smile"].tolist() == [1, 0]
    (tmp_path / "l.xls").write_text("")
    with pytest.raises(LabelError, match="kind '.xls' is not known"):
        read_annotations(tmp_path / "l.xls")
    with pytest.raises(LabelError, match="no such file"):
        read_annotations(tmp_path / "none.csv")


def test_values_are_read_as_written(tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_text('{"file": "000012", "who": 1000001}\n{"file": "000013", "who": 1000002}\n')
    (tmp_path / "l.csv").write_text("file,style\na.png,None\nb.png,\n")
    lines, cells = read_annotations(tmp_path / "l.jsonl"), read_annotations(tmp_path / "l.csv")
    assert list(lines["file"]) == ["000012", "000013"]
    assert cells["style"].iloc[0] == "None"
    assert cells["style"].isna().iloc[1]
    spec = AttributeColumn("who", positive=[1000001], negative=[1000002])
    joined = join_labels(lines, tmp_path / "l.jsonl", "file", {"a": "000012", "b": "000013"}, {"first": spec})
    assert joined["first"].tolist() == [1.0, 0.0]
