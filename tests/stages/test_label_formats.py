"""Labels in the forms that data sets come in: JSON, WebDataset, imagefolder, Parquet, file names, pairs."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boundaryflow.config import (
    Annotations,
    ColumnRule,
    FolderLabels,
    ImageFolderLabels,
    JsonLabels,
    NameLabels,
    PairLabels,
    ParquetLabels,
    ThresholdRule,
    ValueRule,
    WebDatasetLabels,
)
from boundaryflow.errors import LabelError, ManifestError
from boundaryflow.sources.annotations import read_labels
from boundaryflow.sources.raw import RawFolder
from tests.raw_data import encoded, write_parquet, write_tar, write_zip

HAT = {"hat": ColumnRule(column=None)}
OF_HAT = [float(i % 2) for i in range(12)]
FILES = [f"{i}.png" for i in range(12)]


def items(names: list[str]) -> dict[str, str]:
    return {f"id{i:02d}": name for i, name in enumerate(names)}


def hats(raw: Path, source: Annotations, names: list[str] | None = None, rules: Mapping[str, Any] = HAT) -> list[float]:
    labels, _ = read_labels(raw, source, rules, items(names or FILES))
    return labels[next(iter(rules))].tolist()


def of_json(*, per_picture: bool = False, file_column: str | None = None, path: str = "l.json") -> JsonLabels:
    return JsonLabels(kind="json", path=path, file_column=file_column, per_picture=per_picture)


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# JSON


@pytest.mark.parametrize(
    "forms",
    [(True, False), (1, 0), ("yes", "no"), (1.0, 0.0), (1, -1)],
    ids=["truths", "numbers", "words", "floats", "signs"],
)
def test_object_of_objects_is_read(tmp_path: Path, forms: tuple[Any, Any]) -> None:
    content = {name: {"hat": forms[0] if i % 2 else forms[1], "box": [1, 2]} for i, name in enumerate(FILES)}
    put(tmp_path / "l.json", content)
    assert hats(tmp_path, of_json()) == OF_HAT


def test_object_of_values_has_the_column_value(tmp_path: Path) -> None:
    put(tmp_path / "l.json", {name: ["cat", "dog"][i % 2] for i, name in enumerate(FILES)})
    rules = {"dog": ValueRule(column="value", positive=["dog"], negative=["cat"])}
    assert hats(tmp_path, of_json(), rules=rules) == OF_HAT


def test_list_of_records_is_read(tmp_path: Path) -> None:
    put(tmp_path / "l.json", [{"image": name, "hat": i % 2, "more": {"a": 1}} for i, name in enumerate(FILES)])
    assert hats(tmp_path, of_json(file_column="image")) == OF_HAT


def test_file_for_each_picture_is_read_in_any_folder(tmp_path: Path) -> None:
    names = [f"{'ab'[i % 2]}/{i}.png" for i in range(12)]
    for i, name in enumerate(names):
        put(tmp_path / (f"{name}.json" if i < 6 else f"{name[:-4]}.json"), {"hat": i % 2})
    assert hats(tmp_path, of_json(per_picture=True, path="**/*.json"), names) == OF_HAT


def test_unknown_values_of_json_are_unknown(tmp_path: Path) -> None:
    cells = {name: f'{{"hat": {i % 2}}}' for i, name in enumerate(FILES)}
    cells |= {"0.png": '{"hat": NaN}', "1.png": '{"hat": null}', "2.png": "{}", "3.png": '{"hat": "?"}'}
    put(tmp_path / "l.json", "{" + ", ".join(f'"{name}": {text}' for name, text in cells.items()) + "}")
    assert np.isnan(hats(tmp_path, of_json())[:4]).all()
    assert hats(tmp_path, of_json())[4:] == OF_HAT[4:]


BROKEN: dict[str, tuple[str, dict[str, Any], str]] = {
    "cut": ('{"0.png": {"hat": 1', {}, "is not JSON (line 1: Expecting ',' delimiter); save it again"),
    "50000 deep": ("[" * 50_000, {}, "is nested too deeply; an object of a picture has texts, numbers and booleans"),
    "number of 5000 digits": (f'{{"0.png": {{"hat": {"9" * 5000}}}}}', {}, "is not JSON (Exceeds the limit"),
    "key twice": ('{"0.png": {"hat": 1}, "0.png": {"hat": 0}}', {}, "has the key '0.png' twice; keep one of them"),
    "attribute twice": ('{"0.png": {"hat": 1, "hat": 0}}', {}, "has the key 'hat' twice; keep one of them"),
    "nested value": ('{"0.png": {"hat": {"is": 1}}}', {}, "'hat' of 0.png is nested, must be a text, a number or a"),
    "number": ("7", {}, "is neither an object nor a list of objects"),
    "list of numbers": ("[1]", {"file_column": "file"}, "record 1 is no object; a list must be of objects"),
    "list without column": ('[{"f": "0.png"}]', {}, "is a list; give the key of the file names as file_column (there"),
    "object with column": ("{}", {"file_column": "file"}, "is an object, whose keys are the file names; set"),
    "no file name": ('[{"fil": "0.png"}]', {"file_column": "file"}, "record 1 has no file name in 'file', did"),
    "file name that is none": ('[{"file": [1]}]', {"file_column": "file"}, "record 1 has no file name in 'file'"),
    "list per picture": ("[]", {"per_picture": True}, "is no object; with per_picture: true, each file has the"),
    "wrong type": ('{"0.png": {"hat": "maybe"}}', {}, "column 'hat' has 'maybe' for 0.png; must be 0/1, -1/1,"),
    "infinite": ('{"0.png": {"hat": Infinity}}', {}, "column 'hat' has 'inf' for 0.png; must be 0/1, -1/1, true"),
    "other column": ('{"0.png": {"hats": 1}}', {}, "has no column 'hat', did you mean 'hats'?"),
    "empty": ("", {}, "is not JSON (line 1: Expecting value); save it again"),
    "nothing in it": ("{}", {}, "has no rows"),
    "Git LFS pointer": ("version https://git-lfs.github.com/spec/v1\n", {}, "is a Git LFS pointer and not the file"),
    "another file's pictures": ('{"x.png": {"hat": 1}}', {}, "only 0 of 12 images have one of its 1 rows, must be 95%"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_json_is_one_line(tmp_path: Path, case: str) -> None:
    content, keys, message = BROKEN[case]
    put(tmp_path / "l.json", content)
    with pytest.raises(LabelError) as caught:
        hats(tmp_path, of_json(**keys))
    assert str(caught.value).startswith(f"labels {tmp_path / 'l.json'}: {message}")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


def test_json_in_another_encoding_or_too_large_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "l.json").write_bytes('{"é.png": {"hat": 1}}'.encode("latin-1"))
    with pytest.raises(LabelError, match=r"is not UTF-8 \(byte 0xe9\); save it as UTF-8"):
        hats(tmp_path, of_json())
    monkeypatch.setattr("boundaryflow.labelling.json_labels.read_json.__defaults__", (10,))
    with pytest.raises(LabelError, match=r"21 bytes, more than the 10 that are read; save it as JSON lines \(.jsonl\)"):
        hats(tmp_path, of_json())


# WebDataset


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_members_beside_pictures_are_their_labels(tmp_path: Path, suffix: str) -> None:
    members = dict[str, bytes]()
    for i in range(12):
        members |= {f"{i:04d}.json": json.dumps({"hat": i % 2, "box": [0, 1]}).encode(), f"{i:04d}.png": encoded(i),
                    f"{i:04d}.cls": str(i % 3).encode(), f"{i:04d}.txt": b"a dog" if i < 6 else b"a cat",
                    f"{i:04d}.caption": b"x", f"{i:04d}.npy": b"x", f"{i:04d}.index": b"x"}  # fmt: skip
    path = tmp_path / f"shard-0{suffix}"
    if suffix == ".zip":
        write_zip(path, members)
    else:
        write_tar(path, members, "w:gz" if suffix == ".tar.gz" else "w:")
    raw = RawFolder(tmp_path, 16)
    assert raw.names == [f"shard-0/{i:04d}.png" for i in range(12)]
    assert raw.refused == {}
    source = WebDatasetLabels(kind="webdataset", path=f"*{suffix}")
    assert hats(tmp_path, source, list(raw.names)) == OF_HAT
    dog = {"dog": ValueRule(column="txt", positive=["a dog"], negative=["a cat"])}
    assert hats(tmp_path, source, list(raw.names), dog) == [1.0] * 6 + [0.0] * 6
    two = {"two": ThresholdRule(column="cls", above=1.5, below=0.5)}
    np.testing.assert_array_equal(hats(tmp_path, source, list(raw.names), two), [0.0, np.nan, 1.0] * 4)


def test_all_pictures_of_a_key_have_its_labels(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"x/1.input.png": b"1", "x/1.output.png": b"2", "x/1.cls": b"1", "y/1.png": b"3",
                                   "y/1.cls": b"0", "lonely.cls": b"1"}, "w:")  # fmt: skip
    names = ["a/x/1.input.png", "a/x/1.output.png", "a/y/1.png"]
    rules = {"c": ColumnRule(column="cls")}
    assert hats(tmp_path, WebDatasetLabels(kind="webdataset", path="a.tar"), names, rules) == [1.0, 1.0, 0.0]


SIDECARS: dict[str, tuple[dict[str, bytes], str]] = {
    "broken": ({"1.json": b"{"}, "1.json is not JSON (line 1: Expecting property name"),
    "no object": ({"1.json": b"[1]"}, "1.json is no JSON object"),
    "deep": ({"1.json": b"[" * 50_000}, "1.json is nested too deeply"),
    "nested": ({"1.json": b'{"hat": [1]}'}, "'hat' of 1.json is nested"),
    "Latin-1": ({"1.json": b'{"hat": "\xe9"}'}, "1.json is not UTF-8 (byte 0xe9); save it as UTF-8"),
    "huge": ({"1.json": b" " * (2**20 + 1)}, "1.json has 1,048,577 bytes, at most 1,048,576 are read"),
    "of others only": ({"2.json": b'{"hat": 1}'}, "has no rows"),
    "leads out": ({"../1.json": b'{"hat": 1}'}, "has no rows"),
}


@pytest.mark.parametrize("case", SIDECARS)
def test_member_that_cannot_be_read_is_one_line(tmp_path: Path, case: str) -> None:
    members, message = SIDECARS[case]
    write_tar(tmp_path / "a.tar", {"1.png": encoded(1), **members}, "w:")
    with pytest.raises(LabelError) as caught:
        hats(tmp_path, WebDatasetLabels(kind="webdataset", path="a.tar"), ["a/1.png"])
    assert str(caught.value).startswith(f"labels {tmp_path / 'a.tar'}: {message}")


def test_member_that_is_there_twice_or_archive_that_is_none_is_one_line(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"1.png": encoded(1), "1.cls": b"1", "1.CLS": b"0"}, "w:")
    with pytest.raises(LabelError, match=r"a\.tar: has 1\.CLS twice; pack it again"):
        hats(tmp_path, WebDatasetLabels(kind="webdataset", path="a.tar"), ["a/1.png"])
    put(tmp_path / "l.csv", "file,hat\n")
    with pytest.raises(LabelError, match=r"l\.csv: is no archive; give tar or zip files"):
        hats(tmp_path, WebDatasetLabels(kind="webdataset", path="l.csv"))


# imagefolder


def test_metadata_of_several_folders_is_relative_to_its_own(tmp_path: Path) -> None:
    put(tmp_path / "train/metadata.csv", "file_name,hat\n0.png,0\nsub/1.png,1\n")
    put(tmp_path / "test/metadata.jsonl", '{"file_name": "0.png", "hat": 1}\n')
    put(tmp_path / "metadata.txt", "no table")
    put(tmp_path / "metadata.json", "[]")
    names = ["test/0.png", "train/0.png", "train/sub/1.png"]
    assert hats(tmp_path, ImageFolderLabels(kind="imagefolder"), names) == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "file,hat\n0.png,1\n", "has no column 'file_name', did you mean 'file'?"),
        ("metadata.csv", "file_name,hat\n,1\n", "column 'file_name' is blank in row 1; name its image"),
        ("metadata.jsonl", '{"file_name": "0.png", "hat": 1', "line 1 is not JSON; every line must be one object"),
        ("metadata.txt", "x", "there is no metadata.csv, metadata.jsonl or metadata.parquet"),
    ],
)
def test_metadata_that_does_not_follow_the_convention_is_one_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    put(tmp_path / "a" / name, content)
    with pytest.raises(LabelError) as caught:
        hats(tmp_path, ImageFolderLabels(kind="imagefolder"))
    assert message in str(caught.value)


# Parquet with embedded pictures


def embedded(raw: Path, columns: Mapping[str, Any], **more: Any) -> list[str]:
    rows = [{"bytes": encoded(i), "path": f"{i}.png" if i % 4 else None} for i in range(12)]
    write_parquet(raw / "data/train-00000-of-00001.parquet", rows, columns, **more)
    return [f"data/train/00000-of-00001/{f'{i}.png' if i % 4 else f'{i:08d}'}" for i in range(12)]


def of_parquet(image_column: str | None = None) -> ParquetLabels:
    return ParquetLabels(kind="parquet", path="data/*.parquet", image_column=image_column)


@pytest.mark.parametrize("form", [bool, int, float, str])
def test_columns_beside_pictures_are_their_labels(tmp_path: Path, form: Any) -> None:
    names = embedded(tmp_path, {"hat": [form(i % 2) for i in range(12)]})
    assert hats(tmp_path, of_parquet(), names) == OF_HAT


def test_classes_are_called_by_their_names_and_below_0_is_none(tmp_path: Path) -> None:
    names = embedded(tmp_path, {"label": [i % 2 for i in range(10)] + [-1, 7]}, classes={"label": ["cat", "dog"]})
    rules = {"dog": ValueRule(column="label", positive=["dog"], negative=["cat"])}
    assert hats(tmp_path, of_parquet(), names, rules)[:10] == OF_HAT[:10]
    assert np.isnan(hats(tmp_path, of_parquet(), names, rules)[10:]).all()


def test_blank_and_nan_beside_pictures_are_unknown(tmp_path: Path) -> None:
    names = embedded(tmp_path, {"hat": [None, float("nan")] + [i % 2 for i in range(2, 12)]})
    assert np.isnan(hats(tmp_path, of_parquet(), names)[:2]).all()
    assert hats(tmp_path, of_parquet(), names)[2:] == OF_HAT[2:]


def test_column_of_parquet_that_is_not_there_or_nested_is_one_line(tmp_path: Path) -> None:
    names = embedded(tmp_path, {"hats": [1] * 12, "box": [[1]] * 12})
    with pytest.raises(LabelError, match="has no column 'hat', did you mean 'hats'"):
        hats(tmp_path, of_parquet(), names)
    with pytest.raises(LabelError, match=r"column 'box' is nested \(list<"):
        hats(tmp_path, of_parquet(), names, {"box": ColumnRule(column=None)})


def test_parquet_that_is_cut_off_is_one_line(tmp_path: Path) -> None:
    names = embedded(tmp_path, {"hat": [1] * 12})
    path = tmp_path / "data/train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ManifestError, match="damaged or incomplete Parquet file"):
        hats(tmp_path, of_parquet(), names)


# File names and pairs


def test_named_groups_of_paths_are_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"train/{i:03d}_{['sad', 'happy'][i % 2]}.png" for i in range(12)] + ["train/extra.png"]
    source = NameLabels(kind="names", pattern=r"/(?P<subject>\d+)_(?P<mood>[a-z]+)\.png$")
    rules = {"happy": ValueRule(column="mood", positive=["happy"], negative=["sad"])}
    with caplog.at_level(logging.WARNING):
        found = hats(tmp_path, source, names, rules)
    assert found[:12] == OF_HAT
    assert np.isnan(found[12])
    assert "fits 12 of 13 images and not 1, such as train/extra.png; nothing is known of these" in caplog.text


def test_pattern_that_fits_no_name_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"fits none of 12 images, such as 0.png, 1.png, 2.png; check it"):
        hats(tmp_path, NameLabels(kind="names", pattern=r"(?P<hat>\d)\.jpg"))


def test_pattern_that_would_backtrack_for_years_takes_no_time(tmp_path: Path) -> None:
    names = [f"{'a' * 3000}{i}" for i in range(12)]
    started = time.monotonic()
    with pytest.raises(LabelError, match="fits none of 12 images"):
        hats(tmp_path, NameLabels(kind="names", pattern=r"^(?P<hat>(?:a+)+(?:a|aa)*)$"), names)
    assert time.monotonic() - started < 5


def test_text_of_names_and_values_is_read(tmp_path: Path) -> None:
    put(tmp_path / "identity.txt", "".join(f"{name} {i % 2}\n" for i, name in enumerate(FILES)) + "\n")
    source = PairLabels(kind="pairs", path="identity.txt")
    assert hats(tmp_path, source, rules={"hat": ColumnRule(column="value")}) == OF_HAT
    put(tmp_path / "identity.txt", "0.png 1\n1.png\n")
    with pytest.raises(LabelError, match="line 2 is '1.png', must be a file name and a value"):
        hats(tmp_path, source, rules={"hat": ColumnRule(column="value")})


def test_folders_further_up_are_labels_too(tmp_path: Path) -> None:
    names = [f"{['man', 'woman'][i % 2]}/{i // 4}/{i}.png" for i in range(12)]
    source = FolderLabels(kind="folders")
    assert (
        hats(tmp_path, source, names, {"w": ValueRule(column="folder_1", positive=["woman"], negative=["man"])})
        == OF_HAT
    )
    first = {"f": ValueRule(column="folder_2", positive=["0"], negative=["1", "2"])}
    assert hats(tmp_path, source, names, first) == [1.0] * 4 + [0.0] * 8
