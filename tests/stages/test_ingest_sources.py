"""Ingest from everything that people keep pictures in, and the ways to split them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from boundaryflow.errors import ManifestError, ParamsError, TransientError
from boundaryflow.sources import listing
from boundaryflow.sources.decoding import choose
from boundaryflow.sources.remote import RemoteFolder
from boundaryflow.store.catalog.listing import PICTURES, TABLES
from boundaryflow.store.shards import load_items
from boundaryflow.store.tables import read_table
from tests.raw_data import celebahq, encoded, picture, write_lmdb, write_parquet, write_tar, write_zip
from tests.small_project import content, run_here, write_project

# boto3 and moto's server say what they will do one day
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(botocore|aiobotocore|moto|werkzeug|s3fs).*"),
]
CLIP = {
    "source": {"kind": "clip", "weights": "ViT-B/32", "templates": ["{}"], "temperature": None, "calibration": None},
    "attributes": {"x": {"positive": ["a"], "negative": ["b"]}},
}
Ingest = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = write_project(
        tmp_path / "p",
        ingest__source={"kind": "folder"},
        label=CLIP,
        edit__edits={"x": {"x": "flip"}},
        evaluate__counterfactuals=False,
    )
    (folder / "data/raw/avatars").mkdir(parents=True)
    return folder


@pytest.fixture
def raw(project: Path) -> Path:
    return project / "data/raw/avatars"


@pytest.fixture
def ingest(project: Path, monkeypatch: pytest.MonkeyPatch) -> Ingest:
    """Run the stage with some values of its section changed; returns the manifest by source."""

    def run(*, listed: bool = True, **changes: Any) -> dict[str, dict[str, Any]]:
        path = project / "params.yaml"
        params = yaml.safe_load(path.read_text())
        params["data"]["avatars"]["ingest"].update(changes)
        path.write_text(yaml.safe_dump(params))
        run_here(project, monkeypatch, "ingest", listed=listed)
        table = read_table(project / "data/ingest/avatars/manifest.parquet", schema="manifest/1")
        return {str(row["source"]): row for row in table.to_dict("records")}  # pyright: ignore[reportReturnType]

    return run


def pixels(project: Path, row: dict[str, Any]) -> Any:
    return load_items(project / "data/ingest/avatars", [row["item_id"]], ["pixels"])["pixels"][0].numpy()


def as_it_is(seed: int) -> Any:
    return np.asarray(picture(seed, (16, 16))).transpose(2, 0, 1)


def splits(rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: row["split"] for name, row in rows.items()}


def fill(raw: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(encoded(seed))


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_archive_is_ingested_in_place(project: Path, raw: Path, ingest: Ingest, suffix: str) -> None:
    members = {f"m/{i}.png": encoded(i, (16, 16)) for i in (3, 1, 2, 0)} | {"m/bad.png": b"hello", "../x.png": b"x"}
    path = raw / f"images{suffix}"
    write_zip(path, members) if suffix == ".zip" else write_tar(path, members, "w:gz")
    rows = ingest()
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {f"images/m/{i}.png" for i in range(4)}
    assert rows["images/m/bad.png"]["reason"].startswith("not an image that can be read (")
    assert rows["images/../x.png"]["reason"].startswith("its path leads out of the archive")
    for i in range(4):
        np.testing.assert_array_equal(pixels(project, rows[f"images/m/{i}.png"]), as_it_is(i))
    before = content(project / "data/ingest/avatars")
    assert ingest() == rows
    assert content(project / "data/ingest/avatars") == before


def test_archive_and_loose_files_of_the_same_pictures_give_the_same_items(raw: Path, ingest: Ingest) -> None:
    fill(raw, "a.png", "b.png")
    loose = {row["item_id"] for row in ingest().values()}
    write_zip(raw / "z.zip", {"b.png": encoded(1), "a.png": encoded(0)})
    rows = ingest()
    assert {row["item_id"] for row in rows.values()} == loose
    assert rows["z/a.png"]["duplicates_of"] == rows["a.png"]["item_id"]
    assert rows["a.png"]["status"] == "ok"


def test_cut_off_archive_stops_the_run_in_one_line(raw: Path, ingest: Ingest) -> None:
    write_tar(raw / "images.tar.gz", {f"{i}.png": encoded(i) for i in range(20)}, "w:gz")
    whole = (raw / "images.tar.gz").read_bytes()
    (raw / "images.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ManifestError,
        match=r"^ingest data/raw/avatars/images.tar.gz: damaged or incomplete archive .*; fetch it again, or",
    ):
        ingest()


def test_celebahq_lmdb_is_ingested_under_the_names_that_labels_have(raw: Path, ingest: Ingest) -> None:
    write_lmdb(raw / "LMDB_train", {**celebahq(5, ids=True), b"256-00009": b"no picture"})
    rows = ingest()
    assert sorted(rows) == [*(f"LMDB_train/{7 * i + 1:06d}.jpg" for i in range(5)), "LMDB_train/00009.jpg"]
    assert rows["LMDB_train/00009.jpg"]["reason"].startswith("not an image that can be read (")


def test_lsun_lmdbs_are_split_by_their_folders(project: Path, raw: Path, ingest: Ingest) -> None:
    write_lmdb(
        raw / "church_outdoor_train_lmdb", {f"{i:040x}".encode(): encoded(i, (16, 16), "WEBP") for i in range(30)}
    )
    write_lmdb(raw / "church_outdoor_val_lmdb", {f"{i:040x}".encode(): encoded(i, (16, 16)) for i in range(50, 53)})
    rows = ingest(split={"val": 0.3, "test": ["church_outdoor_val_lmdb"]})
    of_val = {row["split"] for name, row in rows.items() if name.startswith("church_outdoor_val")}
    of_train = [row["split"] for name, row in rows.items() if name.startswith("church_outdoor_train")]
    assert of_val == {"test"}
    assert set(of_train) == {"train", "val"}
    assert 3 < of_train.count("val") < 18
    np.testing.assert_array_equal(pixels(project, rows[f"church_outdoor_val_lmdb/{51:040x}"]), as_it_is(51))


def test_lmdb_without_a_picture_is_told(raw: Path, ingest: Ingest) -> None:
    write_lmdb(raw / "db", {b"length": b"0"})
    with pytest.raises(ManifestError, match=r"avatars: holds no images, only db \(without a picture\); put some there"):
        ingest()


def test_only_so_many_images_are_taken_of_every_folder(raw: Path, ingest: Ingest) -> None:
    fill(raw, *(f"train/{i}.png" for i in range(20)), "val/a.png", "val/b.png")
    rows = ingest(max_images=8, split={"val": ["val"], "test": 0.5})
    assert len(rows) == 8
    assert {"val/a.png", "val/b.png"} < set(rows)
    assert ingest() == rows


def test_choice_keeps_the_order_and_most_of_itself_when_images_are_added() -> None:
    names = [f"{i % 3}/{i}.png" for i in range(60)]
    few, more = choose(names, 12), choose([*names, "0/new.png"], 12)
    assert few == [name for name in names if name in few]
    assert len(set(few) & set(more)) >= 11
    assert {name[0] for name in few} == set("012")
    assert choose(names, None) == choose(names, 60) == names


def of_parquet(**more: Any) -> dict[str, Any]:
    return {"kind": "parquet", "path": "data/*.parquet", "image_column": None, **more}


def fill_parquet(raw: Path) -> None:
    for part, start in (("train-00000-of-00002", 0), ("train-00001-of-00002", 5), ("test-00000-of-00001", 10)):
        rows = [{"bytes": encoded(i, (16, 16)), "path": f"{i}.png"} for i in range(start, start + 5)]
        write_parquet(raw / f"data/{part}.parquet", rows, {"hat": [i % 2 for i in range(5)]})


def test_embedded_pictures_are_ingested_and_split_by_the_names_of_their_files(
    project: Path, raw: Path, ingest: Ingest
) -> None:
    fill_parquet(raw)
    fill(raw, "loose.png")
    (raw / "labels.parquet").write_bytes(b"no matter")
    rows = ingest(source=of_parquet(), split={"val": 0.3, "test": ["test"]})
    names = {f"data/train/{i // 5:05d}-of-00002/{i}.png" for i in range(10)}
    assert set(rows) == names | {f"data/test/00000-of-00001/{i}.png" for i in range(10, 15)}
    assert {row["split"] for name, row in rows.items() if name.startswith("data/test")} == {"test"}
    row = rows["data/train/00001-of-00002/7.png"]
    np.testing.assert_array_equal(pixels(project, row), as_it_is(7))
    before = content(project / "data/ingest/avatars")
    assert ingest() == rows
    assert content(project / "data/ingest/avatars") == before


def test_embedded_picture_is_the_same_item_as_its_file(raw: Path, ingest: Ingest) -> None:
    fill_parquet(raw)
    embedded = {row["item_id"] for row in ingest(source=of_parquet()).values()}
    for i in range(15):
        (raw / f"{i}.png").write_bytes(encoded(i, (16, 16)))
    assert {row["item_id"] for row in ingest(source={"kind": "folder"}).values()} == embedded


def test_some_of_the_embedded_pictures_are_taken(raw: Path, ingest: Ingest) -> None:
    fill_parquet(raw)
    assert sorted(ingest(source=of_parquet(include=["**/1*.png"], exclude=["**/12.png"]))) == [
        "data/test/00000-of-00001/10.png", "data/test/00000-of-00001/11.png", "data/test/00000-of-00001/13.png",
        "data/test/00000-of-00001/14.png", "data/train/00000-of-00002/1.png",
    ]  # fmt: skip


def test_embedded_pictures_that_cannot_be_had_are_one_line(raw: Path, ingest: Ingest) -> None:
    fill_parquet(raw)
    with pytest.raises(ManifestError, match=r"avatars/nowhere/\*.parquet: no such file; check ingest.source.path"):
        ingest(source=of_parquet(path="nowhere/*.parquet"))
    with pytest.raises(ManifestError, match=r"test-00000-of-00001.parquet: has no column 'img'; there are image, hat"):
        ingest(source=of_parquet(image_column="img"))
    path = raw / "data/train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ManifestError, match="train-00001-of-00002.parquet: damaged or incomplete Parquet file "):
        ingest(source=of_parquet())


def test_columns_of_embedded_pictures_are_listed_as_labels_too(
    project: Path, raw: Path, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_parquet(raw)
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["data"]["avatars"]["label"] = {
        "source": {"kind": "parquet", "path": "data/*.parquet", "image_column": None},
        "attributes": {"x": {"column": "hat"}},
    }
    params["data"]["avatars"]["ingest"]["source"] = of_parquet()
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    rows = ingest()
    run_here(project, monkeypatch, "label")
    labels = read_table(project / "data/label/avatars/labels.parquet", schema="labels/1").set_index("item_id")["x"]
    assert [labels[rows[f"data/train/00000-of-00002/{i}.png"]["item_id"]] for i in range(5)] == [0, 1, 0, 1, 0]
    listed = [of.read(project / "data/listing/avatars") for of in (PICTURES, TABLES)]
    assert [sorted(table["kind"]) for table in listed] == [["parquet"] * 3, ["parquet"] * 3]
    assert listed[0]["version"].tolist() == listed[1]["version"].tolist()


def test_labels_within_an_archive_leave_its_pictures_in_place(
    project: Path, raw: Path, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = dict[str, bytes]()
    for i in range(30):
        members |= {f"{i}.png": encoded(i, (16, 16)), f"{i}.cls": str(i % 2).encode(), f"{i}.caption": b"x"}
    write_tar(raw / "shard.tar", members, "w:")
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["data"]["avatars"]["label"] = {
        "source": {"kind": "webdataset", "path": "*.tar"},
        "attributes": {"x": {"column": "cls"}},
    }
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    rows = ingest()
    assert {(name, row["status"]) for name, row in rows.items()} == {(f"shard/{i}.png", "ok") for i in range(30)}
    run_here(project, monkeypatch, "label")
    labels = read_table(project / "data/label/avatars/labels.parquet", schema="labels/1").set_index("item_id")["x"]
    assert [labels[rows[f"shard/{i}.png"]["item_id"]] for i in range(30)] == [i % 2 for i in range(30)]


# Splits


def test_folders_decide_the_split_wherever_they_are_in_the_path(raw: Path, ingest: Ingest) -> None:
    fill(raw, "train/dog/a.png", "val/dog/b.png", "test/cat/deep/c.png")
    assert splits(ingest(split={"val": ["val"], "test": ["test", "cat"]})) == {
        "train/dog/a.png": "train",
        "val/dog/b.png": "val",
        "test/cat/deep/c.png": "test",
    }


def test_folder_that_is_not_there_or_in_two_splits_is_told_at_once(raw: Path, ingest: Ingest) -> None:
    fill(raw, "train/a.png", "vals/dog/b.png", "c.png")
    with pytest.raises(
        ManifestError, match=r"^ingest.split.val: no image lies in a folder 'val', did you mean 'vals'\?$"
    ):
        ingest(split={"val": ["val"], "test": 0.1})
    with pytest.raises(
        ManifestError,
        match=r"^ingest.split: vals/dog/b.png lies in vals, which is val, and in dog, which is test; name",
    ):
        ingest(split={"val": ["vals"], "test": ["dog"]})


def test_celeba_partition_decides_the_split(raw: Path, ingest: Ingest) -> None:
    write_zip(raw / "img_align_celeba.zip", {f"img_align_celeba/{i:06d}.jpg": encoded(i) for i in range(1, 4)})
    (raw / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg  1\n000003.jpg\t2\n000004.jpg 0\n")
    rows = ingest(split={"path": "list_eval_partition.txt", "file_column": None, "split_column": None})
    assert [rows[f"img_align_celeba/img_align_celeba/{i:06d}.jpg"]["split"] for i in (1, 2, 3)] == [
        "train",
        "val",
        "test",
    ]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_table_decides_the_split_in_any_of_the_usual_words(raw: Path, ingest: Ingest, suffix: str) -> None:
    words = ["train", "Training", "0", "val", "VALID", "validation", "dev", "1", "test", "Testing", "2"]
    fill(raw, *(f"{i}.png" for i in range(len(words))))
    if suffix == ".jsonl":
        lines = [f'{{"file": "{i}.png", "set": "{word}"}}' for i, word in enumerate(words)]
    else:
        mark = "," if suffix == ".csv" else "\t"
        lines = [f"file{mark}set", *(f"{i}.png{mark}{word}" for i, word in enumerate(words))]
    (raw / f"sets{suffix}").write_text("\n".join(lines))
    rows = ingest(split={"path": f"sets{suffix}", "file_column": "file", "split_column": "set"})
    assert [rows[f"{i}.png"]["split"] for i in range(len(words))] == ["train"] * 3 + ["val"] * 5 + ["test"] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a.png 0\nb.png 1\nx.png 1\n",
            "only 2 of 4 images have one of its 3 rows, must be 95%; images without a row: c.png, d.png; rows without "
            "an image: x.png; check the file names",
        ),
        ("a.png 0\nb.png 3\n", "row 2 says '3' of b.png, must be one of train: 0, train, training; val: 1, val, valid"),
        ("a.png 0\na.png 1\n", "a.png is in train and, in row 2, in val"),
        ("a.png 0\na 1\n", "a.png is in train and, as a, in val"),
        ("a.png 0\nb.png\n", "line 2 is 'b.png', must be a file name and 0, 1 or 2; of a table give file_column and"),
        ("a.png 0\nb.png 0\nc.png 0\nd.png 2\n", "none of the images is in val (3 in train, 1 in test), on which"),
        ("", "is empty"),
    ],
    ids=["join", "value", "contradiction", "two spellings", "line", "no val", "empty"],
)
def test_partition_that_does_not_suit_is_told(raw: Path, ingest: Ingest, text: str, message: str) -> None:
    fill(raw, "a.png", "b.png", "c.png", "d.png")
    (raw / "split.txt").write_text(text)
    with pytest.raises(ManifestError) as error:
        ingest(split={"path": "split.txt", "file_column": None, "split_column": None})
    assert str(error.value).startswith(f"ingest.split data/raw/avatars/split.txt: {message}")


def test_column_that_a_table_of_splits_lacks_is_told(raw: Path, ingest: Ingest) -> None:
    fill(raw, "a.png")
    (raw / "s.csv").write_text("file,partition\na.png,1\n")
    with pytest.raises(ManifestError, match=r"ingest.split data/raw/avatars/s.csv: has no column 'part',"):
        ingest(split={"path": "s.csv", "file_column": "file", "split_column": "part"})


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"val": ["a"], "test": ["b", "a"]}, "ingest.split: 'a' is in both val and test; name it once"),
        ({"val": [], "test": 0.1}, "ingest.split.val: names no folder; give one, or a share"),
        ({"val": 1.0, "test": ["a"]}, "ingest.split: val and test leave nothing to train on"),
        (
            {"path": "s.csv", "file_column": None, "split_column": None},
            "ingest.split: s.csv is a table; give file_column and split_column",
        ),
        (
            {"path": "s.txt", "file_column": "file", "split_column": None},
            "ingest.split: file_column and split_column must both be columns, or both null",
        ),
        (
            {"path": "s.txt", "file_column": None, "split_column": None},
            "ingest.split.path: data/raw/avatars/s.txt does not exist; give a path within data/raw/avatars",
        ),
        (
            {"val": 1.5, "test": 0.1},
            "ingest.split.val: input should be less than or equal to 1 (got 1.5)",
        ),
        ({"vall": 0.5, "test": 0.1}, "ingest.split.vall: unknown key, did you mean 'val'? (got 0.5)"),
        (
            {"path": "s.txt", "file_colum": None, "split_column": None},
            "ingest.split.file_colum: unknown key, did you mean 'file_column'? (got None)",
        ),
    ],
    ids=["both", "none", "all", "table", "columns", "missing", "range", "key", "file key"],
)
def test_split_that_makes_no_sense_is_refused(ingest: Ingest, split: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError) as error:
        ingest(split=split)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"params.yaml: data.avatars.{message}")
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": {"val": ["a"], "test": 0.1}}, "ingest.split.val: avatars lie in no folders; give a share"),
        (
            {"split": {"path": "s.txt", "file_column": None, "split_column": None}},
            "ingest.split: avatars have no files; give shares for val and test",
        ),
        (
            {"crop": {"left": 0, "top": 0, "width": 8, "height": 8}},
            "ingest.crop: must be null; avatars are drawn in the size that is asked for",
        ),
        ({"max_images": 9}, "ingest.max_images: is 9, must be null; ingest.source.num_images says how many"),
    ],
    ids=["folders", "file", "crop", "max_images"],
)
def test_avatars_have_no_folders_files_or_crop(ingest: Ingest, changes: dict[str, Any], message: str) -> None:
    source = {"kind": "avatars", "num_images": 10, "seed": 0, "rates": {}, "correlations": {}}
    with pytest.raises(ParamsError) as error:
        ingest(source=source, **changes)
    assert f"params.yaml: data.avatars.{message}" in str(error.value).splitlines()


# Crop


def test_crop_is_cut_from_the_upright_picture_before_anything_else(project: Path, raw: Path, ingest: Ingest) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying; upright it is 60 wide and 80 high
    lying = picture(1, (80, 60))
    lying.save(raw / "turned.png", exif=exif)
    rows = ingest(crop={"left": 10, "top": 30, "width": 16, "height": 16})
    upright = np.asarray(lying.transpose(Image.Transpose.ROTATE_270))
    np.testing.assert_array_equal(pixels(project, rows["turned.png"]), upright[30:46, 10:26].transpose(2, 0, 1))
    before = rows["turned.png"]
    moved = ingest(crop={"left": 11, "top": 30, "width": 16, "height": 16})["turned.png"]
    assert moved["item_id"] == before["item_id"]
    np.testing.assert_array_equal(pixels(project, moved), upright[30:46, 11:27].transpose(2, 0, 1))


def test_picture_that_does_not_hold_the_crop_is_set_aside(raw: Path, ingest: Ingest) -> None:
    picture(1, (178, 218)).save(raw / "a.jpg")
    picture(2, (178, 180)).save(raw / "b.jpg")
    rows = ingest(crop={"left": 25, "top": 57, "width": 128, "height": 128})
    assert rows["a.jpg"]["status"] == "ok"
    assert rows["b.jpg"]["reason"] == "178 x 180 is smaller than the crop box, 128 x 128 from 25, 57"


def test_picture_of_the_models_size_is_taken_as_cropped_with_a_word(
    project: Path, raw: Path, ingest: Ingest, caplog: pytest.LogCaptureFixture
) -> None:
    done = picture(1, (16, 16))
    done.save(raw / "done.png")
    picture(2, (17, 17)).save(raw / "small.png")
    picture(3, (60, 80)).save(raw / "whole.png")
    caplog.set_level("INFO")
    rows = ingest(crop={"left": 10, "top": 30, "width": 16, "height": 16})
    assert {name: rows[name]["status"] for name in ("done.png", "small.png", "whole.png")} == {
        "done.png": "ok", "small.png": "bad", "whole.png": "ok"}  # fmt: skip
    np.testing.assert_array_equal(pixels(project, rows["done.png"]), np.asarray(done).transpose(2, 0, 1))
    assert "1 images are smaller than ingest.crop and taken as already cropped" in caplog.text
    ingest(crop={"left": 0, "top": 0, "width": 16, "height": 16})
    assert caplog.text.count("taken as already cropped") == 1


# Remote folders


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is downloaded."""
    names: list[str] = []
    read = RemoteFolder.read

    def counted(self: RemoteFolder, name: str) -> bytes:
        names.append(name)
        return read(self, name)

    monkeypatch.setattr(RemoteFolder, "read", counted)
    return names


def put(s3: Any, name: str, data: bytes) -> None:
    s3.put_object(Bucket="pictures", Key=f"faces/{name}", Body=data)


REMOTE = {"kind": "remote", "url": "s3://pictures/faces"}


@pytest.fixture
def remote(project: Path, s3: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """List a remote folder as the stage does; returns what `difference` said before."""
    (project / "data/raw/avatars").rmdir()
    monkeypatch.chdir(project)

    def run(url: str = REMOTE["url"]) -> str:
        params = yaml.safe_load(Path("params.yaml").read_text())
        params["data"]["avatars"]["ingest"]["source"] = {"kind": "remote", "url": url}
        Path("params.yaml").write_text(yaml.safe_dump(params))
        told = listing.difference("avatars")
        listing.write("avatars", listing.look("avatars"))
        return told

    return run


def test_remote_folder_is_ingested_and_only_what_is_new_is_downloaded(
    project: Path, ingest: Ingest, remote: Callable[..., str], s3: Any, downloads: list[str]
) -> None:
    for i in range(5):
        put(s3, f"val/{i}.png" if i < 2 else f"{i}.png", encoded(i, (16, 16)))
    put(s3, "bad.png", b"hello")
    put(s3, "labels.csv", b"x")
    put(s3, "more.zip", b"x")
    assert "no such file" in remote()
    rows = ingest(source=REMOTE, split={"val": ["val"], "test": 0.5})
    assert sorted(downloads) == ["2.png", "3.png", "4.png", "bad.png", "val/0.png", "val/1.png"]
    assert rows["bad.png"]["reason"].startswith("not an image that can be read (")
    assert rows["val/1.png"]["split"] == "val"
    np.testing.assert_array_equal(pixels(project, rows["val/1.png"]), as_it_is(1))

    downloads.clear()
    before = content(project / "data")
    assert remote() == ""
    assert ingest() == rows
    assert downloads == []
    assert content(project / "data") == before

    put(s3, "new.png", encoded(9, (16, 16)))
    put(s3, "2.png", encoded(8, (16, 16)))
    assert remote() == "s3://pictures/faces: pictures: 1 new, 1 changed"
    rows = ingest()
    assert sorted(downloads) == ["2.png", "new.png"]
    np.testing.assert_array_equal(pixels(project, rows["2.png"]), as_it_is(8))


def test_object_that_changed_since_it_was_listed_is_set_aside_and_looked_at_again(
    ingest: Ingest, remote: Callable[..., str], s3: Any, downloads: list[str]
) -> None:
    for name in "abc":
        put(s3, f"{name}.png", encoded(ord(name)))
    remote()
    put(s3, "a.png", encoded(1))
    s3.delete_object(Bucket="pictures", Key="faces/b.png")
    rows = ingest(listed=False)
    assert rows["a.png"]["reason"] == "changed after it was listed"
    assert rows["b.png"]["reason"] == "no longer there; it was removed after it was listed"
    assert rows["c.png"]["status"] == "ok"
    downloads.clear()
    ingest(listed=False)
    assert sorted(downloads) == ["a.png", "b.png"]


def test_listing_of_another_folder_or_none_is_told(ingest: Ingest, remote: Callable[..., str], s3: Any) -> None:
    with pytest.raises(ManifestError, match=r"listing/avatars/pictures.parquet: no such file; run `boundaryflow run`"):
        ingest(source=REMOTE, listed=False)
    put(s3, "a.png", encoded(1))
    remote("s3://pictures/")
    with pytest.raises(
        ManifestError,
        match=r"is of s3://pictures/, but ingest.source is s3://pictures/faces; use .* -m stages.listing avatars`",
    ):
        ingest(source=REMOTE, listed=False)


def test_missing_and_denied_and_empty_buckets_are_one_line(
    remote: Callable[..., str], s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ManifestError, match=r"^ingest s3://nosuch/x: (no such bucket or folder; check|holds no images)"
    ):
        remote("s3://nosuch/x")
    with pytest.raises(ManifestError, match=r"^ingest s3://pictures/x: holds no images; check the address \(archives"):
        remote("s3://pictures/x")
    put(s3, "a.png", b"x")

    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr("s3fs.S3FileSystem.find", denied)
    message = "ingest s3://pictures/faces: access is denied (Access Denied); set the credentials in"
    with pytest.raises(ManifestError, match=f"^{re.escape(message)}"):
        remote()
    assert listing.difference("avatars").startswith(message)
    assert listing.difference("avatars", ask_remote=False).endswith("run `boundaryflow run` to make it")


def test_store_that_does_not_answer_is_one_line(remote: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(
        TransientError, match=r"^ingest s3://pictures/faces: cannot be reached \(.*\); check the network"
    ):
        remote()


# Groups


def by_name(pattern: str = r"(?P<subject>\d+)_") -> dict[str, Any]:
    return {"source": {"kind": "names", "pattern": pattern}, "column": "subject"}


def of_subjects(rows: dict[str, dict[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, row in rows.items():
        found.setdefault(name.partition("_")[0], set()).add(row["split"])
    return found


def test_group_is_never_split_and_does_not_move(raw: Path, ingest: Ingest) -> None:
    split = {"val": 0.3, "test": 0.3, "groups": by_name()}
    fill(raw, *(f"{i % 12}_{i}.png" for i in range(48)))
    before = ingest(split=split)
    assert {len(parts) for parts in of_subjects(before).values()} == {1}
    assert {next(iter(parts)) for parts in of_subjects(before).values()} == {"train", "val", "test"}
    (raw / "0_0.png").unlink()
    for i in range(48, 60):
        (raw / f"{i % 20}_{i}.png").write_bytes(encoded(i))
    after = ingest(split=split)
    assert {len(parts) for parts in of_subjects(after).values()} == {1}
    assert all(after[name]["split"] == row["split"] for name, row in before.items() if name != "0_0.png")
    alone = ingest(split={"val": 0.3, "test": 0.3})
    assert max(len(parts) for parts in of_subjects(alone).values()) > 1


def test_groups_come_from_tables_and_folders(raw: Path, ingest: Ingest) -> None:
    names = [f"{i % 10}/x/{i}.png" for i in range(40)]
    fill(raw, *names)
    (raw / "identity.txt").write_text("".join(f"{name} {name.partition('/')[0]}\n" for name in names))
    (raw / "who.csv").write_text("file,who\n" + "".join(f"{name},{name.partition('/')[0]}\n" for name in names))
    rows = [
        ingest(split={"val": 0.3, "test": 0.3, "groups": {"source": source, "column": column}})
        for source, column in (
            ({"kind": "pairs", "path": "identity.txt"}, "value"),
            ({"kind": "csv", "path": "who.csv", "file_column": "file"}, "who"),
            ({"kind": "folders"}, "folder_1"),
        )
    ]
    assert splits(rows[0]) == splits(rows[1]) == splits(rows[2])
    assert set(splits(rows[0]).values()) == {"train", "val", "test"}


def test_image_without_a_group_is_one_of_its_own(raw: Path, ingest: Ingest, caplog: pytest.LogCaptureFixture) -> None:
    fill(raw, *(f"{i % 3}_{i}.png" for i in range(9)), *(f"x{i}.png" for i in range(20)))
    rows = ingest(split={"val": 0.3, "test": 0.3, "groups": by_name()})
    assert "20 of 29 images have no group; each is one of its own" in caplog.text
    alone = splits(ingest(split={"val": 0.3, "test": 0.3}))
    assert all(alone[name] == split for name, split in splits(rows).items() if name.startswith("x"))


def test_groups_that_cannot_be_kept_whole_or_read_are_one_line(raw: Path, ingest: Ingest) -> None:
    fill(raw, "val/1_a.png", "rest/1_b.png", "rest/2_c.png", "rest/2_d.png")
    with pytest.raises(
        ManifestError,
        match=r"^ingest.split: group 1 has (val/1_a.png in val and rest/1_b.png in test|rest/1_b.png in test and "
        r"val/1_a.png in val), by the folders that are named; give shares for val and test, or leave groups out",
    ):
        ingest(split={"val": ["val"], "test": 0.99, "groups": by_name()})
    with pytest.raises(ManifestError, match=r"^ingest.split.groups: by the pattern .*: fits none of 4 images"):
        ingest(split={"val": 0.3, "test": 0.3, "groups": by_name(r"(?P<subject>\d+)-")})
    of_csv = {"source": {"kind": "csv", "path": "who.csv", "file_column": "file"}, "column": "who"}
    for text, message in (
        ("file,whom\n1_a.png,1\n", "who.csv: has no column 'who', did you mean 'whom'?"),
        ("file,who\n1_a.png,1\n", "only 1 of 4 images have a row, must be 95%"),
        ("file,who\nval/1_a.png,1\nval/1_a.png,2\n", "val/1_a.png is of 1 and of 2; keep one of the rows"),
        ("file,who\n1_a.png,\n1_b.png,NA\n2_c.png,?\n2_d.png,nan\n", "none of 4 images has a value in column 'who'"),
    ):
        (raw / "who.csv").write_text(text)
        with pytest.raises(ManifestError) as caught:
            ingest(split={"val": 0.3, "test": 0.3, "groups": of_csv})
        assert message in str(caught.value)
        assert str(caught.value).startswith("ingest.split.groups")
