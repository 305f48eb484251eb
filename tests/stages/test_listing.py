"""Stage listing: what lies in a folder by name and content, whatever else lies there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from boundaryflow.config import RemoteSource
from boundaryflow.errors import ManifestError
from boundaryflow.sources import listing
from boundaryflow.store.tables import read_json, read_table
from tests.hostile.corpus_listing import CASES
from tests.raw_data import encoded, write_lmdb, write_zip
from tests.small_project import content, run_here, write_project

OUT = Path("data/listing/avatars")
LONG_AGO_NS = 10**18


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of pictures, from the project that the tests are in."""
    label = {
        "source": {"kind": "csv", "path": "labels.csv", "file_column": "file"},
        "attributes": {"x": {"column": None}},
    }
    project = write_project(tmp_path, ingest__source={"kind": "folder"}, label=label, edit__edits={"x": {"x": "flip"}},
                            evaluate__counterfactuals=False)  # fmt: skip
    (project / "data/raw/avatars").mkdir(parents=True)
    (project / ".dvc").mkdir()
    monkeypatch.chdir(project)
    return Path("data/raw/avatars")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read."""
    names: list[str] = []
    sha256 = listing._sha256

    def counted(path: Path, size: int) -> str:
        names.append(path.name)
        return sha256(path, size)

    monkeypatch.setattr(listing, "_sha256", counted)
    return names


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def run(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_here(raw.parents[2].resolve(), monkeypatch, "listing")


def rows(what: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in read_table(OUT / f"{what}.parquet", schema="listing/2").to_dict("records")}


def test_listing_is_of_names_and_content_and_not_of_times(
    raw: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(raw / "a.png", encoded(1))
    put(raw / "deep/b.jpg", encoded(2))
    put(raw / "labels.csv", b"file,x\n")
    put(raw / "movie.mp4", b"x")
    write_zip(raw / "more.zip", {"c.png": encoded(3)})
    write_lmdb(raw / "db", {b"d": encoded(4)})
    run(raw, monkeypatch)
    assert {name: row["kind"] for name, row in rows("pictures").items()} == {
        "a.png": "picture", "deep/b.jpg": "picture", "more.zip": "archive", "db/data.mdb": "lmdb",
        "movie.mp4": "passed",
    }  # fmt: skip
    assert list(rows("tables")) == ["labels.csv"]
    assert "movie.mp4" not in read
    before = content(OUT)
    for path in raw.rglob("*"):
        os.utime(path)
    run(raw, monkeypatch)
    assert content(OUT) == before
    assert listing.difference("avatars") == ""


def test_file_that_is_as_it_was_is_not_read_again(raw: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        put(raw / f"{number}.png", encoded(number))
    run(raw, monkeypatch)
    assert sorted(read) == ["0.png", "1.png", "2.png"]
    read.clear()
    put(raw / "1.png", encoded(9, (30, 30)))
    (raw / "2.png").rename(raw / "new.png")
    assert listing.difference("avatars") == "data/raw/avatars: pictures: 1 new, 1 removed, 1 changed"
    assert sorted(read) == ["1.png", "new.png"]
    read.clear()
    run(raw, monkeypatch)
    assert read == []
    (raw / "0.png").write_bytes(encoded(0))  # just now: it may be written again in the same tick of the clock
    run(raw, monkeypatch)
    run(raw, monkeypatch)
    assert read == ["0.png", "0.png"]
    next(Path(".dvc/tmp/boundaryflow/listing").iterdir()).write_bytes(b'{"1.png": 7}')
    run(raw, monkeypatch)
    assert sorted(read) == ["0.png", "0.png", "0.png", "1.png", "new.png"]


def test_checkout_that_cannot_be_written_to_is_looked_at_all_the_same(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(raw / "a.png", encoded(1))
    run(raw, monkeypatch)
    put(raw / "b.png", encoded(2))

    def denied(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(listing, "write_bytes", denied)
    assert listing.difference("avatars") == "data/raw/avatars: pictures: 1 new"


@pytest.mark.parametrize("case", sorted(CASES))
def test_odd_entry_is_listed_or_passed_over(
    tmp_path: Path, raw: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw.rmdir()
    CASES[case](tmp_path).rename(raw)
    run(raw, monkeypatch)
    assert rows("pictures")["fine.png"]["kind"] == "picture"
    assert listing.difference("avatars") == ""


def test_files_that_cannot_be_read_are_refused(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(raw / "a.png", encoded(1))
    put(raw / "b.png", encoded(2))
    sha256 = listing._sha256

    def denied(path: Path, size: int) -> str:
        if path.name == "a.png":
            raise PermissionError(13, "Permission denied")
        return sha256(path, size)

    monkeypatch.setattr(listing, "_sha256", denied)
    run(raw, monkeypatch)
    assert rows("pictures")["a.png"]["reason"] == "cannot be read (Permission denied)"
    assert rows("pictures")["b.png"]["reason"] == ""


@pytest.mark.parametrize("name", ["labels.xml", ".hidden/labels.csv", "labels", "a/labels.png"])
def test_file_that_params_name_counts_as_a_table_whatever_it_is_called(
    raw: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(lambda avatars: avatars["label"]["source"].update(path=f"./{name}"))
    put(raw / name, b"file,x\n")
    put(raw / "a.png", encoded(1))
    run(raw, monkeypatch)
    assert list(rows("tables")) == [name]
    assert list(rows("pictures")) == ["a.png"]
    put(raw / name, b"file,x\na.png,1\n")
    assert listing.difference("avatars") == "data/raw/avatars: tables: 1 changed"


def test_pictures_that_are_left_out_are_not_read(raw: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("img/a.png", "masks/a.png"):
        put(raw / name, encoded(1))
    change(lambda avatars: avatars["ingest"].update(source={"kind": "folder", "exclude": ["masks/*"]}))
    run(raw, monkeypatch)
    assert list(rows("pictures")) == ["img/a.png"]
    assert read == ["a.png"]


def test_avatars_have_no_pictures_to_list_but_may_have_tables(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(raw / "labels.csv", b"file,x\n")
    source = {"kind": "avatars", "num_images": 10, "seed": 0, "rates": {}, "correlations": {}}
    change(lambda avatars: avatars["ingest"].update(source=source))
    run(raw, monkeypatch)
    assert (rows("pictures"), list(rows("tables"))) == ({}, ["labels.csv"])
    assert read_json(OUT / "listing.json")["num_pictures"] == 0
    (raw / "labels.csv").unlink()
    raw.rmdir()
    assert listing.difference("avatars") == "data/raw/avatars: tables: 1 removed"


def test_why_a_folder_cannot_be_listed_is_told_in_a_line(raw: Path) -> None:
    raw.rmdir()
    assert listing.difference("avatars") == (
        "ingest data/raw/avatars: no such folder; put images there, or link to where they are"
    )
    assert listing.difference("other").startswith("params.yaml")


def change(how: Callable[[dict[str, Any]], Any]) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    how(params["data"]["avatars"])
    Path("params.yaml").write_text(yaml.safe_dump(params))


def test_patterns_choose_among_remote_pictures(tmp_path: Path) -> None:
    for name in ("a/x.png", "a/y.png", "b/x.png"):
        put(tmp_path / name, encoded(1))
    url, memory = f"file://{tmp_path}", listing.Memory("avatars", tmp_path)
    some = RemoteSource(kind="remote", url=url, include=["**/x.png"], exclude=["b/*"])
    assert [found.name for found in listing.list_kind(some, [], memory, True) or ()] == ["a/x.png"]
    none = RemoteSource(kind="remote", url=url, include=["c/*"])
    with pytest.raises(ManifestError, match="`include` and `exclude` of ingest.source leave none of 3 pictures"):
        listing.list_kind(none, [], memory, True)
