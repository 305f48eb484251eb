"""Rows and images: joined by name and never by position."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boundaryflow.errors import LabelError
from boundaryflow.labelling import AttributeColumn, in_folder, join_labels, join_values, match_files

SOURCES = {f"id{i}": f"set/{i:03d}.png" for i in range(4)}


def join(files: list[str], values: list[str], sources: dict[str, str] = SOURCES) -> list[float]:
    table = pd.DataFrame({"file": files, "smile": values})
    return join_labels(table, "l.csv", "file", sources, {"smile": AttributeColumn("smile")})["smile"].tolist()


@pytest.mark.parametrize(
    "form",
    [
        "set/{}.png",
        "{}.png",
        "{}",
        "{}.jpg",
        "./set/{}.png",
        "set\\{}.png",
        "C:\\faces\\set\\{}.png",
        "set/{}",
        "/x/set/{}.png",
    ],
)
def test_rows_find_their_image_whatever_their_order_and_form(form: str) -> None:
    assert join([form.format(f"{i:03d}") for i in (3, 2, 1, 0)], ["1", "0", "0", "0"]) == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("files", "sources", "found"),
    [
        (["1.png", "2.png"], {"a": "x/1.png", "b": "y/1.png"}, {}),
        (["x/1.png", "1.png"], {"a": "x/1.png", "b": "y/1.png"}, {"a": "x/1.png"}),
        (["x/1", "y/1"], {"a": "x/1.png", "b": "y/1.png"}, {"a": "x/1", "b": "y/1"}),
        (["1.png"], {"a": "1.png", "b": "1.jpg"}, {"a": "1.png"}),
        (["1"], {"a": "1.png", "b": "1.jpg"}, {}),
        (["img_1.5"], {"a": "img_1.jpg"}, {}),
        (["img_1.5"], {"a": "d/img_1.5.jpg"}, {"a": "img_1.5"}),
        (["1.PNG"], {"a": "1.png"}, {"a": "1.PNG"}),
        (["10"], {"a": "1.png"}, {}),
        (["1"], {"a": "01.png", "b": "x.png"}, {}),
        (["0", "1"], {"a": "01.png", "b": "02.png"}, {}),
        (["1"], {"a": "x/01.png", "b": "y/001.png"}, {}),
        (["01"], {"a": "001.png"}, {}),
        (["train/1.png", "train/2"], {"a": "val/1.png", "b": "val/2.png"}, {}),
        (["C:\\x\\1.png", "/x/2.png"], {"a": "val/1.png", "b": "val/2.png"}, {}),
        (["train/1.png"], {"a": "1.png"}, {"a": "train/1.png"}),
        (["train/1.png"], {"a": "faces/train/1.jpg"}, {"a": "train/1.png"}),
        (["rain/1.png"], {"a": "train/1.png"}, {}),
    ],
)
def test_names_that_could_mean_another_image_are_not_guessed(
    files: list[str], sources: dict[str, str], found: dict[str, str]
) -> None:
    assert match_files(files, sources) == found


@given(st.permutations(range(30)), st.sets(st.integers(0, 29), max_size=1), st.booleans())
def test_rows_dropped_or_shuffled_never_shift_labels(order: list[int], dropped: set[int], short: bool) -> None:
    sources = {f"id{i:02d}": f"set/{i:06d}.jpg" for i in range(30)}
    kept = [i for i in order if i not in dropped]
    files = [f"{i:06d}" if short else f"{i:06d}.jpg" for i in kept]
    found = join(files, [f"{i / 30}" for i in kept], sources)
    np.testing.assert_array_equal(
        np.array(found, np.float32), [np.nan if i in dropped else np.float32(i / 30) for i in range(30)]
    )


def test_file_that_does_not_belong_to_the_images_is_refused_with_counts_and_examples() -> None:
    message = (
        "labels l.csv: only 1 of 4 images have one of its 5 rows, must be 95%; images without a row: set/001.png, "
        "set/002.png, set/003.png; rows without an image: q, r, s; check the file names"
    )
    with pytest.raises(LabelError) as caught:
        join(["s", "r", "q", "t", "set/000.png"], ["1"] * 5)
    assert str(caught.value) == message


def test_table_about_another_folder_is_refused_with_the_way_out() -> None:
    message = (
        r"rows without an image: val/000.png, .*; val/000.png is not taken for set/000.png, in another folder; if it "
        "is that, write its path, or no folder$"
    )
    with pytest.raises(LabelError, match=message):
        join([f"val/{i:03d}.png" for i in range(4)], ["1"] * 4)


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("a.png", ["a", "a.png"]),
        ("set/a.png", ["set/a.png", "set/a"]),
        ("set/a.png", ["a", "a.png"]),
        ("\u00e9.png", ["\u00e9.png", "e\u0301.png"]),
    ],
)
def test_rows_of_one_image_under_two_spellings_are_unknown_where_they_disagree(
    source: str, files: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    values = pd.DataFrame({"file": files, "smile": [1.0, 0.0], "hat": [1.0, 1.0]})
    labels, stray = join_values(values, "l.csv", {"x": source})
    assert (labels["smile"].isna().tolist(), labels["hat"].tolist(), stray) == ([True], [1.0], 0)
    assert "contradict each other about smile" in caplog.text


def test_row_of_another_suffix_is_about_another_image() -> None:
    values = pd.DataFrame({"file": ["a.png", "a.jpg"], "smile": [1.0, 0.0]})
    labels, stray = join_values(values, "l.csv", {"x": "a.png"})
    assert (labels["smile"].tolist(), stray) == ([1.0], 1)


def test_partial_annotations_need_one_image_and_count_rows_without() -> None:
    values = pd.DataFrame({"file": ["001.png", "q", "r"], "smile": [1.0, 0.0, 0.0]})
    labels, stray = join_values(values, "l.csv", SOURCES, partial=True)
    np.testing.assert_array_equal(labels["smile"], [np.nan, 1, np.nan, np.nan])
    assert (stray, labels["smile"].dtype, labels["item_id"].tolist()) == (2, np.float32, sorted(SOURCES))
    with pytest.raises(LabelError, match="only 0 of 4 images have one of its 2 rows, must be at least one; images"):
        join_values(values.iloc[1:], "l.csv", SOURCES, partial=True)


def test_rows_that_contradict_one_another_are_refused_however_they_are_written() -> None:
    with pytest.raises(LabelError, match="rows for set/000.png contradict one another; keep one of them"):
        join(["set/000.png", "./set/000.png"], ["1", "0"])
    assert join([*SOURCES.values(), "set/000.png"], ["1", "0", "0", "0", "1"]) == [1, 0, 0, 0]


def test_table_in_a_folder_may_name_images_from_there_or_from_the_root() -> None:
    sources = {"a": "train/1.png", "b": "test/1.png", "c": "2.png"}
    assert in_folder(["1.png", ".\\1.png", "test/1.png", "2.png"], "train", sources.values(), "l.csv") == [
        "train/1.png", "train/1.png", "test/1.png", "2.png",
    ]  # fmt: skip
    assert in_folder(["./1.png"], ".", sources.values(), "l.csv") == ["1.png"]
    with pytest.raises(LabelError, match="1.png may be 1.png or train/1.png; write paths from the root and put"):
        in_folder(["1.png"], "train", [*sources.values(), "1.png"], "train/metadata.csv")
