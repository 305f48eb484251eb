"""Pictures embedded in Parquet files, whatever is in these."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from boundaryflow.errors import ManifestError
from boundaryflow.sources.archives import UnusableError
from boundaryflow.sources.parquet import ParquetPictures, class_names, folder_of
from boundaryflow.sources.raw import Found, RawFolder
from tests.raw_data import encoded, write_parquet

PICTURES = [encoded(i) for i in range(10)]


def structs(*paths: str | None) -> list[dict[str, Any]]:
    return [{"bytes": PICTURES[i], "path": path} for i, path in enumerate(paths)]


def names(path: Path, column: str | None = None) -> list[str]:
    return [member.name for member in ParquetPictures(path, column).members()]


def read(path: Path, column: str | None = None) -> list[bytes]:
    pictures = ParquetPictures(path, column)
    return [pictures.read(member.key) for member in pictures.members()]


def test_pictures_are_those_that_were_embedded_and_named_by_their_paths(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", structs(*(f"faces/{i}.png" for i in range(10))), group=3)
    assert names(path) == [f"faces/{i}.png" for i in range(10)]
    assert read(path) == PICTURES


def test_plain_bytes_are_named_by_their_row(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", PICTURES, {"label": list(range(10))})
    assert names(path)[:2] == ["00000000", "00000001"]
    assert read(path) == PICTURES


def test_files_of_several_parts_count_as_folders_of_their_split() -> None:
    assert folder_of("data/train-00003-of-00020.parquet") == "data/train/00003-of-00020"
    assert folder_of("train.parquet") == "train"


@pytest.mark.parametrize(
    "path",
    ["../x.png", "/etc/x.png", "C:\\x.png", "a/../../x.png", "", ".", "a\x00.png", ".hidden.png", "x.txt", "x.zip",
     None, "x" * 5000 + ".png", "__MACOSX/x.png", "a\u202eb.png"],
)  # fmt: skip
def test_path_that_is_no_name_of_a_picture_gives_way_to_the_row(tmp_path: Path, path: str | None) -> None:
    file = write_parquet(tmp_path / "a.parquet", structs("ok.png", path))
    assert names(file) == ["ok.png", "00000001"]


def test_path_of_several_rows_names_none_of_them(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", structs("a.png", "b.png", "a.png"))
    assert names(file) == ["00000000", "b.png", "00000002"]
    assert read(file) == PICTURES[:3]


def test_row_without_bytes_is_unusable_and_the_others_are_read(tmp_path: Path) -> None:
    rows = [None, {"bytes": None, "path": "elsewhere.png"}, {"bytes": PICTURES[2], "path": None}]
    pictures = ParquetPictures(write_parquet(tmp_path / "a.parquet", rows))
    keys = [member.key for member in pictures.members()]
    for key in keys[:2]:
        with pytest.raises(UnusableError, match="has no bytes in its Parquet file, only a path or nothing; embed the"):
            pictures.read(key)
    assert pictures.read(keys[2]) == PICTURES[2]


def test_rows_are_read_in_any_order_by_many_threads(tmp_path: Path) -> None:
    pictures = ParquetPictures(write_parquet(tmp_path / "a.parquet", PICTURES, group=3))
    keys = [member.key for member in pictures.members()]
    order = [7, 2, 9, 0, 1, 5, 5, 4, 8, 3, 6]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(pictures.read, [keys[i] for i in order])) == [PICTURES[i] for i in order]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    rng, pool = np.random.default_rng(0), pa.default_memory_pool()
    path = write_parquet(tmp_path / "a.parquet", [rng.bytes(2**18) for _ in range(800)], group=40)
    before = pool.bytes_allocated()
    pictures, most = ParquetPictures(path), 0
    for member in pictures.members():
        assert len(pictures.read(member.key)) == 2**18
        most = max(most, pool.bytes_allocated() - before)
    assert most < 70_000_000  # a row group has 10 MB, the file 210


SCHEMAS: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "no pictures": ({"a": [1], "b": ["x"]}, None, "has no column of pictures (bytes); there are a, b"),
    "no such column": ({"image": [b"x"]}, "img", "has no column 'img'; there are image"),
    "column of numbers": ({"a": [1], "image": [b"x"]}, "a", "column 'a' is of int64, must be binary, or structs with"),
    "column of paths": ({"a": [{"path": "x.png"}]}, "a", "column 'a' is of struct<path: string>, must be binary, or"),
    "two columns": ({"a": [b"x"], "b": [b"x"]}, None, "a and b may be pictures; name one as image_column"),
    "two structs": ({"a": [{"bytes": b"x"}], "b": [{"bytes": b"x"}]}, None, "a and b may be pictures; name one as"),
    "list of pictures": ({"a": [[{"bytes": b"x"}]]}, None, "has no column of pictures (bytes); there are a"),
}


@pytest.mark.parametrize("case", SCHEMAS)
def test_column_that_cannot_be_used_is_one_line(tmp_path: Path, case: str) -> None:
    columns, column, message = SCHEMAS[case]
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(ManifestError) as caught:
        names(tmp_path / "a.parquet", column)
    assert f"ingest {tmp_path / 'a.parquet'}: {message}" in str(caught.value)


def test_structs_are_preferred_to_columns_of_other_bytes(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", structs("a.png"), {"hash": [b"abc"]})
    assert names(path) == ["a.png"]
    assert read(path, "hash") == [b"abc"]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def zeroed(data: bytes) -> bytes:
    return data[:400] + bytes(2000) + data[2400:]


@pytest.mark.parametrize("damage", [cut, zeroed, lambda data: b"", lambda data: b"PAR1" * 5], ids=["cut", "zeroed",
                         "empty", "marks"])  # fmt: skip
def test_damaged_file_is_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write_parquet(tmp_path / "a.parquet", PICTURES)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ManifestError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"ingest {path}: damaged or incomplete Parquet file (")
    assert message.isprintable()
    assert len(message) < 400 + len(str(path))


def test_file_that_expands_without_end_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "a.parquet", [bytes(3_000_000)] * 4)
    monkeypatch.setattr("boundaryflow.sources.parquet._MAX_EXPANDED", (2**20, 200))
    pq.write_table(pq.read_table(path), path, compression="zstd", use_dictionary=False)
    with pytest.raises(
        ManifestError, match=r"the row groups have 12,\d+,\d+ bytes, at most [\d,]+ are read; save it again"
    ):
        names(path)


@pytest.mark.parametrize(
    "about", [b"", b"{", b"[1]", b'{"info": 1}', b'{"info": {"features": {"a": 1}}}', b"[" * 99999]
)
def test_damaged_notes_of_hugging_face_name_no_classes(about: bytes) -> None:
    assert class_names(pa.schema([("a", pa.int64())], {"huggingface": about})) == {}


def test_folder_of_files_reads_the_same_after_pickling(tmp_path: Path) -> None:
    for part in range(2):
        write_parquet(tmp_path / f"train-{part:05d}-of-00002.parquet", structs(f"{part}.png"))
    found = [Found(path.name, "parquet", path.stat().st_size) for path in sorted(tmp_path.iterdir())]
    raw = pickle.loads(pickle.dumps(RawFolder(tmp_path, 16, found=found)))
    assert raw.names == ["train/00000-of-00002/0.png", "train/00001-of-00002/1.png"]
    assert raw.read(raw.names[1]) == PICTURES[0]
    assert raw.is_in_order(raw.names[0])
