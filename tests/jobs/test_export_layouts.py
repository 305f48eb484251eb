"""Exports as others read them: with `datasets`, `torchvision` and `webdataset` themselves."""

from __future__ import annotations

import io
import json
import re
import resource
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from boundaryflow.errors import ManifestError, ParamsError
from boundaryflow.jobs import export
from boundaryflow.jobs.export import Layout, bounded_files, export_images
from boundaryflow.jobs.export.bounded_files import ParquetFile
from boundaryflow.jobs.finishing import Finishing
from boundaryflow.review.verdicts import Change, Verdicts
from boundaryflow.sources.encoding import encode_png, is_synthetic
from boundaryflow.store.catalog.review import REVIEW
from boundaryflow.store.outbox import STATE
from boundaryflow.store.shards import ShardTask, complete_shard, load_items, read_shard
from boundaryflow.store.tables import read_table, write_table
from tests.conftest import ROOT
from tests.jobs.test_delivered import GEOMETRY, Files, files_of_faces

Edits = dict[tuple[str, str, float], np.ndarray[Any, Any]]


@pytest.fixture
def splits(project: Path) -> Path:
    """The project, with edited images in all splits, as if `edit.split` were all."""
    path = project / "data/ingest/avatars/manifest.parquet"
    manifest = read_table(path, schema="manifest/1")
    edited = sorted(set(edits_of(project)["item_id"]))
    names = {item: ("train", "val", "test")[number % 3] for number, item in enumerate(edited)}
    pairs = zip(*columns(manifest, "item_id", "split"), strict=True)
    manifest["split"] = [names.get(item, split) for item, split in pairs]
    write_table(path, manifest, schema="manifest/1")
    return project


def columns(table: pd.DataFrame, *names: str) -> list[list[Any]]:
    return [table[name].tolist() for name in names]


def edits_of(project: Path) -> pd.DataFrame:
    edits = read_table(project / "data/edit/avatars/manifest.parquet", schema="edits/2")
    return edits[edits["method"] == "guided"]


@pytest.fixture
def wanted(splits: Path) -> dict[str, Edits]:
    """Split to the pixels [H,W,C] of each item, edit and strength."""
    manifest = read_table(splits / "data/ingest/avatars/manifest.parquet", schema="manifest/1")
    split_of = dict(zip(*columns(manifest, "item_id", "split"), strict=True))
    found: dict[str, Edits] = {"train": {}, "validation": {}, "test": {}}
    for row in edits_of(splits).to_dict("records"):
        shard = read_shard(splits / "data/edit/avatars" / row["shard"]).tensors["edited"]
        pixels = shard[row["row"], row["strength_index"]].numpy().transpose(1, 2, 0)
        split = {"val": "validation"}.get(split_of[row["item_id"]], split_of[row["item_id"]])
        found[split][row["item_id"], row["edit"], row["strength"]] = pixels
    assert all(found.values())
    return found


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`datasets.load_dataset`, offline and with a cache of its own."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets  # reads the environment

    datasets.disable_progress_bars()
    return partial(datasets.load_dataset, cache_dir=str(tmp_path / "cache"))


def check_rows(rows: Any, wanted: Edits, *, image: str = "image") -> None:
    """Rows are the wanted pictures, each with its own record."""
    seen: set[Any] = set()
    for row in rows:
        key = row["item_id"], row["edit"], row["strength"]
        np.testing.assert_array_equal(np.asarray(row[image]), wanted[key])
        asked = json.loads(row["targets"])
        for name in ("hat", "dark_skin"):
            is_set = name in asked and row["strength"] > 0
            assert row[f"after_{name}"] == (float(asked[name] > 0) if is_set else row[f"before_{name}"])
        assert 0 <= row["ssim"] <= 1
        seen.add(key)
    assert seen == set(wanted)


def files_in(folder: Path) -> set[str]:
    """All files but those of our own records."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if path.parts[0] != STATE}


def test_imagefolder_is_read_by_datasets(
    splits: Path, wanted: dict[str, Edits], load: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    num = sum(map(len, wanted.values()))
    assert export_images("avatars", out, layout=Layout("imagefolder", with_before=True), root=splits) == (num, 0)
    read = load("imagefolder", data_dir=str(out))
    assert set(read) == set(wanted)
    for split, rows in read.items():
        check_rows(rows, wanted[split])
        for row in rows:
            assert row["before"].size == row["image"].size
            if row["strength"] == 0:
                np.testing.assert_array_equal(np.asarray(row["before"]), np.asarray(row["image"]))
    edited = [path for path in out.rglob("*.png") if "before" not in path.parts]
    assert len(edited) == num
    assert all(is_synthetic(path.read_bytes()) for path in edited)
    assert not any(is_synthetic(path.read_bytes()) for path in out.glob("*/before/*.png"))


def test_imagefolder_of_a_label_is_read_by_torchvision_and_datasets(
    splits: Path, wanted: dict[str, Edits], load: Callable[..., Any], tmp_path: Path
) -> None:
    from torchvision.datasets import ImageFolder

    export_images("avatars", tmp_path / "out", layout=Layout("imagefolder", label="hat"), root=splits)
    for split, pictures in wanted.items():
        read = ImageFolder(str(tmp_path / "out" / split))
        assert read.classes == ["not_hat", "with_hat"]
        assert len(read) == len(pictures)
        table = pd.read_parquet(tmp_path / "out" / split / "metadata.parquet").set_index("file_name")
        for path, label in read.samples:
            name = Path(path).relative_to(tmp_path / "out" / split).as_posix()
            assert label == table.loc[name, "label"] == (table.loc[name, "after_hat"] > 0.5)
    for split, rows in load("imagefolder", data_dir=str(tmp_path / "out")).items():
        check_rows(rows, wanted[split])


def test_imagefolder_reads_with_measures_that_are_unknown_in_one_split(
    splits: Path, wanted: dict[str, Edits], load: Callable[..., Any], tmp_path: Path
) -> None:
    path = splits / "data/evaluate/avatars/tables/per_image.parquet"
    judged = read_table(path, schema="per_image/2")
    tested = {item for item, _, _ in wanted["test"]}
    judged["drift"] = [float("nan") if item in tested else 0.5 for item in judged["item_id"]]
    write_table(path, judged, schema="per_image/2")
    for layout in ("imagefolder", "parquet", "webdataset"):
        export_images("avatars", tmp_path / layout, layout=Layout(layout), root=splits)
        read = load(layout, data_dir=str(tmp_path / layout))
        if layout == "webdataset":
            assert {row["json"]["drift"] for row in read["train"]} == {0.5}
            assert all(np.isnan(row["json"]["drift"]) for row in read["test"])
        else:
            assert (set(read["test"]["drift"]), set(read["train"]["drift"])) == ({None}, {0.5})


@pytest.mark.parametrize("by", ["folder", "parquet"])
def test_parquet_is_read_by_datasets(
    splits: Path, wanted: dict[str, Edits], load: Callable[..., Any], tmp_path: Path, by: str
) -> None:
    layout = Layout("parquet", label="hat", with_before=True, shard_bytes=5_000)
    export_images("avatars", tmp_path / "out", layout=layout, root=splits)
    read = load(str(tmp_path / "out")) if by == "folder" else load("parquet", data_dir=str(tmp_path / "out"))
    assert set(read) == set(wanted)
    for split, rows in read.items():
        assert rows.features["label"].names == ["not_hat", "with_hat"]
        assert type(rows.features["image"]).__name__ == type(rows.features["before"]).__name__ == "Image"
        check_rows(rows, wanted[split])
        check_rows([row for row in rows if row["strength"] == 0], only(wanted[split], 0), image="before")
        assert [row["label"] for row in rows] == [int(row["after_hat"] > 0.5) for row in rows]
        shards = sorted(path.name for path in (tmp_path / "out/data").glob(f"{split}-*"))
        assert len(shards) > 1
        assert shards == [f"{split}-{number:05d}-of-{len(shards):05d}.parquet" for number in range(len(shards))]


def only(edits: Edits, strength: float) -> Edits:
    return {key: pixels for key, pixels in edits.items() if key[2] == strength}


def test_parquet_shards_and_their_groups_are_bounded(splits: Path, tmp_path: Path) -> None:
    export_images("avatars", tmp_path / "out", layout=Layout("parquet", shard_bytes=5_000), root=splits)
    for path in (tmp_path / "out/data").iterdir():
        table = pq.read_table(path)
        assert sum(len(of["bytes"]) for of in table["image"].to_pylist()) <= 5_000
        for image in table["image"].to_pylist():
            assert is_synthetic(image["bytes"])
            assert image["path"].endswith(".png")


def test_row_groups_end_after_some_rows_or_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    monkeypatch.setattr(bounded_files, "_GROUP_BYTES", 1000)
    file = ParquetFile(tmp_path / "a.parquet", pa.schema({"x": pa.float32()}), 100)
    for _ in range(150):
        file.add({"x": 1.0}, 1)
    for _ in range(20):
        file.add({"x": float("nan")}, 400)
    file.close()
    about = pq.ParquetFile(tmp_path / "a.parquet").metadata
    assert [about.row_group(group).num_rows for group in range(3)] == [100, 53, 3]
    assert about.num_rows == 170
    assert pq.read_table(tmp_path / "a.parquet")["x"].null_count == 20


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its shards open
def test_webdataset_is_read_by_webdataset_and_datasets(
    splits: Path, wanted: dict[str, Edits], load: Callable[..., Any], tmp_path: Path
) -> None:
    import webdataset

    layout = Layout("webdataset", label="hat", with_before=True, shard_bytes=40_000)
    export_images("avatars", tmp_path / "out", layout=layout, root=splits)
    for split, pictures in wanted.items():
        shards = sorted(str(path) for path in (tmp_path / "out").glob(f"{split}-*.tar"))
        assert [Path(path).name for path in shards] == [f"{split}-{number:06d}.tar" for number in range(len(shards))]
        assert len(shards) > 1
        assert all(Path(path).stat().st_size <= 40_000 for path in shards)
        samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
        check_rows([{"image": sample["png"], **sample["json"]} for sample in samples], pictures)
        for sample in samples:
            assert sample["cls"] == sample["json"]["label"]
            assert sample["before.png"].size == sample["png"].size
            assert sample["__key__"] == sample["json"]["key"]
    for split, rows in load("webdataset", data_dir=str(tmp_path / "out")).items():
        check_rows([{"image": row["png"], **row["json"]} for row in rows], wanted[split])


def test_tar_and_parquet_files_are_the_same_bytes_every_time(splits: Path, tmp_path: Path) -> None:
    for layout in ("webdataset", "parquet", "imagefolder", "table"):
        for folder in ("a", "b"):
            export_images("avatars", tmp_path / folder, layout=Layout(layout), root=splits)
        assert files_in(tmp_path / "a") == files_in(tmp_path / "b")
        for name in files_in(tmp_path / "a"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    export_images("avatars", tmp_path / "a", layout=Layout("webdataset"), root=splits)
    for path in (tmp_path / "a").glob("*.tar"):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert {(of.mtime, of.uid, of.gid, of.uname, of.mode) for of in members} == {(0, 0, 0, "", 0o644)}
        assert [of.name.rpartition(".")[2] for of in members] == ["json", "png"] * (len(members) // 2)


def add_features(project: Path) -> torch.Tensor:
    """What the stage label leaves of CLIP."""
    items = tuple(sorted(read_table(project / "data/label/avatars/labels.parquet", schema="labels/1")["item_id"]))
    values = torch.arange(len(items) * 2.0).view(-1, 2)
    path = project / "data/label/avatars/shard-0of1-0123456789ab.safetensors"
    complete_shard(ShardTask(path, "key", items, ("",) * len(items), (), items), {"features": values})
    return values


def test_table_has_files_before_and_after_measures_and_features(
    splits: Path, wanted: dict[str, Edits], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    values = add_features(splits)
    export_images("avatars", out, layout=Layout("table"), root=splits)
    table = read_table(out / "edits.parquet", schema="edited_pairs/1")
    assert len(table) == sum(map(len, wanted.values()))
    labels = read_table(splits / "data/label/avatars/labels.parquet", schema="labels/1")
    of_item = dict(zip(sorted(labels["item_id"]), values.tolist(), strict=True))
    for row in table.to_dict("records"):
        with Image.open(out / row["path"]) as after, Image.open(out / row["path_before"]) as before:
            np.testing.assert_array_equal(
                np.asarray(after), wanted[row["split"]][row["item_id"], row["edit"], row["strength"]]
            )
            pixels = load_items(splits / "data/ingest/avatars", [row["item_id"]], ["pixels"])["pixels"][0]
            np.testing.assert_array_equal(np.asarray(before), pixels.numpy().transpose(1, 2, 0))
        assert row["features"].tolist() == of_item[row["item_id"]]
        assert np.isfinite(row["psnr_db"]) or row["strength"] == 0
    assert files_in(out) == {"edits.parquet", *table["path"], *table["path_before"]}


@pytest.mark.parametrize("layout", ["parquet", "webdataset", "table"])
def test_failed_export_leaves_the_earlier_one_and_nothing_half_written(
    splits: Path, tmp_path: Path, layout: Any
) -> None:
    out = tmp_path / "out"
    export_images("avatars", out, layout=Layout(layout), edits=["hat"], root=splits)
    before = {name: (out / name).read_bytes() for name in files_in(out)}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, limit[1]))
        with pytest.raises(OSError, match="File too large") as caught:
            export_images("avatars", out, layout=Layout(layout), root=splits)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert Path(caught.value.filename).is_relative_to(out)
    assert {name: (out / name).read_bytes() for name in before} == before
    assert not list((out / STATE).glob("*.tmp"))


def test_other_layout_replaces_ours_and_leaves_files_of_others(splits: Path, tmp_path: Path) -> None:
    out, layouts = tmp_path / "out", ("folders", "imagefolder", "parquet", "webdataset", "table", "folders")
    for layout in layouts:
        export_images("avatars", out, layout=Layout(layout), edits=["hat"], root=splits)
        export_images("avatars", tmp_path / "alone" / layout, layout=Layout(layout), edits=["hat"], root=splits)
        (out / "notes.txt").write_text("mine")
        assert files_in(out) == {"notes.txt", *files_in(tmp_path / "alone" / layout)}
    export_images("avatars", out, layout=Layout("imagefolder"), edits=["dark"], root=splits)
    assert {path.name for path in (out / "train").iterdir()} == {"dark", "metadata.parquet"}  # torchvision's classes


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("imagefolder", "train/metadata.csv"),
        ("parquet", "data/test-00007-of-00009.parquet"),
        ("webdataset", "validation-000000.tar"),
        ("table", "edits.parquet"),
    ],
)
def test_export_beside_files_of_others_that_would_be_read_with_it_is_refused(
    splits: Path, tmp_path: Path, layout: Any, name: str
) -> None:
    (tmp_path / "out" / name).parent.mkdir(parents=True)
    (tmp_path / "out" / name).write_bytes(b"mine")
    with pytest.raises(ManifestError, match=rf"{name} exists, and is not as a run wrote it; move it away"):
        export_images("avatars", tmp_path / "out", layout=Layout(layout), root=splits)
    assert files_in(tmp_path / "out") == {name}


def rename_sources(project: Path, names: Callable[[int], str]) -> dict[str, bytes]:
    """Give the images other names; returns the file of each."""
    files = iter(files_of_faces(project).values())
    path = project / "data/ingest/avatars/manifest.parquet"
    manifest = read_table(path, schema="manifest/1")
    manifest["source"] = [names(number) for number in range(len(manifest))]
    write_table(path, manifest, schema="manifest/1")
    return dict(zip(manifest["source"], files, strict=True))


def export_originals(project: Path, out: Path, files: dict[str, bytes], layout: Layout) -> tuple[int, int]:
    finishing = Finishing(GEOMETRY, is_original=True, names="source")
    return export_images("avatars", out, finishing, Files(files), layout, root=project)  # type: ignore[arg-type]


def test_names_of_sources_in_every_layout(splits: Path, load: Callable[..., Any], tmp_path: Path) -> None:
    files = rename_sources(splits, lambda number: f"trip/é v1.{number}.png")
    for layout in ("imagefolder", "parquet", "webdataset"):
        num, _ = export_originals(splits, tmp_path / layout, files, Layout(layout, with_before=True))
        read = load(layout, data_dir=str(tmp_path / layout))
        assert sum(map(len, read.values())) == num
    (row, *_) = read["train"]
    assert row["__key__"] == f"{row['json']['edit']}/{row['json']['strength']:g}/trip/" + Path(
        row["json"]["source"]
    ).stem.replace(".", "_")
    num, _ = export_originals(splits, tmp_path / "table", files, Layout("table"))
    assert (tmp_path / "table/before/trip/é v1.0.png").exists() or num


def test_names_that_become_one_in_tar_files_are_refused(splits: Path, tmp_path: Path) -> None:
    files = rename_sources(splits, lambda number: f"a{'._'[number % 2]}{number // 2}.png")
    export_originals(splits, tmp_path / "parquet", files, Layout("parquet"))
    with pytest.raises(ManifestError, match=r"edits of a[._]\d+\.png and a[._]\d+\.png would have the same name"):
        export_originals(splits, tmp_path / "tar", files, Layout("webdataset"))
    assert not (tmp_path / "tar").exists()


@pytest.mark.parametrize("layout", ["folders", "imagefolder", "parquet", "webdataset", "table"])
def test_names_that_lead_out_are_refused(splits: Path, tmp_path: Path, layout: Any) -> None:
    files = rename_sources(splits, lambda number: f"../{number}.png")
    with pytest.raises(ManifestError, match=r"edits of \.\./\d+\.png cannot have its name; export with --names item"):
        export_originals(splits, tmp_path / "out", files, Layout(layout))
    assert not (tmp_path / "out").exists()


def test_folders_that_datasets_takes_for_splits_are_refused(splits: Path, tmp_path: Path) -> None:
    files = rename_sources(splits, lambda number: f"my-test_2/{number}.png")
    with pytest.raises(ManifestError, match=r"would take the folder my-test_2 for a split; export with --names item"):
        export_originals(splits, tmp_path / "out", files, Layout("imagefolder"))
    files = rename_sources(splits, lambda number: f"contest/{number}.png")
    export_originals(splits, tmp_path / "out", files, Layout("imagefolder"))


def test_picture_before_keeps_the_mark_that_it_had(splits: Path, tmp_path: Path) -> None:
    files = files_of_faces(splits)
    marked = {name: encode_png(pixels_of(data), {"synthetic": "true"}) for name, data in files.items()}
    for given, is_marked in ((files, False), (marked, True)):
        (tmp_path / "out").mkdir(exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Files, "read", lambda _self, name: files[name])
            patch.setattr(export, "is_synthetic", lambda data, given=given: is_synthetic(given[name_of(files, data)]))
            export_images("avatars", tmp_path / "out", raw=Files(files), layout=Layout("table"), root=splits)  # type: ignore[arg-type]
        made = list((tmp_path / "out/before").glob("*.png"))
        assert made
        assert all(is_synthetic(path.read_bytes()) == is_marked for path in made)


def pixels_of(data: bytes) -> torch.Tensor:
    with Image.open(io.BytesIO(data)) as picture:
        return torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())


def name_of(files: dict[str, bytes], data: bytes) -> str:
    return next(name for name, of in files.items() if of == data)


def test_pictures_without_the_label_are_left_out(splits: Path, tmp_path: Path) -> None:
    path = splits / "data/label/avatars/labels.parquet"
    labels = read_table(path, schema="labels/1")
    edits = edits_of(splits)
    item = edits["item_id"].iloc[0]
    labels.loc[labels["item_id"] == item, "hat"] = float("nan")
    write_table(path, labels, schema="labels/1")
    unknown = edits[(edits["item_id"] == item) & ((edits["edit"] != "hat") | (edits["strength"] == 0))]
    layout = Layout("parquet", label="hat")
    assert export_images("avatars", tmp_path / "out", layout=layout, root=splits) == (
        len(edits) - len(unknown),
        len(unknown),
    )
    with pytest.raises(
        ManifestError, match="label beard: is not an attribute of these edits; there are dark_skin, hat"
    ):
        export_images("avatars", tmp_path / "no", layout=Layout("parquet", label="beard"), root=splits)
    labels["hat"] = float("nan")
    write_table(path, labels, schema="labels/1")
    with pytest.raises(ManifestError, match="label hat: is known of none of these pictures; choose others with --edit"):
        export_images("avatars", tmp_path / "no", layout=layout, strengths=[0.0], root=splits)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"label": "hat"}, "--label is for imagefolder, parquet and webdataset, not for folders"),
        ({"kind": "table", "label": "hat"}, "--label is for imagefolder, parquet and webdataset, not for table"),
        ({"with_before": True}, "--before is for imagefolder, parquet and webdataset, not for folders"),
        ({"kind": "imagefolder", "label": "hat", "with_before": True}, "--before adds a folder that torchvision"),
    ],
)
def test_options_that_do_not_go_together_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError, match=f"^export: {said}"):
        Layout(**values)


def test_accepted_pictures_only(splits: Path, tmp_path: Path, load: Callable[..., Any]) -> None:
    row = edits_of(splits).iloc[-1]
    change = Change(row["item_id"], row["edit"], row["strength"], "accepted")
    Verdicts(REVIEW.folder("avatars", splits)).put([change])
    export_images("avatars", tmp_path / "out", layout=Layout("parquet"), accepted=True, root=splits)
    (rows,) = load(str(tmp_path / "out")).values()
    assert [(of["item_id"], of["edit"], of["strength"]) for of in rows] == [tuple(row[["item_id", "edit", "strength"]])]


def test_pictures_that_were_not_judged_have_no_measures(
    splits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = splits / "data/evaluate/avatars/tables/per_image.parquet"
    judged = read_table(path, schema="per_image/2")
    write_table(path, judged.iloc[1:], schema="per_image/2")
    export_images("avatars", tmp_path / "out", layout=Layout("table"), root=splits)
    assert f"1 of {len(edits_of(splits))} pictures were not judged" in caplog.text
    assert read_table(tmp_path / "out/edits.parquet", schema="edited_pairs/1")["ssim"].isna().sum() == 1
    path.unlink()
    export_images("avatars", tmp_path / "out", layout=Layout("table"), root=splits)
    assert "ssim" not in read_table(tmp_path / "out/edits.parquet", schema="edited_pairs/1")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_documented_readers_run(
    splits: Path, load: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", load)
    exports = {
        "folder": Layout("imagefolder"),
        "classes": Layout("imagefolder", label="hat"),
        "hub": Layout("parquet", label="hat", with_before=True),
        "tars": Layout("webdataset", label="hat"),
    }
    for name, layout in exports.items():
        export_images("avatars", Path("out") / name, layout=layout, root=splits)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/delivery.md").read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks[:3]:
        exec(block, names)
    assert set(names["hub"]) == set(names["folder"]) == set(names["tars"]) == {"train", "validation", "test"}
    assert names["row"]["image"].size == names["image"].size == (16, 16)
    assert names["label"] == names["about"]["label"]


@pytest.fixture
def command(splits: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Runs `boundaryflow export` in the project."""
    from flows.cli import cli

    (splits / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(splits)
    return lambda *args: CliRunner().invoke(cli, ["export", *args])


def test_command(command: Callable[..., Any], tmp_path: Path) -> None:
    result = command("--to", "out", "--layout", "webdataset", "--label", "hat", "--shard-mib", "1", "--format", "jpeg")
    assert (result.exit_code, result.output) == (0, f"28 pictures: {Path('out').resolve()}\n"), result.output
    assert files_in(Path("out")) == {"train-000000.tar", "validation-000000.tar", "test-000000.tar"}
    with tarfile.open("out/train-000000.tar") as tar:
        assert {name.rpartition(".")[2] for name in tar.getnames()} == {"cls", "jpg", "json"}
    result = command("--to", "out", "--label", "hat")
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
