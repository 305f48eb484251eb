"""What people have said of images, in whatever shape it comes: told in one line, or read within bounds."""

from __future__ import annotations

import contextlib
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boundaryflow.config import CelebaSource, ColumnRule, CsvSource, FolderLabels, ValueRule
from boundaryflow.errors import LabelError
from boundaryflow.jobs.inspection import tables
from boundaryflow.sources.annotations import read_labels
from tests.hostile.corpus_labels import PANDAS, TABLES

IMAGES = {f"id{i:02d}": f"{i}.png" for i in range(12)}
HAT = {"hat": ColumnRule(column=None)}
CSV = CsvSource(kind="csv", path="l.csv", file_column="file")
MESSAGES = {
    "Parquet with a column twice": "has the column 'hat' twice; rename one",
    "Parquet of one long text": "column 'hat' has 'xxxxxx",
    "Parquet cut off": "cannot be read (",
    "Parquet, endless footer": "cannot be read (Parquet file size is 12 bytes",
    "CSV with a NUL": "line 2 has a NUL byte; it is not a text file, or is damaged",
    "CSV in Latin-1": "is not UTF-8 (byte 0xe9 in line 2); save it as UTF-8",
    "CSV in UTF-16": "is not UTF-8 (byte 0xff in line 1); save it as UTF-8",
    "CSV of one long cell": "line 2 cannot be read (field larger than field limit (131072))",
    "CSV, quote not closed": "line 1002 cannot be read (unexpected end of data)",
    "CSV of 20,000 columns": "has no rows",
    "CSV with escapes": "has no column 'hat'; there are h\\x1b[31mat",
    "TSV of blanks": "is empty",
    "JSON lines 50000 deep": "line 1 is not JSON; every line must be one object",
    "JSON lines, number of 5000 digits": "line 1 is not JSON; every line must be one object",
    "JSON lines, number beyond floats": "column 'hat' has 'inf' in row 1; must be 0/1",
    "JSON lines of numbers": "line 1 is no JSON object; every line must be one",
    "CelebA, count of 5000 digits": "9... rows, but there are 1; the file is incomplete",
    "CelebA, count below 0": "line 1 says -5 rows, but there are 1; the file is incomplete",
    "CelebA, count in other digits": "line 2 has 0 values after hat, must have 1, one per name",
    "CelebA, huge value": "9...' for hat, must be -1 or 1",
    "mapping, number of 5000 digits": "must have 3, one per name",
    "partition, number of 5000 digits": "line 1 must be the names of the attributes, and is a row (000001.jpg)",
    "web page": "is a web page and not a table; download the file itself",
    "Git LFS pointer": "is a Git LFS pointer and not the file itself; fetch it with `git lfs pull`",
    "table that is a FIFO": "is a FIFO, not a regular file",
    "table that is a folder": "is a folder; give the file with the labels",
}


def source_of(path: Path) -> CsvSource | CelebaSource:
    if path.suffix == ".txt":
        return CelebaSource(kind="celeba", path=path.name, mapping=None)
    return CsvSource(kind="csv", path=path.name, file_column="file")


@pytest.mark.parametrize("name", MESSAGES)
def test_table_that_is_none_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    path = TABLES[name](tmp_path)
    with pytest.raises(LabelError) as caught:
        read_labels(tmp_path, source_of(path), HAT, IMAGES)
    message = str(caught.value)
    assert MESSAGES[name] in message
    assert message.isprintable()
    assert len(message) < 400 + len(str(tmp_path))
    with contextlib.suppress(LabelError):  # inspect refuses it, too, or tells what it can
        tables.about(path)


@pytest.mark.parametrize("about", PANDAS)
def test_parquet_is_read_whatever_it_says_of_pandas(tmp_path: Path, about: str) -> None:
    path = TABLES[f"Parquet, pandas metadata: {about}"](tmp_path)
    labels, stray = read_labels(tmp_path, source_of(path), HAT, IMAGES)
    assert labels["hat"].tolist() == [i % 2 for i in range(12)]
    assert stray == 0
    facts = tables.about(path)
    assert facts is not None
    assert facts["columns"]["hat"] == "0/1: positive 6, negative 6, unknown 0"


def test_of_a_large_table_only_what_is_about_the_images_is_kept(tmp_path: Path) -> None:
    import tracemalloc

    rows = (f"{i}.png,{i % 2},{'note' * 10}{i}\n" for i in range(60_000))
    (tmp_path / "l.csv").write_text("file,hat,note\n" + "".join(rows), encoding="utf-8")
    tracemalloc.start()
    labels, stray = read_labels(tmp_path, CSV, HAT, IMAGES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert labels["hat"].tolist() == [i % 2 for i in range(12)]
    assert stray == 60_000 - 12
    assert peak < 2_000_000  # the table has 4 MB


def test_rows_keep_their_numbers_where_others_are_left_out(tmp_path: Path) -> None:
    strays = "".join(f"x{i}.png,1\n" for i in range(50))
    (tmp_path / "l.csv").write_text(f"file,hat\n{strays}0.png,maybe\n", encoding="utf-8")
    with pytest.raises(LabelError, match="column 'hat' has 'maybe' in row 51; must be 0/1"):
        read_labels(tmp_path, CSV, HAT, IMAGES)


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("folder", ["", "caf\xe9/"])
def test_names_are_compared_whatever_their_unicode_form(tmp_path: Path, forms: tuple[Any, Any], folder: str) -> None:
    names = {f"id{i}": f"{folder}\xe4\xf6\xfc{i}.png" for i in range(4)}
    images = {item: unicodedata.normalize(forms[0], name) for item, name in names.items()}
    rows = "".join(f"{unicodedata.normalize(forms[1], name)},{i % 2}\n" for i, name in enumerate(names.values()))
    (tmp_path / "l.csv").write_text(f"file,hat\n{rows}", encoding="utf-8")
    assert read_labels(tmp_path, CSV, HAT, images)[0]["hat"].tolist() == [0, 1, 0, 1]


def test_plain_numbers_fit_numbered_images_by_value_unless_they_are_counted_from_another_start(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("file,hat\n" + "".join(f"{i},{i % 2}\n" for i in range(12)), encoding="utf-8")
    padded = {f"id{i:02d}": f"{i:05d}.png" for i in range(12)}
    assert read_labels(tmp_path, CSV, HAT, padded)[0]["hat"].tolist() == [i % 2 for i in range(12)]
    from_one = {f"id{i:02d}": f"{i + 1:05d}.png" for i in range(12)}
    with pytest.raises(LabelError, match="only 0 of 12 images have one of its 12 rows"):
        read_labels(tmp_path, CSV, HAT, from_one)


@pytest.mark.parametrize("cells", [("yes", "no"), ("True", "False"), ("1", "0"), ("ON", "off"), ("1.0", "0.0")])
def test_booleans_of_yaml_mean_every_spelling(tmp_path: Path, cells: tuple[str, str]) -> None:
    """`positive: [yes], negative: [no]` is read as true and false."""
    rows = "".join(f"{i}.png,{cells[i % 2]}\n" for i in range(12))
    (tmp_path / "l.csv").write_text(f"file,hat\n{rows}", encoding="utf-8")
    rule = ValueRule(column="hat", positive=[True], negative=[False])
    assert read_labels(tmp_path, CSV, {"hat": rule}, IMAGES)[0]["hat"].tolist() == [1.0, 0.0] * 6


@pytest.mark.parametrize(
    ("positive", "negative", "message"),
    [
        (["yes"], ["hatless"], "hat: no row says yes (positive) in column 'hat'; there are hat, hatless"),
        (["hat"], [4, "none"], "hat: no row says 4 or none (negative) in column 'hat'; there are hat, hatless"),
        (["hats"], ["hatless"], "no row says hats (positive) in column 'hat', did you mean 'hat'?"),
        ([True], ["yes"], "labels: hat: 'yes' is also among the positive values; keep one"),
    ],
)
def test_values_that_no_row_has_are_told_with_those_there_are(
    tmp_path: Path, positive: list[Any], negative: list[Any], message: str
) -> None:
    rows = "".join(f"{i}.png,{('hat', 'hatless')[i % 2]}\n" for i in range(12))
    (tmp_path / "l.csv").write_text(f"file,hat\n{rows}", encoding="utf-8")
    rule = ValueRule(column="hat", positive=positive, negative=negative)
    with pytest.raises(LabelError) as caught:
        read_labels(tmp_path, CSV, {"hat": rule}, IMAGES)
    assert message in str(caught.value)


def test_same_picture_with_contradicting_labels_is_unknown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = {"a": "cat/1.png", "b": "dog/2.png", "c": "cat/3.png"}
    rule = {"cat": ValueRule(column="folder", positive=["cat"], negative=["dog"])}
    labels, _ = read_labels(
        tmp_path, FolderLabels(kind="folders"), rule, images, copies={"dog/1.png": "a", "cat/9.png": "c"}
    )
    np.testing.assert_array_equal(labels["cat"], [np.nan, 0, 1])
    assert "contradict each other about cat, such as cat/1.png and dog/1.png; they are unknown" in caplog.text


def test_a_picture_is_labelled_by_any_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("file,hat\nx/1.png,1\ny/2.png,0\n", encoding="utf-8")
    labels, stray = read_labels(tmp_path, CSV, HAT, {"a": "x/1.png", "b": "x/2.png"}, copies={"y/2.png": "b"})
    assert (labels["hat"].tolist(), stray) == ([1, 0], 0)


def test_paths_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    from boundaryflow.labelling import find_tables

    (tmp_path / "raw").mkdir()
    (tmp_path / "l.csv").write_text("file,hat\n", encoding="utf-8")
    for pattern in ("../l.csv", "../*.csv", str(tmp_path / "l.csv"), "a/../../*.csv"):
        with pytest.raises(LabelError, match=r"must be relative to .* and stay in it, without \.\."):
            find_tables(tmp_path / "raw", pattern)
    with pytest.raises(LabelError, match="is not a valid pattern"):
        find_tables(tmp_path / "raw", "**x/*.csv")
