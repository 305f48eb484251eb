from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from boundaryflow.errors import ManifestError
from boundaryflow.jobs.export import export_images
from boundaryflow.review.verdicts import Change, Verdicts
from boundaryflow.store.catalog.review import REVIEW
from boundaryflow.store.shards import ShardTask, complete_shard
from boundaryflow.store.tables import read_table, write_json, write_table

_IDS, _STRENGTHS = ("aaaa", "bbbb"), (0.0, 1.5)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of two items, each edited at two strengths by two edits, and at one by what one is compared with."""
    ingested = pd.DataFrame({"item_id": _IDS, "source": ["one.jpg", "two.jpg"]})
    write_table(tmp_path / "data/ingest/toy/manifest.parquet", ingested, schema="manifest/1")
    rows = []
    folders = {"hat": "guided", "smile": "guided", "hat.single_step": "single_step"}
    for folder, method in folders.items():
        edit, strengths = folder.partition(".")[0], _STRENGTHS if method == "guided" else (3.0,)
        edited = torch.zeros(2, len(strengths), 3, 4, 4, dtype=torch.uint8)
        edited[1, -1] = 200 if method == "guided" else 100
        path = tmp_path / f"data/edit/toy/{folder}/shard-0.safetensors"
        complete_shard(ShardTask(path, "job", tuple(_IDS), ("",) * len(_IDS), (), tuple(_IDS)), {"edited": edited})
        for row, item_id in enumerate(_IDS):
            for index, strength in enumerate(strengths):
                targets = json.dumps({edit: 1 if row else -1})
                rows.append((item_id, edit, method, strength, index, targets, f"{folder}/shard-0.safetensors", row))
    write_json(tmp_path / "data/edit/toy/edit.json", {"method": "guided"})
    columns = ["item_id", "edit", "method", "strength", "strength_index", "targets", "shard", "row"]
    write_table(tmp_path / "data/edit/toy/manifest.parquet", pd.DataFrame(rows, columns=columns), schema="edits/2")
    return tmp_path


def test_export_images_writes_an_image_folder_that_says_it_is_synthetic(root: Path) -> None:
    out = root / "out"
    assert export_images("toy", out, root=root) == (8, 0)
    with Image.open(out / "hat/1.5/bbbb.png") as picture:
        assert picture.getpixel((0, 0)) == (200, 200, 200)
        facts = picture.text
    assert facts["synthetic"] == "true"
    assert (facts["edit"], facts["strength"], facts["source_item"], facts["source"]) == (
        "hat",
        "1.5",
        "bbbb",
        "two.jpg",
    )
    table = read_table(out / "metadata.parquet", schema="export/2")
    assert list(table["file_name"]) == sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    row = table[table["file_name"] == "hat/0/aaaa.png"].iloc[0]
    assert (row["target_hat"], row["strength"], bool(row["synthetic"])) == (-1, 0.0, True)
    assert pd.isna(row["target_smile"])


def test_export_images_twice_gives_the_same_bytes(root: Path) -> None:
    export_images("toy", root / "a", root=root)
    export_images("toy", root / "b", root=root)
    for path in [*(root / "a").rglob("*.png"), root / "a/metadata.parquet"]:
        assert path.read_bytes() == (root / "b" / path.relative_to(root / "a")).read_bytes()


def test_export_images_chosen_edit_and_strength_only(root: Path) -> None:
    assert export_images("toy", root / "out", edits=["smile"], strengths=[1.5], root=root) == (2, 0)
    assert sorted(path.name for path in (root / "out/smile/1.5").iterdir()) == ["aaaa.png", "bbbb.png"]
    with pytest.raises(ManifestError, match=r"there is no strength 2\.0; there are 0\.0, 1\.5"):
        export_images("toy", root / "out", strengths=[2.0], root=root)


def test_export_images_before_any_edit_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="boundaryflow run --dataset toy"):
        export_images("toy", tmp_path / "out", root=tmp_path)


def test_export_images_of_the_method_that_is_compared(root: Path) -> None:
    assert export_images("toy", root / "out", method="single_step", root=root) == (2, 0)
    with Image.open(root / "out/hat/3/bbbb.png") as picture:
        assert picture.getpixel((0, 0)) == (100, 100, 100)
    with pytest.raises(ManifestError, match="there is no method paper; there are guided, single_step"):
        export_images("toy", root / "no", method="paper", root=root)


def judge_edits(root: Path, probabilities: dict[tuple[str, str, float], float]) -> None:
    """What the stage evaluate says of the pictures."""
    rows = [(*key, value) for key, value in probabilities.items()]
    table = pd.DataFrame(rows, columns=["item_id", "edit", "strength", "target_probability"]).assign(method="guided")
    write_table(root / "data/evaluate/toy/tables/per_image.parquet", table, schema="per_image/2")


def test_weakest_is_the_smallest_strength_that_the_judge_accepts(root: Path) -> None:
    manifest = read_table(root / "data/edit/toy/manifest.parquet", schema="edits/2")
    negative = manifest[manifest["strength"] == 1.5].assign(strength=-1.0, strength_index=0)
    write_table(root / "data/edit/toy/manifest.parquet", pd.concat([manifest, negative]), schema="edits/2")
    judge_edits(
        root,
        {(item, edit, s): 0.7 for item in _IDS for edit in ("hat", "smile") for s in (0.0, -1.0, 1.5)}
        | {("aaaa", "hat", -1.0): 0.5, ("aaaa", "smile", -1.0): 0.5, ("aaaa", "smile", 1.5): 0.2},
    )
    assert export_images("toy", root / "out", weakest=0.6, root=root) == (3, 1)
    written = sorted(path.relative_to(root / "out").as_posix() for path in (root / "out").rglob("*.png"))
    assert written == ["hat/-1/bbbb.png", "hat/1.5/aaaa.png", "smile/-1/bbbb.png"]
    with pytest.raises(ManifestError, match="none of the strengths.*probability of 0.9"):
        export_images("toy", root / "none", weakest=0.9, root=root)
    assert not (root / "none").exists()


def test_weakest_without_a_judge_says_what_to_run(root: Path) -> None:
    with pytest.raises(ManifestError, match="no edit was judged yet; run `boundaryflow run --dataset toy` first"):
        export_images("toy", root / "out", weakest=0.6, root=root)
    judge_edits(root, {("aaaa", "hat", 1.5): 0.9})
    with pytest.raises(ManifestError, match="older than these edits"):
        export_images("toy", root / "out", weakest=0.6, root=root)
    judge_edits(root, {(i, e, 1.5): 0.9 if e == "hat" else float("nan") for i in _IDS for e in ("hat", "smile")})
    with pytest.raises(ManifestError, match="does not measure edit smile; choose others with --edit"):
        export_images("toy", root / "out", weakest=0.6, root=root)
    assert export_images("toy", root / "out", edits=["hat"], weakest=0.6, root=root) == (2, 0)
    table = pd.DataFrame({"item_id": ["aaaa"], "edit": ["hat"], "strength": [1.5], "ssim": [1.0]})
    write_table(root / "data/evaluate/toy/tables/per_image.parquet", table, schema="per_image/2")
    with pytest.raises(ManifestError, match=r"name judges in evaluate\.judges"):
        export_images("toy", root / "out", weakest=0.6, root=root)


def test_accepted_pictures_are_exported_at_their_strength_and_no_others(root: Path) -> None:
    with pytest.raises(ManifestError, match="no edit was accepted yet; choose some with `boundaryflow review toy`"):
        export_images("toy", root / "out", accepted=True, root=root)
    verdicts = Verdicts(REVIEW.folder("toy", root))
    verdicts.put(
        [
            Change("aaaa", "hat", 1.5, "accepted"),
            Change("bbbb", "hat", 0.0, "rejected"),
            Change("bbbb", "smile", 0.0, "accepted"),
            Change("gone", "smile", 0.0, "accepted"),
        ]
    )
    assert export_images("toy", root / "out", accepted=True, root=root) == (2, 1)
    written = sorted(path.relative_to(root / "out").as_posix() for path in (root / "out").rglob("*.png"))
    assert written == ["hat/1.5/aaaa.png", "smile/0/bbbb.png"]
    verdicts.put([Change("aaaa", "hat", 1.5, "rejected"), Change("bbbb", "hat", 1.5, "accepted")])
    assert export_images("toy", root / "out", edits=["hat"], accepted=True, root=root) == (1, 2)
    assert [path.name for path in (root / "out").rglob("*.png")] == ["bbbb.png"]
    with pytest.raises(ManifestError, match="none of the 3 accepted pictures is among these"):
        export_images("toy", root / "out", edits=["hat"], strengths=[0.0], accepted=True, root=root)


def test_accepted_pictures_are_those_of_the_data_sets_own_method(root: Path) -> None:
    Verdicts(REVIEW.folder("toy", root)).put([Change("aaaa", "hat", 3.0, "accepted")])
    with pytest.raises(ManifestError, match="pictures of single_step are not reviewed, only those of guided"):
        export_images("toy", root / "out", method="single_step", accepted=True, root=root)


def test_second_export_is_all_that_is_there_and_other_files_stay(root: Path) -> None:
    out = root / "out"
    export_images("toy", out, strengths=[0.0], root=root)
    (out / "hat/0/mine.png").write_bytes(b"mine")
    (out / "hat/0/bbbb.png").write_bytes(b"painted over")
    export_images("toy", out, strengths=[1.5], root=root)
    pictures = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    listed = set(read_table(out / "metadata.parquet", schema="export/2")["file_name"])
    assert pictures == {*listed, "hat/0/mine.png", "hat/0/bbbb.png"}


@pytest.mark.parametrize("place", ["data/raw/toy", "data/edit/toy/out", ".dvc/x"])
def test_export_into_what_the_checkout_keeps_is_refused(root: Path, place: str) -> None:
    with pytest.raises(ManifestError, match=r"--to .*: lies in .*/ of the checkout, .*choose a folder outside"):
        export_images("toy", root / place, root=root)


def test_export_over_a_table_of_somebody_else_is_refused_before_anything_is_written(root: Path) -> None:
    out = root / "out"
    out.mkdir()
    (out / "metadata.parquet").write_bytes(b"mine")
    with pytest.raises(ManifestError, match=r"metadata\.parquet exists, and is not as a run wrote it; move it away"):
        export_images("toy", out, root=root)
    assert (out / "metadata.parquet").read_bytes() == b"mine"
    assert not list(out.rglob("*.png"))


def test_export_to_a_file_is_one_line(root: Path) -> None:
    (root / "file").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"--to .*file/x: .*file is not a folder; choose another one"):
        export_images("toy", root / "file/x", root=root)
