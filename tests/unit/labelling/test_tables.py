"""Tables as people save them: read strictly, and refused in one line where they are not what they seem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boundaryflow.errors import LabelError
from boundaryflow.labelling import AttributeColumn, Wanted, find_tables, join_labels, pivot_long, read_annotations
from boundaryflow.labelling import tables as reading

SOURCES = {"x": "a.png", "y": "b.png"}
GOOD = "file,smile\na.png,1\nb.png,0\n"


def labels_of(path: Path) -> list[float]:
    return join_labels(read_annotations(path), path, "file", SOURCES, {"s": AttributeColumn("smile")})["s"].tolist()


@pytest.mark.parametrize("name", ["l.csv", "l.tsv", "l.parquet", "l.jsonl", "L.CSV"])
def test_tables_of_all_kinds_are_read_alike(tmp_path: Path, name: str) -> None:
    path, table = tmp_path / name, pd.DataFrame({"file": ["a.png", "b.png"], "smile": [1, 0]})
    match path.suffix.lower():
        case ".parquet":
            table.to_parquet(path)
        case ".jsonl":
            table.to_json(path, orient="records", lines=True)
        case suffix:
            table.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    assert labels_of(path) == [1, 0]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        '"file","smile"\n"a.png","1"\n"b.png","0"',
        "file, smile\n a.png, 1\nb.png , 0\n\n",
        ",file,smile\n0,a.png,1\n1,b.png,0\n",
        "file,smile,\na.png,1,\nb.png,0,\n",
        'file,note,smile\n"a.png","two\nlines, and ""quotes""",1\nb.png,,0\n',
    ],
    ids=["bom", "crlf", "quoted", "spaces", "index", "last comma", "lines in cells"],
)
def test_what_programs_make_of_a_csv_is_fine(tmp_path: Path, text: str) -> None:
    (tmp_path / "l.csv").write_bytes(text.encode())
    assert labels_of(tmp_path / "l.csv") == [1, 0]


def test_json_lines_with_a_mark_blank_lines_and_further_keys_are_fine(tmp_path: Path) -> None:
    text = '\ufeff{"file": "a.png", "smile": true, "boxes": [[1, 2]]}\r\n\r\n{"file": "b.png", "smile": false}\r\n'
    (tmp_path / "l.jsonl").write_bytes(text.encode())
    assert labels_of(tmp_path / "l.jsonl") == [1, 0]


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


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", b"", "l.csv: is empty"),
        ("l.csv", b"\xef\xbb\xbf \n", "l.csv: is empty"),
        ("l.csv", b"file,smile\n", "l.csv: has no rows"),
        ("l.jsonl", b"\n", "l.jsonl: is empty"),
        ("l.csv", b"file,smile,smile\na,1,0\n", "has the column 'smile' twice; rename one"),
        ("l.csv", b"file,smile\na.png,1\nb.png,0,1\n", "line 3 has 3 values, the line of names has 2"),
        ("l.csv", b"file,smile\na.png\n", "line 2 has 1 values, the line of names has 2"),
        ("l.csv", b"file;smile\na.png;1\n", "its columns are separated by ';', must be by ','; save it again"),
        ("l.tsv", b"file,smile\na.png,1\n", r"its columns are separated by ',', must be by '\\t'"),
        ("l.csv", b'file,smile\n"a.png,1\n', "line 2 cannot be read"),
        ("l.csv", "file,näme\n".encode("latin-1"), r"is not UTF-8 \(byte 0xe4 in line 1\); save it as UTF-8"),
        ("l.csv", GOOD.encode("utf-16"), r"is not UTF-8 \(byte 0xff in line 1\); save it as UTF-8"),
        ("l.csv", LFS.encode(), "is a Git LFS pointer and not the file itself; fetch it with `git lfs pull`"),
        ("l.parquet", LFS.encode(), "is a Git LFS pointer"),
        ("l.csv", b"\n<!DOCTYPE html><html>", "is a web page and not a table; download the file itself"),
        ("l.jsonl", b"<html>", "is a web page"),
        ("l.parquet", b"PAR1 no", r"l.parquet: cannot be read \("),
        ("l.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is not JSON; every line must be one object"),
        ("l.jsonl", b'{"a": 1}\n{"a": 1, "a": 0}\n', "line 2 has the key 'a' twice; keep one of them"),
        ("l.jsonl", b'{"a": {"b": 1, "b": 0}}\n', "line 1 has the key 'b' twice; keep one of them"),
        ("l.jsonl", b"[1, 2]\n", "line 1 is no JSON object"),
        ("l.xlsx", b"PK", r"is a spreadsheet \(.xlsx\); save it as CSV"),
        ("l.txt", b"a", "kind '.txt' is not known; use .csv, .tsv, .parquet or .jsonl"),
    ],
)
def test_file_that_is_no_whole_table_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LabelError, match=message) as caught:
        read_annotations(tmp_path / name)
    assert "\n" not in str(caught.value)


WANTED = Wanted.of("file", ["smile"], SOURCES.values())


def parquet(path: Path, smile: Sequence[object], *, more: Mapping[str, object] | None = None, **options: Any) -> Path:
    files = [*SOURCES.values(), *(f"{i}" for i in range(len(smile) - 2))][: len(smile)]
    pq.write_table(pa.table({"file": files, "smile": smile, **(more or {})}), path, **options)
    return path


def test_nested_and_binary_columns_beside_the_wanted_are_no_matter(tmp_path: Path) -> None:
    more = {"box": [[1, 2], [3]], "image": [{"bytes": b"x", "path": "a"}] * 2, "raw": [b"1", b"2"]}
    path = parquet(tmp_path / "l.parquet", ["1", "0"], more=more)
    assert read_annotations(path, WANTED)["smile"].tolist() == ["1", "0"]
    assert read_annotations(path).columns.tolist() == ["file", "smile"]


@pytest.mark.parametrize(
    ("smile", "message"),
    [
        ([[1], [0]], r"column 'smile' is nested \(list<element: int64>\), must hold a text or number in each row"),
        ([{"b": 1}] * 2, r"column 'smile' is nested \(struct<b: int64>\)"),
        ([b"1", b"0"], r"column 'smile' is not a column of strings or numbers \(binary\)"),
        (["1", "x" * 140_000], "column 'smile' has a cell of 140,000 bytes, at most 131,072 are read"),
        (
            ["x" * 2**28, "x"],
            "a column has 268,4.* bytes in one row group, at most 268,435,456 are read; save small",
        ),
    ],
    ids=["list", "struct", "binary", "cell", "chunk"],
)
def test_parquet_column_that_holds_no_labels_is_refused(tmp_path: Path, smile: list[object], message: str) -> None:
    path = parquet(tmp_path / "l.parquet", smile, compression="zstd")
    with pytest.raises(LabelError, match=message):
        read_annotations(path, WANTED)


def test_long_columns_that_are_not_wanted_are_no_matter(tmp_path: Path) -> None:
    path = parquet(tmp_path / "l.parquet", ["1", "0"], more={"text": ["x" * 2**28, "x"]}, compression="zstd")
    assert read_annotations(path, WANTED)["smile"].tolist() == ["1", "0"]


@pytest.mark.parametrize("is_wide", [True, False])
def test_long_rows_are_read_a_few_at_a_time_and_in_all_are_bounded(tmp_path: Path, is_wide: bool) -> None:
    path, num = tmp_path / "l.parquet", 3000
    smile = [f"{i}{'x' * 100_000}" for i in range(num)] if is_wide else [f"{i}" for i in range(num)]
    parquet(path, smile, compression="zstd", use_dictionary=False, row_group_size=1000)
    num_rows = [len(rows) for rows in reading._parquet_batches(path, pq.ParquetFile(path), {"smile": True})]  # pyright: ignore[reportPrivateUsage]
    assert max(num_rows) == (670 if is_wide else 1000)
    if is_wide:
        with pytest.raises(LabelError, match="more than 268,435,456 characters of long texts; remove columns or"):
            read_annotations(path)


def test_missing_file_and_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="none.csv: no such file; check the path$"):
        read_annotations(tmp_path / "none.csv")
    (tmp_path / "l.csv").mkdir()
    with pytest.raises(LabelError, match=r"l.csv: is a folder; give the file with the labels"):
        read_annotations(tmp_path / "l.csv")


def test_pattern_finds_the_tables_of_several_folders(tmp_path: Path) -> None:
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "metadata.csv").write_text(GOOD)
    (tmp_path / "a[1].csv").write_text(GOOD)
    assert find_tables(tmp_path, "*/metadata.csv") == [tmp_path / d / "metadata.csv" for d in ("test", "train")]
    assert find_tables(tmp_path, "a[1].csv") == [tmp_path / "a[1].csv"]
    assert find_tables(tmp_path, "l.csv") == [tmp_path / "l.csv"]
    with pytest.raises(LabelError, match=r"no file fits this pattern; check it$"):
        find_tables(tmp_path, "*/labels.csv")
    with pytest.raises(LabelError, match="must be relative to .* and stay in it"):
        find_tables(tmp_path, "/somewhere/*.csv")


def long(*rows: tuple[object, object, object]) -> pd.DataFrame:
    return pivot_long(pd.DataFrame(rows, columns=["f", "a", "v"], dtype=object), "l.csv", "f", "a", "v")


def test_long_table_becomes_wide_and_missing_pairs_are_unknown() -> None:
    wide = long(("b.png", "hat", "1"), ("a.png", "hat", 0), ("a.png", "smile", "yes"), ("a.png", "hat", "0.0"))
    assert wide["f"].tolist() == ["b.png", "a.png"]
    assert wide["hat"].tolist() == ["1", "0.0"]
    assert wide["smile"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "hat", "1"), ("a", "hat", "0")], "'hat' of a is 1 and, in row 2, 0; keep one of them"),
        ([("a", "hat", "1"), ("a", "hat", None)], "'hat' of a is 1 and, in row 2, blank; keep one"),
        ([("a", None, "1")], "column 'a' is blank in row 1; fill it in"),
        ([("", "hat", "1")], "column 'f' is blank in row 1; fill it in"),
        ([("a", "f", "1")], "an attribute has the name of the file column, 'f'; rename one"),
    ],
)
def test_long_table_that_contradicts_itself_is_refused(rows: list[tuple[object, object, object]], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        long(*rows)


def test_long_table_without_its_columns_names_the_nearest() -> None:
    with pytest.raises(LabelError, match=r"has no column 'values', did you mean 'value'\?"):
        pivot_long(pd.DataFrame({"f": ["a"], "a": ["b"], "value": ["1"]}), "l.csv", "f", "a", "values")
